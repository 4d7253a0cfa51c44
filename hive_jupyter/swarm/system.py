"""What of Hive the operating system has room for."""

from __future__ import annotations

import os
import sys

# Anywhere else delegated cells are answered with instructions.
HAS_WORKERS = os.name == "posix"
# All that Hive can do is done here. Elsewhere workers are started and ended by what POSIX knows
# alone (``worker.portable``).
IS_LINUX = sys.platform == "linux"

# What is said with every status there.
NOTE = "Workers start more slowly here than on Linux, and less holds them: %hive doctor tells what."
