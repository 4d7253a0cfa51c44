"""HTML as nobody should write it, for what has to hold of any."""

from hypothesis import strategies as st


def words(text):
    return st.sampled_from(text.split())


TAGS = words(
    "a b p div span table tr td th li ul dl dt dd br img h1 pre details summary caption col hr "
    "code script style svg math iframe object template noscript textarea title select option form "
    "input xmp plaintext foreignObject mglyph annotation-xml desc base meta link frameset body html"
)
NAMES = words(
    "href src style class id title onclick onerror data-x data-commandlinker-command srcdoc width "
    "target rel formaction xlink:href name background align open lang colspan"
)
VALUES = (
    words("x # 5 100% 1px /lab //x.y https://x.y/?a=1&b=2 mailto:a@b.c dataframe a'b --><b>")
    | words("javascript:alert(1) &#106;avascript:alert(1) data:text/html,<script>1</script>")
    | words("data:image/svg+xml;base64,PHN2Zz4= data:image/png;base64,AAAA </p><script>")
    | st.sampled_from(["", "java\tscript:alert(1)", "dataframe jp-x", "color: rgb(1, 2, 3); x"])
    | st.sampled_from(["position: fixed; color: red", "background: url(//x.y)", "margin: -9px"])
    | st.sampled_from(["width: expression(alert(1))", "width: 10px; top: 0"])
)
QUOTES = st.sampled_from(['"', "'", ""])


@st.composite
def attributes(draw):
    quote = draw(QUOTES)
    return f" {draw(NAMES)}={quote}{draw(VALUES)}{quote}"


@st.composite
def start_tags(draw):
    return f"<{draw(TAGS)}{''.join(draw(st.lists(attributes(), max_size=3)))}>"


END_TAGS = TAGS.map("</{}>".format)
SCRAPS = words(
    "< > </ <!-- --> --!> <! <? <![CDATA[ ]]> & &lt; &#x3c; &lt \" ' = / x <p </p é <<p>"
)
SCRAPS |= st.sampled_from(["\0", "\n", "\r", " ", "<a href=", "\ufeff"])
# How sanitisers have been led astray.
SCRAPS |= st.sampled_from(
    [
        "<noscript><p title='</noscript><img src=x onerror=1>'>",
        "<svg></p><style><a id='</style><b>'>",
        "<math><mtext><table><mglyph><style><!--</style><img title='--&gt;&lt;img onerror=1&gt;'>",
    ]
)
SOUPS = st.lists(start_tags() | END_TAGS | SCRAPS, max_size=25).map("".join)
