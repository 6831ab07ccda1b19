"""``delayed_job``: Jobs that hand work to systems which a development server does not have.

They are queued, run and end as real ones would without those systems: failed, with the reason.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from types import MappingProxyType
from typing import Any
from uuid import uuid4

from aioftrackjobs.devserver.api.request import ApiRequest, Operation
from aioftrackjobs.devserver.api.server_jobs import Attempt, Outcome, WorkFailedError, queue_job
from aioftrackjobs.devserver.api_errors import EntityNotFoundError, ValidationError, unknown_name

#: By type of Job, what users see and why it cannot be done here.
_JOBS: Mapping[str, tuple[str, str]] = MappingProxyType(
    {
        "SYNC_USERS_LDAP": (
            "Synchronising users with LDAP",
            "No LDAP server is configured.",
        ),
        "EXPORT_REVIEW_SESSION_FEEDBACK": (
            "Exporting review session feedback",
            "The development server exports no review sessions.",
        ),
        "ICONIK_SYNC_STRUCTURE": (
            "Synchronising structure with iconik",
            "No iconik is connected.",
        ),
    }
)


def delayed_job(request: ApiRequest, operation: Operation) -> dict[str, Any]:
    """Answer ``delayed_job``: the Job, which is queued."""
    job_type = operation.get("job_type")
    if not isinstance(job_type, str):
        raise ValidationError("'delayed_job' needs a text 'job_type'.")
    if job_type not in _JOBS:
        raise unknown_name("job_type", job_type, _JOBS)
    data = operation.get("data")
    if data is not None and not isinstance(data, Mapping):
        raise ValidationError("'data' must be an object.")
    if job_type == "ICONIK_SYNC_STRUCTURE":
        _check_iconik(request, data or {})
    description, reason = _JOBS[job_type]
    told = {"description": description, "job_type": job_type}
    return {
        "action": "delayed_job",
        "data": queue_job(request, str(uuid4()), told, partial(_give_up, reason)),
    }


def _check_iconik(request: ApiRequest, data: Mapping[str, Any]) -> None:
    if request.row("Context", data.get("context_id")) is None:
        raise EntityNotFoundError("'data' must name an existing context by its 'context_id'.")
    for name in ("include_children", "task_placeholder", "include_tasks"):
        if not isinstance(data.get(name, True), bool):
            raise ValidationError(f"'{name}' must be true or false.")


def _give_up(reason: str, _: Attempt) -> Outcome:
    raise WorkFailedError(reason)
