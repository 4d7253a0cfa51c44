"""The log that keeps what was written last."""

import os

from hypothesis import given
from hypothesis import strategies as st

from hive_jupyter.worker.log import RecentLog


@given(pieces=st.lists(st.binary(max_size=30), max_size=40))
def test_the_latest_is_kept_and_no_more_than_twice_as_much(tmp_path_factory, pieces):
    path = tmp_path_factory.mktemp("log") / "log"
    log = RecentLog(str(path), kept=50)
    written = b""
    for piece in pieces:
        log.write(piece)
        written += piece
        content = path.read_bytes()
        assert written.endswith(content)
        assert min(50, len(written)) <= len(content) <= 100
    os.close(log._file)


def test_a_folder_in_the_way_costs_log_alone(tmp_path):
    path = tmp_path / "log"
    log = RecentLog(str(path), kept=10)
    path.with_name("log.fresh").mkdir()
    for _ in range(9):
        log.write(b"x" * 10)

    assert path.stat().st_size <= 20
    os.close(log._file)


def test_another_file_of_that_name_is_replaced(tmp_path):
    (tmp_path / "log").symlink_to(tmp_path / "precious")
    (tmp_path / "precious").write_text("data")
    log = RecentLog(str(tmp_path / "log"))
    log.write(b"hello")

    assert "data" == (tmp_path / "precious").read_text()
    assert "hello" == (tmp_path / "log").read_text()
    os.close(log._file)
