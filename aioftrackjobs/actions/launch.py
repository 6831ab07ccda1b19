"""Launch: the click that has launched an action, as its function sees it."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from typing import Any, TypeVar, overload

from aioftrackjobs.actions.action_event import ActionEvent, Selected, is_of
from aioftrackjobs.config.settings import require_text
from aioftrackjobs.errors import ConfigurationError
from aioftrackjobs.models import Entity, User
from aioftrackjobs.protocol.query import PAGE_SIZE, bind, select
from aioftrackjobs.session import AsyncSession, connection_of, context_of

E = TypeVar("E", bound=Entity)


class Launch:
    """A click on an action: who, on what, and with which values.

    ::

        async def deliver(launch: Launch, form: Delivery, job: RunningJob) -> str:
            versions = await launch.selection("AssetVersion", "asset.name, components")

    Attributes:
        session: The session that serves the actions; it acts as its own user.
        user: The user who has clicked; None if the event names none, or one that does not exist.
        selected: What is selected, as the event has it: table and id of each entity.
        event: The data of the event.
        source: Where the event comes from.
    """

    def __init__(self, session: AsyncSession, event: ActionEvent, user: User | None) -> None:
        self.session = session
        self.user = user
        self.selected: tuple[Selected, ...] = event.selection
        self.event: Mapping[str, Any] = event.data
        self.source: Mapping[str, Any] = event.source

    def __repr__(self) -> str:
        name = self.user.username if self.user else None
        return f"<{type(self).__name__} by {name} on {len(self.selected)} selected>"

    @overload
    async def selection(self, kind: type[E], projections: str = "") -> list[E]: ...
    @overload
    async def selection(self, kind: str, projections: str = "") -> list[Entity]: ...
    async def selection(self, kind: type[Entity] | str, projections: str = "") -> list[Any]:
        """Return the selected entities of a type, in the order of the selection.

        Those of other types, and those that are deleted meanwhile, are left out. All are read in
        one query, up to 500.

        Args:
            kind: A model such as ``Job``, or the name of an entity type. ``Shot`` finds shots only;
                ``TypedContext`` finds all of tasks, shots, sequences and folders.
            projections: Attributes to load; the default ones of the type if empty.

        Raises:
            ServerError: The server refused the query.
            TransportError: The server could not be reached.
        """
        require_text("projections", projections)
        model = context_of(self.session).model(kind)
        name = model.entity_type
        ids = [each.id for each in self.selected if is_of(each, name)]
        found: dict[str, Entity] = {}
        for start in range(0, len(ids), PAGE_SIZE):
            criteria = bind("id in {ids}", {"ids": ids[start : start + PAGE_SIZE]})
            query = f"{name} where {criteria}"
            if projections.strip():
                query = select(["id", projections], name, criteria)
            found |= {each["id"]: each for each in await self.session.query(query).all()}
        return [found[each] for each in ids if each in found]

    def as_user(self) -> AbstractAsyncContextManager[AsyncSession]:
        """Return a new session that acts as who has clicked, to be entered with ``async with``.

        Only a global API key may act as other users. The session is for this launch alone: close
        it in the action.

        Raises:
            ConfigurationError: It is not known who has clicked.
        """
        name = self.user.username if self.user else None
        if not name:
            raise ConfigurationError(["the event of the launch names no user"])
        credentials = connection_of(self.session).credentials
        return AsyncSession(credentials.server_url, credentials.api_key.reveal(), name, journal="")
