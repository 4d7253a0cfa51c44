"""The checks of notebooks and links find what they are there to find."""

import importlib.util
import json
from pathlib import Path
from types import ModuleType

import nbformat.v4
import pytest

ROOT = Path(__file__).parent.parent


def load(name: str) -> ModuleType:
    """Import a script of tools/, which is no package."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "tools" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


check_links = load("check_links")
check_notebooks = load("check_notebooks")


@pytest.fixture(autouse=True)
def project(tmp_path, monkeypatch):
    """Each test has an empty project of its own."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


# --- notebooks ---


def write_notebook(path="notebooks/one.ipynb", **changes):
    cells = [nbformat.v4.new_markdown_cell("Hello"), nbformat.v4.new_code_cell("1 + 1")]
    notebook = nbformat.v4.new_notebook(cells=cells)
    notebook["cells"][1].update(changes.pop("cell", {}))
    notebook.update(changes)
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_text(json.dumps(notebook), encoding="utf-8")


def test_a_notebook_as_it_was_written_passes(capsys):
    write_notebook()

    assert check_notebooks.main([]) == 0
    assert "Notebooks looked at: 1." in capsys.readouterr().out


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        (
            {"cell": {"outputs": [nbformat.v4.new_output("stream", text="2")]}},
            "stores the output of cell 2",
        ),
        ({"cell": {"execution_count": 7}}, "stores the execution count of cell 2"),
        ({"cell": {"source": 1}}, "is no valid notebook"),
        ({"cells": [{"cell_type": "markdown", "metadata": {}, "source": ""}]}, "is no valid"),
        ({"nbformat": 3, "nbformat_minor": 0}, "notebook"),
    ],
    ids=["output", "count", "not a source", "no id", "old format"],
)
def test_a_notebook_that_was_run_or_broken_is_named(changes, complaint, capsys):
    write_notebook(**changes)

    assert check_notebooks.main([]) == 1
    output = capsys.readouterr().out
    assert str(Path("notebooks/one.ipynb")) in output
    assert complaint in output


def test_a_file_that_is_no_notebook_is_named(capsys):
    Path("notebooks").mkdir()
    Path("notebooks/one.ipynb").write_text("{", encoding="utf-8")

    assert check_notebooks.main([]) == 1
    assert "is no valid notebook" in capsys.readouterr().out


def test_jupyters_own_copies_are_left_alone():
    write_notebook("notebooks/.ipynb_checkpoints/one.ipynb", cell={"execution_count": 7})

    assert check_notebooks.main([]) == 0


# --- links ---


def complaints(text, capsys):
    """What the check says of a README with this text, in a project with a few files."""
    for name in ("CHANGELOG.md", "CONTRIBUTING.md", "docs/a b.png", "docs/picture.png"):
        Path(name).parent.mkdir(exist_ok=True)
        Path(name).touch()
    Path("docs/design.md").write_text(
        "# The `design`, *and* why\n\n## Same\n\n## Same\n\n"
        "## [Linked](design.md) words\n\n```\n# no heading\n```\n",
        encoding="utf-8",
    )
    Path("README.md").write_text(f"# Top\n\n{text}\n", encoding="utf-8")
    failed = check_links.main([])
    output = capsys.readouterr().out
    assert failed == int("All links lead somewhere" not in output)
    return output if failed else ""


@pytest.mark.parametrize(
    "text",
    [
        "[design](docs/design.md)",
        "[folder](docs)",
        "[why](docs/design.md#the-design-and-why)",
        "[second](docs/design.md#same-1)",
        "[words](docs/design.md#linked-words)",
        "[here](#top)",
        '![picture](docs/picture.png "with a title")',
        "[space](<docs/a b.png>) and [again](docs/a%20b.png)",
        '<img src="docs/picture.png" alt="a picture">',
        "[named]\n\n[named]: docs/design.md",
        "[web](https://example.org/nothing), [mail](mailto:nobody@example.org)",
        "`[code](nowhere.md)` and ``[`code`](nowhere.md)``",
        "```\n[fenced](nowhere.md)\n```",
        "<!-- [comment](nowhere.md) -->",
    ],
)
def test_links_that_lead_somewhere_pass(text, capsys):
    assert complaints(text, capsys) == ""


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("[gone](docs/gone.md)", 'README.md:3: "docs/gone.md" does not exist'),
        ("\n\n![gone](docs/gone.png)", 'README.md:5: "docs/gone.png" does not exist'),
        ("[why](docs/design.md#no-heading)", "has no such heading"),
        ("[third](docs/design.md#same-2)", "has no such heading"),
        ("[here](#bottom)", '"#bottom" has no such heading'),
        ('<img src="gone.png">', '"gone.png" does not exist'),
        ("[named]\n\n[named]: gone.md", 'README.md:5: "gone.md" does not exist'),
        ("[![inner](gone.png)](docs)", '"gone.png" does not exist'),
        ("[![inner](docs/picture.png)](gone)", '"gone" does not exist'),
        ("```\ncode\n```\n[gone](gone.md)", 'README.md:6: "gone.md" does not exist'),
        ("a lone ` here\n\n[gone](gone.md) and ` there", '"gone.md" does not exist'),
        ("[absolute](/etc/hosts)", "is absolute"),
        ("[out](..)", "leads out of the project"),
        ("[empty]()", "is empty"),
    ],
)
def test_links_that_lead_nowhere_are_named(text, complaint, capsys):
    assert complaint in complaints(text, capsys)


def test_a_missing_readme_is_no_clean_result(capsys):
    assert check_links.main([]) == 1
    assert "README.md does not exist" in capsys.readouterr().out
