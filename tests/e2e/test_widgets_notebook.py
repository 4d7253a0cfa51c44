"""The notebook on widgets and the panel keeps every promise that it makes."""

import os

import pytest

from tests.notebooks import check_failure, check_promises, code_cells, executed

NAME = "04_widgets_and_panel.ipynb"


@pytest.fixture(scope="module")
def played(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("k")
        patch.setenv("TMPDIR", str(folder))
        yield folder, executed(NAME, folder)


@pytest.fixture
def saved(played):
    """What is saved of the widgets of some kind."""
    widgets = played[1]["widgets"].values()
    return lambda kind: [widget for widget in widgets if widget["_model_name"] == kind]


@pytest.mark.parametrize("name", code_cells(NAME))
def test_a_cell_shows_what_its_text_promises(played, name):
    check_promises(played[1][name])


@pytest.mark.parametrize("name", code_cells(NAME))
def test_a_cell_fails_if_and_only_if_it_is_tagged_so(played, name):
    check_failure(played[1][name])


def test_the_slider_is_saved_with_what_it_drew(saved):
    slider, _ = saved("IntSliderModel")
    (output,) = saved("OutputModel")
    _, drawing = output["outputs"]

    assert (1, 3, 9) == (slider["min"], slider["value"], slider["max"])
    assert drawing["data"]["text/html"].startswith("<img")


def test_the_bar_is_full(saved):
    (bar,) = saved("FloatProgressModel")

    assert (40, "success") == (bar["value"], bar["bar_style"])


def test_the_panel_is_saved_as_a_table(saved):
    (panel,) = saved("AnyModel")

    assert "Draw five waves" in panel["still"]["text"]


def test_its_project_is_gone_with_the_kernel(played):
    assert [] == [name for name in os.listdir(played[0]) if name.startswith("hive-demo-")]
