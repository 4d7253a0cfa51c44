"""
The values that contestants move, and how that is timed and checked.

Imported where it is used: other measurements are of processes without numpy.
"""

import numpy as np
import pandas as pd

from tests.bench import work


def array(megabytes):
    """Random bytes: nothing that could be packed."""
    return np.random.default_rng(1).integers(0, 256, megabytes * 10**6, np.uint8)


def frame():
    """A million rows: numbers, truth, times, categories, and text that differs in each row."""
    rng, rows = np.random.default_rng(1), 10**6
    return pd.DataFrame(
        {
            "id": np.arange(rows),
            "x": rng.random(rows),
            "y": rng.random(rows),
            "flag": rng.random(rows) < 0.5,
            "time": pd.date_range("2026-01-01", periods=rows, freq="s"),
            "kind": pd.Categorical.from_codes(rng.integers(0, 3, rows), ["a", "b", "c"]),
            "name": [f"name {number:09}" for number in rng.integers(0, 10**9, rows)],
        }
    )


def made(megabytes):
    """An array of that size; 0: the frame."""
    return array(megabytes) if megabytes else frame()


def moved(move, value):
    """How long each of a few moves takes, after one that warms up."""
    move()
    count = 3 if isinstance(value, pd.DataFrame) or value.nbytes > 10**7 else 30
    return [work.timed(move) for _ in range(count)]


def check_moved(value, back):
    """All of it has come."""
    if isinstance(value, pd.DataFrame):
        pd.testing.assert_frame_equal(value, back)
    else:
        assert np.array_equal(value, back)


# In the process that gets something: what it got.
kept = {}


def keep(value):
    kept["x"] = value


def give():
    return kept["x"]
