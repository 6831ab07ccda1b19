"""Jobs that the server does not know, because it could not be reached while they ran.

The journal keeps how such a Job ended, and for whom it is to be created: see
:mod:`aioftrackjobs.jobs.journal_replay`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any
from uuid import UUID

from aioftrackjobs.entities.context import EntityContext
from aioftrackjobs.jobs.block import find_user
from aioftrackjobs.models import Entity, Job, JobStatus

#: The key of a final report that says for whom its Job is created if there is none.
CREATE_FOR = "create_for"


def report_to_create(
    user: Entity | str | UUID | None, status: JobStatus, data: Mapping[str, Any]
) -> str:
    """Return the final report of a Job that the server may not know, as the journal keeps it.

    Args:
        user: Whose Job it is; None for the user of the session.
        status: How it ended.
        data: Its data.
    """
    owner = user.__ftrack_reference__().key[0][1] if isinstance(user, Entity) else user
    report = {
        "status": status.value,
        "data": data,
        "has_begun": False,
        CREATE_FOR: None if owner is None else str(owner),
    }
    return json.dumps(report)


async def create_ended_job(
    entities: EntityContext,
    job_id: str,
    user: str | None,
    status: JobStatus,
    data: Mapping[str, Any],
) -> None:
    """Create a Job that has ended already.

    Raises:
        FtrackJobsError: That did not succeed, or it is not known whether it did.
    """
    owner = await (entities.current_user() if user is None else find_user(entities, user))
    unit = entities.new_unit()
    values = {"id": job_id, "status": status, "data": data, "user_id": owner["id"]}
    entities.create(Job, values, unit=unit)
    try:
        await unit.commit()
    except BaseException:
        unit.drop()
        raise
