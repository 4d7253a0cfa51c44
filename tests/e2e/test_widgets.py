"""Widgets of a worker, as front-ends and notebooks' files have them; real kernels, real workers."""

import time
from queue import Empty

import nbformat
import pytest
from nbclient import NotebookClient

from hive_jupyter import HiveManager
from tests.front_end import FrontEnd

LOADING = "%load_ext hive_jupyter\n%delegate --sandbox {profile} 0"
PROFILES = ["open", "workspace"]
# The head of a picture of 2 by 2.
PICTURE = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\0\x02\0\0\0\x02\x08\0\0\0\0" + bytes(1000)
VIEW = "application/vnd.jupyter.widget-view+json"
SLIDER = """%%delegate
import ipywidgets as widgets
slider = widgets.IntSlider(description="depth")
heard = []
slider.observe(lambda change: heard.append(change.new), "value")
display(slider)"""


@pytest.fixture(scope="module", params=PROFILES)
def page(tmp_path_factory, request):
    """A kernel with a worker of each profile."""
    with FrontEnd(tmp_path_factory.mktemp("k")) as front_end:
        front_end.profile = request.param
        ok(
            front_end.play(
                f"{LOADING.format(profile=request.param)}\n%hive config sandbox={request.param}"
            )
        )
        yield front_end


def ok(played):
    assert played.reply["status"] == "ok", played.reply
    return played


def opened(played, model):
    """The id of the first comm of such a model."""
    return next(
        content["comm_id"]
        for content in played.of("comm_open")
        if content["data"]["state"]["_model_name"] == model
    )


def send(front_end, kind, comm, data, buffers=(), **content):
    """Say something to a comm, as a page does; its msg_id."""
    client = front_end.client
    message = client.session.msg(kind, {"comm_id": comm, "data": data, **content})
    client.session.send(client.shell_channel.socket, message, buffers=list(buffers))
    return message["header"]["msg_id"]


def comms(front_end):
    """The ids of all comms that the kernel names to a page that is loaded again."""
    key = front_end.client.comm_info("jupyter.widget")
    while True:
        reply = front_end.client.get_shell_msg(timeout=30)
        if reply["parent_header"]["msg_id"] == key:
            return set(reply["content"]["comms"])


def move(front_end, comm, **state):
    return send(
        front_end, "comm_msg", comm, {"method": "update", "state": state, "buffer_paths": []}
    )


def heard(front_end, is_last, *, parent=None, timeout=30):
    """What the front-end is told up to a message, of one parent or of any."""
    messages = []
    deadline = time.monotonic() + timeout
    while True:
        assert time.monotonic() < deadline, messages
        try:
            message = front_end.client.get_iopub_msg(timeout=0.05)
        except Empty:
            continue
        if parent in {None, message["parent_header"].get("msg_id")}:
            messages.append(message)
            if is_last(message):
                return messages


def is_idle(message):
    return message["content"].get("execution_state") == "idle"


def test_what_a_page_says_is_answered_under_its_own_header(page):
    slider = opened(ok(page.play(SLIDER)), "IntSliderModel")

    said = move(page, slider, value=7)

    answers = heard(page, is_idle, parent=said)
    echo = answers[0]["content"]
    assert (echo["comm_id"], echo["data"]["method"]) == (slider, "echo_update")
    assert ok(page.play("%delegate print(heard)")).stream() == "[7]\n"


def test_a_page_is_heard_while_the_worker_and_the_kernel_are_busy(page):
    slider = opened(ok(page.play(SLIDER)), "IntSliderModel")

    def once_it_runs(message):
        if message["content"].get("text") == "begun\n":
            move(page, slider, value=9)

    waiting = "%%delegate\nprint('begun', flush=True)\nwhile not heard: pass\nprint(heard)"
    played = ok(page.play(waiting, on_message=once_it_runs))
    assert played.stream() == "begun\n[9]\n"

    def once_the_kernel_runs(message):
        if message["msg_type"] == "stream":
            move(page, slider, value=10)

    at_home = """
import time
hive = get_ipython().find_line_magic('hive').__self__.manager
print('begun', flush=True)
while hive.delegate('len(heard)').value_repr != '2': time.sleep(0.05)
"""
    ok(page.play(at_home, on_message=once_the_kernel_runs))


