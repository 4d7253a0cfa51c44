"""``make bench`` in miniature: Hive alone, and what is made of samples."""

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from statistics import median

import psutil
import pytest

from tests.bench import report, work
from tests.bench.__main__ import main
from tests.bench.measurements import BY_NAME, HIVE, MEASUREMENTS, PEERS, Measurement
from tests.bench.rounds import ROOT, Results, environment, run_rounds
from tests.processes import wait_gone

CONDITIONS = {
    "date": "2026-01-01T00:00+00:00",
    "python": "3.11.0",
    "system": "Linux",
    "processors": 2,
    "load_average": [0.5, 0.25, 0.1],
    "bytecode": "compiled first",
    "versions": {"hive-jupyter": "0.1.0", "loky": None},
}


def results(**samples):
    """Results of ``cold-start``, as samples by contestant."""
    made = Results()
    made.complete = True
    made.samples.update({("cold-start", name): values for name, values in samples.items()})
    return made


def as_values(made):
    return report.as_values(made, CONDITIONS, quick=False)


def test_hive_alone_is_measured_from_the_start_of_a_worker_to_its_death():
    measured = [BY_NAME[name] for name in ("cold-start", "warm-call", "prints", "recovery")]
    said = []

    found = run_rounds(measured, PEERS, quick=True, say=said.append)

    assert ({}, True) == (found.errors, found.complete)
    assert {(each.name, HIVE) for each in measured} == set(found.samples)
    assert all(sample > 0 for samples in found.samples.values() for sample in samples)
    assert len(measured) == len(said)


def test_hive_is_measured_inside_a_notebook_kernel():
    found = run_rounds([BY_NAME["first-delegate"]], PEERS, quick=True, say=lambda _: None)

    assert {} == found.errors
    assert 1 == len(found.samples["first-delegate", HIVE])


def test_a_contestant_that_fails_is_reported_and_not_dropped(monkeypatch):
    absent = Measurement("absent", "what nobody can", "ms", (HIVE, "pipe"))
    monkeypatch.setitem(BY_NAME, absent.name, absent)

    found = run_rounds([absent], quick=True, say=lambda _: None)
    text = report.table(as_values(found))

    assert {} == found.samples
    assert "has no attribute 'absent'" in found.errors["absent", HIVE][0]
    assert "pipe failed 1 times at absent: ended with 1" in text


@pytest.mark.parametrize("contestant", [HIVE, *PEERS])
def test_a_contestant_has_a_function_for_all_that_it_takes_part_in(contestant):
    source = (ROOT / "tests" / "bench" / "contestants" / f"{contestant}.py").read_text()
    known = set(re.findall(r"^(?:def )?(\w+)(?:\(| = \w+$)", source, re.MULTILINE))
    wanted = {each.function for each in MEASUREMENTS if contestant in each.contestants}

    assert wanted
    assert set() == wanted - known


def test_a_goal_is_a_share_of_the_peers_median():
    values = as_values(results(hive=[40.0, 60.0, 50.0], jupyter_client=[600.0], loky=[40.0]))
    tenth, loky = values["measurements"]["cold-start"]["goals"]

    assert (0.0833, True) == (tenth["reached"], tenth["met"])
    assert (1.25, False) == (loky["reached"], loky["met"])


def test_a_goal_whose_peer_was_not_measured_is_neither_met_nor_missed():
    tenth, _ = as_values(results(hive=[40.0]))["measurements"]["cold-start"]["goals"]

    assert (None, None) == (tenth["reached"], tenth["met"])


def test_the_99th_percentile_is_told_where_there_are_enough_samples():
    few, many = [float(n) for n in range(99)], [float(n) for n in range(200)]
    found = as_values(results(hive=many, loky=few))["measurements"]["cold-start"]["contestants"]

    assert (99.5, 0.0, 198.0) == (
        found["hive"]["median"],
        found["hive"]["min"],
        found["hive"]["p99"],
    )
    assert median(few) == found["loky"]["median"]
    assert "p99" not in found["loky"]


def test_the_table_takes_its_place_in_a_page():
    values = as_values(results(hive=[50.0], jupyter_client=[1000.0]))
    page = f"before\n{report.BEGIN}\nan old one\n{report.END}\nafter\n"

    filled = report.replace_table(page, report.table(values))

    assert "an old one" not in filled
    assert filled.startswith(f"before\n{report.BEGIN}\n| median |")
    assert filled.endswith(f"{report.END}\nafter\n")
    assert "| 0.100 of jupyter_client; 1.000 of loky | 0.050; ? | yes; ? | 50.0 | 1000 |" in filled


def test_a_page_without_a_place_for_the_table_is_refused():
    with pytest.raises(ValueError, match="no place for the table"):
        report.replace_table("a page", "a table")


def test_a_table_is_made_anew_from_the_file_with_the_samples(tmp_path, capsys):
    file, page = tmp_path / "bench.json", tmp_path / "page.md"
    file.write_text(json.dumps(as_values(results(hive=[50.0]))))
    page.write_text(f"{report.BEGIN}\n{report.END}\n")

    assert 0 == main(["--reuse", str(file), "--markdown", str(page)])

    assert "| 50.0 |" in page.read_text()
    assert "| 50.0 |" in capsys.readouterr().out


def test_the_documentation_has_a_place_for_the_table():
    page = (ROOT / "docs" / "performance.md").read_text()

    assert report.replace_table(page, "")


def test_prints_that_are_lost_or_out_of_order_are_noticed():
    code = work.prints(3)
    for text, fits in (("0\n1\n2\n", True), ("0\n2\n1\n", False), ("0\n1\n", False)):
        printed = work.Printed()
        printed.take(text)
        if fits:
            printed.check(code)
        else:
            with pytest.raises(AssertionError, match="out of order"):
                printed.check(code)


def test_nobodys_settings_reach_what_is_measured(monkeypatch):
    for name in ("HIVE_JUPYTER_SPARES", "PYTHONDONTWRITEBYTECODE", "PYTHONUNBUFFERED"):
        monkeypatch.setenv(name, "1")

    assert {"PATH"} == {
        name
        for name in environment("/somewhere")
        if name in {"PATH", "PYTHONDONTWRITEBYTECODE", "PYTHONUNBUFFERED"}
        or name.startswith("HIVE_JUPYTER_")
    }


def test_ctrl_c_leaves_no_process_behind_and_keeps_what_was_measured(tmp_path):
    file = tmp_path / "bench.json"
    command = [sys.executable, "-u", "-m", "tests.bench", "--only", "warm-call", "cold-start"]
    bench = subprocess.Popen(
        [*command, "--without", *PEERS, "--json", str(file)],
        cwd=ROOT,
        env={**os.environ, "TMPDIR": str(tmp_path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert any("round 1/" in line for line in iter(bench.stdout.readline, ""))
    family = psutil.Process(bench.pid).children(recursive=True)

    bench.send_signal(signal.SIGINT)
    printed, said = bench.communicate(timeout=60)

    assert (130, "") == (bench.returncode, said)
    assert "Stopped before its end." in printed
    wait_gone(family)
    assert [] == [*Path(tmp_path).glob("bench-*")]
    assert not json.loads(file.read_text())["complete"]
