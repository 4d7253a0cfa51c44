"""
Widgets of a worker, in a real JupyterLab: they move, they are heard, they end with their worker.

`make browser` installs what this needs, but for Chromium (`apt install chromium`).
"""

import re
import shutil

import pytest

pytest.importorskip("jupyterlab", reason="make browser runs this")
pytest.importorskip("playwright.sync_api", reason="make browser runs this")
BROWSER = shutil.which("chromium")
pytestmark = pytest.mark.skipif(BROWSER is None, reason="needs Chromium: apt install chromium")

from playwright.sync_api import expect  # noqa: E402  it is known to be there

PROFILES = ["open", "workspace"]
SLIDER = """%%delegate
import ipywidgets as widgets
slider = widgets.IntSlider(description="depth")
heard = widgets.Label("nothing yet")
slider.observe(lambda change: setattr(heard, "value", f"heard {change.new}"), "value")
widgets.VBox([slider, heard])"""


@pytest.fixture(params=PROFILES)
def sandboxed(request):
    """The cell with which a worker of each profile is started."""
    return f"%delegate --sandbox {request.param} 0"


def outputs(page):
    return page.locator(".jp-Cell-outputWrapper")


def test_a_slider_moves_and_the_worker_hears_it(opened, sandboxed):
    page = opened(sandboxed, SLIDER)
    handle = page.get_by_role("slider")
    expect(outputs(page).get_by_text("nothing yet")).to_be_visible()

    handle.focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")

    expect(outputs(page).get_by_text("heard 2")).to_be_visible()


def test_the_worker_hears_while_it_runs_a_cell(opened, sandboxed):
    page = opened(
        sandboxed,
        SLIDER,
        "%%delegate\nimport time\nwhile slider.value < 3: time.sleep(0.01)\nprint('deep enough')",
    )
    expect(outputs(page).get_by_text("nothing yet")).to_be_visible()

    page.get_by_role("slider").focus()
    for _ in range(3):
        page.keyboard.press("ArrowRight")

    expect(outputs(page).get_by_text("deep enough")).to_be_visible()


def test_a_cell_awaits_a_click(opened, sandboxed):
    page = opened(
        sandboxed,
        """%%delegate
import asyncio
import ipywidgets as widgets
button = widgets.Button(description="Go on")
display(button)
clicked = asyncio.Future()
button.on_click(lambda _: clicked.set_result("went on"))
print(await clicked)""",
    )

    page.get_by_role("button", name="Go on").click()

    expect(outputs(page).get_by_text("went on")).to_be_visible()


def test_what_a_callback_prints_and_shows_lands_in_its_output(opened, sandboxed):
    page = opened(
        sandboxed,
        """%%delegate
from ipywidgets import interact
@interact(power=(0, 8))
def squared(power=2):
    print(f"squared: {power ** 2}")""",
    )
    expect(outputs(page).get_by_text("squared: 4")).to_be_visible()

    page.get_by_role("slider").focus()
    page.keyboard.press("ArrowRight")

    expect(outputs(page).get_by_text("squared: 9")).to_be_visible()
    expect(outputs(page).get_by_text("squared: 4")).to_be_hidden()


def test_a_progress_bar_runs(opened, sandboxed):
    pytest.importorskip("tqdm")
    page = opened(
        sandboxed,
        """%%delegate
from tqdm.notebook import tqdm
for _ in tqdm(range(200), desc="planks"):
    pass""",
    )

    expect(outputs(page).get_by_text("200/200")).to_be_visible()
    expect(
        page.get_by_role("progressbar", name=re.compile("planks"))
        .or_(page.locator(".widget-hprogress"))
        .first
    ).to_be_visible()


def test_after_a_reload_the_widgets_are_as_they_were(opened, sandboxed):
    page = opened(sandboxed, SLIDER)
    page.get_by_role("slider").focus()
    page.keyboard.press("ArrowRight")
    expect(outputs(page).get_by_text("heard 1")).to_be_visible()
    page.evaluate("window.jupyterapp.commands.execute('docmanager:save')")

    page.reload()

    expect(outputs(page).get_by_text("heard 1")).to_be_visible()
    page.get_by_role("slider").focus()
    page.keyboard.press("ArrowRight")
    expect(outputs(page).get_by_text("heard 2")).to_be_visible()


def test_after_a_reload_a_worker_that_does_not_answer_keeps_back_nobody_elses_widgets(
    opened, sandboxed
):
    page = opened(
        "panel = hive.panel()\npanel",
        sandboxed,
        SLIDER,
        """%%delegate
import threading
get_ipython().kernel.shell_handlers["comm_msg"] = lambda *_: threading.Event().wait()
print("hears nothing")""",
    )
    expect(outputs(page).get_by_text("hears nothing")).to_be_visible()
    page.evaluate("window.jupyterapp.commands.execute('docmanager:save')")

    page.reload()

    expect(page.get_by_role("region", name="Hive")).to_be_visible()
    expect(outputs(page).get_by_text("does not answer").first).to_be_visible()


