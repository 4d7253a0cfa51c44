"""A cell for each item of a variable: through the magic, with real workers."""

import pytest

from hive_jupyter import Instructions
from hive_jupyter.notebook.arguments import UsageError
from tests.front_end import FrontEnd

VIEW = "application/vnd.jupyter.widget-view+json"
LOAD = "%load_ext hive_jupyter\n%hive config connect_timeout=60"


@pytest.fixture(scope="module")
def notebook(tmp_path_factory):
    """A notebook with a hive in a kernel of its own."""
    with FrontEnd(tmp_path_factory.mktemp("notebook")) as front_end:
        front_end.play(LOAD)
        front_end.play("from hive_jupyter import HiveManager\nhive = HiveManager()")
        front_end.play("def run(n):\n    print('runs', flush=True)\n    while True: pass")
        front_end.play("numbers = [3, 0, 2]\nfactor = 10\nendless = iter(int, 1)")
        yield front_end


def shown(played):
    """What is displayed; a bar comes where the machine is slow."""
    forms = [part["data"] for part in played.of("display_data", "execute_result")]
    return [form["text/plain"] for form in forms if VIEW not in form]


def test_a_cell_is_run_for_each_item_and_leaves_its_values(notebook):
    played = notebook.play("%%delegate --map numbers -n 2 -o got\nx = item + 1\nx * x")
    assert "ok" == played.reply["status"]
    assert [] == shown(played)
    assert "[16, 1, 9]\n" == notebook.play("print(got)").stream()


def test_without_a_name_the_list_is_shown(notebook):
    played = notebook.play("%%delegate --map numbers -n 1\nitem * 2")

    assert ["[6, 0, 4]"] == shown(played)


def test_a_line_will_do_and_quiet_shows_nothing(notebook):
    played = notebook.play("%delegate --map numbers -q -o got item - 1")

    assert [] == shown(played)
    assert "[2, -1, 1]\n" == notebook.play("print(got)").stream()


def test_a_statement_at_the_end_has_no_value(notebook):
    notebook.play("%%delegate --map numbers -o got\nx = item")

    assert "[None, None, None]\n" == notebook.play("print(got)").stream()


def test_workers_get_what_is_pushed(notebook):
    notebook.play("%%delegate --map numbers -n 2 --push factor -o got\nitem * factor")

    assert "[30, 0, 20]\n" == notebook.play("print(got)").stream()


def test_magics_and_prints_work(notebook):
    played = notebook.play("%%delegate --map numbers -n 1 -q\n!echo shell\nprint(item)")
    loud = notebook.play("%%delegate --map numbers -n 1 -o got\n!echo shell\nprint(item)")

    assert "" == played.stream()
    assert ["shell", "3", "shell", "0", "shell", "2"] == loud.stream().split()


def test_items_that_fail_are_named_and_the_first_error_is_the_cells(notebook):
    played = notebook.play("%%delegate --map numbers -n 1 -o got\n6 // item")

    assert ("error", "ZeroDivisionError") == (played.reply["status"], played.reply["ename"])
    assert "1 of 3 items failed:\n  item 1: 0: ZeroDivisionError" in played.stream("stderr")
    (error,) = played.of("error")
    assert "6 // item" in "\n".join(error["traceback"])
    assert "[2, 3]\n" == notebook.play("print([got[0], got[2]])").stream()


def test_what_no_item_can_have_been_is_told_in_short(notebook):
    """No frames of Hive's own."""
    played = notebook.play("%%delegate --map numbers -n 1\nlambda: item")
    assert "TransferError" == played.reply["ename"]
    assert not any("magics.py" in line for line in played.reply["traceback"])


@pytest.mark.parametrize("cell", ["item +", "!echo a\nfor"])
def test_a_mistake_in_the_code_is_told_once(notebook, cell):
    played = notebook.play(f"%%delegate --map numbers\n{cell}")
    assert "The cell is no Python. Line " in played.reply["evalue"]
    assert "" == played.stream("stderr")


def test_they_can_be_forgiven(notebook):
    played = notebook.play("%%delegate --map numbers -n 1 --no-raise-error -o got\n6 // item")

    assert "ok" == played.reply["status"]
    shown = notebook.play("print(type(got[1]).__name__, got[1].index)").stream()
    assert "ZeroDivisionError 1\n" == shown


def test_a_crash_costs_one_item(notebook):
    played = notebook.play("%%delegate --map numbers -n 1 -o got\nimport os\nitem or os._exit(1)")

    assert "NodeDied" == played.reply["ename"]
    assert "3 2\n" == notebook.play("print(got[0], got[2])").stream()


def pressed_when_it_runs(notebook, cell):
    """The cell's end after the stop button, pressed as soon as it says that it runs."""
    pressed = []

    def press(message):
        if message["msg_type"] == "stream" and "runs" in message["content"]["text"] and not pressed:
            pressed.append(message)
            notebook.manager.interrupt_kernel()

    return notebook.play(cell, on_message=press)


@pytest.mark.parametrize(
    "cell",
    [
        "%%delegate --map endless -n 2\nprint('runs', flush=True)\nwhile True: pass",
        "list(hive.map(run, endless, workers=2))",
    ],
)
def test_ctrl_c_stops_a_map_and_the_next_one_works(notebook, cell):
    played = pressed_when_it_runs(notebook, cell)

    assert "KeyboardInterrupt" == played.reply["ename"]
    again = "one = [4]\n%delegate --map one -o got item\nprint(got)"
    assert "[4]\n" == notebook.play(again).stream()


def test_what_takes_long_has_a_bar_that_is_gone_at_the_end(notebook):
    played = notebook.play(
        "import time\nlist(hive.map(time.sleep, [0.4] * 5, workers=1, sandbox='open'))"
    )

    assert "ok" == played.reply["status"]
    (bar,) = played.of("display_data")
    assert VIEW in bar["data"]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("--map numbers -w other", "--map has workers of its own"),
        ("--map numbers --on local", 'engine="dask"'),
        ("--map numbers --pull x", "-o NAME puts them into a list"),
        ("--map numbers --allow-pickle", "pickled anyway"),
        ("--map number", 'no variable "number" here. Did you mean "numbers"?'),
        ("--map factor", "is of type int, which has no items"),
        ("--map numbers -n 0", "no whole number from 1 on"),
        ("--map numbers -n 10000", "max_workers"),
        ("--map numbers --sandbox nowhere", "nowhere"),
        ("-n 4", "-n says how many workers --map has"),
        ("--map numbers --push nothing", '--push: there is no variable "nothing"'),
    ],
)
def test_what_makes_no_sense_is_refused_in_words(notebook, line, said):
    played = notebook.play(f"%%delegate {line}\nitem")

    assert "error" == played.reply["status"]
    assert said in played.reply["evalue"] + played.stream("stderr")


def test_where_no_worker_can_run_there_are_instructions(runtime, shell, monkeypatch):
    monkeypatch.setenv("HIVE_JUPYTER_DIRECT", "0")
    shell.run_line_magic("load_ext", "hive_jupyter")
    try:
        shell.user_ns["numbers"] = [1]
        shell.run_cell_magic("delegate", "--map numbers -o got", "item")
        assert isinstance(shell.user_ns["got"], Instructions)
        with pytest.raises(UsageError):
            shell.run_cell_magic("delegate", "-n 2", "item")
    finally:
        shell.run_line_magic("unload_ext", "hive_jupyter")
