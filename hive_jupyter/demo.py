"""
A notebook played in a terminal: each cell, its output as it happens, and whether it kept its word.

A Markdown cell may promise something of the code cell below it: a paragraph that begins with
"**You should see**". What stands there as ``code`` has to be in that cell's output.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import os
import re
import shutil
import signal
import sys
import tempfile
import textwrap
import time
from collections.abc import AsyncIterator, Coroutine, Mapping
from pathlib import Path
from typing import Any, BinaryIO, TextIO

import nbformat
from jupyter_client.kernelspec import NATIVE_KERNEL_NAME, KernelSpecManager
from jupyter_client.manager import AsyncKernelManager
from nbclient import NotebookClient
from nbclient.exceptions import CellControlSignal, CellExecutionError, DeadKernelError
from pygments import highlight
from pygments.formatters import TerminalFormatter
from pygments.lexers import PythonLexer

from hive_jupyter.errors import ConfigError, HiveError
from hive_jupyter.units import format_duration, format_size

# A cell of a demo that takes longer than this is stuck.
CELL_SECONDS = 120
LOG_LINES = 20

DISPLAYS = ("display_data", "execute_result", "update_display_data")

# IPython's tracebacks have 75 columns; beside this gutter they fit into 80.
MARGIN = " " * 4
GUTTER = "  │ "
WIDEST = 100

ANSI = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]")
PROMISE = re.compile(r"^\*\*You should see\*\*.*?(?=\n\s*\n|\Z)", re.MULTILINE | re.DOTALL)
CODE_SPAN = re.compile(r"`([^`]+)`")
STRONG = re.compile(r"\*\*([^*]+)\*\*")
LINK = re.compile(r"\[([^\]]+)\]\([^)]*\)")
MAGIC = re.compile(r"^([ \t]*%.*)$", re.MULTILINE)
ITEM = re.compile(r"^(?=[-*] |\d+\. )", re.MULTILINE)
# What is laid out or coloured is not folded.
TABLE = re.compile(r"\S {2,}\S|\x1b")
OBJECT = re.compile(r"<[\w.]+ object( at 0x[0-9a-f]+)?>")

BOLD, DIM, RED, GREEN, CYAN = 1, 2, 31, 32, 36


class Screen:
    """
    Where a notebook is shown: a terminal, or any stream of text.

    Args:
        stream: to write to.
        colour: whether it understands ANSI colours.
        width: columns.
    """

    def __init__(self, stream: TextIO, *, colour: bool, width: int) -> None:
        self.stream = stream
        self.colour = colour
        self.width = width
        self._line_begins = True

    @classmethod
    def of(cls, stream: TextIO) -> Screen:
        """The screen that a stream is: colours for terminals only, and not against NO_COLOR."""
        plain = os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb"
        columns = shutil.get_terminal_size().columns
        return cls(stream, colour=stream.isatty() and not plain, width=min(columns, WIDEST))

    def say(self, text: str = "", style: int | None = None) -> None:
        """Write lines."""
        self._write(self._styled(text, style) + "\n")

    def code(self, label: str, source: str) -> None:
        """Show a code cell below its label."""
        self.say(label, BOLD)
        self.say(self._highlighted(textwrap.indent(source.strip("\n"), MARGIN)))

    def markdown(self, source: str) -> None:
        """Show a Markdown cell as text."""
        for block in re.split(r"\n\s*\n", source.strip()):
            if block.startswith("#"):
                self.say(self._inline(block.lstrip("# ")), BOLD)
            elif block.startswith(("```", "    ", "|")):
                self.say(block)
            else:
                self.say("\n".join(self._filled(part) for part in ITEM.split(block) if part))
            self.say()

    def output(self, text: str) -> None:
        """Show a piece of output, which may end in the middle of a line."""
        if not self.colour:
            text = ANSI.sub("", text)
        for piece in re.findall(r"[^\r\n]*(?:\r?\n|\r)|[^\r\n]+", text):
            self._write((GUTTER if self._line_begins else "") + piece)
            self._line_begins = piece.endswith(("\r", "\n"))

    def block(self, text: str) -> None:
        """Show output that stands on lines of its own."""
        self.end_output()
        self.output("".join(f"{self._fitted(line)}\n" for line in text.splitlines()))

    def end_output(self) -> None:
        """What comes next begins on a line of its own."""
        if not self._line_begins:
            self.say()
            self._line_begins = True

    def _write(self, text: str) -> None:
        self.stream.write(text)
        self.stream.flush()

    def _styled(self, text: str, style: int | None) -> str:
        return f"\x1b[{style}m{text}\x1b[0m" if self.colour and style is not None else text

    def _highlighted(self, source: str) -> str:
        if not self.colour:
            return source
        lexer = PythonLexer(stripnl=False, ensurenl=False)
        return "".join(
            self._styled(piece, CYAN) if odd else highlight(piece, lexer, TerminalFormatter())
            for odd, piece in zip(itertools.cycle([False, True]), MAGIC.split(source), strict=False)
        )

    def _fitted(self, line: str) -> str:
        room = self.width - len(GUTTER)
        if len(line) <= room or TABLE.search(line):
            return line
        return textwrap.fill(line, room, break_long_words=False, break_on_hyphens=False)

    def _filled(self, paragraph: str) -> str:
        indent = "  " if ITEM.match(paragraph) else ""
        filled = textwrap.fill(
            LINK.sub(r"\1", paragraph),
            self.width,
            subsequent_indent=indent,
            break_long_words=False,
            break_on_hyphens=False,
        )
        return self._inline(filled)

    def _inline(self, text: str) -> str:
        text = STRONG.sub(lambda match: self._styled(match[1], BOLD), text)
        if self.colour:
            text = CODE_SPAN.sub(lambda match: self._styled(match[1], CYAN), text)
        return text


def promises(markdown: str) -> list[str]:
    """What a Markdown cell promises of the output of the code cell below it."""
    return [
        span for paragraph in PROMISE.findall(markdown) for span in CODE_SPAN.findall(paragraph)
    ]


def shown_text(output: Mapping[str, Any]) -> str:
    """All that a cell's output shows, as text without colours."""
    kind = output["output_type"]
    if kind == "stream":
        text = output["text"]
    elif kind == "error":
        text = "\n".join([f"{output['ename']}: {output['evalue']}", *output["traceback"]])
    else:
        text = "\n".join(value for value in output["data"].values() if isinstance(value, str))
    return ANSI.sub("", text)


