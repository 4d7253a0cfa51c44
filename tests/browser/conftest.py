"""A JupyterLab of the tests' own, and notebooks that are opened and run in it."""

import shutil
from pathlib import Path
from types import SimpleNamespace

import nbformat
import pytest

from hive_jupyter.guard.authorization import AuthorizationGuard
from tests.repos import Repo

PATIENCE = 60_000
# What each test has seen at its end, for whoever wants to look.
PICTURES = Path(__file__).parents[2] / "build" / "screenshots"
LOADING = "%load_ext hive_jupyter\nhive = get_ipython().find_line_magic('hive').__self__.manager"
BEGIN_ALL = """async () => {
  const app = window.jupyterapp;
  const notebook = app.shell.currentWidget;
  await notebook.sessionContext.ready;
  await notebook.sessionContext.session.kernel.info;
  app.commands.execute('notebook:run-all-cells');
}"""
KERNEL = "window.jupyterapp.shell.currentWidget.sessionContext.session.kernel"


@pytest.fixture(scope="package")
def chromium():
    """The browser; Playwright allows one of itself in a thread."""
    from playwright.sync_api import sync_playwright

    from tools.screenshot import BROWSER_ARGUMENTS

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium"),
            args=BROWSER_ARGUMENTS,
            chromium_sandbox=False,
        )
        yield browser
        browser.close()


@pytest.fixture(scope="package")
def place(tmp_path_factory, chromium):
    """A JupyterLab whose folder is a repository, and a browser."""
    from playwright.sync_api import expect

    from tools.screenshot import lab

    expect.set_options(timeout=PATIENCE)
    folder = tmp_path_factory.mktemp("lab")
    (folder / "home").mkdir()
    patch = pytest.MonkeyPatch()
    patch.setenv("HOME", str(folder / "home"))
    patch.setenv("JUPYTER_DATA_DIR", str(folder / "data"))
    (folder / "home" / ".gitconfig").write_text("[user]\n name = Ada\n email = ada@example.org\n")
    repo = Repo(folder / "work")
    repo.write("fence.py", "posts = 3\n")
    repo.commit_all()
    try:
        with lab(folder) as address:
            yield SimpleNamespace(address=address, browser=chromium, repo=repo)
    finally:
        patch.undo()


@pytest.fixture
def opened(place, request):
    """Opens a notebook with some cells, the extension loaded, and begins to run them."""
    pages = []

    def run(*cells, script="", front_end="doc/tree", **options):
        name = f"{request.node.name}.ipynb"
        page = place.browser.new_page(viewport={"width": 1100, "height": 1400}, **options)
        page.add_init_script(script)
        page.set_default_timeout(PATIENCE)
        pages.append(page)
        kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
        written = [
            cell if isinstance(cell, dict) else nbformat.v4.new_code_cell(cell)
            for cell in (LOADING, *cells)
        ]
        made = nbformat.v4.new_notebook(cells=written, metadata={"kernelspec": kernel})
        nbformat.write(made, place.repo.folder / name)
        page.goto(f"{place.address}{front_end}/{name}?reset")
        page.wait_for_selector(".jp-Notebook .jp-Cell")
        page.wait_for_function("window.jupyterapp !== undefined")
        page.evaluate(BEGIN_ALL)
        return page

    yield run
    for number, page in enumerate(pages):
        page.screenshot(path=PICTURES / f"{request.node.name}-{number}.png")
        page.evaluate(f"{KERNEL}.shutdown()")
        page.close()
    guard = AuthorizationGuard()
    for waiting in guard.pending():
        guard.deny(waiting.id, "the test is over")
