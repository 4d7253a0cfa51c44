"""The floor: a Python that writes to a pipe, and nothing else."""

import subprocess
import sys

from tests.bench import work


def lines(size):
    return _stream(work.lines(size))


def prints(size):
    return _stream(work.prints(size))


def _stream(code):
    printed = work.Printed()

    def run():
        with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as process:
            while piece := process.stdout.read1(2**20):
                printed.take(piece)

    seconds = work.timed(run)
    printed.check(code)
    return [seconds]
