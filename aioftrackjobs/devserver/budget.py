"""How many bytes one answer may take, held against each step of its making."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

#: Told of bytes as they come; raises an error when they are more than there may be.
Meter: TypeAlias = Callable[[int], None]


class NoRoomError(Exception):
    """The answer would be allowed, and there is no room for it as long as others hold theirs."""


class Budget:
    """Bytes that may be read for an answer, and that it may take itself.

    Both grow without end where a query has no limit, the second also where relations lead to
    the same entities again and again.
    """

    def __init__(self, size: int, exceeded: Callable[[], Exception]) -> None:
        self._size = size
        self._exceeded = exceeded

    def meter(self) -> Meter:
        """Return a meter for one step, which has all of the budget for itself."""
        left = self._size

        def spend(size: int) -> None:
            nonlocal left
            left -= size
            if left < 0:
                raise self._exceeded()

        return spend


def unmetered(_: int) -> None:
    """Let everything pass: a meter for what nobody asks for from outside."""
