"""The terminal in which a human is asked: whoever redirects or pipes does not answer for one."""

from __future__ import annotations

import os
import termios
from collections.abc import Sequence
from types import TracebackType
from typing import Self

from hive_jupyter.errors import HiveError
from hive_jupyter.guard.lines import Line, close_look
from hive_jupyter.showing import Showing, as_text

_TERMINAL = "/dev/tty"
_LONGEST_ANSWER = 4096
# Longer requests have scrolled away by the time of the question.
_SCREEN = 20


class Terminal:
    """
    The controlling terminal of this process, whatever its standard streams are.

    Raises:
        HiveError: there is none.
    """

    def __init__(self) -> None:
        try:
            self._descriptor = os.open(_TERMINAL, os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
        except OSError as error:
            msg = (
                f"There is no terminal to ask on ({_TERMINAL}: {error.strerror}), and nobody else "
                "may answer. Run this in a terminal, or answer in the notebook."
            )
            raise HiveError(msg) from None
        self._coloured = "NO_COLOR" not in os.environ and os.environ.get("TERM") != "dumb"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        os.close(self._descriptor)

    def show(self, lines: Sequence[Line]) -> None:
        """Write lines, in colours."""
        self._write(f"{as_text(lines, coloured=self._coloured)}\n")

    def ask(self, question: str) -> str:
        """
        What is typed after the question, and not before; "" for the end of input.

        Raises:
            HiveError: the terminal was closed.
        """
        try:
            termios.tcflush(self._descriptor, termios.TCIFLUSH)
            self._write(question)
            answer = os.read(self._descriptor, _LONGEST_ANSWER)
        except (OSError, termios.error) as error:
            msg = f"The terminal does not answer ({error}). Nothing was approved."
            raise HiveError(msg) from None
        if not answer.endswith(b"\n"):
            self._write("\n")
        return answer.decode(errors="replace").strip()

    def _write(self, text: str) -> None:
        encoding = os.device_encoding(self._descriptor) or "utf-8"
        left = text.encode(encoding, errors="backslashreplace")
        while left:
            left = left[os.write(self._descriptor, left) :]


def ask(terminal: Terminal, showing: Showing) -> str:
    """Show all of a request, and ask for its digest; why the answer is no yes, or "" if it is."""
    terminal.show(showing.lines)
    if len(showing.lines) > _SCREEN:
        terminal.show([*close_look(showing.marks), Line("plain", "")])
        terminal.show([Line("plain", f"digest {showing.request.digest}")])
    question = (
        f"\nTo approve request {showing.request.id}, type the first {showing.needed} characters "
        "of its digest; anything else approves nothing: "
    )
    return showing.objection(terminal.ask(question))
