"""Code run in a worker of a running notebook, and what it says shown while it says it."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from traitlets import Unicode

from hive_jupyter.cli.attached import AttachedApp, OneHiveApp
from hive_jupyter.errors import ConfigError, HiveError
from hive_jupyter.protocol import WORKER_VARIABLE
from hive_jupyter.units import without_colours

if TYPE_CHECKING:
    from hive_jupyter.attach import Attachment, Identity

# How `jupyter hive run` ends after Ctrl-C, and where the run took too long (as timeout(1) does).
_INTERRUPTED = 128 + signal.SIGINT
_TOO_LATE = 124
# With the first Ctrl-C the code is interrupted, with the second killed; then nobody waits any more.
_STOPS = 2


class RunApp(OneHiveApp):
    """Run code in a worker of a running notebook."""

    name = "jupyter-hive run"
    description = """
    Run code in a worker of a running notebook, after what it runs already, and show what the code
    prints. CODE is one word, so quote it; a word that ends with .py is the file to be run, and - is
    the standard input. Code that begins with - stands after --. Ctrl-C interrupts the code, and
    pressed again kills the worker. The exit status is 0 if the code ended well, 1 if it failed,
    124 if it took too long and 130 after Ctrl-C. Nobody answers input().
    """
    usage = "[options] CODE | FILE.py | -"
    worker = Unicode(help="The worker, if not the default one; a new name starts another.").tag(
        config=True
    )
    timeout = Unicode(help="Stop it after 30, 30s, 5m, ...; none: never.").tag(config=True)
    aliases = AttachedApp.aliases | {
        "w": "RunApp.worker",
        "worker": "RunApp.worker",
        "timeout": "RunApp.timeout",
    }

    def refuse_word(self, word: str) -> NoReturn:
        msg = f'"{word}" is one word too many. Put quotes around the code.'
        raise ConfigError(msg)

    def check(self) -> None:
        if WORKER_VARIABLE in os.environ:
            msg = "This is a worker already, and workers do not delegate. Run the code as it is."
            raise HiveError(msg)
        if self.word is None:
            msg = "Say what to run: CODE, FILE.py, or - for the standard input."
            raise ConfigError(msg)

    def ask(self, hive: Attachment, identity: Identity) -> int:
        assert self.word is not None
        code = _code(self.word)
        output = _Collected() if self.as_json else _Shown()
        answer: dict[str, Any] = {}
        with _interrupting(hive) as presses:
            for line in hive.run(
                code=code, worker=self.worker or None, timeout=self.timeout or None
            ):
                if "say" in line:
                    output.take(line["say"], line["text"], is_end=not line["more"])
                answer = line.get("answer", answer)
        output.end()
        if isinstance(output, _Collected):
            self.say(identity, {**answer, **output.texts()}, "")
        elif answer["status"] not in ("ok", "error"):
            print(f"{self.called}: {answer['text']}", file=sys.stderr)
        return _exit_status(answer["status"], interrupted=bool(presses))


class _Shown:
    """Shows on this terminal what a run says, while it says it."""

    def __init__(self) -> None:
        self._has_colours = sys.stderr.isatty() and "NO_COLOR" not in os.environ
        self._progress = False

    def take(self, place: str, text: str, *, is_end: bool) -> None:
        """Show a piece of text; ``is_end`` where the next one is another text."""
        if place == "progress":
            self._show_progress(text)
            return
        self.end()
        stream = sys.stderr if place in ("stderr", "error") else sys.stdout
        if place == "error" and not self._has_colours:
            text = without_colours(text)
        stream.write(text + "\n" * (is_end and place not in ("stdout", "stderr")))
        stream.flush()

    def end(self) -> None:
        """Leave no word of progress behind."""
        if self._progress:
            self._show_progress("")

    def _show_progress(self, text: str) -> None:
        if sys.stderr.isatty():
            sys.stderr.write(f"\r\033[K{text}")
            sys.stderr.flush()
            self._progress = bool(text)


class _Collected:
    """Keeps what a run says, for one JSON document."""

    def __init__(self) -> None:
        self._pieces: dict[str, list[str]] = defaultdict(list)

    def take(self, place: str, text: str, *, is_end: bool) -> None:
        """Keep a piece of text."""
        ends = is_end and place == "display"
        self._pieces[place] += [text, "\n"] if ends else [text]

    def end(self) -> None:
        """Nothing is left to do."""

    def texts(self) -> dict[str, Any]:
        """What there was."""
        texts = {place: "".join(pieces) for place, pieces in self._pieces.items()}
        return {
            "stdout": texts.get("stdout", ""),
            "stderr": texts.get("stderr", ""),
            "display": texts.get("display", ""),
            "value": texts.get("result"),
            "traceback": without_colours(texts.get("error", "")),
        }


@contextlib.contextmanager
def _interrupting(hive: Attachment) -> Iterator[list[int]]:
    """While entered, Ctrl-C interrupts the run; the list grows with each."""
    presses: list[int] = []

    def press(number: int, _frame: object) -> None:
        presses.append(number)
        if len(presses) > _STOPS:
            raise KeyboardInterrupt
        hive.interrupt()

    before = signal.signal(signal.SIGINT, press)
    try:
        yield presses
    finally:
        signal.signal(signal.SIGINT, before)


def _exit_status(status: str, *, interrupted: bool) -> int:
    if status == "ok":
        return 0
    if interrupted:
        return _INTERRUPTED
    return _TOO_LATE if status == "timeout" else 1


def _code(word: str) -> str:
    """
    The code that a word stands for.

    Raises:
        ConfigError: it is a file that cannot be read, or no text.
    """
    try:
        if word == "-":
            return sys.stdin.buffer.read().decode()
        return Path(word).read_text(encoding="utf-8") if word.endswith(".py") else word
    except OSError as error:
        msg = f"{word} cannot be read: {error.strerror}."
    except UnicodeDecodeError:
        msg = f"{'The standard input' if word == '-' else word} is no UTF-8 text."
    raise ConfigError(msg)