def described(data: Mapping[str, Any]) -> str:
    """A display's data in the form that says most in a terminal."""
    for kind, value in data.items():
        if kind.startswith("image/"):
            # All but SVG are in base64, which takes four bytes for three.
            size = len(value.encode()) if kind.endswith("xml") else len(value) * 3 // 4
            return f"(picture, {format_size(size)})"
    plain: str = data.get("text/plain", "")
    if plain and not OBJECT.fullmatch(plain):
        return plain
    if "text/markdown" in data:
        return str(data["text/markdown"])
    if "text/html" in data:
        return f"(HTML, {format_size(len(data['text/html'].encode()))})"
    return plain or f"({', '.join(data)})"


class Player(NotebookClient):
    """
    Executes a notebook and shows it.

    Args:
        notebook: file to play.
        screen: where to show it.
        log_file: gets what the kernel's process says beside its messages.
    """

    def __init__(self, notebook: Path, screen: Screen, log_file: BinaryIO) -> None:
        self.notebook = notebook
        self.screen = screen
        self.log_file = log_file
        # nbclient logs what it also raises, and the end of a kernel that was meant to end.
        super().__init__(
            read_notebook(notebook),
            timeout=CELL_SECONDS,
            kernel_name=NATIVE_KERNEL_NAME,
            log=logging.getLogger(__name__),
        )
        self.total = sum(is_run(cell) for cell in self.nb.cells)
        self.failed: list[int] = []
        self._number = 0
        self._promised: list[str] = []

    async def play(self) -> None:
        """Run all cells, up to the first that fails in a way that nobody expected."""
        async with self._kernel():
            for index, cell in enumerate(self.nb.cells):
                if cell.cell_type == "markdown":
                    self.screen.markdown(cell.source)
                    self._promised = promises(cell.source)
                elif is_run(cell) and not await self._play_cell(cell, index):
                    return

    def process_message(self, msg: dict[str, Any], cell: Any, cell_index: int) -> Any:
        try:
            self._show(msg["msg_type"], msg["content"])
        except OSError:
            # Nobody looks any more, and nbclient would only notice at the end of the cell.
            if self.task_poll_for_reply is not None:
                self.task_poll_for_reply.cancel()
        return super().process_message(msg, cell, cell_index)

    def _show(self, kind: str, content: Mapping[str, Any]) -> None:
        if kind == "stream":
            self.screen.output(content["text"])
        elif kind == "error":
            self.screen.block("\n".join(content["traceback"]))
        elif kind in DISPLAYS and content["data"]:
            self.screen.block(described(content["data"]))

    async def _play_cell(self, cell: Any, index: int) -> bool:
        self._number += 1
        self.screen.code(f"[{self._number}/{self.total}]", cell.source)
        begun = time.monotonic()
        problem = None
        goes_on = True
        try:
            await self.async_execute_cell(cell, index)
        except CellExecutionError as error:
            problem, goes_on = f"an unexpected {error.ename}", False
        except (CellControlSignal, DeadKernelError) as error:
            task = asyncio.current_task()
            if task is not None and task.cancelling():  # nbclient takes that for a dead kernel
                raise asyncio.CancelledError from error
            problem, goes_on = str(error), False
        self.screen.end_output()
        problem = problem or self._broken_promise(cell)
        took = MARGIN + format_duration(time.monotonic() - begun)
        if problem:
            self.failed.append(self._number)
            self.screen.say(f"{took}, not as promised: {problem}", RED)
        else:
            self.screen.say(f"{took}, as promised" if self._promised else took, DIM)
        self.screen.say()
        self._promised = []
        return goes_on

    def _broken_promise(self, cell: Any) -> str | None:
        kinds = {output["output_type"] for output in cell.outputs}
        if "raises-exception" in cell.metadata.get("tags", []) and "error" not in kinds:
            return "it was to end with an exception, and did not"
        text = "\n".join(map(shown_text, cell.outputs))
        missing = [promise for promise in self._promised if promise not in text]
        return f"its output has no {' and no '.join(map(repr, missing))}" if missing else None

    @contextlib.asynccontextmanager
    async def _kernel(self) -> AsyncIterator[None]:
        """
        A kernel of this very interpreter.

        No kernelspec is needed or changed for it, its sockets are in a private folder, and it is
        gone afterwards, with its workers.
        """
        with tempfile.TemporaryDirectory(prefix="hive-demo-", ignore_cleanup_errors=True) as folder:
            manager = self.km = AsyncKernelManager(
                kernel_name=NATIVE_KERNEL_NAME,
                kernel_spec_manager=KernelSpecManager(kernel_dirs=[]),
                transport="ipc",
                ip=f"{folder}/k",
                connection_file=f"{folder}/kernel.json",
            )
            try:
                await self.async_start_new_kernel(
                    cwd=str(self.notebook.parent), stdout=self.log_file, stderr=self.log_file
                )
                self.kc = manager.client()
                self.kc.start_channels()
                await self.kc.wait_for_ready(timeout=self.startup_timeout)
                self.kc.allow_stdin = False
                yield
            finally:
                if self.kc is not None:
                    self.kc.stop_channels()
                if manager.has_kernel:
                    await manager.shutdown_kernel()


