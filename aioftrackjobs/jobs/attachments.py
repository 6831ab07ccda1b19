"""Attachments of Jobs: a file is uploaded, and a ``JobComponent`` links it to the Job.

The traceback of a failed block becomes an attachment here, too.
"""

from __future__ import annotations

import logging
import traceback
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from aioftrackjobs.entities.context import EntityContext
from aioftrackjobs.models import FileComponent, Job
from aioftrackjobs.transfers.upload import upload
from aioftrackjobs.transport import redact

if TYPE_CHECKING:
    from aioftrackjobs.transfers.content import Uploadable
    from aioftrackjobs.transfers.control import ProgressCallback

logger = logging.getLogger(__name__)

#: The name of the file that holds a traceback.
_TRACEBACK_NAME = "traceback.txt"


async def attach(
    entities: EntityContext,
    job: Job,
    source: Uploadable,
    *,
    name: str | None = None,
    data: Mapping[str, Any] | None = None,
    progress: ProgressCallback | None = None,
) -> FileComponent:
    """Upload *source*, and attach it to *job*.

    Args:
        entities: The entities of the session.
        job: A Job that the server has.
        source: What to upload, as :meth:`AsyncSession.create_component` takes it.
        name: File name with extension; needed if *source* has no path.
        data: Attributes of the component.
        progress: Called with the bytes sent, and how many there are.

    Raises:
        TransferError: The file could not be read, or the server did not take it.
        TransportError: The server could not be reached.
    """
    return await upload(
        entities, source, data=data or {}, name=name, job_id=job.id, progress=progress
    )


def format_traceback(error: BaseException, *secrets: str) -> str:
    """Return the traceback of *error*, with causes, groups and notes, without *secrets*."""
    return redact("".join(traceback.format_exception(error)), *secrets)


async def attach_traceback(entities: EntityContext, job: Job, text: str) -> None:
    """Attach *text* as a text file; an error is only logged, as the Job failed by another one."""
    try:
        await attach(entities, job, text.encode(errors="replace"), name=_TRACEBACK_NAME)
    except Exception as exc:  # noqa: BLE001 - the block's own error must come out
        logger.warning("%r: its traceback was not attached: %s", job, exc)
