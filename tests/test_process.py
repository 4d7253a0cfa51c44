"""What a worker's process leaves in its log."""

import os

import pytest

from hive_jupyter.swarm.process import LOG_SHOWN, log_tail


def test_a_log_that_fits_is_whole(tmp_path):
    (tmp_path / "log").write_bytes(b"first\nsecond\n")

    assert "first\nsecond" == log_tail(tmp_path)
    assert "first\nsecond" == log_tail(tmp_path, 13)


def test_of_a_longer_log_there_are_the_last_whole_lines(tmp_path):
    (tmp_path / "log").write_bytes(b"first\nsecond\nthird\n\n")

    assert "third" == log_tail(tmp_path, 10)


def test_a_line_that_is_too_long_is_better_than_none(tmp_path):
    (tmp_path / "log").write_bytes(b"first\n" + b"x" * 100 + b"\n")

    assert "x" * 9 == log_tail(tmp_path, 10)


def test_an_error_has_less_of_the_log_than_one_who_asks(tmp_path):
    (tmp_path / "log").write_bytes(b"x" * 99 + b"\n" + b"A line of sixteen\n" * 2**17)

    assert len(log_tail(tmp_path)) < 2**13
    assert 2**20 - 20 < len(log_tail(tmp_path, LOG_SHOWN)) < 2**20


@pytest.mark.parametrize(
    "make", [os.mkfifo, os.mkdir, lambda path: os.symlink("/etc/passwd", path)]
)
def test_what_is_no_file_is_no_log(tmp_path, make):
    """The worker may put there what it likes."""
    make(tmp_path / "log")

    assert "" == log_tail(tmp_path)
    assert "" == log_tail(tmp_path / "gone")
