"""What a page at rest does when it is clicked at, in a real browser."""

import shutil
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace

import pytest

pytest.importorskip("playwright.sync_api", reason="make browser runs this")
BROWSER = shutil.which("chromium")
pytestmark = pytest.mark.skipif(BROWSER is None, reason="needs Chromium: apt install chromium")

from playwright.sync_api import expect  # noqa: E402  it is known to be there

from hive_jupyter.display import frames  # noqa: E402

# Each covers its frame, and waits for a click.
COVER = "<style>.all { position: fixed; inset: 0; width: 100%; height: 100%; opacity: 0 }</style>"
PICTURE = "data:image/svg+xml,<svg xmlns=%22http://www.w3.org/2000/svg%22/>"
# Those that lead out of the frame, which its sandbox refuses.
OUTWARDS = {
    target: f'<a class="all" target="{target}" href="http://listener/{target}?secret">x</a>'
    for target in ("_top", "_parent", "_blank")
}
INWARDS = {
    "a link": '<a class="all" href="http://listener/link?secret">x</a>',
    "a link in a drawing": (
        '<svg class="all"><a href="http://listener/drawn?secret">'
        '<rect width="100%" height="100%"/></a></svg>'
    ),
    "a link of a part": (
        '<map name="map"><area shape="default" href="http://listener/part?secret"></map>'
        f'<img class="all" usemap="#map" src="{PICTURE}">'
    ),
    "a link to another page of its own": '<a class="all" href="data:text/html,<p>other">x</a>',
}


@pytest.fixture
def listener():
    """Whom a link may ask; ``paths`` says for what."""
    paths = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            paths.append(self.path)
            self.send_response(200)
            self.end_headers()

        do_POST = do_HEAD = do_GET  # noqa: N815  as the library wants it

        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield SimpleNamespace(paths=paths, url=f"http://127.0.0.1:{server.server_port}")
        server.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def page(chromium):
    page = chromium.new_page()
    yield page
    page.close()


def show(page, listener, html):
    """Show HTML of a worker; gives the frame in which it is."""
    page.set_content(frames.at_rest(html.replace("http://listener", listener.url), ""))
    return page.frame_locator("iframe").locator("iframe").content_frame


def test_a_page_at_rest_has_its_style_and_its_pictures(page, listener):
    style = "<style>p { color: rgb(1, 2, 3) } body { margin: 7px }</style>"
    shown = show(page, listener, f"{style}<p>it's &amp; \"seen\" &quot;<img src='{PICTURE}'></p>")

    expect(shown.locator("p")).to_have_css("color", "rgb(1, 2, 3)")
    expect(shown.locator("body")).to_have_css("margin", "7px")
    expect(shown.locator("p")).to_have_text('it\'s & "seen" "')
    assert shown.locator("img").evaluate("image => image.complete && image.naturalWidth > 0")


@pytest.mark.parametrize("name", INWARDS)
def test_a_link_leads_nowhere(page, listener, name):
    """It could send what stands in it with one click, and show another page in its place."""
    shown = show(page, listener, COVER + INWARDS[name])
    expect(shown.locator("style").last).to_be_attached()
    page.locator("iframe").click()

    expect(shown.locator("body")).to_contain_text("blocked")
    assert [] == listener.paths


@pytest.mark.parametrize("name", OUTWARDS)
def test_a_link_out_of_its_frame_leads_nowhere(page, listener, name):
    shown = show(page, listener, COVER + OUTWARDS[name])
    expect(shown.locator("a")).to_be_attached()
    with page.expect_console_message(lambda message: message.type == "error") as told:
        page.locator("iframe").click()

    assert "sandboxed" in told.value.text
    assert [] == listener.paths
    assert [page] == page.context.pages