def test_what_a_page_says_while_a_cell_runs_does_not_end_the_cell(page):
    """At the end of a cell matplotlib shows and closes what that has drawn."""
    slider = opened(ok(page.play(SLIDER)), "IntSliderModel")
    noting = "ended = []; get_ipython().events.register('post_execute', lambda: ended.append(1))"
    ok(page.play(f"%delegate {noting}"))

    def twice(message):
        if message["content"].get("text") == "begun\n":
            move(page, slider, value=1)
            move(page, slider, value=2)

    running = "ended.clear()\nprint('begun', flush=True)\nwhile len(heard) < 2: pass\nprint(ended)"
    assert ok(page.play(f"%%delegate\n{running}", on_message=twice)).stream() == "begun\n[]\n"

    ok(page.play("%delegate ended.clear()"))
    heard(page, is_idle, parent=move(page, slider, value=3))
    assert ok(page.play("%delegate print(len(ended))")).stream() == "2\n"


def test_bytes_travel_both_ways(page):
    played = ok(
        page.play(f"""%%delegate
import ipywidgets as widgets
picture = widgets.Image(value={PICTURE!r})""")
    )
    [message] = [
        each
        for each in played.messages
        if each["content"].get("data", {}).get("state", {}).get("_model_name") == "ImageModel"
    ]
    assert message["content"]["data"]["buffer_paths"] == [["value"]]
    assert bytes(message["buffers"][0]) == PICTURE

    update = {"method": "update", "state": {}, "buffer_paths": [["value"]]}
    said = send(page, "comm_msg", message["content"]["comm_id"], update, [b"back" * 1000])

    heard(page, is_idle, parent=said)
    assert ok(page.play("%delegate picture.value == b'back' * 1000")).of("execute_result")[0][
        "data"
    ] == {"text/plain": "True"}


def test_a_page_that_is_loaded_again_finds_the_comms_and_their_state(page):
    slider = opened(ok(page.play(SLIDER)), "IntSliderModel")
    heard(page, is_idle, parent=move(page, slider, value=3))

    assert slider in comms(page)

    control = {"target_name": "jupyter.widget.control"}
    said = send(page, "comm_open", "everything", {}, **control)
    kinds = [each["msg_type"] for each in heard(page, is_idle, parent=said)]
    assert kinds == ["comm_close", "status"]

    said = send(page, "comm_msg", slider, {"method": "request_state"})
    state = heard(page, is_idle, parent=said)[0]["content"]["data"]["state"]
    assert state["value"] == 3


def test_with_the_worker_its_widgets_end_and_say_so(page):
    played = ok(page.play(SLIDER))
    slider = opened(played, "IntSliderModel")
    [display] = played.of("display_data")

    page.client.execute("%hive restart")

    told = heard(page, lambda message: message["content"].get("comm_id") == slider)
    [update] = [
        each["content"] for each in told if each["content"].get("transient") == display["transient"]
    ]
    assert update["data"].keys() == {"text/plain"}
    assert 'Its worker "coder" has ended' in update["data"]["text/plain"]
    assert told[-1]["msg_type"] == "comm_close"


def test_a_widget_that_is_closed_is_forgotten(page):
    slider = opened(ok(page.play(SLIDER)), "IntSliderModel")

    assert {"comm_id": slider, "data": {}} in ok(page.play("%delegate slider.close()")).of(
        "comm_close"
    )

    assert slider not in comms(page)


def test_the_value_of_a_cell_is_a_display_that_can_be_told_of_its_end(page):
    played = ok(page.play(f"{SLIDER.removesuffix('display(slider)')}slider"))

    assert played.of("execute_result") == []
    [display] = played.of("display_data")
    assert display["data"][VIEW]["model_id"] == opened(played, "IntSliderModel")
    assert display["transient"]["display_id"]


def test_no_worker_speaks_for_a_comm_that_is_not_its_own(page):
    home = ok(page.play("import ipywidgets\nmine = ipywidgets.IntSlider()\nmine.comm.comm_id"))
    mine = home.of("execute_result")[0]["data"]["text/plain"].strip("'")
    others = opened(ok(page.play(SLIDER)), "IntSliderModel")
    forging = f"""%%delegate -w other
kernel = get_ipython().kernel
for comm in ({mine!r}, {others!r}):
    for kind in ("comm_open", "comm_msg", "comm_close"):
        content = {{"comm_id": comm, "target_name": "jupyter.widget", "data": {{"state": {{}}}}}}
        kernel.session.send(kernel.iopub_socket, kind, content, kernel.get_parent())
"""

    played = ok(page.play(forging))

    assert played.of("comm_open", "comm_msg", "comm_close") == []
    assert heard(page, is_idle, parent=move(page, others, value=1))[0]["msg_type"] == "comm_msg"


