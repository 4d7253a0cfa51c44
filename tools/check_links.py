"""
Every relative link, anchor and image in the documentation leads somewhere. No network is used.

Run from the project's root: ``python tools/check_links.py [FILE ...]``.
"""

from __future__ import annotations

import re
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote

FILES = ("README.md", "CHANGELOG.md", "CONTRIBUTING.md")

# Code is shown, not followed. Lines stay, so that a problem can name its line.
FENCE = re.compile(r"^ *(`{3,}|~{3,}).*?(?:^ *\1[`~]*\s*?$|\Z)", re.MULTILINE | re.DOTALL)
SPAN = re.compile(r"(?<!`)(`+)(?!`)(?:(?!\n\s*\n).)+?(?<!`)\1(?!`)", re.DOTALL)
COMMENT = re.compile(r"<!--.*?-->", re.DOTALL)

TARGETS = re.compile(
    r"""
    \]\(\s*<(?P<angled>[^>\n]*)>                        # [text](<a target>)
    | \]\(\s*(?P<inline>(?:[^\s()]|\([^\s()]*\))*)      # [text](target), ![text](target "title")
    | ^\ {0,3}\[[^\]]+\]:\s*<?(?P<reference>[^\s>]+)    # [text]: target
    | <(?:a|img|source)\b[^>]*?\b(?:href|src)=["'](?P<html>[^"']*)  # <img src="target">
    """,
    re.VERBOSE | re.MULTILINE,
)
SCHEME = re.compile(r"[a-z][a-z0-9+.-]*:|//", re.IGNORECASE)
HEADING = re.compile(r"^ {0,3}#{1,6}[ \t]+(.+?)[ \t]*#*$", re.MULTILINE)
LINK_TEXT = re.compile(r"!?\[([^\]]*)\]\([^)]*\)")
HTML_ANCHOR = re.compile(r"<[^>]*?\b(?:id|name)=[\"']([^\"']+)")


def blank(pattern: re.Pattern[str], text: str) -> str:
    """Replace what matches by as many empty lines as it had."""
    return pattern.sub(lambda match: "\n" * match[0].count("\n"), text)


def prose(path: Path) -> str:
    """The file's text without fenced code and comments."""
    return blank(COMMENT, blank(FENCE, path.read_text(encoding="utf-8")))


def anchors(path: Path) -> set[str]:
    """The anchors of a Markdown file, made from its headings as GitHub makes them."""
    text = prose(path)
    seen: Counter[str] = Counter()
    names = set(HTML_ANCHOR.findall(text))
    for heading in HEADING.findall(text):
        words = LINK_TEXT.sub(r"\1", heading).lower()
        slug = re.sub(r"[^\w\- ]", "", words).replace(" ", "-")
        names.add(f"{slug}-{seen[slug]}" if seen[slug] else slug)
        seen[slug] += 1
    return names


def problem(source: Path, target: str) -> str | None:
    """Why a link from one file leads nowhere, or None if it does lead somewhere."""
    if SCHEME.match(target):
        return None
    if not target:
        return "is empty"
    name, _, anchor = unquote(target).partition("#")
    if name.startswith("/"):
        return "is absolute: it works on one machine only"
    path = source.parent / name if name else source
    if not path.exists():
        return "does not exist"
    if not path.resolve().is_relative_to(Path.cwd()):
        return "leads out of the project"
    if anchor and path.suffix == ".md" and anchor not in anchors(path):
        return "has no such heading"
    return None


def problems(source: Path) -> Iterator[str]:
    """What is wrong with one file's links, a line for each."""
    text = blank(SPAN, prose(source))
    for match in TARGETS.finditer(text):
        target = match[match.lastgroup or 0]
        reason = problem(source, target)
        if reason:
            line = text.count("\n", 0, match.start(match.lastgroup or 0)) + 1
            yield f'{source}:{line}: "{target}" {reason}'


def main(arguments: list[str]) -> int:
    """Print every problem; the exit code tells whether there is one."""
    names = [Path(name) for name in arguments]
    paths = names or [*map(Path, FILES), *sorted(Path("docs").rglob("*.md"))]
    missing = [f"{path} does not exist" for path in paths if not path.is_file()]
    found = missing or [line for path in paths for line in problems(path)]
    print(*found or [f"Files looked at: {len(paths)}. All links lead somewhere."], sep="\n")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
