"""Jobs in a notebook: a real ipykernel driven as a front-end does, and nbclient."""

import time
from queue import Empty

import nbformat
import pytest
from nbclient import NotebookClient

from tests.front_end import FrontEnd

FOR_EVER = "import time\nprint('begun', flush=True)\nwhile True: time.sleep(0.01)"


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    with FrontEnd(tmp_path_factory.mktemp("k"), HIVE_JUPYTER_SANDBOX="open") as front_end:
        ok(front_end.play("%load_ext hive_jupyter"))
        yield front_end


def ok(played):
    assert played.reply["status"] == "ok", played.reply
    return played


def play(page, code, **metadata):
    """A cell, by somebody who answers questions."""
    if not metadata:
        return ok(page.play(code, answers={}))
    client = page.client
    content = {"code": code, "allow_stdin": True, "stop_on_error": False}
    message = client.session.msg("execute_request", content)
    message["metadata"] = metadata
    client.shell_channel.send(message)
    key = message["header"]["msg_id"]
    while True:
        reply = client.get_shell_msg(timeout=60)
        if reply["parent_header"]["msg_id"] == key:
            return reply["content"]


def heard(page, played, is_last, timeout=60):
    """What still comes for a cell, up to a message."""
    messages, deadline = list(played.messages), time.monotonic() + timeout
    if any(map(is_last, messages)):
        return messages
    while True:
        assert time.monotonic() < deadline, messages
        try:
            message = page.client.get_iopub_msg(timeout=1)
        except Empty:
            continue
        if message["parent_header"].get("msg_id") == played.key:
            messages.append(message)
            if is_last(message):
                return messages


def text_of(message):
    content = message["content"]
    return content.get("text") or content.get("data", {}).get("text/plain", "")


def has(text):
    return lambda message: text in text_of(message)


def test_a_job_comes_into_its_own_cell_while_others_run(page):
    started = play(
        page,
        "%%delegate --bg -o job\nimport time\nfrom pathlib import Path\nprint('early')\n"
        "while not Path('go on').exists(): time.sleep(0.01)\nprint('late')\n1 + 1",
    )
    assert "is on its way" in text_of(next(m for m in started.messages if has("Job")(m)))
    other = page.client.execute("%delegate -w other open('go on', 'w').close()\njob.wait(60)")

    messages = heard(page, started, lambda m: m["msg_type"] == "execute_result")
    texts = "".join(m["content"]["text"] for m in messages if m["msg_type"] == "stream")
    assert "early\nlate\n" == texts
    result = messages[-1]["content"]
    assert "2" == result["data"]["text/plain"]
    count = next(m for m in messages if m["msg_type"] == "execute_input")
    assert result["execution_count"] == count["content"]["execution_count"]
    reply = page.client.get_shell_msg(timeout=60)
    assert (other, "ok") == (reply["parent_header"]["msg_id"], reply["content"]["status"])


def test_the_cell_says_how_its_job_ended(page):
    started = play(page, "%%delegate --bg\n1 / 0")
    kinds = set()

    def is_all(message):
        kinds.add(message["msg_type"])
        return {"update_display_data", "error"} <= kinds

    messages = heard(page, started, is_all)
    assert any(": error after " in text_of(message) for message in messages)
    error = next(m for m in messages if m["msg_type"] == "error")["content"]
    assert "ZeroDivisionError" == error["ename"]
    assert any(
        "1 / 0" in line.replace("\x1b", "") or "ZeroDivision" in line for line in error["traceback"]
    )


def test_jobs_are_listed_shown_and_cancelled(page):
    played = play(page, f"%%delegate --bg -w slow -o slow\n{FOR_EVER}")
    heard(page, played, has("begun"))
    number = play(page, "print(slow.id)").stream().strip()

    listed = play(page, "%hive jobs").of("display_data")[0]["data"]["text/plain"]
    assert ["running", "slow"] == listed.splitlines()[-1].split()[1:3]

    assert "is being stopped" in play(page, f"%hive cancel {number}").stream()
    shown = play(page, f"%hive result {number}")
    assert f"begun\nJob {number} was cancelled.\n" == shown.stream()
    assert "is over already" in play(page, f"%hive cancel {number}").stream()


def test_the_result_of_a_job_is_shown_where_somebody_asks_for_it(page):
    play(page, "%%delegate --bg -o job\nprint('said')\ndisplay('shown')\n6 * 7")
    shown = play(page, "_id = job.id\n%hive result {_id}")
    assert [
        ("stdout", "said\n"),
        ("display_data", "'shown'"),
        ("execute_result", "42"),
    ] == shown.order

    play(page, "%%delegate --bg -o job\n1 / 0")
    failed = page.play("%hive result {job.id}", answers={})
    assert "ZeroDivisionError" == failed.reply["ename"]
    failed = page.play("job.result()", answers={})
    assert "ZeroDivisionError" == failed.reply["ename"]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("%hive result", "say which job"),
        ("%hive result 12345", 'no job "12345"'),
        ("%hive cancel", "say which job"),
        ("%%delegate --bg --pull a\na = 1", "--bg does not wait"),
        ("%%delegate --bg\n   ", "that is empty"),
        ("%delegate --bg read a.py", "--bg goes with code"),
        ("%delegate --bg", "no code"),
        ("%%delegate --bg --push nothing_here\n1", "no variable"),
    ],
)
def test_what_makes_no_sense_is_said(page, line, said):
    assert said in page.play(line, answers={}).reply["evalue"]


