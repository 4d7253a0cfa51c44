"""A picture is judged by its header, and is not decoded."""

import base64
import io
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from hive_jupyter.display.images import KINDS, checked

FORMATS = {"image/png": "PNG", "image/jpeg": "JPEG", "image/gif": "GIF", "image/webp": "WEBP"}


def encoded(data):
    return base64.b64encode(data).decode()


def drawn(kind, size=(7, 5), mode="RGB", **options):
    file = io.BytesIO()
    Image.new(mode, size, "white").save(file, FORMATS[kind], **options)
    return file.getvalue()


def png(width, height):
    head = struct.pack(">8sI4sII", b"\x89PNG\r\n\x1a\n", 13, b"IHDR", width, height)
    return encoded(head + b"\x08\x02\0\0\0")


@pytest.mark.parametrize("kind", FORMATS)
def test_a_picture_passes(kind):
    picture = encoded(drawn(kind))
    assert picture == checked(kind, picture)


def test_these_are_all_the_kinds():
    assert KINDS == set(FORMATS)


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("image/jpeg", {"progressive": True}),
        ("image/jpeg", {"exif": b"Exif\0\0" + b"\xff\xc0" * 1000}),
        ("image/webp", {"lossless": True}),
        ("image/webp", {"exif": b"Exif\0\0"}),
        ("image/gif", {"save_all": True, "append_images": [Image.new("RGB", (7, 5))]}),
    ],
)
def test_a_picture_of_another_making_passes(kind, options):
    assert checked(kind, encoded(drawn(kind, **options)))


def test_lines_of_base64_become_one():
    """As matplotlib's older backends and MIME write it."""
    data = drawn("image/png")
    assert encoded(data) == checked("image/png", base64.encodebytes(data).decode())


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("other", FORMATS)
def test_a_picture_is_of_the_kind_that_it_says(kind, other):
    if kind != other:
        assert checked(kind, encoded(drawn(other))) is None


@pytest.mark.parametrize(
    ("width", "height", "passes"),
    [
        (10_000, 10_000, True),
        (10_000, 10_001, False),
        (2**31 - 1, 1, False),
        (2**32 - 1, 2**32 - 1, False),
        (0, 5, False),
        (5, 0, False),
    ],
)
def test_a_picture_has_at_most_a_hundred_megapixels(width, height, passes):
    assert passes == (checked("image/png", png(width, height)) is not None)


@pytest.mark.parametrize("kind", FORMATS)
def test_a_large_picture_of_any_kind_is_known(kind):
    # the least that is to be encoded; WebP has no grey, and shorter sides
    if kind == "image/webp":
        large = drawn(kind, (16_000, 7_000), method=0)
    else:
        large = drawn(kind, (20_000, 6_000), mode="L")
    assert checked(kind, encoded(large)) is None


@pytest.mark.parametrize("text", ["", "<svg>", "AAAA", "====", "é", "data:image/png;base64,AA"])
@pytest.mark.parametrize("kind", FORMATS)
def test_what_is_no_picture_does_not_pass(kind, text):
    assert checked(kind, text) is None


def test_a_kind_that_nobody_knows_does_not_pass():
    assert checked("image/svg+xml", encoded(b"<svg>")) is None


@given(st.sampled_from(sorted(FORMATS)), st.binary(max_size=60), st.integers(0, 40))
def test_no_header_makes_it_fail(kind, rest, kept):
    text = encoded(drawn(kind)[:kept] + rest)
    assert checked(kind, text) in (None, text)
