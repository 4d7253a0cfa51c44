"""Rounds over all measurements and contestants, each call in a fresh process."""

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections import defaultdict
from contextlib import contextmanager, suppress
from pathlib import Path

from tests.bench.measurements import UNITS
from tests.processes import adopting, send

ROOT = Path(__file__).parents[2]

# A call that takes longer hangs, in seconds.
_PATIENCE = 300
# As much of what a failed call said goes into the report, in characters.
_LAST_WORDS = 300
# What would slow down one contestant or another: every start would compile its imports anew, and
# every print would be a system call.
_UNWANTED = ("PYTHONDONTWRITEBYTECODE", "PYTHONUNBUFFERED", "PYTHONPATH")


class Results:
    """
    What was measured so far.

    Attributes:
        samples: in the measurement's unit, by measurement and contestant.
        errors: what went wrong, by the same.
        complete: False where Ctrl-C came first.
    """

    def __init__(self):
        self.samples = defaultdict(list)
        self.errors = defaultdict(list)
        self.complete = False


def run_rounds(measurements, without=(), *, quick=False, rounds=None, say=print):
    """
    Measure, with the contestants taking turns, so that the machine's moods meet all of them.

    Args:
        measurements: what to measure.
        without: contestants to leave out.
        quick: less work in each call, and a round at most.
        rounds: how many at most, whatever a measurement asks for.
        say: takes a line of progress.

    Returns:
        The Results; a call that failed is among its errors. Ctrl-C ends the rounds, and what was
        measured until then is kept.
    """
    results = Results()
    most = rounds or (1 if quick else max(each.rounds for each in measurements))
    with adopting() as left, suppress(KeyboardInterrupt):
        for number in range(most):
            for measurement in measurements:
                if number < measurement.rounds:
                    names = [name for name in measurement.contestants if name not in without]
                    turn = number % len(names) if names else 0
                    for name in names[turn:] + names[:turn]:
                        said = _call(results, measurement, name, quick, left)
                        say(f"round {number + 1}/{most}  {measurement.name:22}  {name:14}  {said}")
        results.complete = True
    return results


def _call(results, measurement, contestant, quick, left):
    """One call; returns the line of progress."""
    size = measurement.quick_size if quick else measurement.size
    key = (measurement.name, contestant)
    try:
        samples = _play(contestant, measurement.function, size, left)
    except Exception as error:
        said = str(error) or type(error).__name__
        results.errors[key].append(said)
        return f"FAILED: {said}"
    samples = [sample / UNITS[measurement.unit] for sample in samples]
    results.samples[key] += samples
    return f"{sorted(samples)[len(samples) // 2]:10.3f} {measurement.unit}"


def _play(contestant, function, size, left):
    """
    Have a fresh process measure once, in a folder of its own.

    Raises:
        RuntimeError: it failed, with its last words.
        TimeoutExpired: it hung.
    """
    command = [sys.executable, "-m", "tests.bench.one_round", contestant, function, str(size)]
    with tempfile.TemporaryDirectory(prefix="bench-", ignore_cleanup_errors=True) as folder:
        project = Path(folder, "project")
        project.mkdir()
        process = subprocess.Popen(
            command,
            cwd=project,
            env=environment(folder),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        with _ended(process, left):
            answer, said = process.communicate(timeout=_PATIENCE)
    if process.returncode:
        last = " ".join(said.strip().splitlines()[-1:]) or "no word"
        msg = f"ended with {process.returncode}: {last[-_LAST_WORDS:]}"
        raise RuntimeError(msg)
    return json.loads(answer)


@contextmanager
def _ended(process, left):
    """Afterwards the process is gone, and so is all that it started."""
    try:
        yield
    finally:
        for each in (process, *left()):
            send(each, signal.SIGKILL)
        process.communicate()
        while orphans := left():
            for orphan in orphans:
                send(orphan, signal.SIGKILL)


def environment(folder):
    """The environment of a call: nobody's settings, and theirs in a folder beside the project."""
    unwanted = (*_UNWANTED, *(name for name in os.environ if name.startswith("HIVE_JUPYTER_")))
    kept = {name: value for name, value in os.environ.items() if name not in unwanted}
    return {
        **kept,
        "PYTHONPATH": str(ROOT),
        "IPYTHONDIR": f"{folder}/ipython",
        "JUPYTER_CONFIG_DIR": f"{folder}/config",
        "JUPYTER_DATA_DIR": f"{folder}/data",
        "JUPYTER_RUNTIME_DIR": f"{folder}/runtime",
        "DASK_CONFIG": f"{folder}/dask",
    }
