"""Which values are newer: those of an entity, or those in a response that arrives late.

A query may be sent before a write and its response may arrive after it, with the values from before
the write::

    read   ──●────────────────────────●──▶   the response has status = "queued"
    write  ──────●───────────●───────────▶   the server has applied status = "running"

Such a response must not bring the old values back. So each read gets a number when it is sent, and
while any read is open, the tracker remembers which attributes were written, with the number of the
latest read that was sent before. A response does not overwrite what was written after its read was
sent. While no read is open, nothing is remembered.

The same holds for two reads. If the response to the later one arrives first, its values stay:
they are from a time at which the earlier read was open too, so they are right for both. For this,
an entity remembers which read brought which attribute, if an earlier read was still open.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Self, TypeAlias
from weakref import ref

from aioftrackjobs.models import Entity

#: The known entities in a response, each with its row.
Rows: TypeAlias = Iterable[tuple[Entity, Mapping[str, Any]]]

_NO_NUMBERS: Mapping[str, int] = {}


class _Written(ref[Entity]):
    """The attributes of one entity that were written while reads were open.

    It is a weak reference: if nothing else holds the entity, no values have to be protected.

    Attributes:
        key: The ``id()`` of the entity.
        names: For each attribute, the number of the latest read that was sent before the write.
        latest: The highest of these numbers.
    """

    __slots__ = ("key", "latest", "names")

    key: int
    names: dict[str, int]
    latest: int

    def __new__(cls, entity: Entity, on_collected: Callable[[_Written], None]) -> Self:
        self = super().__new__(cls, entity, on_collected)
        self.key, self.names, self.latest = id(entity), {}, 0
        return self


class ReadTracker:
    """Keeps late responses from overwriting newer values of the entities of one session.

    Attributes:
        open_reads: Numbers of the reads whose response has not arrived, the oldest first.
    """

    def __init__(self) -> None:
        self.open_reads: dict[int, None] = {}
        self._count = 0
        self._latest_received = 0
        self._written: dict[int, _Written] = {}  # by id() of the entity, the latest write last
        self._collected: list[_Written] = []  # those in _written whose entity is gone

    def remembered_writes(self) -> int:
        """Return the number of entities with writes that an open read may not overwrite."""
        return len(self._written)

    @contextmanager
    def reading(self) -> Iterator[int]:
        """Count the block as an open read, and return its number."""
        self._count += 1
        number = self._count
        self.open_reads[number] = None
        try:
            yield number
        finally:
            del self.open_reads[number]
            self._forget_old_writes()

    def _forget_old_writes(self) -> None:
        """Forget the writes that are older than all open reads."""
        oldest = next(iter(self.open_reads), self._count + 1)
        while self._written:
            key, first = next(iter(self._written.items()))
            if first.latest >= oldest:
                return
            del self._written[key]
        self._collected.clear()

    def note_write(self, entity: Entity, names: Iterable[str]) -> None:
        """Remember that the server has applied values of *entity*. Call it while reads are open."""
        while self._collected:  # a new entity may have the same id() as one that is gone
            gone = self._collected.pop()
            if self._written.get(gone.key) is gone:
                del self._written[gone.key]
        written = self._written.pop(id(entity), None)
        if written is None:
            written = _Written(entity, self._collected.append)
        written.names.update(dict.fromkeys(names, self._count))
        written.latest = self._count
        self._written[id(entity)] = written

    @contextmanager
    def keeping_newer(self, read: int, rows: Rows = ()) -> Iterator[None]:
        """Restore, after the block has loaded a response, the values that are newer than it.

        Args:
            read: The number of the read that the response belongs to.
            rows: The known entities in the response. Values that later reads have brought to them
                are newer, too.
        """
        newer: list[tuple[Entity, dict[str, object]]] = []
        for written in reversed(self._written.values()):
            if written.latest < read:
                break
            if (entity := written()) is not None:
                names = [name for name, number in written.names.items() if number >= read]
                newer.append((entity, {name: entity._remote[name] for name in names}))
        if read < self._latest_received:
            for entity, row in rows:
                numbers, remote = _numbers_of(entity), entity._remote
                names = [name for name in row if name in remote and numbers.get(name, 0) > read]
                newer.append((entity, {name: remote[name] for name in names}))
        try:
            yield
        finally:
            for entity, values in newer:
                entity._remote.update(values)

    def note_response(self, read: int, rows: Rows) -> None:
        """Remember which attributes *read* has brought, if a read that was sent earlier is open."""
        self._latest_received = max(self._latest_received, read)
        if next(iter(self.open_reads)) >= read:
            return
        shared: dict[tuple[str, ...], dict[str, int]] = {}  # one mapping for all rows of a page
        for entity, row in rows:
            names = tuple(row)
            numbers = shared.get(names)
            if numbers is None:
                numbers = shared[names] = dict.fromkeys(names, read)
            before = _numbers_of(entity)
            if before and (before.keys() != numbers.keys() or max(before.values()) > read):
                higher = {
                    name: number for name, number in before.items() if number > numbers.get(name, 0)
                }
                numbers = numbers | higher
            object.__setattr__(entity, "_read_numbers", numbers)


def _numbers_of(entity: Entity) -> Mapping[str, int]:
    """Return which read brought which attribute of *entity*, as far as it was remembered."""
    numbers: Mapping[str, int] = getattr(entity, "_read_numbers", _NO_NUMBERS)
    return numbers
