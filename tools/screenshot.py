"""
Take a picture of a notebook's cells, run in JupyterLab.

Run from the project's root, with JupyterLab and Playwright installed:

    python tools/screenshot.py docs/images/delegated-cell.ipynb docs/images/delegated-cell.png

Everything is private and goes away afterwards: the server, its settings, the browser's profile.
The notebook file is not changed.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from playwright.sync_api import (  # type: ignore[import-not-found, unused-ignore]
    Page,
    sync_playwright,
)

START_SECONDS = 60
RUN_SECONDS = 120
WIDTH = 920
# What is live has a few seconds to show something (milliseconds).
SETTLES = 8000

BROWSER_ARGUMENTS = [
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--force-color-profile=srgb",
]
SETTINGS = {
    "apputils-extension/notification": {
        "fetchNews": "false",
        "checkForUpdates": False,
        "doNotDisturbMode": True,
    },
    "notebook-extension/tracker": {
        "windowingMode": "none",
        "autoStartDefaultKernel": True,
    },
}

RUN_ALL = """async () => {
  const app = window.jupyterapp;
  const notebook = app.shell.currentWidget;
  await notebook.sessionContext.ready;
  await notebook.sessionContext.session.kernel.info;
  await app.commands.execute('notebook:run-all-cells');
  notebook.content.deselectAll();
  document.activeElement.blur();
}"""
# A cell that fails keeps the command above from waiting for those that come after it.
ALL_RAN = """() => window.jupyterapp.shell.currentWidget.content.model.toJSON().cells
  .every(cell => cell.cell_type !== 'code' || cell.execution_count)
"""
FAILED = """() => window.jupyterapp.shell.currentWidget.content.model.toJSON().cells
  .filter(cell => cell.outputs?.some(output => output.output_type === 'error'))
  .filter(cell => !cell.metadata.tags?.includes('raises-exception'))
  .length
"""
# Where the picture begins: cells before that prepare what it shows.
BEGINNING = """() => window.jupyterapp.shell.currentWidget.content.model.toJSON().cells
  .findIndex(cell => !cell.metadata.tags?.includes('not-in-the-picture'))
"""
# What belongs to the page and not to the cells.
PLAIN = """
.jp-Notebook-footer, .jp-cell-toolbar, .jp-Collapser { display: none !important }
"""


@contextlib.contextmanager
def lab(folder: Path) -> Iterator[str]:
    """A JupyterLab server for the notebooks below ``folder/work``; yields its address."""
    settings = folder / "settings"
    for name, value in SETTINGS.items():
        path = settings / "@jupyterlab" / f"{name}.jupyterlab-settings"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(value))
    runtime = folder / "run"
    environment = {
        **os.environ,
        "JUPYTER_CONFIG_DIR": str(folder / "config"),
        "JUPYTER_RUNTIME_DIR": str(runtime),
        "JUPYTERLAB_SETTINGS_DIR": str(settings),
        "JUPYTERLAB_WORKSPACES_DIR": str(folder / "workspaces"),
        "IPYTHONDIR": str(folder / "ipython"),
    }
    command = [
        *(sys.executable, "-m", "jupyterlab", "--no-browser", "--expose-app-in-browser"),
        "--allow-root",
        "--ServerApp.port=0",
        "--IdentityProvider.token=",
        "--KernelManager.transport=ipc",
        "--LabApp.news_url=",
        "--JupyterNotebookApp.expose_app_in_browser=True",
        f"--ServerApp.root_dir={folder / 'work'}",
    ]
    with (folder / "log").open("wb") as log:
        server = subprocess.Popen(
            command, env=environment, stdout=log, stderr=log, cwd=folder / "work"
        )
        try:
            yield _address(server, runtime)
        finally:
            server.terminate()
            server.wait()


def _address(server: subprocess.Popen[bytes], runtime: Path) -> str:
    """Wait until the server answers."""
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and server.poll() is None:
        with contextlib.suppress(OSError, ValueError):
            facts = json.loads((runtime / f"jpserver-{server.pid}.json").read_text())
            urllib.request.urlopen(facts["url"] + "api", timeout=5).close()  # noqa: S310  # our own
            return str(facts["url"])
        time.sleep(0.1)
    log = (runtime.parent / "log").read_text(errors="replace")
    sys.exit(f"JupyterLab did not start.\n{log}")


def shoot(page: Page, address: str, name: str, picture: Path) -> None:
    """Run all cells of a notebook and save what they look like."""
    page.goto(f"{address}doc/tree/{name}?reset")
    page.wait_for_selector(".jp-Notebook .jp-Cell", timeout=START_SECONDS * 1000)
    page.wait_for_function("window.jupyterapp !== undefined")
    page.evaluate(RUN_ALL)
    page.wait_for_function(ALL_RAN)
    page.add_style_tag(content=PLAIN)
    page.wait_for_timeout(SETTLES)
    cells = page.locator(".jp-Notebook .jp-Cell")
    first = cells.nth(page.evaluate(BEGINNING)).bounding_box()
    last = cells.last.bounding_box()
    assert first is not None
    assert last is not None
    height = last["y"] + last["height"] - first["y"]
    clip: Any = {"x": first["x"], "y": first["y"], "width": first["width"], "height": height}
    page.screenshot(path=picture, clip=clip)
    if failed := page.evaluate(FAILED):
        sys.exit(f"Cells that failed and were not to: {failed}. See {picture}.")


def main() -> int:
    """Take one picture."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("notebook", type=Path)
    parser.add_argument("picture", type=Path, help="a .png file")
    parser.add_argument("--height", type=int, default=1400, help="of the window, in pixels")
    parser.add_argument("--browser", default=shutil.which("chromium"), help="path of a Chromium")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="lab-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        (folder / "work").mkdir()
        shutil.copy(options.notebook, folder / "work")
        with lab(folder) as address, sync_playwright() as playwright:
            # Inside a container Chromium's own sandbox cannot be built; it sees our server only.
            browser = playwright.chromium.launch(
                executable_path=options.browser, args=BROWSER_ARGUMENTS, chromium_sandbox=False
            )
            page = browser.new_page(
                viewport={"width": WIDTH, "height": options.height}, device_scale_factor=2
            )
            page.set_default_timeout(RUN_SECONDS * 1000)
            shoot(page, address, options.notebook.name, options.picture)
            browser.close()
    print(f"{options.picture} shows {options.notebook}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
