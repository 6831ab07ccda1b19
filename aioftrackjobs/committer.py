"""What a unit of work needs of its session."""

from __future__ import annotations

from collections.abc import Awaitable, Sequence
from typing import Any, Protocol
from weakref import WeakValueDictionary

from aioftrackjobs.errors import TransportError
from aioftrackjobs.models import Entity, Freshness
from aioftrackjobs.protocol.operations import Operation
from aioftrackjobs.room import Room
from aioftrackjobs.tickets import Outcome, Settle, Ticket


class CommitQueue(Protocol):
    """Where commits wait to be sent."""

    @property
    def room(self) -> Room:
        """Where to wait before a commit is submitted."""
        ...

    def submit(
        self,
        changes: Sequence[Operation],
        settle: Settle,
        *,
        overtakes: bool,
        doubt: TransportError | None,
    ) -> Ticket:
        """Queue a commit; *settle* hears of its end in any case."""
        ...

    def wait(self, ticket: Ticket) -> Awaitable[Outcome]:
        """Wait for the end of a commit; a cancelled wait withdraws it if it was not sent."""
        ...


class Committer(Protocol):
    """What a unit of work needs of its session.

    Attributes:
        creators: The unit that has yet to create an entity, by the ``id()`` of the entity.
        freshness: Told what was written while reads are under way.
    """

    creators: WeakValueDictionary[int, Any]
    freshness: Freshness

    @property
    def queue(self) -> CommitQueue:
        """Where commits wait to be sent.

        Raises:
            SessionStateError: The session is not open.
        """
        ...

    async def merge(self, rows: Sequence[Any]) -> None:
        """Take over what the server says of the entities it wrote."""
        ...

    def forget(self, entity: Entity) -> None:
        """Detach an entity that does not exist on the server."""
        ...
