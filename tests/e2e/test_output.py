"""What a worker says arrives whole and in order."""


def test_c_code_children_and_python_keep_their_order(hive):
    """What was written to the descriptor first is shown first."""
    code = (
        "import ctypes, os\n"
        "os.write(1, b'write\\n')\n"
        "print('print')\n"
        "os.system('echo child')\n"
        "ctypes.CDLL(None).printf(b'printf\\n')\n"
    )

    result = hive.delegate(code)

    assert "write\nprint\nchild\nprintf\n" == result.stdout


def test_what_c_code_writes_last_belongs_to_its_own_cell(hive):
    """Output of a descriptor never arrives after its cell."""
    hive.delegate("import os")
    written = [f"line {number}" for number in range(100)]

    seen = [hive.delegate(f"os.write(1, {line.encode()!r})").stdout for line in written]

    assert written == seen


def test_a_character_that_comes_in_two_writes_stays_whole(hive):
    """UTF-8 is decoded across reads; what is none becomes a replacement character."""
    result = hive.delegate(
        "import os, sys\n"
        "os.write(1, '\\u20ac'.encode()[:2]); sys.stdout.flush()\n"
        "os.write(1, '\\u20ac'.encode()[2:]); os.write(1, b'\\xff')"
    )

    assert "\u20ac\ufffd" == result.stdout


def test_the_streams_are_told_apart_and_stay_in_order(hive):
    """A notebook stores stdout and stderr as they alternated."""
    result = hive.delegate(
        "import sys\n"
        "for number in range(3):\n"
        "    print(number, flush=True)\n"
        "    print(number, file=sys.stderr, flush=True)\n"
    )

    assert [("stdout", "0\n"), ("stderr", "0\n"), ("stdout", "1\n")] == [
        (output["name"], output["text"]) for output in result.outputs[:3]
    ]


def test_a_flood_arrives_complete_and_in_order(hive):
    """Nothing is lost and nothing is reordered."""
    result = hive.delegate("for number in range(1_000_000): print(f'{number:099d}')")

    assert all(number == int(line) for number, line in enumerate(result.stdout.splitlines()))
    assert 100_000_000 == len(result.stdout)


def test_many_small_messages_arrive_complete_and_in_order(hive):
    """A flush after each line is a message each."""
    result = hive.delegate("for number in range(20_000): print(number, flush=True)")

    assert list(range(20_000)) == [int(line) for line in result.stdout.splitlines()]


def test_a_large_display_arrives(hive):
    """A message of 200 MB is a message."""
    result = hive.delegate("display({'text/plain': 'x' * 200_000_000}, raw=True)")

    assert 200_000_000 == len(result.outputs[0]["data"]["text/plain"])
