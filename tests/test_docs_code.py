"""The code in the documentation runs as it stands. What cannot run here is marked as ``text``."""

import re
import shlex
import sys
from pathlib import Path

import pytest
from traitlets import import_item

from hive_jupyter.cli import HiveApp
from tests.front_end import FrontEnd
from tests.repos import Repo

ROOT = Path(__file__).parent.parent
PAGES = ("README.md", "CONTRIBUTING.md", *(f"docs/{p.name}" for p in (ROOT / "docs").glob("*.md")))
# A language is said of each block. "text" is what nobody could run, or is no code; "pyi" shows
# signatures, which another test compares.
LANGUAGES = {"console", "json", "python", "pyi", "text", "toml"}

# What pages take for granted, as files in the notebook's folder.
STAND_INS = {
    "checks.py": "assert_(True)  # TODO\n",
    "data.csv": "x\n1\n",
    "fence.py": "height = 1\n",
    "huge.csv": "x\n1\n",
    "README.md": "# TODO\n",
    "risky_library.py": "def run(): pass\n",
    "src/reader.py": "header = 1\n",
    "training.py": "data = None\ndef fit(data): return Model()\n"
    "class Model:\n    def score(self): pass\n",
}
# Each page begins in a kernel without variables.
BEGIN = """
%reset -f
%load_ext hive_jupyter
from IPython.display import HTML, display
from traitlets.config import Config
from hive_jupyter import HiveManager
from hive_jupyter.config import HiveConfig
c = Config()
count = 3
hive = HiveManager()
"""
BEFORE = {"docs/magics.md": "%delegate -w train --memory 2G from training import *"}
# Settings that a page writes into a file exist, and have values that can be.
END = """
unknown = set(c.HiveConfig) - set(HiveConfig.class_trait_names(config=True))
assert not unknown, unknown
HiveConfig(config=c)
hive.close()
%unload_ext hive_jupyter
"""


def blocks(page, language):
    """The code of one language in a page, block by block."""
    text = (ROOT / page).read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def notebook(tmp_path_factory, runtime):
    """A kernel in a project that has what the pages speak of."""
    folder = tmp_path_factory.mktemp("project")
    repo = Repo(folder)
    repo("config", "user.name", "Ada")
    repo("config", "user.email", "ada@example.org")
    for name in STAND_INS:
        repo.write(name, "")
    repo.commit_all("begin")
    for name, text in STAND_INS.items():
        repo.write(name, text)
    with FrontEnd(folder, HIVE_JUPYTER_WARM_UP="0") as kernel:
        yield kernel


def play(notebook, cell):
    played = notebook.play(cell)
    assert "ok" == played.reply["status"], (cell, played.reply["evalue"])


@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page, "python")])
def test_the_python_of_a_page_runs_as_it_stands(notebook, page):
    """One block after the other; one that begins with the name of a file is that file."""
    play(notebook, BEGIN + BEFORE.get(page, ""))
    for cell in blocks(page, "python"):
        if named := re.match(r"# (\w+\.py)\n", cell):
            (notebook.folder / named[1]).write_text(cell)
        play(notebook, cell.replace("/opt/python3.11/bin/python", sys.executable))
    play(notebook, END)


@pytest.mark.parametrize("page", PAGES)
def test_each_block_says_what_it_is(page):
    text = (ROOT / page).read_text(encoding="utf-8")
    opened = re.findall(r"^ *```(.*)$", text, re.MULTILINE)[::2]

    assert set() == set(opened) - LANGUAGES


# --- Commands ---


def commands():
    """What the pages have somebody type, as words; of a pipe its last part."""
    for page in PAGES:
        for block in blocks(page, "console"):
            lines = re.findall(r"^\$ (.*)", block, re.MULTILINE)
            assert len(lines) == len(block.splitlines()), (page, block)
            for line in lines:
                yield shlex.split(line.rpartition("|")[2], comments=True)


COMMANDS = [*commands()]
OF_HIVE = [words for words in COMMANDS if words[:2] == ["jupyter", "hive"]]
OF_MAKE = [words for words in COMMANDS if words[0] == "make"]


@pytest.mark.parametrize("words", OF_HIVE, ids=" ".join)
def test_a_command_of_jupyter_hive_is_understood(words):
    """It and its options exist; it is not run. What is not understood raises."""
    kind, _ = HiveApp.subcommands[words[2]]
    import_item(kind)().parse_command_line(words[3:])


@pytest.mark.parametrize("words", OF_MAKE, ids=" ".join)
def test_a_target_of_make_exists(words):
    makefile = (ROOT / "Makefile").read_text()

    assert re.search(rf"^{words[1]}:", makefile, re.MULTILINE)
    assert [] == [word for word in words[2:] if f"\n{word.partition('=')[0]} =" not in makefile]


def test_other_commands_are_few_and_known():
    """A new one wants a test of its own, or a place here."""
    others = {tuple(words[:2]) for words in COMMANDS if words not in OF_HIVE + OF_MAKE}

    assert others <= {
        ("jupyter", "kernelspec"),
        ("pip", "install"),
        (".venv/bin/python", "-m"),
    }