def is_run(cell: Any) -> bool:
    """Whether a cell has code to run."""
    return cell.cell_type == "code" and bool(cell.source.strip())


def read_notebook(path: Path) -> Any:
    """
    Read a notebook file.

    Raises:
        ConfigError: it cannot be read, or is no notebook.
    """
    try:
        return nbformat.read(path, as_version=4)  # type: ignore[no-untyped-call]
    except OSError as error:
        msg = f"The notebook {path} cannot be read: {error.strerror}."
    except Exception as error:
        msg = f"{path} is no notebook: {str(error).splitlines()[0]}"
    raise ConfigError(msg)


def play(notebook: Path, screen: Screen) -> int:
    """
    Play a notebook to its end, or until Ctrl-C.

    Returns:
        An exit status: 0 where every cell did what it promised, 1 where one did not, 128 and the
        signal's number where a signal ended it. No kernel and no worker is left in any case.

    Raises:
        HiveError: the notebook cannot be read, or no kernel starts.
    """
    begun = time.monotonic()
    with tempfile.TemporaryFile("w+b") as log_file:
        player = Player(notebook, screen, log_file)
        screen.say(f"{notebook.name}: {player.total} cells. Ctrl-C stops.", BOLD)
        screen.say(f"Starting a kernel of {sys.executable} ...", DIM)
        screen.say()
        try:
            stopped_by = asyncio.run(_until_signalled(player.play()))
        except RuntimeError as error:  # jupyter_client has none more precise
            log_file.seek(0)
            tail = log_file.read().decode(errors="replace").splitlines()[-LOG_LINES:]
            msg = "\n".join([f"The kernel could not be used: {error}", *tail])
            raise HiveError(msg) from error
    if stopped_by:
        with contextlib.suppress(OSError):  # the terminal itself may be what went away
            screen.end_output()
            screen.say("Stopped. The kernel and its workers are gone.")
        return 128 + stopped_by
    if player.failed:
        screen.say(f"Not as promised: cell {', '.join(map(str, player.failed))}.", RED)
        return 1
    took = format_duration(time.monotonic() - begun)
    screen.say(f"All {player.total} cells did what they promised, in {took}.", GREEN)
    return 0


async def _until_signalled(work: Coroutine[Any, Any, None]) -> int | None:
    """Await the work; a signal cancels it once, and its number is returned after it cleaned up."""
    task = asyncio.ensure_future(work)
    signals: list[int] = []

    def stop(number: int) -> None:
        if not signals:
            task.cancel()
        signals.append(number)

    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, stop, number)
    await asyncio.wait([task])
    if signals:
        # Whatever it ended with was caused by the signal; asked for, so that asyncio keeps silent.
        _ = task.cancelled() or task.exception()
        return signals[0]
    task.result()
    return None
