"""Durations and sizes are read as people type them."""

import math

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from hive_jupyter.errors import ConfigError
from hive_jupyter.units import (
    LARGEST_SIZE,
    LONGEST_DURATION,
    as_bytes,
    as_markdown,
    as_seconds,
    format_duration,
    format_size,
    in_columns,
    memory_option,
    nearest,
    parse_duration,
    parse_size,
    printable,
    visible,
)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("30", 30),
        ("30s", 30),
        (" 30 SEC ", 30),
        ("1.5m", 90),
        (".5min", 30),
        ("2h", 7200),
        ("250ms", 0.25),
        ("none", None),
        ("None", None),
        ("0", None),
        ("0.0h", None),
    ],
)
def test_durations_are_read(text, seconds):
    """With and without a unit, in either case; none and 0 are no limit."""
    assert seconds == parse_duration(text)


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("100", 100),
        ("500M", 500 * 2**20),
        ("2g", 2 * 2**30),
        ("1.5GiB", 3 * 2**29),
        ("1 kb", 1024),
        ("1t", 2**40),
        ("7b", 7),
        ("0.3", 1),
        ("none", None),
        ("0", None),
    ],
)
def test_sizes_are_read(text, size):
    """Powers of 1024; a fraction of a byte is not mistaken for no limit."""
    assert size == parse_size(text)


@pytest.mark.parametrize("parse", [parse_duration, parse_size])
@pytest.mark.parametrize(
    "text",
    ["", " ", "fast", "-1", "1e3", "nan", "inf", "1..2", "3 3", "5\0", "9" * 400, "9" * 30 + "h"],
)
def test_what_is_neither_is_refused_with_examples(parse, text):
    """The message shows what was typed and how to write it."""
    with pytest.raises(ConfigError, match=r"Write .* none") as caught:
        parse(text)

    assert repr(text) in str(caught.value)


@given(st.text())
@example("30\N{LATIN SMALL LETTER LONG S}")  # a careless pattern takes it for an s
@example("5m\N{LATIN SMALL LETTER DOTLESS I}n")
@example("3\N{KELVIN SIGN}")
@example("\N{ARABIC-INDIC DIGIT ONE}s")
def test_no_text_breaks_the_readers(text):
    """A value in range, None, or a ConfigError; nothing else."""
    for parse, largest in ((parse_duration, LONGEST_DURATION), (parse_size, LARGEST_SIZE)):
        try:
            value = parse(text)
        except ConfigError:
            continue
        assert value is None or 0 < value <= largest


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (None, "no limit"),
        (0, "0 ms"),
        (0.0124, "12 ms"),
        (0.9996, "1 s"),
        (1, "1 s"),
        (3.21, "3.21 s"),
        (59.96, "1 min"),
        (240, "4 min"),
        (3599, "1 h"),
        (7500, "2 h 5 min"),
    ],
)
def test_durations_are_said_as_a_person_would(seconds, text):
    """No "1000 ms", no "60 s", no "60 min"."""
    assert text == format_duration(seconds)


@given(st.floats(0, LONGEST_DURATION))
def test_a_duration_said_is_close_to_the_duration_meant(seconds):
    """What is shown, read again, is within half a unit of the last place."""
    total = sum(
        parse_duration(f"{number}{unit}") or 0
        for number, unit in zip(*[iter(format_duration(seconds).split())] * 2, strict=True)
    )

    assert abs(total - seconds) <= max(0.0005, 0.006 * seconds, 30 if seconds > 59 else 0)


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (None, "no limit"),
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1 KB"),
        (14155776, "13.5 MB"),
        (2**30 - 1, "1 GB"),
        (2**31, "2 GB"),
        (2**40, "1 TB"),
        (2**53, "8192 TB"),
    ],
)
def test_sizes_are_said_as_a_person_would(size, text):
    """One decimal at most, and no "1024.0 MB"."""
    assert text == format_size(size)


