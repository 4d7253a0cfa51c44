"""
Write the table of settings in docs/configuration.md, as the traits have it.

Run from the project's root: ``python tools/write_settings.py``. The tests hold the page against it.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

from hive_jupyter.config import ENVIRONMENT_PREFIX, Duration, HiveConfig, Size
from hive_jupyter.units import format_duration, format_size

PAGE = Path(__file__).parents[1] / "docs" / "configuration.md"
ROWS = re.compile(r"(?:^\| `\w+` \| `HIVE_JUPYTER_.*\n)+", re.MULTILINE)


def row(name: str, trait: Any) -> str:
    """A setting with its variable, its default and what it does."""
    help_ = trait.help
    return f"| `{name}` | `{ENVIRONMENT_PREFIX}{name.upper()}` | {_default(trait)} | {help_} |\n"


def table() -> str:
    """A row for each setting."""
    return "".join(row(name, trait) for name, trait in HiveConfig.class_traits(config=True).items())


def _default(trait: Any) -> str:
    value = trait.default()
    if isinstance(trait, Duration):
        return format_duration(value)
    if isinstance(trait, Size):
        return format_size(value)
    return f"`{value!r}`" if isinstance(value, dict | list) else f"`{value}`"


def main() -> int:
    """Write the table in its place."""
    page = PAGE.read_text(encoding="utf-8")
    PAGE.write_text(ROWS.sub(lambda _: table(), page, count=1), encoding="utf-8")
    print(f"{PAGE} has all settings")
    return 0


if __name__ == "__main__":
    sys.exit(main())
