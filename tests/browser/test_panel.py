"""
The panel, in a real JupyterLab: what a person sees, clicks and types, also while a cell runs.

`make browser` installs what this needs, but for Chromium (`apt install chromium`).
"""

import shutil

import pytest

pytest.importorskip("jupyterlab", reason="make browser runs this")
pytest.importorskip("playwright.sync_api", reason="make browser runs this")
BROWSER = shutil.which("chromium")
pytestmark = pytest.mark.skipif(BROWSER is None, reason="needs Chromium: apt install chromium")

from playwright.sync_api import expect  # noqa: E402  it is known to be there

MARKUP = '<img src=x onerror="document.body.dataset.marked=1"> <b>bold</b>'

PANEL = "%hive panel"
FOREVER = "%%delegate -w train\nwhile True: pass"

LOSES_THE_FIRST_LOOK = """
  const send = WebSocket.prototype.send;
  WebSocket.prototype.send = function (data) {
    const text = typeof data === "string" ? data : new TextDecoder().decode(data);
    if (!window.lost && text.includes('"do":"look"')) window.lost = true;
    else send.call(this, data);
  };
"""
KERNEL = "window.jupyterapp.shell.currentWidget.sessionContext.session.kernel"


@pytest.fixture
def notebook(opened):
    """Opens a notebook with some cells, begins to run them, and shows the panel."""

    def run(*cells, **options):
        page = opened(*cells, **options)
        expect(page.get_by_role("table", name="Workers").first).to_be_visible()
        return page

    return run


def commit_of(place, content, file="fence.py"):
    """A cell that asks for a commit of that content."""
    place.repo.write(file, content)
    return f"request = hive.request_commit('Mend the fence', paths=[{file!r}])"


def row(page, name):
    return page.get_by_role("row").filter(has=page.get_by_role("rowheader", name=name, exact=True))


def card(page):
    return page.get_by_role("group", name="Request")


def settled(page):
    """Wait until a card that has moved takes a click again; the page's own clock tells."""
    page.wait_for_timeout(1500)


@pytest.mark.parametrize("front_end", ["doc/tree", "notebooks"], ids=["JupyterLab", "Notebook"])
def test_a_commit_is_approved_with_the_mouse_while_a_cell_runs(notebook, place, front_end):
    content = f"posts = {41 if front_end == 'notebooks' else 40}\n"
    page = notebook(commit_of(place, content), PANEL, FOREVER, front_end=front_end)
    expect(row(page, "train")).to_contain_text("busy")
    expect(card(page)).to_contain_text(f"+{content.strip()}")
    settled(page)

    card(page).get_by_role("button", name="Approve and commit").click()

    expect(card(page)).to_contain_text("Committed")
    assert "Mend the fence" in place.repo("log", "-1", "--format=%s")
    assert place.repo.show("fence.py") == content.strip()
    expect(row(page, "train")).to_contain_text("busy")

    row(page, "train").get_by_role("button", name="Interrupt").click()

    expect(row(page, "train")).to_contain_text("ready")


def test_a_commit_is_approved_with_the_keyboard(notebook, place):
    page = notebook(commit_of(place, "posts = 5\n"), PANEL)
    approve = card(page).get_by_role("button", name="Approve and commit")
    expect(approve).not_to_be_focused()
    settled(page)

    card(page).get_by_role("button", name="Deny…").focus()
    page.keyboard.press("Tab")
    expect(approve).to_be_focused()
    page.keyboard.press("Enter")

    expect(card(page)).to_contain_text("Committed")
    assert place.repo.show("fence.py") == "posts = 5"


def test_a_request_is_denied_with_a_reason(notebook, place):
    page = notebook(commit_of(place, "posts = 6\n"), PANEL)
    head = place.repo.head

    card(page).get_by_role("button", name="Deny…").click()
    page.keyboard.type(MARKUP)
    page.keyboard.press("Enter")

    expect(card(page)).to_contain_text("Denied")
    expect(card(page)).to_contain_text("<b>bold</b>")
    assert place.repo.head == head
    assert page.evaluate("document.body.dataset.marked") is None


