"""Uploads files to the server location ``ftrack.server``, and registers them as components.

The order is that of the official Python client: first the bytes, then one commit for the component,
its location and the link to a Job, so that no component is ever visible without its file, and none
exists that nothing refers to. If either fails, what is there is removed again
(:class:`Registration`). The journal notes each upload before its first byte, so that
:func:`remove_unregistered` can remove the bytes of a process that was killed.

Whatever the server does, a cancelled upload ends within about a second: what takes longer goes on
in the background of the session.

Source:
    docs/protocol.md, section 6.2.
"""

from __future__ import annotations

import json
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any, TypeAlias, TypeVar

import anyio
from anyio.to_thread import run_sync

from aioftrackjobs.background import SafeLogger
from aioftrackjobs.commit.unit_of_work import UnitOfWork
from aioftrackjobs.config.settings import require_callback, require_name, require_values
from aioftrackjobs.connection import Connection
from aioftrackjobs.entities.context import EntityContext
from aioftrackjobs.entities.queries import Query, fetch_entity, key_reference
from aioftrackjobs.errors import (
    CommitUncertainError,
    DuplicateEntryError,
    FtrackJobsError,
    SessionStateError,
    UnsupportedLocationError,
)
from aioftrackjobs.models import (
    Component,
    ComponentLocation,
    Entity,
    FileComponent,
    Location,
)
from aioftrackjobs.protocol.query import PAGE_SIZE, key_criteria, select
from aioftrackjobs.protocol.upload import SERVER_LOCATION_ID, PartSizes
from aioftrackjobs.protocol.values import Reference
from aioftrackjobs.transfers.content import Content, Uploadable, open_content
from aioftrackjobs.transfers.control import Detached, ProgressCallback, observing, run_in_background
from aioftrackjobs.transfers.multipart import FileUpload
from aioftrackjobs.transport import WireRequest, WireResponse

logger: SafeLogger = SafeLogger(__name__)

C = TypeVar("C", bound=Component)

#: Records in a unit of work what refers to a component, and returns the entities to create.
Links: TypeAlias = Callable[[UnitOfWork, FileComponent], Sequence[Entity]]

#: HTTP statuses: of success, of a file that is gone, and of failures that may pass.
_SUCCESS, _GONE, _SERVER_FAULT, _BUSY = 2, (404, 410), 500, (408, 429)

#: Seconds that a request to remove a file may take.
_REMOVAL_TIMEOUT = 5.0

#: Seconds for which the caller waits for the removal: after an error, and after a cancellation.
_CLEANING_GRACE, _CANCELLED_GRACE = 5.0, 0.4


async def upload(
    context: EntityContext,
    source: Uploadable,
    *,
    data: Mapping[str, Any],
    location: Entity | None = None,
    name: str | None = None,
    links: Links | None = None,
    verified: bool = True,
    progress: ProgressCallback | None = None,
    sizes: PartSizes | None = None,
) -> FileComponent:
    """Upload *source*, and register it as a component of the server location.

    Args:
        context: The entities of the session.
        source: What to upload.
        data: Attributes of the component.
        location: The server location, which is the only one that accepts uploads.
        name: File name with extension; needed if *source* has no path.
        links: Records in a unit of work, in the same commit, what refers to the component.
        verified: Whether to hash the bytes, so that damage is noticed.
        progress: Called with the number of bytes sent.
        sizes: How to cut the file into parts.

    Raises:
        ArgumentError: An argument has a wrong type or value.
        InvalidValueError: An attribute cannot have its value in *data*.
        TransferError: The file could not be read, or the server did not accept it.
        UnsupportedLocationError: *location* is not the server location.
        DuplicateEntryError: A component has the id in *data* already.
        ServerError: The server refused to register the component.
    """
    require_values("data", data)
    require_name("name", name, "a file name", optional=True)
    require_callback("progress", progress)
    context.draft(FileComponent, data)  # before anything is read or sent
    if location is not None and not (isinstance(location, Location) and location.is_server):
        raise UnsupportedLocationError(
            f"only ftrack.server accepts uploads, not {location!r}; upload the file, or create the "
            "component, and await location.add_component(component, source)"
        )
    if "id" in data:
        await _require_free(context, data["id"])
    registration = Registration(context, links)
    async with context.connection.transfer_limiter.admit(), open_content(source, name) as content:
        try:
            component = await registration.send(
                content, data, verified=verified, sizes=sizes, progress=progress
            )
        except BaseException as exc:
            await registration.withdraw(exc)
            raise
        await registration.commit()
    return component


async def _require_free(context: EntityContext, component_id: str) -> None:
    """Raise DuplicateEntryError if a component has an id, whose file would be overwritten."""
    reference = key_reference(context.model(Component), component_id)
    if await fetch_entity(context, reference) is not None:
        raise DuplicateEntryError("DuplicateEntryError", f"there is a component {component_id}")


