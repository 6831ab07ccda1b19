"""Jobs that the server does not know, because it could not be reached while they ran.

The journal keeps how such a Job ended, and for whom it is to be created: see
:mod:`aioftrackjobs.jobs.journal_replay`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple
from uuid import UUID

from aioftrackjobs.background import SafeLogger
from aioftrackjobs.entities.context import EntityContext
from aioftrackjobs.errors import ServerError, TransferError
from aioftrackjobs.jobs.block import find_user
from aioftrackjobs.jobs.data import compose_recovered_data
from aioftrackjobs.models import Entity, FileComponent, Job, JobComponent, JobStatus

if TYPE_CHECKING:
    from aioftrackjobs.commit.unit_of_work import UnitOfWork

logger: SafeLogger = SafeLogger(__name__)

#: The keys of a final report that say for whom its Job is created if there is none, and which text
#: is attached to it then.
CREATE_FOR, LOG = "create_for", "log"


class Log(NamedTuple):
    """A text that is attached to a Job.

    Attributes:
        name: The name of the file.
        text: Its content.
    """

    name: str
    text: str


def report_to_create(
    user: Entity | str | UUID | None,
    status: JobStatus,
    data: Mapping[str, Any],
    log: Log | None = None,
) -> str:
    """Return the final report of a Job that the server may not know, as the journal keeps it.

    Args:
        user: Whose Job it is; None for the user of the session.
        status: How it ended.
        data: Its data.
        log: What is attached to it; None for nothing.
    """
    owner = user.__ftrack_reference__().key[0][1] if isinstance(user, Entity) else user
    report: dict[str, Any] = {
        "status": status.value,
        "data": data,
        "has_begun": False,
        CREATE_FOR: None if owner is None else str(owner),
    }
    if log is not None:
        report[LOG] = list(log)
    return json.dumps(report)


def report_of_lost(text: str | None, reason: str, note: Mapping[str, Any]) -> str:
    """Return the final report of a Job whose process died before the server had it.

    Args:
        text: What the journal keeps since its start; see :func:`report_to_create`.
        reason: Why it has failed.
        note: What its data say about who failed it.
    """
    try:
        report = json.loads(text or "null")
    except (ValueError, RecursionError):
        report = None
    if not isinstance(report, dict) or not isinstance(report.get("data"), dict):
        report = {"data": {}, "has_begun": False, CREATE_FOR: None}
    data = compose_recovered_data(json.dumps(report["data"]), reason, note)
    return json.dumps({**report, "status": JobStatus.FAILED.value, "data": data})


def log_in(report: Mapping[str, Any]) -> Log | None:
    """Return what is to be attached by a final report; None if it names nothing."""
    match report.get(LOG):
        case [str(name), str(text)]:
            return Log(name, text)
        case _:
            return None


async def create_ended_job(
    entities: EntityContext,
    job_id: str,
    user: str | None,
    status: JobStatus,
    data: Mapping[str, Any],
    log: Log | None = None,
) -> None:
    """Create a Job that has ended already, in one commit with its log.

    If the log cannot be uploaded, the Job is created without it.

    Raises:
        FtrackJobsError: That did not succeed, or it is not known whether it did.
    """
    owner = await (entities.current_user() if user is None else find_user(entities, user))
    values = {"id": job_id, "status": status, "data": data, "user_id": owner["id"]}
    if log is not None:
        from aioftrackjobs.transfers.upload import upload  # late: few Jobs are created like this

        def link(unit: UnitOfWork, component: FileComponent) -> list[Entity]:
            job = entities.create(Job, values, unit=unit)
            ids = {"component_id": component.id, "job_id": job_id}
            return [job, entities.create(JobComponent, ids, unit=unit)]

        content = log.text.encode("utf-8", "replace")
        try:
            await upload(entities, content, data={}, name=log.name, links=link)
        except (TransferError, ServerError) as exc:
            if isinstance(exc, ServerError) and exc.is_retryable:
                raise
            logger.warning(
                "Job %(job_id)s: its log was not attached: %(error)s", job_id=job_id, error=exc
            )
        else:
            return
    unit = entities.new_unit()
    entities.create(Job, values, unit=unit)
    try:
        await unit.commit()
    except BaseException:
        unit.drop()
        raise
