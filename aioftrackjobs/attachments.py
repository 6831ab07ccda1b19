"""Files to and from the server location ``ftrack.server``.

Source:
    protocol.md, section 6.
"""

from __future__ import annotations

import logging
import os
import warnings
from collections import OrderedDict
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import IO, Any
from urllib.parse import urljoin
from uuid import uuid4

import anyio
from anyio.to_thread import run_sync

from aioftrackjobs.content import CHUNK, Content, Uploadable, open_content
from aioftrackjobs.errors import (
    CommitUncertainError,
    FtrackJobsError,
    MalformedAnswerError,
    SessionStateError,
    TransferError,
    UnsupportedLocationError,
)
from aioftrackjobs.models import (
    ComponentLocation,
    Entity,
    FileComponent,
    Location,
)
from aioftrackjobs.protocol.locations import SERVER_LOCATION_ID
from aioftrackjobs.protocol.upload import (
    UploadTarget,
    decode_upload_target,
    encode_upload_request,
    upload_file_name,
)
from aioftrackjobs.transport import WireRequest
from aioftrackjobs.unit_of_work import UnitOfWork
from aioftrackjobs.workspace import Workspace

logger = logging.getLogger(__name__)

#: Seconds that cleaning up after a failed upload may take.
_CLEANING_GRACE = 5.0

#: Redirections that ask for the same request at another address, and how many are followed.
_SENT_ELSEWHERE, _REDIRECTIONS = (307, 308), 3

#: First digit of the HTTP status codes that mean success.
_SUCCESS = 2

_SECOND = 2

#: Jobs that are remembered to warn of a second attachment; the oldest are forgotten.
_WATCHED_JOBS = 10_000


async def upload(
    workspace: Workspace,
    source: Uploadable,
    *,
    data: Mapping[str, Any],
    location: Entity | None = None,
    name: str | None = None,
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
    unit = UnitOfWork(workspace)
    async with open_content(source, name) as content:
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
        try:
            await _send_bytes(workspace, component, content)
        except BaseException:
            unit.rollback()
            with suppress(SessionStateError):
                await workspace.connection.host.finish(_remove_bytes, workspace, component.id)
            raise
        await _register(workspace, unit, component)
    return component


async def _register(workspace: Workspace, unit: UnitOfWork, component: FileComponent) -> None:
    """Commit *unit*; if that is refused, the file goes too. A cancellation waits for the end."""
    problem: FtrackJobsError | None = None

    async def commit() -> None:
        nonlocal problem
        try:
            await unit.commit()
        except CommitUncertainError as exc:
            problem = exc  # it may be registered: the file must stay
        except FtrackJobsError as exc:
            problem = exc
            unit.rollback()
            await _remove_bytes(workspace, component.id)

    await workspace.connection.host.finish(commit)
    if problem is not None:
        raise problem


async def _send_bytes(workspace: Workspace, component: FileComponent, content: Content) -> None:
    target = await _upload_target(workspace, component, content)
    headers = {name.lower(): value for name, value in target.headers.items()}
    headers["content-length"] = str(content.size)
    url = target.url
    for _ in range(_REDIRECTIONS):
        request = WireRequest("PUT", url, headers, content.chunks())
        response = await workspace.connection.transport.send(request)
        if response.status not in _SENT_ELSEWHERE or response.location is None:
            break
        url = urljoin(url, response.location)
    if not response.status // 100 == _SUCCESS:
        raise TransferError(
            f"the upload of {component['name']!r} was refused with HTTP {response.status}"
        )


async def _upload_target(
    workspace: Workspace, component: FileComponent, content: Content
) -> UploadTarget:
    operation = encode_upload_request(
        component.id,
        file_name=upload_file_name(component.name, component.file_type or ""),
        file_size=content.size,
        checksum=content.checksum,
    )
    (result,) = await workspace.connection.call([operation])
    try:
        return decode_upload_target(result)
    except (KeyError, TypeError, AttributeError):
        raise MalformedAnswerError("no URL to upload to", status=200) from None


async def _remove_bytes(workspace: Workspace, component_id: str) -> None:
    """Remove a file that no component refers to; if that fails, it is only in nobody's way."""
    url = workspace.connection.component_url("remove", component_id)
    with anyio.move_on_after(_CLEANING_GRACE):
        try:
            await workspace.connection.transport.send(WireRequest("GET", url))
        except FtrackJobsError:
            logger.debug("the file of %s could not be removed", component_id, exc_info=True)


class AttachmentWatch:
    """Warns when a Job gets a second attachment: the web interface offers only one."""

    def __init__(self) -> None:
        self._counts: OrderedDict[str, int] = OrderedDict()

    def note(self, job_id: str) -> None:
        """Take note of an attachment of the Job; the second one warns, once."""
        self._counts[job_id] = count = self._counts.get(job_id, 0) + 1
        self._counts.move_to_end(job_id)
        if len(self._counts) > _WATCHED_JOBS:
            self._counts.popitem(last=False)
        if count == _SECOND:
            warnings.warn(
                f"Job {job_id} gets a second attachment; ftrack's web interface offers only one "
                "of them for download",
                stacklevel=3,
            )


async def download(workspace: Workspace, component: Entity | str, path: Path) -> None:
    """Download the file of *component* to *path*.

    It grows under a temporary name beside *path*, and gets its own when it is complete.

    Raises:
        TransferError: The server has no such file, it was cut off, or it cannot be written.
    """
    component_id = component if isinstance(component, str) else component["id"]
    url = workspace.connection.component_url("get", component_id)
    request = WireRequest("GET", url, {"accept-encoding": "identity"})
    if await run_sync(path.is_dir):
        raise TransferError(f"{path} is a directory; name the file to write")
    partial = path.with_name(f".{path.name}.{uuid4().hex[:8]}.part")
    try:
        await _receive(workspace, request, partial, component_id)
        await run_sync(os.replace, partial, path)
    except OSError as exc:
        raise TransferError(f"{path} cannot be written: {exc.strerror}") from exc
    finally:
        with anyio.CancelScope(shield=True), suppress(FileNotFoundError):
            await run_sync(os.unlink, partial)


async def _receive(
    workspace: Workspace, request: WireRequest, partial: Path, component_id: str
) -> None:
    async with workspace.connection.transport.stream(request) as answer:
        if answer.status // 100 != _SUCCESS:
            raise TransferError(
                f"the server has no file for component {component_id} (HTTP {answer.status})"
            )
        received, block, gathered = 0, [], 0
        # Not in a thread: one that a cancellation leaves behind would make the file after all.
        with partial.open("xb", buffering=0) as file:
            async for chunk in answer.chunks():
                block.append(chunk)
                gathered += len(chunk)
                if gathered >= CHUNK:  # a thread for each chunk would take longer than writing it
                    received += await run_sync(_write_all, file, block)
                    block, gathered = [], 0
            received += await run_sync(_write_all, file, block)
        if answer.size is not None and received != answer.size:
            raise TransferError(
                f"component {component_id} broke off after {received} of {answer.size} bytes"
            )


def _write_all(file: IO[bytes], block: list[bytes]) -> int:
    """Write *block*, and return its size; an unbuffered file may take less than it is given."""
    data = memoryview(b"".join(block))
    written = 0
    while written < len(data):
        written += file.write(data[written:])
    return written
