"""
What a worker shows, in a real JupyterLab: it does nothing to the page, and asks nobody anything.

`make browser` installs what this needs, but for Chromium (`apt install chromium`).
"""

import http.server
import shutil
import threading
from types import SimpleNamespace

import nbformat
import pytest

pytest.importorskip("jupyterlab", reason="make browser runs this")
pytest.importorskip("playwright.sync_api", reason="make browser runs this")
BROWSER = shutil.which("chromium")
pytestmark = pytest.mark.skipif(BROWSER is None, reason="needs Chromium: apt install chromium")

from playwright.sync_api import expect  # noqa: E402  it is known to be there

from tools.screenshot import ALL_RAN, RUN_ALL, lab  # noqa: E402

PATIENCE = 30_000

MARK = "top.document.body.dataset.marked = 1"
# Each of these leaves a mark in the page, or asks the listener for something, if it can.
HOSTILE_HTML = {
    "a command": """
        <button data-commandlinker-command="help:about" onclick="MARK">1</button>
        <a class="jp-marked" id="marked" data-commandlinker-command="help:about">2</a>
    """,
    "an overlay": """
        <div style="position: fixed; inset: 0; z-index: 9999; margin: -500px;
            background: url(http://listener/overlay)">over
        <b style="position: absolute">all</b></div>
    """,
    "handlers": """
        <img src=x onerror="MARK"><img src="http://listener/image" srcset="http://listener/set 1x">
        <video src="http://listener/video" autoplay></video><a href="javascript:MARK">x</a>
        <svg onload="MARK"><script>MARK</script></svg><details open ontoggle="MARK">x</details>
    """,
    "a refresh": """
        <meta http-equiv="refresh" content="0;url=http://listener/refresh">
        <link rel="stylesheet" href="http://listener/link">
        <base href="http://listener/base/"><img src="relative">
    """,
    "a style sheet": """
        <style>@import "http://listener/import"; body { background: url(http://listener/body) }
        #main { display: none } p { background: image-set("http://listener/image-set" 1x) }</style>
        <p>styled</p><link rel="prefetch" href="http://listener/prefetch">
        <img src="http://listener/still">
        <meta http-equiv="refresh" content="0;url=http://listener/still-refresh">
    """,
    "a form": """
        <form action="http://listener/form" method="post"><input autofocus name="q">
        <button>send</button></form><iframe src="http://listener/frame"></iframe>
    """,
    "a script": """
        <script>MARK; top.location = "http://listener/top"; fetch("http://listener/script")</script>
    """,
}
HOSTILE = {name: f"HTML({html!r})" for name, html in HOSTILE_HTML.items()} | {
    "Markdown": """Markdown(
        '![x](http://listener/markdown) <img src=x onerror="MARK"> [x](javascript:MARK)'
        '<script>MARK</script> <b data-commandlinker-command="help:about">x</b>')""",
    "a drawing": """SVG(
        '<svg xmlns="http://www.w3.org/2000/svg" onload="MARK" height="9"><script>MARK</script>'
        '<image href="http://listener/drawing" width="9" height="9"/></svg>')""",
    "JavaScript": "Javascript('MARK')",
    "formulas": r"""Latex(
        r'$\href{javascript:MARK}{x}\class{jp-marked}{x}'
        r'\style{position: fixed; top: 0; background: url(http://listener/formula)}{x}$')""",
    "formulas that fetch": r"""Latex(
        r'$\style{cursor: url(http://listener/cursor), auto}{x}$'
        r'$\def\a#1{\style{cursor: #1rl(http://listener/macro), auto}{x}} \a{u}$'
        r'$\mmlToken{mglyph}[src="http://listener/glyph" width="9" height="9"]{}$'
        r'$\mmlToken{mi}[style="cursor: url(http://listener/token), auto"]{x}$')""",
    "formulas in HTML": r"""HTML(
        r'<p>$\sty<wbr>le{cursor: url(http://listener/html-cursor), auto}{x}$</p>'
        r'<p>$&#92;style{cursor: url(http://listener/entity), auto}{x}$</p>')""",
    "formulas in Markdown": r"""Markdown(
        r'$\style{cursor: url(http://listener/markdown-cursor), auto}{x}$')""",
    "files of others": """{
        'image/png': 'AAAA',
        'application/vnd.vega.v5+json': {'data': [{'url': 'http://listener/vega'}]},
        'application/geo+json': {'type': 'Point', 'coordinates': [0, 0]}}""",
}

