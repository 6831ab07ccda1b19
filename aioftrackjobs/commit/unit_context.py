"""What the units of work of a session share: what is created, and what others have recorded."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator, Sequence
from typing import Any, Protocol
from weakref import WeakValueDictionary

from aioftrackjobs.models import Entity
from aioftrackjobs.protocol.values import Reference


def creation_key(target: Reference) -> Hashable:
    """Return what an entity to create is found by: its id, which is all that links have of it."""
    return target.key[0][1] if len(target.key) == 1 else target


def not_created(entity: Entity) -> str:
    """Return what an error says of an *entity* that another unit of work has not created."""
    return (
        f"{entity!r} is not yet created, by another unit of work; commit that one first, in the "
        "task that has recorded it, or use one `async with session.unit_of_work()` around both"
    )


class UnitOfWorkContext(Protocol):
    """What a unit of work needs of the entities of its session.

    Attributes:
        creators: The unit that has recorded the creation of an entity and not committed it, by
            :func:`creation_key`.
        count: Numbers the changes in the order in which they are recorded.
    """

    creators: WeakValueDictionary[Hashable, Any]
    count: Iterator[int]

    def units(self) -> Iterable[Any]:
        """Return the units of work that users' code has, of tasks and of blocks."""
        ...

    def merge(self, rows: Sequence[Any]) -> None:
        """Take over values that the server has set in entities that it wrote.

        Raises:
            MalformedResponseError: The rows cannot be read.
        """
        ...

    def note_written(self, entity: Entity, names: Iterable[str]) -> None:
        """Remember that the server has applied new values of an entity.

        A read that began earlier must not overwrite them with older ones.
        """
        ...

    def forget(self, entity: Entity) -> None:
        """Detach an entity that does not exist on the server."""
        ...