class Registration:
    """The files of one upload, and the entities that make them visible: all of them, or none.

    Args:
        context: The entities of the session.
        links: Records what refers to a component, and returns the entities that it creates.

    Attributes:
        undo: What removes files that were made on disks; blocks. The latest comes last.
    """

    def __init__(self, context: EntityContext, links: Links | None = None) -> None:
        self._context = context
        self._connection = context.connection
        self._links = links
        self._unit = context.new_unit()
        self._entities: list[Entity] = []
        self._uploads: dict[str, FileUpload] = {}  # by component
        self.undo: list[Callable[[], object]] = []

    def add(self, model: type[C], data: Mapping[str, Any]) -> C:
        """Make a component with *data*, and its place in the server location."""
        component = self._context.create(model, data, unit=self._unit)
        self._entities.append(component)
        self.place(component.id, SERVER_LOCATION_ID, component.id)
        return component

    def place(self, component_id: str, location_id: str, identifier: str) -> None:
        """Register a component in a location."""
        values = {
            "component_id": component_id,
            "location_id": location_id,
            "resource_identifier": identifier,
        }
        self._entities.append(self._context.create(ComponentLocation, values, unit=self._unit))

    async def send(
        self,
        content: Content,
        data: Mapping[str, Any],
        *,
        verified: bool,
        sizes: PartSizes | None = None,
        progress: ProgressCallback | None = None,
    ) -> FileComponent:
        """Upload *content*, and make a component with *data* for it; nothing is committed yet.

        Raises:
            TransferError: The file could not be read, or the server did not accept it.
        """
        values = {"name": content.name, "file_type": content.file_type, "size": content.size}
        component = self.add(FileComponent, {**values, **data})
        if self._links is not None:
            self._entities += self._links(self._unit, component)
        await self.send_file(component, content, verified=verified, sizes=sizes, progress=progress)
        return component

    async def send_file(
        self,
        component: FileComponent,
        content: Content,
        *,
        verified: bool,
        sizes: PartSizes | None = None,
        progress: ProgressCallback | None = None,
    ) -> None:
        """Upload *content* as the file of a component.

        Raises:
            TransferError: The file could not be read, or the server did not accept it.
        """
        file_upload = self._uploads[component.id] = FileUpload(
            self._connection,
            component,
            content,
            verified=verified,
            sizes=sizes or PartSizes(),
            progress=progress,
        )
        background = self._connection.background
        await self._connection.journal.record_upload(component.id)
        with observing(self._connection.observer, "upload", file_upload.meter):
            await run_in_background(background, file_upload.run, file_upload.stop_token)

    async def commit(self) -> None:
        """Commit the entities; remove the files if that fails.

        Raises:
            CommitUncertainError: The components may exist, so that the files stay. When that is
                resolved, the files stay or are removed.
            FtrackJobsError: There is no component, and the files are removed.
        """
        await self._commit_or_withdraw(self._unit.commit)

    async def _commit_or_withdraw(self, commit: Callable[[], Awaitable[None]]) -> None:
        try:
            await commit()
        except CommitUncertainError as exc:

            async def resolve() -> None:
                await self._commit_or_withdraw(self._unit.resolve)

            raise CommitUncertainError(exc.operations, resolve) from exc.__cause__
        except BaseException as exc:
            if not isinstance(exc, DuplicateEntryError):  # the file belongs to the other component
                await self.withdraw(exc)
            raise
        for component_id in self._uploads:
            self._connection.journal.release_upload(component_id)

    async def withdraw(self, error: BaseException) -> None:
        """Remove the files and what was registered of them, because *error* has ended the upload.

        The caller waits for this, but not for long: it goes on in the background.
        """

        async def remove() -> None:
            for file_upload in self._uploads.values():
                await file_upload.completion_ended()
            if not await self._unregister():
                return
            for component_id, file_upload in self._uploads.items():
                if file_upload.has_begun:
                    await remove_file(self._connection, component_id)
                else:
                    self._connection.journal.release_upload(component_id)
            await run_sync(self._undo)

        removal = Detached(self._connection.background, remove)
        with suppress(SessionStateError):
            try:
                if isinstance(error, Exception):
                    await removal.wait(_CLEANING_GRACE)
            finally:
                await self._connection.background.finish(removal.wait, _CANCELLED_GRACE)

    def _undo(self) -> None:
        while self.undo:
            with suppress(OSError):  # a folder that others use by now, or what they have removed
                self.undo.pop()()

    async def _unregister(self) -> bool:
        """Delete what a commit that was refused, or whose caller was cancelled, has created.

        Returns:
            Whether no component refers to the file.
        """
        await self._unit.settled()
        if self._unit.uncertain_operations:
            logger.warning(
                "%(component)r: it is not known whether it was registered",
                component=self._entities[0],
            )
            return False
        left = {id(entity) for entity in self._unit.created}
        registered = [entity for entity in self._entities if id(entity) not in left]
        self._unit.rollback()
        unit = self._context.new_unit()
        for entity in reversed(registered):
            unit.record_delete(entity)
        try:
            await unit.commit()
        except FtrackJobsError as exc:
            logger.warning(
                "%(component)r: its upload failed, and it stays: %(error)s",
                component=self._entities[0],
                error=exc,
            )
            return False
        return True