def test_values_are_pushed_as_they_are_when_the_job_is_asked_for(page):
    play(
        page,
        "jobs = []\n"
        "for number in range(3):\n"
        "    get_ipython().run_cell_magic('delegate', '--bg -q -o job --push number', 'number')\n"
        "    jobs.append(job)",
    )
    played = play(page, "[job.result(60).value_repr for job in jobs]")
    assert "['0', '1', '2']" == played.of("execute_result")[0]["data"]["text/plain"]


def test_quiet_shows_errors_alone(page):
    started = play(page, "%%delegate --bg -q\nprint('not shown')\n1 / 0")
    messages = heard(page, started, lambda m: m["msg_type"] == "error")
    assert not [m for m in messages if m["msg_type"] in {"stream", "display_data"}]


def test_tags_of_the_cell_stand_for_options(page):
    reply = play(page, f"%%delegate\n{FOR_EVER}", tags=["hive-timeout=0.2", "hive-worker=tagged"])
    assert "NodeTimeout" == reply["ename"]
    assert 'Worker "tagged"' in reply["evalue"]

    reply = play(page, "%%delegate -w said\n1 / 0", tags=["hive-worker=tagged", "parameters"])
    assert "ZeroDivisionError" == reply["ename"]

    reply = play(page, "%%delegate\n1", tags=["hive-wroker=tagged"])
    assert "hive-worker=NAME" in reply["evalue"]


def notebook(*cells):
    return nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])


def test_a_program_that_executes_a_notebook_gets_all_in_the_cell_of_the_job(tmp_path):
    """nbclient takes nothing for a cell that is over but updates of what has a name."""
    made = notebook(
        "%load_ext hive_jupyter",
        "%%delegate --bg -o job\n"
        "import time; time.sleep(0.3)\nprint('in <the> job')\n"
        "from IPython.display import HTML, display\ndisplay(HTML('<b>bold</b>'))\n6 * 7",
        "print('other')",
        "job.wait(60)",
    )
    NotebookClient(made, timeout=120, resources={"metadata": {"path": str(tmp_path)}}).execute()

    [output] = made.cells[1].outputs
    assert "in <the> job\n" in output.data["text/plain"]
    assert output.data["text/plain"].rstrip().endswith("42")
    assert ": ok after " in output.data["text/plain"]
    assert "in &lt;the&gt; job" in output.data["text/html"]
    assert "<b>bold</b>" in output.data["text/html"]
    assert ["other\n"] == [each.text for each in made.cells[2].outputs]


def test_a_display_that_is_none_disturbs_no_later_cell(tmp_path):
    made = notebook(
        "%load_ext hive_jupyter",
        "%%delegate --bg -o job --sandbox open\nfrom IPython.display import display\n"
        "display({'image/png': 'ab>', 'text/plain': 'a picture'}, raw=True)\n"
        "display({'text/html': 5, 'text/plain': 'a page'}, raw=True)",
        "_ = job.wait(60)",
    )
    NotebookClient(made, timeout=120, resources={"metadata": {"path": str(tmp_path)}}).execute()

    assert [] == made.cells[2].outputs
    [output] = made.cells[1].outputs
    assert "a picture\na page\n" in output.data["text/plain"]
    assert ',ab&gt;"' in output.data["text/html"]


def test_jobs_of_a_kernel_that_is_shut_down_are_stopped_and_told(tmp_path):
    with FrontEnd(tmp_path, HIVE_JUPYTER_SANDBOX="open") as page:
        play(page, "%load_ext hive_jupyter")
        started = play(
            page, f"%%delegate --bg\ntry:\n    exec({FOR_EVER!r})\nfinally:\n    print('clean')"
        )
        heard(page, started, has("begun"))
        page.client.shutdown()
        messages = heard(page, started, has("clean"))
    assert "is stopped, because its hive is closed" in "".join(map(text_of, messages))


def test_the_bar_of_a_map_goes_with_the_map_also_where_that_was_not_whole(page):
    """tqdm leaves a red one where its count is not full."""
    code = """
from hive_jupyter.mapping import Bar
bar = Bar(12)
bar._next = 0
bar.move(10)
bar.close()"""
    played = play(page, code)
    opened = {
        content["comm_id"]
        for content in played.of("comm_open")
        if content["data"]["state"]["_model_name"] == "HBoxModel"
    }
    assert opened
    assert opened <= {content["comm_id"] for content in played.of("comm_close")}