def test_a_script_in_the_page_and_a_hasty_click_approve_nothing(notebook, place):
    page = notebook(PANEL, commit_of(place, "posts = 7\n"))
    head = place.repo.head
    approve = card(page).get_by_role("button", name="Approve and commit")

    approve.click(no_wait_after=True)
    expect(card(page)).to_contain_text("just moved")
    settled(page)
    approve.evaluate("button => button.click()")
    page.wait_for_timeout(1000)

    expect(approve).to_be_visible()
    assert place.repo.head == head


def test_what_deserves_a_close_look_is_asked_about_once_more(notebook, place):
    place.repo.write(".github/workflows/run.yml", "on: push\n")
    asking = "request = hive.request_commit('Run it', paths=['.github'])"
    page = notebook(asking, PANEL)
    head = place.repo.head
    settled(page)
    card(page).get_by_role("button", name="Approve and commit").click()
    again = card(page).get_by_role("button", name="Approve all the same")
    expect(card(page).get_by_role("alert")).to_contain_text("runs in CI")
    assert place.repo.head == head
    settled(page)

    again.click()

    expect(card(page)).to_contain_text("Committed")


def test_a_long_file_is_opened_before_it_is_approved(notebook, place):
    long = "".join(f"post {number}\n" for number in range(1000))
    page = notebook(commit_of(place, long, "long.txt"), PANEL)
    approve = card(page).get_by_role("button", name="Approve and commit")
    expect(approve).to_have_attribute("aria-disabled", "true")

    card(page).get_by_text("open this before you approve").click()

    expect(card(page)).to_contain_text("+post 999")
    settled(page)
    approve.click()
    expect(card(page)).to_contain_text("Committed")


def test_a_request_runs_out_of_time_on_the_screen(notebook, place):
    page = notebook("hive.guard.patience = 8.0", commit_of(place, "posts = 8\n"), PANEL)
    expect(card(page)).to_contain_text("left")

    expect(card(page)).to_contain_text("Expired")

    expect(card(page).get_by_role("button", name="Approve and commit")).to_be_hidden()


def test_nothing_that_others_wrote_becomes_part_of_the_page(notebook, place):
    place.repo.write(f"{MARKUP.replace('/', '')}.txt", MARKUP)
    raising = f"raise ValueError({MARKUP!r})"
    dying = f"print({MARKUP!r}); import os; os._exit(1)"
    asking = f"""
from hive_jupyter.guard.requests import Requester
hive.request_commit({MARKUP!r}, paths=["."], requester=Requester("agent", {MARKUP!r}))
hive.guard.request_call(
    tool="save_file", arguments={{"path": {MARKUP!r}}}, worker="coder", requester={MARKUP!r}
)
for code in ({raising!r}, {dying!r}):
    try:
        hive.delegate(code)
    except Exception:
        pass
"""
    page = notebook(asking, PANEL)
    expect(card(page)).to_have_count(2)

    panel = page.get_by_role("region", name="Hive")
    expect(panel).to_contain_text("<b>bold</b>")
    assert panel.locator("img").count() == 0
    assert panel.locator("b", has_text="bold").count() == 0
    assert page.evaluate("document.body.dataset.marked") is None


def test_a_page_that_is_loaded_again_shows_the_truth(notebook, place):
    page = notebook(commit_of(place, "posts = 9\n"), PANEL)
    expect(card(page)).to_have_count(1)
    page.evaluate("window.jupyterapp.commands.execute('docmanager:save')")

    page.reload()

    expect(card(page)).to_contain_text("+posts = 9")
    settled(page)
    card(page).get_by_role("button", name="Approve and commit").click()
    expect(card(page)).to_contain_text("Committed")


def test_without_a_kernel_the_panel_says_that_it_is_old(notebook):
    page = notebook(PANEL)
    page.evaluate("window.jupyterapp.commands.execute('docmanager:save')")
    page.evaluate(f"{KERNEL}.shutdown()")

    row(page, "coder").get_by_role("button", name="Start").click()

    expect(page.get_by_role("region", name="Hive")).to_contain_text("jupyter hive")


def test_after_a_restart_of_the_kernel_the_panel_does_not_look_live(notebook):
    page = notebook(PANEL)
    expect(row(page, "coder")).to_be_visible()

    page.evaluate(f"{KERNEL}.restart()")

    expect(page.get_by_role("region", name="Hive")).to_contain_text("What you see is old")


