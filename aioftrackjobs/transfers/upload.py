"""Uploading files to the server location ``ftrack.server``, and registering them.

Source:
    protocol.md, section 6.2.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

import anyio

from aioftrackjobs.commit.unit_of_work import UnitOfWork
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
from aioftrackjobs.protocol.upload import PartSizes, upload_file_name
from aioftrackjobs.protocol.values import Reference
from aioftrackjobs.transfers.content import Content, Uploadable, open_content
from aioftrackjobs.transfers.control import ProgressCallback, run_in_background
from aioftrackjobs.transfers.multipart import FileUpload
from aioftrackjobs.transport import WireRequest

logger = logging.getLogger(__name__)

#: HTTP status codes from here on say that the server could not.
_SERVER_FAULT = 500

#: Seconds that cleaning up after a failed upload may take.
_CLEANING_GRACE = 5.0

#: Seconds that it may wait before for what was sent, and would make a file after it was removed.
_SETTLING_GRACE = 5.0


async def upload(
    workspace: EntityContext,
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

    The order is the official Python client's: bytes first, then the component and its location
    in one commit, so that nobody ever sees a component without its file.

    Raises:
        TransferError: The file could not be read, or the server did not take it.
        UnsupportedLocationError: The location is another one.
        ServerError: The server refused to register it.
    """
    if location is not None and not (isinstance(location, Location) and location.is_server):
        raise UnsupportedLocationError(f"only ftrack.server takes uploads, not {location!r}")
    unit = workspace.new_unit()
    async with workspace.connection.transfer_limiter.admit(), open_content(source, name) as content:
        component = _record(workspace, unit, content, data)
        sending = FileUpload(
            workspace.connection,
            component.id,
            upload_file_name(component.name, component.file_type or ""),
            content,
            verified=verified,
            sizes=sizes or PartSizes(),
            progress=progress,
        )
        try:
            await workspace.connection.journal.record_upload(component.id)
            await run_in_background(workspace.connection.background, sending.run)
        except BaseException:
            unit.rollback()
            with suppress(SessionStateError):
                await workspace.connection.background.finish(
                    _clean_up, workspace, sending, component.id
                )
            raise
        await _register(workspace, unit, component)
    return component


def _record(
    workspace: EntityContext, unit: UnitOfWork, content: Content, data: Mapping[str, Any]
) -> FileComponent:
    found = {"name": content.name, "file_type": content.file_type, "size": content.size}
    described = {**found, **data}
    component = workspace.create(FileComponent, described, unit=unit)
    workspace.create(
        ComponentLocation,
        {
            "component_id": component.id,
            "location_id": SERVER_LOCATION_ID,
            "resource_identifier": component.id,
        },
        unit=unit,
    )
    return component


async def _register(workspace: EntityContext, unit: UnitOfWork, component: FileComponent) -> None:
    """Commit *unit*; if that is refused, the file goes too. A cancellation waits for the end."""
    problem: FtrackJobsError | None = None

    async def commit() -> None:
        nonlocal problem
        try:
            await unit.commit()
            workspace.connection.journal.release_upload(component.id)
        except CommitUncertainError as exc:
            problem = exc  # it may be registered: the file must stay
        except FtrackJobsError as exc:
            problem = exc
            unit.rollback()
            await _remove_bytes(workspace, component.id)

    await workspace.connection.background.finish(commit)
    if problem is not None:
        raise problem


async def _clean_up(workspace: EntityContext, sending: FileUpload, component_id: str) -> None:
    with anyio.move_on_after(_SETTLING_GRACE) as settling:
        await sending.settled()
    if settling.cancelled_caught:  # whoever was cancelled waits no longer
        workspace.connection.background.spawn(_clean_up_late, workspace, sending, component_id)
    else:
        await _remove_bytes(workspace, component_id)


async def _clean_up_late(workspace: EntityContext, sending: FileUpload, component_id: str) -> None:
    with workspace.connection.background.keep_alive():
        await sending.settled()
        await _remove_bytes(workspace, component_id)


async def _remove_bytes(workspace: EntityContext, component_id: str) -> bool:
    """Remove a file that no component refers to, and tell whether that is done.

    If it fails, the file is only in nobody's way, and the journal remembers it.
    """
    url = workspace.connection.component_url("remove", component_id)
    with anyio.move_on_after(_CLEANING_GRACE):
        try:
            response = await workspace.connection.transport.send(WireRequest("GET", url))
        except FtrackJobsError:
            logger.debug("the file of %s could not be removed", component_id, exc_info=True)
        else:
            if response.status < _SERVER_FAULT:
                workspace.connection.journal.release_upload(component_id)
                return True
    return False


async def remove_unregistered(workspace: EntityContext, component_ids: Sequence[str]) -> bool:
    """Remove files of uploads that died, and that no component refers to; True if all are seen to.

    Raises:
        ServerError: The server refused to tell which are registered.
        TransportError: It did not answer.
    """
    removed = True
    for start in range(0, len(component_ids), PAGE_SIZE):
        ids = component_ids[start : start + PAGE_SIZE]
        criteria = key_criteria([Reference("Component", (("id", each),)) for each in ids])
        query: Query[Entity] = Query(workspace, select(["id"], "Component", criteria))
        registered = {row["id"] for row in await query.all()}
        for component_id in ids:
            if component_id in registered:
                workspace.connection.journal.release_upload(component_id)
            else:
                removed &= await _remove_bytes(workspace, component_id)
    return removed
