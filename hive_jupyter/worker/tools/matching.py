"""
Look for a regular expression, as a program of its own: it can be stopped, whatever it is at.

A line of JSON comes in: ``[pattern, ignore_case]``; ``{"error": text or null}`` goes out. Then, for
each text, a line with its length in bytes and the most matches that are wanted comes in, and the
text as UTF-8; out goes a line of JSON: ``[[line, column, text of the line], ...]``.
"""

from __future__ import annotations

import json
import re
import sys
import warnings
from typing import BinaryIO


def main() -> None:
    """Serve one search, until the end of the input."""
    come, go = sys.stdin.buffer, sys.stdout.buffer
    pattern, ignore_case = json.loads(come.readline())
    warnings.simplefilter("ignore")
    try:
        expression = re.compile(pattern, re.IGNORECASE if ignore_case else 0)
    except (re.error, RecursionError, OverflowError) as error:
        _answer(go, {"error": str(error)})
        return
    _answer(go, {"error": None})
    while header := come.readline():
        size, most = map(int, header.split())
        text = come.read(size).decode(errors="replace")
        found = []
        for number, line in enumerate(text.split("\n"), 1):
            match = expression.search(line.removesuffix("\r"))
            if match:
                found.append([number, match.start() + 1, line.removesuffix("\r")])
                if len(found) == most:
                    break
        _answer(go, found)


def _answer(go: BinaryIO, value: object) -> None:
    go.write(json.dumps(value).encode() + b"\n")
    go.flush()


if __name__ == "__main__":
    main()