def test_a_panel_whose_first_word_is_lost_asks_again(notebook):
    page = notebook(PANEL, script=LOSES_THE_FIRST_LOOK)

    assert page.evaluate("window.lost")
    expect(page.get_by_role("region", name="Hive").get_by_role("alert")).to_be_hidden()


def test_two_views_of_one_panel_do_not_disturb_each_other(notebook, place):
    long = "".join(f"rail {number}\n" for number in range(1000))
    page = notebook(commit_of(place, long, "rails.txt"), "panel = hive.panel()\npanel", "panel")
    one, other = card(page).nth(0), card(page).nth(1)
    expect(other).to_be_visible()
    one.get_by_role("button", name="Deny…").click()
    page.keyboard.type("not yet")

    other.get_by_text("open this before you approve").click()
    expect(other).to_contain_text("+rail 999")

    expect(one).not_to_contain_text("+rail 999")
    expect(one.get_by_role("textbox")).to_have_value("not yet")
    approve = one.get_by_role("button", name="Approve and commit")
    expect(approve).to_have_attribute("aria-disabled", "true")


def test_after_a_yes_on_the_keyboard_the_focus_stays_in_the_card(notebook, place):
    page = notebook(commit_of(place, "posts = 11\n"), PANEL)
    approve = card(page).get_by_role("button", name="Approve and commit")
    settled(page)
    approve.focus()
    page.keyboard.press("Enter")
    expect(card(page)).to_contain_text("Committed")

    assert card(page).evaluate("card => card.contains(document.activeElement)")


def test_a_hundred_workers_are_shown_and_nothing_is_sent_while_nothing_happens(notebook):
    adding = "for number in range(100): hive.add(f'w{number:02}', python=sys.executable)"
    page = notebook(f"import sys\n{adding}", PANEL)
    expect(page.get_by_role("rowheader")).to_have_count(101)

    page.evaluate(
        f"""() => {{
          const note = () => {{ window.heard = performance.now() }};
          note();
          {KERNEL}.iopubMessage.connect(note);
        }}"""
    )

    page.wait_for_function("performance.now() - window.heard > 5000")


def test_it_is_dark_where_the_page_is(notebook, place):
    page = notebook(commit_of(place, "posts = 10\n"), PANEL)
    page.evaluate(
        "window.jupyterapp.commands.execute('apputils:change-theme', {theme: 'JupyterLab Dark'})"
    )

    panel = page.get_by_role("region", name="Hive")
    expect(panel).not_to_have_css("background-color", "rgb(255, 255, 255)")


def test_a_worker_is_stopped_and_its_log_is_shown(notebook):
    page = notebook("%delegate kept = 1", PANEL)
    expect(row(page, "coder")).to_contain_text("ready")
    page.get_by_role("button", name="More about coder").click()
    page.get_by_role("button", name="Logs").click()
    expect(page.get_by_label("Log of coder")).to_be_visible()

    page.get_by_role("button", name="Stop…").click()
    expect(page.get_by_text("Its variables are lost.")).to_be_visible()
    page.get_by_role("button", name="Stop coder").click()

    expect(row(page, "coder")).to_contain_text("not started")


BAR = """import time
print("said")
print("\\r 40%|####", end="", flush=True)
while True: time.sleep(0.01)"""
JOBS = f"""job = hive.submit({BAR!r}, worker="train")
done = hive.submit("print('<b>bold</b>')")
done.wait(60)"""


def test_jobs_are_listed_shown_and_cancelled_while_a_cell_runs(notebook):
    page = notebook(JOBS, PANEL, "%%delegate -w other\nwhile True: pass")
    running = page.locator("tr", has_text="Job 1")
    expect(running).to_contain_text("running")
    expect(running.get_by_role("progressbar")).to_have_attribute("max", "100")
    expect(running).to_contain_text("40%")

    page.get_by_role("button", name="Show output of job 2").click()
    output = page.get_by_label("Output of job 2", exact=True)
    expect(output).to_have_text("<b>bold</b>")
    page.get_by_role("button", name="Show output of job 2").click()
    expect(output).to_be_hidden()

    cancel = page.get_by_role("button", name="Cancel job 1")
    cancel.focus()
    page.keyboard.press("Enter")
    expect(running).to_contain_text("cancelled")
    expect(cancel).to_be_hidden()