@pytest.mark.parametrize("profile", PROFILES)
def test_a_notebook_is_saved_with_the_state_of_its_widgets(tmp_path, profile):
    cells = [
        LOADING.format(profile=profile),
        SLIDER,
        "%%delegate\nslider.value = 5",
        "%%delegate\nfrom tqdm.notebook import tqdm\nfor _ in tqdm(range(10)): pass",
        "%%delegate\nout = widgets.Output()\nwith out: print('kept')\nout",
    ]
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])

    NotebookClient(notebook, timeout=60, resources={"metadata": {"path": str(tmp_path)}}).execute()

    saved = notebook.metadata.widgets["application/vnd.jupyter.widget-state+json"]["state"]
    by_name = {model["model_name"]: model["state"] for model in saved.values()}
    assert by_name["IntSliderModel"]["value"] == 5
    assert by_name["FloatProgressModel"]["value"] == 10
    assert by_name["OutputModel"]["outputs"][0]["text"] == "kept\n"
    [shown] = notebook.cells[1].outputs
    assert shown["data"][VIEW]["model_id"] in saved


@pytest.mark.parametrize("profile", PROFILES)
def test_without_a_notebook_a_widget_is_its_text(profile):
    with HiveManager(sandbox=profile) as hive:
        result = hive.delegate("import ipywidgets\nipywidgets.IntSlider()")

    assert "IntSlider(value=0)" in result.value_repr


def test_an_output_takes_nothing_more_of_a_cell_than_its_worker_says(page):
    """What an Output takes is sent to its worker, and the rest of a cell is none of its affair."""
    capturing = "out = widgets.Output(); out.msg_id = get_ipython().kernel.get_parent()['header']"
    played = ok(
        page.play(
            f"%delegate import ipywidgets as widgets; {capturing}['msg_id']; print('theirs')\n"
            "print('mine')"
        )
    )
    output = opened(played, "OutputModel")
    told = [
        message["content"]["data"]["state"]["msg_id"]
        for message in played.messages
        if message["msg_type"] == "comm_msg" and message["content"]["comm_id"] == output
    ]
    if page.profile == "workspace":
        assert told == [played.key, ""]
        order = [each["msg_type"] for each in played.messages]
        assert order.index("stream") < len(order) - order[::-1].index("comm_msg")
    else:
        assert told == [played.key]


def test_an_output_takes_the_error_that_it_catches(page):
    played = ok(
        page.play(
            "%%delegate\nimport ipywidgets as widgets\nout = widgets.Output()\n"
            "with out:\n    1 / 0\nprint('went on')"
        )
    )
    output = opened(played, "OutputModel")
    told = [
        message["content"].get("ename") or message["content"]["data"]["state"]["msg_id"]
        for message in played.messages
        if message["msg_type"] == "error" or message["content"].get("comm_id") == output
        if message["msg_type"] in ("error", "comm_msg")
    ]
    assert told == [played.key, "ZeroDivisionError", ""]
    assert played.stream() == "went on\n"


def test_a_kind_of_widget_that_is_not_shown_is_named_once(page):
    making = """%%delegate
import anywidget
class Map(anywidget.AnyWidget):
    _esm = "export default { render() {} }"
Map()"""

    played, again = ok(page.play(making)), ok(page.play(making))

    if page.profile == "workspace":
        assert "Not shown: widgets of the kind AnyModel (anywidget" in played.stream("stderr")
        assert "%hive restart coder --sandbox open" in played.stream("stderr")
        assert again.stream("stderr") == ""
        assert [VIEW in shown["data"] for shown in played.of("execute_result")] == [False]
    else:
        assert [VIEW in shown["data"] for shown in played.of("display_data")] == [True]


def test_what_took_a_widgets_place_stays_when_the_worker_ends(page):
    played = ok(
        page.play(
            f"{SLIDER.removesuffix('display(slider)')}place = display(slider, display_id=True)"
        )
    )
    [display] = played.of("display_data")
    ok(page.play("%delegate place.update('done')"))

    page.client.execute("%hive restart")

    slider = opened(played, "IntSliderModel")
    told = heard(page, lambda message: message["content"].get("comm_id") == slider)
    assert display["transient"] not in [each["content"].get("transient") for each in told]