# What runs when the reader asks for it. It tells the page what it could do.
ATTEMPTS = """
const told = {};
const attempt = (name, action) => {
  try { told[name] = String(action()) } catch (error) { told[name] = error.name }
};
addEventListener("load", () => {
  attempt("read the page", () => top.document.title);
  attempt("read the frame around", () => parent.document.title);
  attempt("read cookies", () => document.cookie);
  attempt("read the storage", () => localStorage.length);
  attempt("leave the page", () => { top.location = "http://listener/top" });
  attempt("leave the frame around", () => { parent.location = "http://listener/parent" });
  attempt("open", () => open("http://listener/open"));
  attempt("fetch", () => fetch("http://listener/fetch").catch(() => 0));
  attempt("beacon", () => navigator.sendBeacon("http://listener/beacon"));
  attempt("image", () => { new Image().src = "http://listener/image" });
  attempt("socket", () => new WebSocket("http://listener/socket".replace("http", "ws")));
  attempt("form", () => {
    document.body.innerHTML += '<form action="http://listener/form"></form>';
    document.body.append(
      Object.assign(document.createElement("iframe"), { src: "http://listener/frame" }));
    document.forms[0].submit();
  });
  top.postMessage(told, "*");
});
"""
LEAVING = """
addEventListener("load", () => {
  top.postMessage("leaves", "*");
  location = "http://listener/self";
});
"""
GRABBING = """
addEventListener("load", () => {
  document.body.innerHTML = "<input>";
  const field = document.querySelector("input");
  field.addEventListener("keydown", (event) => top.postMessage({ key: event.key }, "*"));
  setInterval(() => field.focus(), 10);
  top.postMessage("grabs", "*");
});
"""
ASKING = """
const field = document.body.appendChild(document.createElement("input"));
field.addEventListener("input", () => top.postMessage({ value: field.value }, "*"));
top.postMessage("asks", "*");
"""
# As libraries for figures do it.
DRAWING = """
const drawing = document.body.appendChild(document.createElement("canvas")).getContext("2d");
drawing.fillStyle = new Function("return 'red'")();
drawing.fillRect(0, 0, 60, 40);
new Worker(URL.createObjectURL(new Blob(["postMessage(1)"]))).onmessage =
  () => { document.body.append("drawn"); top.postMessage("draws", "*") };
"""
RUNNING = {
    "attempts": ATTEMPTS,
    "leaves": LEAVING,
    "grabs": GRABBING,
    "asks": ASKING,
    "draws": DRAWING,
}

SETUP = """\
%load_ext hive_jupyter
%hive config sandbox=open outputs=framed
from IPython.display import HTML, display
display(HTML("<p>my own</p>"), display_id="mine");
"""
SHOWING = "from IPython.display import HTML, SVG, Javascript, Latex, Markdown, display"


def notebook(url):
    """A cell for each attempt, in a worker whose pages run when asked, and in one whose do not."""

    def delegated(worker, name, code):
        code = code.replace("MARK", MARK).replace("http://listener", url)
        cell = nbformat.v4.new_code_cell(f"%%delegate -w {worker}\n{code}")
        cell.metadata["name"] = f"{worker}: {name}"
        return cell

    cells = [nbformat.v4.new_code_cell(SETUP), delegated("framed", "import", SHOWING)]
    cells.append(nbformat.v4.new_code_cell("%hive config outputs=inert"))
    cells.append(delegated("inert", "import", SHOWING))
    for worker in ("framed", "inert"):
        cells += [
            delegated(worker, name, f"display({code}, raw={code.startswith('{')})")
            for name, code in HOSTILE.items()
        ]
        cells += [
            delegated(worker, name, f"display(HTML('''<body><script>{code}</script>'''))")
            for name, code in RUNNING.items()
        ]
        taking = "display(HTML('taken'), display_id='mine', update=True)"
        cells.append(delegated(worker, "another's display", taking))
    cells[0].metadata["name"] = "mine"
    metadata = {"kernelspec": {"name": "python3", "display_name": "Python 3"}}
    return nbformat.v4.new_notebook(cells=cells, metadata=metadata)


@pytest.fixture(scope="module")
def listener():
    """Whom the hostile outputs ask; ``paths`` says for what."""
    paths = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            paths.append(self.path)
            self.send_response(204)
            self.end_headers()

        do_POST = do_HEAD = do_GET  # noqa: N815  as the library wants it

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield SimpleNamespace(paths=paths, url=f"http://127.0.0.1:{server.server_port}")
    server.shutdown()
    thread.join()
    server.server_close()


class Opened:
    """A notebook in the browser."""

    def __init__(self, page, address, folder):
        self.page = page
        self.address = address
        self.folder = folder

    def open(self, name):
        self.page.goto(f"{self.address}doc/tree/{name}?reset")
        self.page.wait_for_selector(".jp-Notebook .jp-Cell")
        self.page.wait_for_function("window.jupyterapp !== undefined")

    def run(self, name):
        self.open(name)
        self.page.evaluate(RUN_ALL)
        self.page.wait_for_function(ALL_RAN)

    def output(self, name):
        """The output of the cell of that name."""
        names = self.page.evaluate(
            "window.jupyterapp.shell.currentWidget.content.model.toJSON()"
            ".cells.map((cell) => cell.metadata.name)"
        )
        return (
            self.page.locator(".jp-Notebook .jp-Cell")
            .nth(names.index(name))
            .locator(".jp-OutputArea-output")
        )

    def start(self, name):
        """Do what the reader does who wants to see an output run."""
        self.output(name).get_by_text("Run this output").click()

    def told(self, condition):
        """The first message from a frame for which this JavaScript of ``data`` is true."""
        find = f"window.told.find(({{data}}) => {condition})"
        self.page.wait_for_function(find)
        return self.page.evaluate(find)


