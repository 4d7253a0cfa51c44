"""
Pictures of a worker: what their headers claim.

They are not decoded here, since decoders have had holes; the browser has its decoders in a sandbox.
"""

from __future__ import annotations

import base64
import binascii
import struct

# More pixels than these take more memory than a page should.
_MOST_PIXELS = 100_000_000
# JPEG (ITU-T T.81, table B.1): the markers that begin a frame, and those without a length.
_FRAMES = frozenset({*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC})
_ALONE = frozenset({0x01, *range(0xD0, 0xD9)})
_MOST_SEGMENTS = 10_000


def checked(kind: str, text: str) -> str | None:
    """
    Look at a picture's header.

    Args:
        kind: "image/png", "image/jpeg", "image/gif" or "image/webp".
        text: the picture in base64; white space does not matter.

    Returns:
        The same in base64 on one line; None where it is no picture of that kind, or too large.
    """
    try:
        data = base64.b64decode("".join(text.split()), validate=True)
    except (binascii.Error, ValueError):
        return None
    return base64.b64encode(data).decode() if is_one(kind, data) else None


def is_one(kind: str, data: bytes) -> bool:
    """Whether a picture's header is one of that kind, and of no more pixels than may be."""
    try:
        width, height = _SIZES[kind](data)
    except (ValueError, KeyError, IndexError, struct.error):
        return False
    return 0 < width * height <= _MOST_PIXELS


def _png(data: bytes) -> tuple[int, int]:
    # https://www.w3.org/TR/png-3/#11IHDR
    signature, _length, chunk, width, height = struct.unpack_from(">8sI4sII", data)
    if signature != b"\x89PNG\r\n\x1a\n" or chunk != b"IHDR":
        raise ValueError
    return width, height


def _gif(data: bytes) -> tuple[int, int]:
    signature, width, height = struct.unpack_from("<6sHH", data)
    if signature not in (b"GIF87a", b"GIF89a"):
        raise ValueError
    return width, height


def _jpeg(data: bytes) -> tuple[int, int]:
    if not data.startswith(b"\xff\xd8"):
        raise ValueError
    place = 2
    for _ in range(_MOST_SEGMENTS):
        if data[place] != 0xFF:
            raise ValueError
        marker = data[place + 1]
        if marker in _FRAMES:
            height, width = struct.unpack_from(">HH", data, place + 5)
            return width, height
        if marker == 0xFF:  # a byte to fill
            place += 1
        elif marker in _ALONE:
            place += 2
        else:
            place += 2 + struct.unpack_from(">H", data, place + 2)[0]
    raise ValueError


def _webp(data: bytes) -> tuple[int, int]:
    # https://developers.google.com/speed/webp/docs/riff_container
    if data[:4] != b"RIFF" or data[8:12] != b"WEBP":
        raise ValueError
    chunk = data[12:16]
    if chunk == b"VP8X":
        width, height = data[24:27], data[27:30]
        return int.from_bytes(width, "little") + 1, int.from_bytes(height, "little") + 1
    if chunk == b"VP8L" and data[20] == 0x2F:
        (bits,) = struct.unpack_from("<I", data, 21)
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    if chunk == b"VP8 " and data[23:26] == b"\x9d\x01\x2a":
        width, height = struct.unpack_from("<HH", data, 26)
        return width & 0x3FFF, height & 0x3FFF
    raise ValueError


_SIZES = {"image/png": _png, "image/jpeg": _jpeg, "image/gif": _gif, "image/webp": _webp}
KINDS = frozenset(_SIZES)