@given(st.integers(0, 2**62))
def test_a_size_said_is_close_to_the_size_meant(size):
    """What is shown can be typed."""
    assert (parse_size(format_size(size)) or 0) == pytest.approx(size, rel=0.06)


def test_a_mistyped_word_gets_its_neighbour():
    """Or the list of all there are, or nothing."""
    assert ' Did you mean "status"?' == nearest("statsu", ["start", "status", "stop"])
    assert " There are: a, b." == nearest("xyz", ["b", "a"])
    assert not nearest("xyz", [])


@pytest.mark.parametrize(
    ("value", "seconds"),
    [(None, None), (0, None), (0.0, None), (math.inf, None), ("none", None), (5, 5), ("5m", 300)],
)
def test_callers_give_durations_as_numbers_too(value, seconds):
    assert seconds == as_seconds(value)


@pytest.mark.parametrize(
    "value", [True, -1, math.nan, -math.inf, 10**400, 2 * LONGEST_DURATION, [], b"5s", "5 parsecs"]
)
def test_what_is_no_duration_is_refused(value):
    with pytest.raises(ConfigError, match="is no duration. Write seconds or a unit"):
        as_seconds(value)


@pytest.mark.parametrize(
    ("value", "size"), [(None, None), (0, None), ("none", None), (5, 5), ("5K", 5120)]
)
def test_callers_give_sizes_as_numbers_too(value, size):
    assert size == as_bytes(value)


@pytest.mark.parametrize("value", [True, -1, 1.5, math.nan, LARGEST_SIZE + 1, [], b"5G", "-1"])
def test_what_is_no_size_is_refused(value):
    with pytest.raises(ConfigError, match="is no size. Write bytes or a unit"):
        as_bytes(value)


@pytest.mark.parametrize(
    ("size", "typed"), [(0, "0"), (1, "1M"), (2**30, "1G"), (4 * 2**30, "4G"), (3 * 2**29, "1536M")]
)
def test_a_size_is_suggested_as_one_types_it(size, typed):
    assert typed == memory_option(size)
    assert as_bytes(typed) >= size if size else not as_bytes(typed)


def test_rows_stand_below_each_other():
    assert ["a    bb", "ccc"] == in_columns([("a", "bb"), ("ccc", "")])


@given(st.text())
def test_what_a_screen_would_obey_is_a_space(text):
    assert printable(text).isprintable()
    assert len(text) == len(printable(text))


@pytest.mark.parametrize(
    ("text", "seen"),
    [
        ("a = 1\n\tb\n", "a = 1\n\tb\n"),
        ("é 字 😀 ¹", "é 字 😀 ¹"),
        ("a\u202eb\u200b\u2066c", "a<U+202E>b<U+200B><U+2066>c"),
        ("\x1b[2K\r\x7f\x9b", "<U+001B>[2K<U+000D><U+007F><U+009B>"),
        ("\xa0\u2028\u3164\ufe0f\u2800", "<U+00A0><U+2028><U+3164><U+FE0F><U+2800>"),
        ("\U000e0041\U000e01ef\ud800", "<U+E0041><U+E01EF><U+D800>"),
        (b"\xff\x80a".decode("utf-8", "surrogateescape"), "<0xFF><0x80>a"),
    ],
)
def test_nothing_hides_in_what_is_to_be_seen(text, seen):
    """Names instead of what a screen obeys, swallows or shows as nothing."""
    assert seen == visible(text)


@given(st.text(st.characters(codec=None, exclude_categories=[])))
def test_what_is_to_be_seen_is_printable(text):
    """On one line, where nothing is kept; and plain text is not touched."""
    assert visible(text, keep="").isprintable()
    assert visible(text).replace("\n", "").replace("\t", "").isprintable()
    if text.isascii() and text.isprintable():
        assert text == visible(text)


def test_no_two_backslashes_stand_before_a_bracket_in_markdown():
    """JupyterLab would begin a formula there."""
    assert r"a&#92;\(b" == as_markdown(r"a\(b")
