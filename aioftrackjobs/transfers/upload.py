"""Uploads files to the server location ``ftrack.server``, and registers them as components.

The order is that of the official Python client: first the bytes, then component and location in one
commit (``_register``), so that no component is ever visible without its file. If either fails, the
bytes are removed. The journal notes each upload before its first byte, so that
:func:`remove_unregistered` can remove the bytes of a process that was killed.

Source:
    docs/protocol.md, section 6.2.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

import anyio

from aioftrackjobs.commit.unit_of_work import UnitOfWork
from aioftrackjobs.connection import Connection
from aioftrackjobs.entities.context import EntityContext
from aioftrackjobs.entities.queries import Query
from aioftrackjobs.errors import (
    CommitUncertainError,
    FtrackJobsError,
    SessionStateError,
    UnsupportedLocationError,
)
from aioftrackjobs.models import ComponentLocation, Entity, FileComponent, Location
from aioftrackjobs.protocol.locations import SERVER_LOCATION_ID
from aioftrackjobs.protocol.query import PAGE_SIZE, key_criteria, select
from aioftrackjobs.protocol.upload import PartSizes
from aioftrackjobs.protocol.values import Reference
from aioftrackjobs.transfers.content import Content, Uploadable, open_content
from aioftrackjobs.transfers.control import ProgressCallback, run_in_background
from aioftrackjobs.transfers.multipart import FileUpload
from aioftrackjobs.transport import WireRequest

logger = logging.getLogger(__name__)

#: HTTP statuses from here on mean that the server failed.
_SERVER_FAULT = 500

#: Seconds that the removal of a file may take.
_CLEANING_GRACE = 5.0

#: Seconds to wait, before the removal, for a request that could still make the file.
_SETTLING_GRACE = 5.0


async def upload(
    context: EntityContext,
    source: Uploadable,
    *,
    data: Mapping[str, Any],
    location: Entity | None = None,
    name: str | None = None,
    verified: bool = True,
    progress: ProgressCallback | None = None,
    sizes: PartSizes | None = None,
) -> FileComponent:
    """Upload *source*, and register it as a component of the server location.

    Raises:
        TransferError: The file could not be read, or the server did not accept it.
        UnsupportedLocationError: *location* is not the server location.
        ServerError: The server refused to register the component.
    """
    if location is not None and not (isinstance(location, Location) and location.is_server):
        raise UnsupportedLocationError(f"only ftrack.server accepts uploads, not {location!r}")
    unit = context.new_unit()
    connection = context.connection
    async with connection.transfer_limiter.admit(), open_content(source, name) as content:
        component = _record(context, unit, content, data)
        file_upload = FileUpload(
            connection,
            component,
            content,
            verified=verified,
            sizes=sizes or PartSizes(),
            progress=progress,
        )
        try:
            await connection.journal.record_upload(component.id)
            await run_in_background(connection.background, file_upload.run, file_upload.stop_token)
        except BaseException:
            unit.rollback()
            with suppress(SessionStateError):
                await connection.background.finish(_clean_up, connection, file_upload, component.id)
            raise
        await _register(connection, unit, component.id)
    return component


def _record(
    context: EntityContext, unit: UnitOfWork, content: Content, data: Mapping[str, Any]
) -> FileComponent:
    """Record component and location in *unit*, which is committed after the upload."""
    values = {"name": content.name, "file_type": content.file_type, "size": content.size, **data}
    component = context.create(FileComponent, values, unit=unit)
    context.create(
        ComponentLocation,
        {
            "component_id": component.id,
            "location_id": SERVER_LOCATION_ID,
            "resource_identifier": component.id,
        },
        unit=unit,
    )
    return component


async def _register(connection: Connection, unit: UnitOfWork, component_id: str) -> None:
    """Commit *unit*; remove the file if the commit fails. A cancellation waits for the end."""
    error: FtrackJobsError | None = None

    async def commit() -> None:
        nonlocal error
        try:
            await unit.commit()
            connection.journal.release_upload(component_id)
        except CommitUncertainError as exc:
            error = exc  # the component may exist, so the file must stay
        except FtrackJobsError as exc:
            error = exc
            unit.rollback()
            await _remove_bytes(connection, component_id)

    await connection.background.finish(commit)
    if error is not None:
        raise error


async def _clean_up(connection: Connection, file_upload: FileUpload, component_id: str) -> None:
    """Remove the file of a failed upload; in the background if the network does not respond."""

    async def settle_and_remove() -> None:
        with connection.background.optional():
            await file_upload.settled()
            await _remove_bytes(connection, component_id)

    with anyio.move_on_after(_SETTLING_GRACE) as settling:
        await file_upload.settled()
    if settling.cancelled_caught:
        connection.background.spawn(settle_and_remove)
    else:
        await _remove_bytes(connection, component_id)


async def _remove_bytes(connection: Connection, component_id: str) -> bool:
    """Remove a file that no component refers to, and return whether it is removed.

    If that fails, the file takes space but is not visible, and the journal still has it.
    """
    url = connection.component_url("remove", component_id)
    with anyio.move_on_after(_CLEANING_GRACE):
        try:
            response = await connection.transport.send(WireRequest("GET", url))
        except FtrackJobsError:
            logger.debug("the file of %s could not be removed", component_id, exc_info=True)
        else:
            if response.status < _SERVER_FAULT:
                connection.journal.release_upload(component_id)
                return True
    return False


async def remove_unregistered(context: EntityContext, component_ids: Sequence[str]) -> bool:
    """Remove the files of interrupted uploads, unless a component refers to them.

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
                done &= await _remove_bytes(context.connection, component_id)
    return done
