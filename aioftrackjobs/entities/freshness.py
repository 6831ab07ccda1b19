"""Answers that are older than what was written meanwhile, or read.

A query that leaves before a write may be answered after it, with the values of before. What was
written since the query was handed over is kept then. While no read is under way, nothing has to
be remembered, and nothing is.

So it is with two reads: what the one that was handed over later has brought is kept, if it is
answered first. Its values are of a time at which the earlier one was under way too, so they answer
both. An entity remembers which read brought which attribute, if an earlier one was under way.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Self, TypeAlias
from weakref import ref

if TYPE_CHECKING:
    from aioftrackjobs.models._entity import Entity

#: Entities in an answer, with what it says of them.
Rows: TypeAlias = "Iterable[tuple[Entity, Mapping[str, Any]]]"


class _Written(ref["Entity"]):
    """What was written of an entity, which is forgotten when nobody else holds it.

    Attributes:
        key: The ``id()`` of the entity.
        names: The attributes, each with the number of the latest read that was older.
        latest: The highest of those numbers.
    """

    __slots__ = ("key", "latest", "names")

    key: int
    names: dict[str, int]
    latest: int

    def __new__(cls, entity: Entity, gone: Callable[[_Written], None]) -> Self:
        self = super().__new__(cls, entity, gone)
        self.key, self.names, self.latest = id(entity), {}, 0
        return self


class ReadTracker:
    """The reads of one session that are under way, and what was written during them.

    Attributes:
        reads: Their numbers, oldest first.
    """

    def __init__(self) -> None:
        self.reads: dict[int, None] = {}
        self._count = 0
        self._latest = 0  # of the reads that were answered
        self._written: dict[int, _Written] = {}  # by the id() of the entity, the latest at the end
        self._gone: list[_Written] = []  # of these, those whose entity nobody held any more

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
        self._gone.clear()

    def note(self, entity: Entity, names: Iterable[str]) -> None:
        """Remember that the server has applied values of *entity*, while a read is under way."""
        while self._gone:  # another entity may have got the id()
            gone = self._gone.pop()
            if self._written.get(gone.key) is gone:
                del self._written[gone.key]
        written = self._written.pop(id(entity), None)
        if written is None:
            written = _Written(entity, self._gone.append)
        written.names.update(dict.fromkeys(names, self._count))
        written.latest = self._count
        self._written[id(entity)] = written

    @contextmanager
    def keeping(self, read: int, rows: Rows = ()) -> Iterator[None]:
        """Keep what was written since *read* began, whatever the block takes over from it.

        Args:
            read: Its number.
            rows: What its answer says of known entities: of these, what later reads have brought
                is kept too.
        """
        kept: list[tuple[Entity, dict[str, object]]] = []
        for written in reversed(self._written.values()):
            if written.latest < read:
                break
            if (entity := written()) is not None:
                newer = [name for name, latest in written.names.items() if latest >= read]
                kept.append((entity, {name: entity._remote[name] for name in newer}))
        if read < self._latest:
            for entity, row in rows:
                told, remote = _told(entity), entity._remote
                newer = [name for name in row if name in remote and told.get(name, 0) > read]
                kept.append((entity, {name: remote[name] for name in newer}))
        try:
            yield
        finally:
            for entity, values in kept:
                entity._remote.update(values)

    def note_answer(self, read: int, rows: Rows) -> None:
        """Remember what *read* has brought, if it is answered before one that began earlier."""
        self._latest = max(self._latest, read)
        if next(iter(self.reads)) >= read:
            return
        alike: dict[tuple[str, ...], dict[str, int]] = {}  # one for all rows of a page
        for entity, row in rows:
            names = tuple(row)
            told = alike.get(names)
            if told is None:
                told = alike[names] = dict.fromkeys(names, read)
            before = _told(entity)
            if before and (before.keys() != told.keys() or max(before.values()) > read):
                later = {
                    name: number for name, number in before.items() if number > told.get(name, 0)
                }
                told = told | later
            object.__setattr__(entity, "_told", told)


def _told(entity: Entity) -> Mapping[str, int]:
    """Return which attributes of *entity* were brought by which read, as far as that matters."""
    told: Mapping[str, int] = getattr(entity, "_told", _NOTHING)
    return told


_NOTHING: Mapping[str, int] = {}