@pytest.fixture(scope="module")
def opened(listener, tmp_path_factory, chromium):
    """The notebook, run from its first cell to its last."""
    folder = tmp_path_factory.mktemp("lab")
    (folder / "work").mkdir()
    nbformat.write(notebook(listener.url), folder / "work" / "outputs.ipynb")
    with lab(folder) as address:
        page = chromium.new_page()
        page.set_default_timeout(PATIENCE)
        page.add_init_script(
            "if (top === window) { window.told = []; addEventListener('message', "
            "({data, origin}) => told.push({data, origin})) }"
        )
        opened = Opened(page, address, folder / "work")
        opened.run("outputs.ipynb")
        yield opened
        page.close()


def harmless(opened, listener):
    """Nothing has got out of the outputs."""
    page = opened.page
    assert page.evaluate("document.body.dataset.marked") is None
    assert page.url.startswith(opened.address)
    assert [] == listener.paths


def test_nothing_that_is_shown_does_anything(opened, listener):
    harmless(opened, listener)
    found = opened.page.evaluate(
        """() => [...document.querySelectorAll(".jp-OutputArea-output *")]
          .filter((element) => ["fixed", "absolute", "sticky"].includes(
              getComputedStyle(element).position) && !element.closest("mjx-assistive-mml"))
          .map((element) => element.outerHTML)"""
    )
    assert [] == found
    for selector in ("[data-commandlinker-command]", "#marked", ".jp-marked", "[href^=javascript]"):
        assert 0 == opened.page.locator(f".jp-OutputArea-output {selector}").count(), selector


def test_nothing_runs_before_the_reader_asks_for_it(opened):
    assert [] == opened.page.evaluate("told.filter(({data, origin}) => origin === 'null')")


def test_another_worker_and_a_worker_cannot_change_what_the_user_shows(opened):
    expect(opened.output("mine").last).to_have_text("my own")


def test_a_page_draws_itself_once_the_reader_asks_for_it(opened, listener):
    opened.start("framed: draws")
    assert "null" == opened.told("data === 'draws'")["origin"]
    harmless(opened, listener)


def test_a_running_page_reaches_nothing_around_it(opened, listener):
    opened.start("framed: attempts")
    told = opened.told("data && data.open")["data"]
    refused = {name for name, what in told.items() if what == "SecurityError"}
    reads = ("read the page", "read the frame around", "read cookies", "read the storage")

    assert {*reads, "leave the page", "leave the frame around"} <= refused
    assert "null" == told["open"]
    opened.start("framed: a script")
    expect(opened.output("framed: a form")).to_contain_text("Not loaded")
    opened.start("framed: handlers")
    harmless(opened, listener)


def test_a_running_page_goes_nowhere(opened, listener):
    opened.start("framed: leaves")
    opened.told("data === 'leaves'")
    inner = opened.output("framed: leaves").frame_locator("iframe").locator("iframe")
    expect(inner.content_frame.locator("body")).to_contain_text("blocked")
    harmless(opened, listener)


def test_a_running_page_that_takes_the_keyboard_is_stopped(opened):
    opened.start("framed: grabs")
    opened.told("data === 'grabs'")
    outer = opened.output("framed: grabs").frame_locator("iframe")
    expect(outer.locator("body")).to_contain_text("was stopped")
    before = len(opened.page.evaluate("told"))
    opened.page.keyboard.type("secret")
    assert before == len(opened.page.evaluate("told"))


def test_a_reader_may_use_a_page_and_type_into_it(opened):
    opened.start("framed: asks")
    opened.told("data === 'asks'")
    field = opened.output("framed: asks").frame_locator("iframe").frame_locator("iframe")
    field.locator("input").click()
    opened.page.keyboard.type("text")
    assert opened.told("data && data.value === 'text'")


def test_of_an_inert_worker_nothing_runs(opened, listener):
    for name in RUNNING:
        output = opened.output(f"inert: {name}")
        assert 0 == output.locator("summary").count()
        assert 0 == output.locator("iframe[sandbox*=allow]").count()
    assert 0 < opened.output("inert: a style sheet").locator("iframe[sandbox='']").count()
    harmless(opened, listener)


def test_a_notebook_that_is_not_trusted_says_how_to_trust_it(opened, listener):
    """As it comes from somebody else: the front-end takes the frames out."""
    opened.page.evaluate("window.jupyterapp.commands.execute('docmanager:save')")
    stored = nbformat.read(opened.folder / "outputs.ipynb", as_version=4)
    stored.cells.append(nbformat.v4.new_markdown_cell("changed, so that no signature is right"))
    nbformat.write(stored, opened.folder / "foreign.ipynb")
    opened.open("foreign.ipynb")

    expect(opened.output("framed: draws")).to_contain_text("use Trust Notebook")
    expect(opened.output("inert: a style sheet")).to_contain_text("use Trust Notebook")
    assert 0 == opened.page.locator(".jp-OutputArea-output iframe").count()
    harmless(opened, listener)
