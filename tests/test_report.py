"""The doctor's report renders itself, and survives its way to another process."""

import json

from IPython.lib.pretty import pretty

from hive_jupyter.swarm.report import Report, Row

NEEDS = (Row("fork", "yes", "fine"), Row("a|b", "missing", "line\nline | \\", "No | worker."))
KEPT = (
    Row("UDP", "allowed", "could send", "Data can leave.", "workspace"),
    Row("/tmp", "partly", "could look", "Names show.", "workspace", "Landlock ABI 7"),
    Row("fork bombs", "missing", "could", "Too many.", "workspace"),
    Row("UDP", "yes", "could not send (EPERM)", "", "strict", "seccomp"),
    Row("/tmp", "partly", "could look", "Names show.", "strict", "Landlock ABI 7, seccomp"),
)


def test_what_hive_needs_is_a_table_that_no_cell_can_break():
    assert Report(NEEDS)._repr_markdown_() == (
        "| capability |  | found | without it |\n"
        "| --- | --- | --- | --- |\n"
        "| fork | yes | fine |  |\n"
        r"| a\|b | **missing** | line line \| &#92; | No \| worker. |"
    )


def test_what_workers_are_kept_from_is_a_table_with_a_column_for_each_profile():
    assert Report(KEPT)._repr_markdown_().partition("\n\n")[2] == (
        "| what a worker is kept from | workspace | strict | by | what that means |\n"
        "| --- | --- | --- | --- | --- |\n"
        "| UDP | allowed | yes | seccomp | workspace\\: Data can leave. |\n"
        "| /tmp | **partly** | **partly** | Landlock ABI 7, seccomp | Names show. |\n"
        "| fork bombs | **missing** |  |  | Too many. |"
    )


def test_in_a_terminal_what_it_means_stands_below():
    report = Report((*NEEDS, *KEPT))

    assert str(report).splitlines() == [
        "capability           found",
        "fork        yes      fine",
        "a|b         missing  line line | \\",
        "    -> No | worker.",
        "",
        "what a worker is kept from  workspace  strict  by",
        "UDP                         allowed    yes     seccomp",
        "    -> workspace: Data can leave.",
        "/tmp                        partly     partly  Landlock ABI 7, seccomp",
        "    -> Names show.",
        "fork bombs                  missing",
        "    -> Too many.",
    ]
    assert str(report) == pretty(report)


def test_what_is_missing_is_listed_with_its_profile():
    assert ("a|b", "fork bombs (workspace)") == Report((*NEEDS, *KEPT)).missing


def test_the_facts_make_the_same_report_in_another_process():
    report = Report((*NEEDS, *KEPT))

    assert report == Report.of(json.loads(json.dumps(report.facts())))
