"""The quickstart notebook keeps every promise that it makes."""

import io
from pathlib import Path

import pytest

from hive_jupyter.demo import Screen, play
from tests.notebooks import check_failure, check_promises, code_cells, executed
from tests.processes import wait_gone

NAME = "01_quickstart.ipynb"
PICTURE = Path(__file__).parents[2] / "docs" / "images" / "delegated-cell.ipynb"


@pytest.fixture(scope="module")
def played(tmp_path_factory):
    return executed(NAME, tmp_path_factory.mktemp("k"))


@pytest.mark.parametrize("name", code_cells(NAME))
def test_a_cell_shows_what_its_text_promises(played, name):
    check_promises(played[name])


@pytest.mark.parametrize("name", code_cells(NAME))
def test_a_cell_fails_if_and_only_if_it_is_tagged_so(played, name):
    check_failure(played[name])


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("error-code", "ZeroDivisionError"),
        ("timeout-code", "NodeTimeout"),
        ("crash-code", "NodeDied"),
        ("refusal-code", "PermissionError"),
    ],
)
def test_a_failure_is_reported_under_its_own_name(played, name, expected):
    """A front-end, and nbclient, see the exception's class and not Hive's."""
    (error,) = [output for output in played[name].outputs if output.output_type == "error"]

    assert expected == error.ename


def test_the_wave_is_a_picture(played):
    """A drawing of a confined worker is shown as a picture, in which no script runs."""
    shown = [output.get("data", {}) for output in played["rich-code"].outputs]

    assert any("data:image/svg+xml" in data.get("text/html", "") for data in shown)


def test_the_result_of_a_delegated_cell_has_the_number_of_the_cell(played):
    cell = played["delegate-code"]
    (result,) = [output for output in cell.outputs if output.output_type == "execute_result"]

    assert cell.execution_count == result.execution_count


def test_the_time_limit_of_a_second_is_about_a_second(played):
    assert 1 <= played["timeout-code"].metadata.seconds < 20  # without the limit: for ever


def test_the_crash_is_known_and_over_at_once(played):
    """Nobody waits for a heartbeat, and the next cell gets its worker without a long start."""
    assert played["crash-code"].metadata.seconds < 20
    assert played["fresh-code"].metadata.seconds < 20


def test_instructions_are_shown_as_markdown(played):
    (output,) = played["fallback-code"].outputs

    assert "text/markdown" in output.data


def test_nothing_is_left_when_the_kernel_has_ended(played):
    """The kernel's zygote, supervisors and workers go with it."""
    assert played["processes"], "there were none to look at"
    wait_gone(played["processes"])


def test_the_notebook_of_the_readmes_picture_does_what_the_picture_shows():
    screen = Screen(io.StringIO(), colour=False, width=100)

    assert 0 == play(PICTURE, screen)
    assert "SIGSEGV" in screen.stream.getvalue()
