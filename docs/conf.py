"""
How Sphinx makes a site of the documentation: ``make docs``.

The source is the whole checkout, not ``docs`` alone: pages, notebooks and the files in the root
link to each other by their paths, and the same links serve a forge and the site.
"""

from __future__ import annotations

import os
import re
import tempfile
from importlib.metadata import version as version_of
from typing import TYPE_CHECKING

from pygments.lexers.python import PythonLexer

if TYPE_CHECKING:
    from sphinx.application import Sphinx

project = "Hive for Jupyter"
author = "Hive for Jupyter developers"
copyright = author  # noqa: A001  # Sphinx's name
version = release = version_of("hive-jupyter")

extensions = ["myst_nb", "sphinx_copybutton"]
root_doc = "docs/index"
include_patterns = ["docs/*.md", "notebooks/*.ipynb", "CHANGELOG.md", "CONTRIBUTING.md"]
exclude_patterns = [".*", "build", "dist", "hive_jupyter", "tests", "tools", "**/.*"]

# Anchors as a forge makes them; a "$" is a dollar.
myst_heading_anchors = 4
myst_enable_extensions: list[str] = []
# Quotes in a setting's value are to be copied.
smartquotes = False

# A cell that fails fails the build, unless its tag says that it is meant to.
nb_execution_mode = "force"
nb_execution_raise_on_error = True
nb_execution_timeout = 60

# The notebooks show a ledger: not that of whoever builds, with their requests.
_home = tempfile.TemporaryDirectory(prefix="hive-docs-")
for _name in ("JUPYTER_DATA_DIR", "JUPYTER_CONFIG_DIR", "IPYTHONDIR"):
    os.environ[_name] = f"{_home.name}/{_name}"

# No worker is there to keep a widget alive: its text, which is what a notebook shows, too, then.
nb_mime_priority_overrides = [("*", "application/vnd.jupyter.widget-view+json", None)]
# Tables in what a cell shows, as notebooks have them.
nb_render_markdown_format = "gfm"
# Cells of magics, which the tests run, and tracebacks are not quite Python.
suppress_warnings = ["misc.highlighting_failure"]

html_theme = "furo"
html_title = project
html_static_path = ["site/static"]
html_css_files = ["site.css"]
html_extra_path = ["site/root"]
html_copy_source = False
pygments_dark_style = "github-dark"
_variables = {"mystnb-source-border-color": "var(--color-background-border)"}
html_theme_options = {"light_css_variables": _variables, "dark_css_variables": _variables}
copybutton_exclude = ".linenos, .gp, .go"


def _add_navigation(_app: Sphinx, page: str, text: list[str]) -> None:
    """Make the lists of the first page the site's navigation; a forge shows them as they stand."""
    if page != root_doc:
        return
    for part in text[0].split("\n## ")[1:]:
        caption, _, rest = part.partition("\n")
        pages = re.findall(r"^- \[(.+?)\]\((.+?)\)", rest, re.MULTILINE)
        entries = "\n".join(f"{title} <{target}>" for title, target in pages)
        text[0] += f"\n```{{toctree}}\n:hidden:\n:caption: {caption}\n\n{entries}\n```\n"


def setup(app: Sphinx) -> None:
    """Say what else this site needs; Sphinx calls it."""
    app.connect("source-read", _add_navigation)
    # IPython's own leaves all that is below a %%magic without colours.
    app.add_lexer("ipython3", PythonLexer)
