"""What git-lfs takes for a pointer is one for Hive, too."""

import shutil
import subprocess

import pytest

from hive_jupyter.guard import lfs, marks

OID = "ab" * 32
POINTER = f"version https://git-lfs.github.com/spec/v1\noid sha256:{OID}\nsize 3145728\n"

POINTERS = [
    POINTER,
    POINTER.replace("\n", "\r\n"),
    f"\n {POINTER}\n\n",
    POINTER.replace("\noid", f"\next-0-x sha256:{OID}\next-1-y sha256:{OID}\noid"),
    POINTER.replace("https://git-lfs.github.com", "https://hawser.github.com"),
    POINTER.replace("https://git-lfs.github.com/spec/v1", "http://git-media.io/v/2"),
    POINTER + " " * 1024 + "what git-lfs does not read\n",
]
OTHERS = [
    "", "text\n", POINTER.replace("sha256", "sha1"), POINTER.replace("ab", "AB"),
    POINTER.replace("3145728", "-1"), POINTER.replace("size", "sise"), f"{POINTER}more\n",
    POINTER.replace("v1", "v9"), POINTER.partition("size")[0],
]  # fmt: skip


@pytest.mark.parametrize("text", POINTERS)
def test_a_pointer_is_read_and_marked(text):
    content = text.encode()

    assert lfs.Pointer(OID, 3145728) == lfs.read_pointer(content)
    assert ["kept by git-lfs: its 3 MB are not shown"] == list(marks.of_pointer(content))


@pytest.mark.parametrize("text", OTHERS)
def test_what_is_no_pointer_is_not_taken_for_one(text):
    assert lfs.read_pointer(text.encode()) is None
    assert [] == list(marks.of_pointer(text.encode()))


@pytest.mark.parametrize("text", [*POINTERS, *(text for text in OTHERS if text)])
def test_git_lfs_says_the_same(text):
    if shutil.which("git-lfs") is None:
        pytest.skip("git-lfs is not installed")

    done = subprocess.run(
        ["git-lfs", "pointer", "--check", "--stdin"], input=text.encode(), check=False
    )

    assert (done.returncode == 0) == (text in POINTERS)