async def remove_file(connection: Connection, component_id: str) -> None:
    """Remove a file that no component refers to; later in the background if that fails now."""
    problem = await _remove_bytes(connection, component_id)
    if problem is not None:
        if problem:
            _warn(component_id, problem)
        with suppress(SessionStateError):  # it closes: the journal keeps that for a later session
            connection.background.spawn(_remove_later, connection, component_id)


async def _remove_later(connection: Connection, component_id: str) -> None:
    backoff = connection.retry.backoff()
    with connection.background.optional():
        while await backoff.pause():
            if await _remove_bytes(connection, component_id) is None:
                return
    logger.warning(
        "the file of component %(component_id)s, whose upload failed, could not be "
        "removed%(consequence)s",
        component_id=component_id,
        consequence=""
        if connection.journal.state == "off"
        else "; the journal keeps that for later",
    )


def _warn(component_id: str, problem: str) -> None:
    logger.warning(
        "the server does not remove the file of component %(component_id)s, whose upload "
        "failed: %(error)s",
        component_id=component_id,
        error=problem,
    )


async def _remove_bytes(connection: Connection, component_id: str) -> str | None:
    """Remove a file that no component refers to.

    Only the server itself knows that a file is gone. A page, a redirection or a status that any
    gateway may send says nothing about it.

    Returns:
        None if it is gone, and forgotten by the journal. Otherwise that may come later, and this is
        how the server has refused it; empty if it did not.
    """
    url = connection.component_url("remove", component_id)
    with anyio.move_on_after(_REMOVAL_TIMEOUT):
        try:
            response = await connection.transport.send(WireRequest("GET", url))
        except FtrackJobsError:
            logger.debug(
                "the file of %(component_id)s could not be removed",
                component_id=component_id,
                exc_info=True,
            )
            return ""
        if _is_gone(response):
            connection.journal.release_upload(component_id)
            return None
        if response.status < _SERVER_FAULT and response.status not in _BUSY:
            return f"HTTP {response.status}"
    return ""


def _is_gone(response: WireResponse) -> bool:
    """Return whether the server says that a file is removed, or was not there."""
    if response.status // 100 == _SUCCESS:
        is_page = "html" in response.headers.get("content-type", "").lower()
        return not (is_page or response.body.lstrip().startswith(b"<"))
    if response.status not in _GONE:
        return False
    try:
        error = json.loads(response.body)
    except ValueError:
        return False
    return isinstance(error, dict) and "exception" in error


async def remove_unregistered(
    context: EntityContext, component_ids: Sequence[str], refused_since: dict[str, float]
) -> bool:
    """Remove the files of interrupted uploads, unless a component refers to them.

    Args:
        context: The entities of the session.
        component_ids: Their components.
        refused_since: Since when the server refuses to, by component, in monotonic seconds. After
            :attr:`Timings.refusal_limit` a file is left where it is.

    Returns:
        Whether no file has to be tried again.

    Raises:
        ServerError: The server rejected the query for registered components.
        TransportError: The server could not be reached.
    """
    done = True
    for start in range(0, len(component_ids), PAGE_SIZE):
        ids = component_ids[start : start + PAGE_SIZE]
        criteria = key_criteria([Reference("Component", (("id", each),)) for each in ids])
        query: Query[Entity] = Query(context, select(["id"], "Component", criteria))
        registered = {row["id"] for row in await query.all()}
        for component_id in ids:
            if component_id in registered:
                context.connection.journal.release_upload(component_id)
            else:
                done &= await _is_removed(context.connection, component_id, refused_since)
    return done


async def _is_removed(
    connection: Connection, component_id: str, refused_since: dict[str, float]
) -> bool:
    """Remove a file; return whether it need not be tried again."""
    problem = await _remove_bytes(connection, component_id)
    if not problem:
        return problem is None
    if component_id not in refused_since:
        _warn(component_id, f"{problem}; it is tried again")
    since = refused_since.setdefault(component_id, time.monotonic())
    if time.monotonic() - since < connection.timings.refusal_limit:
        return False
    del refused_since[component_id]
    connection.journal.release_upload(component_id)
    return True
