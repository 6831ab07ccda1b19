"""Facts about a movie, from the header of its MP4 or QuickTime file (ISO/IEC 14496-12)."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

#: Bytes of the header that are read; those of long films have less.
_LARGEST = 64 * 1024 * 1024
#: What is said of other files: clients need these entries.
_UNKNOWN = {"frameIn": 0, "frameOut": 0, "frameRate": 25.0}


def facts_of(path: Path) -> dict[str, Any]:
    """Return frames, rate and size as the web player needs them (``ftr_meta``)."""
    try:
        return next(filter(None, map(_facts, _all(_header(path), b"trak"))), _UNKNOWN)
    except (struct.error, ValueError, ZeroDivisionError):
        return _UNKNOWN


def _header(path: Path) -> bytes:
    with path.open("rb") as file:
        while start := file.read(16):
            kind, length, size = _head(start)
            if kind == b"moov":
                file.seek(length - len(start), 1)
                return file.read(min(size - length, _LARGEST))
            file.seek(size - len(start), 1)
    raise ValueError("it is no movie")


def _head(start: bytes) -> tuple[bytes, int, int]:
    """Return kind, length of the head, and size of the box that begins with *start*."""
    size, kind = struct.unpack_from(">I4s", start)
    length = 8
    if size == 1:
        (size,), length = struct.unpack_from(">Q", start, 8), 16
    if size < length:
        raise ValueError("it has no size")
    return kind, length, size


def _boxes(content: bytes) -> Iterator[tuple[bytes, bytes]]:
    while content:
        kind, length, size = _head(content)
        yield kind, content[length:size]
        content = content[size:]


def _all(content: bytes, *path: bytes) -> Iterator[bytes]:
    for kind, inside in _boxes(content):
        if kind == path[0]:
            yield from _all(inside, *path[1:]) if len(path) > 1 else (inside,)


def _facts(track: bytes) -> dict[str, Any] | None:
    """Return the facts of a video track; None for sound."""
    handler = next(_all(track, b"mdia", b"hdlr"), b"")
    if handler[8:12] != b"vide":
        return None
    media = next(_all(track, b"mdia", b"mdhd"))
    scale, duration = struct.unpack_from(
        ">IQ" if media[0] else ">II", media, 20 if media[0] else 12
    )
    times = next(_all(track, b"mdia", b"minf", b"stbl", b"stts"))
    (count,) = struct.unpack_from(">I", times, 4)
    frames = sum(struct.unpack_from(">I", times, 8 + 8 * each)[0] for each in range(count))
    width, height = struct.unpack(">II", next(_all(track, b"tkhd"))[-8:])
    rate = round(frames * scale / duration, 3)
    size = {"width": width >> 16, "height": height >> 16}
    return {"frameIn": 0, "frameOut": max(frames - 1, 0), "frameRate": rate, **size}