def test_a_widget_whose_worker_ended_is_told(opened, sandboxed):
    page = opened(sandboxed, SLIDER, "%%delegate --no-raise-error\nimport os; os._exit(1)")

    expect(
        outputs(page).get_by_text('Its worker "coder" has ended. Run the cell again.')
    ).to_be_visible()
    expect(page.get_by_role("slider")).to_have_count(0)


def test_a_worker_shows_nothing_where_the_notebook_has_a_widget_of_a_time_before(opened):
    known = "feedface" * 4  # as the notebook's file tells it
    page = opened(
        f"""data = {{"text/plain": "a widget of a time before"}}
data["application/vnd.jupyter.widget-view+json"] = {{
    "version_major": 2, "version_minor": 0, "model_id": "{known}"
}}
display(data, raw=True)""",
        f"""%%delegate
import ipywidgets as widgets
button = widgets.Button(description="Approve", model_id="{known}")
widgets.Button(description="Shown")""",
    )
    expect(page.get_by_role("button", name="Shown")).to_be_visible()
    page.evaluate("window.jupyterapp.commands.execute('docmanager:save')")

    page.reload()

    expect(page.get_by_role("button", name="Shown")).to_be_visible()
    expect(page.get_by_role("button", name="Approve", exact=True)).to_have_count(0)


def test_a_figure_of_matplotlib_is_live_in_an_open_worker(opened):
    pytest.importorskip("ipympl")
    page = opened(
        "%delegate --sandbox open 0",
        """%%delegate
%matplotlib widget
import ipywidgets as widgets
import matplotlib.pyplot as plt
figure, axes = plt.subplots()
axes.plot([1, 2, 3])
heard = widgets.Label("nothing yet")
figure.canvas.mpl_connect("button_press_event", lambda event: setattr(heard, "value", "pressed"))
display(heard)""",
    )
    canvas = page.locator(".jupyter-matplotlib canvas").first
    expect(canvas).to_be_visible()

    page.locator(".jupyter-matplotlib-canvas-div").click()

    expect(outputs(page).get_by_text("pressed", exact=True)).to_be_visible()
    is_drawn = """canvas => {
      const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
      return data.some((value, place) => place % 4 === 0 && value > 0 && value < 255);
    }"""
    page.wait_for_function(
        f"() => ({is_drawn})(document.querySelector('.jupyter-matplotlib canvas'))"
    )


HOSTILE = """%%delegate --no-raise-error
import ipywidgets as widgets
MARK = '<img src=x onerror="document.body.dataset.marked = 1">'
text, html = widgets.Text(MARK), widgets.HTML("here")
label = widgets.Label("x", description=MARK)
label.description_allow_html = True
display(widgets.VBox([widgets.HTML(MARK), widgets.HTMLMath(MARK), label, text, html]))
display(widgets.jsdlink((text, "value"), (html, "value")))
out = widgets.Output()
out.outputs = [{"output_type": "display_data", "data": {"text/html": MARK}, "metadata": {}}]
display(out)
out.append_display_data(widgets.HTML(MARK))
kernel = get_ipython().kernel
slider = widgets.IntSlider()
data = {"method": "update", "state": {"readout_format": MARK}, "buffer_paths": []}
display(slider)
slider.comm.send(data)"""


@pytest.mark.parametrize(("profile", "marked"), [("open", "1"), ("workspace", None)])
def test_hostile_widgets_do_nothing_to_the_page(opened, profile, marked):
    page = opened(f"%delegate --sandbox {profile} 0", HOSTILE, "%delegate 'all was shown'")
    expect(outputs(page).get_by_text("'all was shown'")).to_be_visible()
    if marked:
        page.wait_for_function("document.body.dataset.marked !== undefined")
    errors = page.get_by_text("Click to show javascript error")
    for number in range(errors.count()):
        errors.nth(number).click()
    page.wait_for_timeout(1000)

    assert page.evaluate("document.body.dataset.marked ?? null") == marked


def test_a_worker_that_knows_the_panel_cannot_speak_to_it_or_for_it(opened, place):
    place.repo.write("fence.py", "posts = 99\n")
    head = place.repo.head
    page = opened(
        "request = hive.request_commit('Take the fence', paths=['fence.py'])",
        "panel = hive.panel()\npanel",
        """known = f'''
kernel = get_ipython().kernel
for kind in ("comm_open", "comm_msg", "comm_close"):
    for data in (
        {{"method": "update", "state": {{"still": {{}}}}, "buffer_paths": []}},
        {{"method": "custom", "content": {{"kind": "ended"}}}},
        {{"do": "approve", "request": "{request.id}", "digest": "{request.digest}"}},
    ):
        content = {{"comm_id": "{panel.comm.comm_id}", "data": data}}
        content["target_name"] = "jupyter.widget"
        kernel.session.send(kernel.iopub_socket, kind, content, kernel.get_parent())
'''
get_ipython().run_cell_magic("delegate", "", known)
print("spoke")""",
    )
    expect(outputs(page).get_by_text("spoke", exact=True)).to_be_visible()
    panel = page.get_by_role("region", name="Hive")
    expect(panel).to_contain_text("+posts = 99")
    expect(panel).not_to_contain_text("closed")
    assert place.repo.head == head

    page.get_by_role("button", name="Deny…").click()
    page.keyboard.press("Enter")

    expect(panel).to_contain_text("Denied")
