"""Bounds in time and size, so that no peer holds up a request for ever, or fills the memory.

The time-outs of an HTTP client are for each single wait. A peer that sends a byte now and then, or
interim responses without end, never exceeds one. So a whole exchange has an allowance of time,
which grows with the bytes that it moves; and a response that is kept in memory has a largest size,
also when it is compressed.
"""

from __future__ import annotations

import math
import zlib
from dataclasses import dataclass

#: Bytes a second that an API call has to move, besides the seconds that it may wait.
SLOWEST_CALL = 16 * 1024

#: The same of a file that is sent. It may travel on a slow line, and for days.
SLOWEST_FILE = 1024

#: Bytes of a file for which a peer has the whole time again.
STEP = 64 * 1024

#: Content codings that zlib decodes, and its window for all of them.
CODINGS, ANY_WINDOW = ("gzip", "x-gzip", "deflate"), zlib.MAX_WBITS | 32


class ExceededError(Exception):
    """A peer has exceeded a bound; the text says which."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """What an exchange may take.

    Attributes:
        seconds: Time for connecting and waiting in all, besides that for the bytes that are moved.
        size: Bytes of a response that is kept in memory, when it is decoded.
    """

    seconds: float
    size: int


#: For clients of tests.
NO_BOUNDS = Bounds(math.inf, 2**63)


class Body:
    """Gathers the body of a response, and decodes it.

    Args:
        size: How many bytes it may have at most.
        coding: Its content coding, one of :data:`CODINGS`; empty for none.
    """

    def __init__(self, size: int, coding: str) -> None:
        self._most = size
        self._coding = coding
        self._decoder = zlib.decompressobj(ANY_WINDOW) if coding else None
        self._received = self._decoded = 0
        self._pieces: list[bytes] = []

    def add(self, piece: bytes) -> None:
        """Add a *piece* that was received.

        Raises:
            ExceededError: It is too big.
            zlib.error: It is not coded so.
        """
        self._received += len(piece)
        if self._decoder is not None:
            piece = self._decode(self._decoder, piece)
        self._decoded += len(piece)
        if max(self._received, self._decoded) > self._most:
            raise ExceededError(f"it has more than {self._most / 1024**2:g} MiB")
        self._pieces.append(piece)

    def _decode(self, decoder: zlib._Decompress, piece: bytes) -> bytes:
        room = self._most - self._decoded + 1  # one byte more shows that it is too big
        try:
            return decoder.decompress(piece, room)
        except zlib.error:
            if self._coding != "deflate" or self._received > len(piece):
                raise
        self._decoder = zlib.decompressobj(-zlib.MAX_WBITS)  # as some servers understand the term
        return self._decoder.decompress(piece, room)

    def content(self) -> bytes:
        """Return all of it.

        Raises:
            zlib.error: It is not complete.
        """
        if self._decoder is not None and self._received and not self._decoder.eof:
            raise zlib.error("the compressed content has no end")
        return b"".join(self._pieces) if len(self._pieces) != 1 else self._pieces[0]
