"""The quickstart notebook, found and played."""

from __future__ import annotations

import sys
from pathlib import Path

from traitlets import Unicode

from hive_jupyter.cli.application import App, replace_unencodable
from hive_jupyter.errors import HiveError

QUICKSTART = "01_quickstart.ipynb"

SEEN = """
What you saw: a kernel that handed its cells to workers, processes of their own that printed, drew,
raised, hung and crashed, while the kernel kept every variable it had. To try it yourself, open a
notebook of yours, run `%load_ext hive_jupyter`, and put `%%delegate` at the top of a cell.
`jupyter hive doctor` tells what Hive can do on this machine. The notebook that you saw is
`{notebook}`.
"""


class DemoApp(App):
    """Play the quickstart notebook in this terminal."""

    name = "jupyter-hive demo"
    description = """
    Run the quickstart notebook cell by cell and show each cell and its output as it happens. The
    exit status is 0 if every cell did what it promised. Needs: pip install "hive-jupyter[demo]".
    """
    # The notebook's kernel reads the settings of notebooks.
    classes = []  # noqa: RUF012
    notebook = Unicode(help="Play this notebook instead of the quickstart.").tag(config=True)
    aliases = App.aliases | {"notebook": "DemoApp.notebook"}

    def work(self) -> int:
        try:
            from hive_jupyter.demo import Screen, play
        except ModuleNotFoundError as error:
            msg = (
                f'The demo needs "{error.name}", which is not installed here. Install it with: '
                f'{sys.executable} -m pip install "hive-jupyter[demo]"'
            )
            raise HiveError(msg) from None
        replace_unencodable(sys.stdout)
        screen = Screen.of(sys.stdout)
        notebook = Path(self.notebook).resolve() if self.notebook else quickstart()
        status = play(notebook, screen)
        if status == 0 and not self.notebook:
            screen.say()
            screen.markdown(SEEN.format(notebook=notebook))
        return status


def quickstart() -> Path:
    """
    The quickstart notebook: a wheel brings it inside the package, a checkout has it beside.

    Raises:
        HiveError: it is in neither place.
    """
    package = Path(__file__).resolve().parents[1]
    for folder in (package / "notebooks", package.parent / "notebooks"):
        if (folder / QUICKSTART).is_file():
            return folder / QUICKSTART
    msg = (
        f"The quickstart notebook ({QUICKSTART}) is neither in {package / 'notebooks'} nor beside "
        "the package. Name it with --notebook, or install hive-jupyter anew."
    )
    raise HiveError(msg)
