"""What a notebook shows where the machine cannot confine what a profile promises."""

import pytest

from tests.front_end import FrontEnd

# All that this kernel starts lacks it, too: workers, and the thread that starts them.
LACKING = """
from tests.without import take_away
take_away("landlock")
%load_ext hive_jupyter
import hive_jupyter.swarm.life
hive_jupyter.swarm.life.PROGRESS_AFTER = 1000
"""


@pytest.fixture(scope="module")
def notebook(runtime, tmp_path_factory):
    """A kernel on a machine without Landlock."""
    with FrontEnd(tmp_path_factory.mktemp("n")) as front_end:
        assert "ok" == front_end.play(LACKING).reply["status"]
        yield front_end


def test_a_cell_for_strict_is_refused_and_says_what_to_do(notebook):
    played = notebook.play("%%delegate -w careful --sandbox strict\n1")

    assert ("error", "SandboxUnavailable") == (played.reply["status"], played.reply["ename"])
    shown = " ".join(" ".join(played.of("error")[0]["traceback"]).split())
    assert shown.startswith("SandboxUnavailable: The sandbox strict cannot be had on this machine")
    assert "cannot confine files" in shown
    assert "`%hive doctor` tells more" in shown
    assert "--sandbox workspace enforces what there is" in shown

    caught = notebook.play(
        "try:\n"
        "    get_ipython().run_cell_magic('delegate', '-w careful --sandbox strict', '1')\n"
        "except Exception as error:\n"
        "    print(error.missing)"
    )
    assert "'files'" in caught.stream()


def test_a_cell_for_workspace_runs_and_the_first_says_what_is_missing(notebook):
    first, second = (notebook.play("%%delegate\n6 * 7") for _ in range(2))

    for played in (first, second):
        assert "42" == played.of("execute_result")[0]["data"]["text/plain"]
    assert "The sandbox workspace is not whole here" in first.stream("stderr")
    assert "" == second.stream("stderr")


def test_the_doctor_shows_tables_in_a_notebook(notebook):
    (shown,) = notebook.play("%hive doctor").of("display_data")

    tables = shown["data"]["text/markdown"].split("\n\n")
    assert 2 == len(tables)
    assert (
        "| sandbox strict | **missing** | refused\\: this machine cannot confine files" in tables[0]
    )
    assert tables[1].startswith("| what a worker is kept from | workspace | by |")
    assert "| reading other files | **partly** | namespaces" in tables[1]
    assert "sandbox strict" in shown["data"]["text/plain"]
