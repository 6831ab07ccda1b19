"""Answers that are older than what was written meanwhile.

A query that leaves before a write may be answered after it, with the values of before. What was
written since the query was handed over is kept then. While no read is under way, nothing has to
be remembered, and nothing is.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from aioftrackjobs.models._entity import Entity


@dataclass(slots=True)
class _Written:
    """What was written of an entity, which is held so that its ``id()`` stays its own.

    Attributes:
        names: The attributes, each with the number of the latest read that was older.
        latest: The highest of those numbers.
    """

    entity: Entity
    names: dict[str, int] = field(default_factory=dict)
    latest: int = 0


class Freshness:
    """The reads of one session that are under way, and what was written during them.

    Attributes:
        reads: Their numbers, oldest first.
    """

    def __init__(self) -> None:
        self.reads: dict[int, None] = {}
        self._count = 0
        self._written: dict[int, _Written] = {}  # by the id() of the entity, the latest at the end

    @contextmanager
    def reading(self) -> Iterator[int]:
        """Let a read be under way in the block; gives its number."""
        self._count += 1
        number = self._count
        self.reads[number] = None
        try:
            yield number
        finally:
            del self.reads[number]
            self._forget()

    def _forget(self) -> None:
        """Forget what is older than all reads that are still under way."""
        oldest = next(iter(self.reads), self._count + 1)
        while self._written:
            key, first = next(iter(self._written.items()))
            if first.latest >= oldest:
                return
            del self._written[key]

    def note(self, entity: Entity, names: Iterable[str]) -> None:
        """Remember that the server has applied values of *entity*, while a read is under way."""
        written = self._written.pop(id(entity), None) or _Written(entity)
        written.names.update(dict.fromkeys(names, self._count))
        written.latest = self._count
        self._written[id(entity)] = written

    @contextmanager
    def keeping(self, read: int) -> Iterator[None]:
        """Keep what was written since *read* began, whatever the block takes over from it."""
        kept: list[tuple[Entity, dict[str, object]]] = []
        for written in reversed(self._written.values()):
            if written.latest < read:
                break
            remote = written.entity._remote
            names = [name for name, latest in written.names.items() if latest >= read]
            kept.append((written.entity, {name: remote[name] for name in names}))
        try:
            yield
        finally:
            for entity, values in kept:
                entity._remote.update(values)
