"""The Job, which users see in the jobs menu, its state, its user, and its attachments."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Coroutine, Mapping, MutableSequence
from dataclasses import dataclass, field
from datetime import date
from enum import Enum, StrEnum
from typing import Annotated, Any, ClassVar

from pydantic import Field

from aioftrackjobs.errors import (
    EntityError,
    InvalidValueError,
    UnserialisableValueError,
)
from aioftrackjobs.models._component import Component
from aioftrackjobs.models._entity import Entity
from aioftrackjobs.models._state import remote_value
from aioftrackjobs.models._values import (
    Before,
    Computed,
    NonTextValidator,
    NotAllowedError,
    UtcDatetime,
    new_id,
)
from aioftrackjobs.models._views import names_of, texts_of
from aioftrackjobs.protocol.values import encode_value, standard_value

#: The only value of ``type`` with which clients may create a Job (docs/protocol.md, section 5.2).
API_JOB = "api_job"


#: Characters that not every database can keep, and surrogates, which not every text may have. JSON
#: has another way to write them.
_RARE = "[\ud800-\udfff\U00010000-\U0010ffff]"


class JobStatus(StrEnum):
    """The status of a Job. A status that only the server knows is read as a plain string.

    Example: ``job.status = JobStatus.FAILED  # or "failed"``
    """

    QUEUED = "queued"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"


_STATUSES = {status.value: status for status in JobStatus}

#: The statuses with which waiting for a Job ends.
_ENDS = (JobStatus.DONE, JobStatus.FAILED)


def parse_job_data(data: object) -> dict[str, Any]:
    """Return the content of a Job's ``data``; empty if it is not the text of a JSON object.

    ``NaN`` and infinite numbers, which Python reads but JSON does not allow, become None.
    """
    if not isinstance(data, str):
        return {}
    try:
        parsed = json.loads(data, parse_constant=lambda _: None, parse_float=_finite)
    except (ValueError, RecursionError):
        return {}
    return parsed if isinstance(parsed, dict) else {}


def _finite(text: str) -> float | None:
    number = float(text)
    return number if math.isfinite(number) else None


def _read_status(value: object) -> object:
    """Return a status from the server as a :class:`JobStatus`, or unchanged if it is unknown."""
    return _STATUSES.get(value, value) if isinstance(value, str) else value


def _api_job(value: object) -> object:
    if value != API_JOB:
        raise NotAllowedError("the type of Jobs that clients create", [API_JOB])
    return value


def _known_status(value: object) -> object:
    status = _STATUSES.get(value) if isinstance(value, str) else None
    if status is None:
        raise NotAllowedError("a JobStatus", _STATUSES)
    return status


def job_data_text(value: object) -> object:
    """Return a mapping as JSON text, and anything else unchanged, for pydantic to validate."""
    if not isinstance(value, Mapping):
        return value
    encode_value(value, "Job.data")  # raises an error with the path of an unsuitable value
    text = json.dumps(value, ensure_ascii=False, default=_plain_text)
    return text if text.isascii() else re.sub(_RARE, _escape, text)


def _escape(found: re.Match[str]) -> str:
    return json.dumps(found[0])[1:-1]


def _plain_text(value: object) -> object:
    match value:
        case date():  # a datetime too
            return value.isoformat()
        case Enum():
            return value.value
        case _:
            plain = standard_value(value)
            if plain is value:
                raise UnserialisableValueError("Job.data", type(value).__name__)
            return plain


class User(Entity):
    """A person, or a program with an account of its own.

    Example: ``maya = await session.ensure(User, {"username": "maya"})``

    Source:
        docs/protocol.md, section 5.5.
    """

    entity_type: ClassVar[str] = "User"
    is_typed: ClassVar[bool] = True
    default_projections: ClassVar[tuple[str, ...]] = (
        "id",
        "username",
        "first_name",
        "last_name",
        "email",
        "is_active",
        "user_type_id",
        "thumbnail_id",
    )
    immutable_attributes: ClassVar[frozenset[str]] = frozenset({"resource_type"})

    id: str = Field(default_factory=new_id, min_length=1)
    username: str | None = None
    first_name: str | None = None
    last_name: str | None = None
    email: str | None = None
    is_active: bool | None = None
    is_otp_enabled: bool | None = None
    is_totp_enabled: bool | None = None
    require_details_update: bool | None = None
    resource_type: str = "user"
    user_type_id: str | None = None
    user_type: Entity | None = None
    thumbnail_id: str | None = None
    thumbnail: Entity | None = None
    thumbnail_url: Computed = None
    custom_attributes: Any = None
    metadata: Any = None
    allocations: MutableSequence[Entity] | None = None
    appointments: MutableSequence[Entity] | None = None
    assignments: MutableSequence[Entity] | None = None
    dashboard_resources: MutableSequence[Entity] | None = None
    memberships: MutableSequence[Entity] | None = None
    timelogs: MutableSequence[Entity] | None = None
    user_security_roles: MutableSequence[Entity] | None = None


class Job(Entity):
    """A piece of background work that users see in the jobs menu.

    :func:`job_context` creates and updates one while a block runs. To do it by hand::

        job = session.create(Job, {"user": user, "status": "running", "data": {"frames": 24}})
        job.description = "Transcode sh010"
        await session.commit()

    The server sets ``created_at`` and ``finished_at``.

    Source:
        docs/protocol.md, section 5.2.
    """

    entity_type: ClassVar[str] = "Job"
    is_typed: ClassVar[bool] = True
    default_projections: ClassVar[tuple[str, ...]] = (
        "id",
        "type",
        "status",
        "user_id",
        "data",
        "created_at",
        "finished_at",
    )
    empty_at_first: ClassVar[frozenset[str]] = frozenset({"data"})
    immutable_attributes: ClassVar[frozenset[str]] = frozenset({"type"})
    readers: ClassVar[Mapping[str, Callable[[Any], Any]]] = {"status": _read_status}

    id: str = Field(default_factory=new_id, min_length=1)
    type: Annotated[str, Before(_api_job)] = API_JOB
    status: Annotated[JobStatus | str, Before(_known_status)] = JobStatus.QUEUED
    user_id: str | None = None
    user: User | None = None
    #: JSON text. A mapping may be assigned. Each change replaces the whole text.
    data: Annotated[str | None, NonTextValidator(job_data_text)] = None
    created_at: UtcDatetime | None = None
    finished_at: UtcDatetime | None = None
    job_components: MutableSequence[JobComponent] | None = None

    @property
    def description(self) -> str | None:
        """The text in the jobs menu; None if `data` has none or is no JSON object.

        Setting it keeps the other keys of `data`.

        Raises:
            NotLoadedError: `data` is not loaded.
        """
        text = self._parsed_data().get("description")
        return text if isinstance(text, str) else None

    @description.setter
    def description(self, text: str | None) -> None:
        if text is not None and not isinstance(text, str):
            raise InvalidValueError(self.entity_type, "description", text, "it must be a text")
        self["data"] = {**self._parsed_data(), "description": text}

    def wait(self, timeout: float | None = None) -> Coroutine[Any, Any, JobState]:
        """Wait until the Job is done, has failed or is deleted, wherever it runs.

        Example: ``state = await job.wait(timeout=60)``

        It is as :meth:`AsyncSession.wait_for` with one Job.

        Args:
            timeout: Seconds after which the state is returned although the Job has not ended:
                ``state.has_ended`` is false then. None to wait for ever.

        Raises:
            EntityError: The Job belongs to no session, or is not yet committed.
            SessionStateError: The session is closed.
            ServerError: The server refuses to return the Job.
        """
        if not self._owner:
            raise EntityError(f"{self!r} belongs to no session")
        state: Coroutine[Any, Any, JobState] = self._owner.wait_for_job(self, timeout)
        return state  # in blocking code, the owner waits, and returns the state itself

    def _label(self) -> list[str]:
        status, data = self._current("status"), self._current("data")
        description = parse_job_data(data).get("description") if data else None
        return [*texts_of(status), *names_of(description)]

    def _parsed_data(self) -> dict[str, Any]:
        return parse_job_data(self._current("data") if self._is_new else self["data"])


class JobComponent(Entity):
    """An attachment of a Job. ftrack's web interface offers only one of them for download.

    Example: ``session.create(JobComponent, {"job_id": job.id, "component_id": file.id})``
    """

    entity_type: ClassVar[str] = "JobComponent"
    is_typed: ClassVar[bool] = True
    primary_key_attributes: ClassVar[tuple[str, ...]] = ("component_id", "job_id")
    default_projections: ClassVar[tuple[str, ...]] = ("component_id", "job_id")

    component_id: str | None = None
    component: Component | None = None
    job_id: str | None = None
    job: Job | None = None
    url: Computed = None


@dataclass(frozen=True, slots=True)
class JobState:
    """What a Job was like when it was read; it does not change any more.

    ::

        state = await job.wait(timeout=60)
        if state.is_failed:
            print(state.description)  # "Render sh010 - failed: OSError: disk full"

    Attributes:
        id: The id of the Job.
        status: Its status; None if it is deleted, or was not read before a time-out.
        description: Its text in the jobs menu, with the reason of a failure or a result.
        progress: From 0 to 1; None if none was reported.
        is_deleted: Whether the server has no such Job, or has none that the user may read.
        entity: The Job, with the values that the server has.
    """

    id: str
    status: JobStatus | str | None = None
    description: str | None = None
    progress: float | None = None
    is_deleted: bool = False
    entity: Job | None = field(default=None, compare=False, repr=False)

    @property
    def has_ended(self) -> bool:
        """Whether the Job is done, has failed, or is deleted."""
        return self.is_deleted or self.status in _ENDS

    @property
    def is_done(self) -> bool:
        """Whether the Job is done."""
        return self.status == JobStatus.DONE

    @property
    def is_failed(self) -> bool:
        """Whether the Job has failed."""
        return self.status == JobStatus.FAILED

    def __str__(self) -> str:
        status = "deleted" if self.is_deleted else self.status or "not read"
        return f"{self.description} ({status})" if self.description else str(status)


def state_in(job: Job, row: Mapping[str, Any] | None) -> JobState:
    """Return the state of *job* in a *row* of a response; None if there is no such row."""
    if row is None:
        return JobState(job.id, is_deleted=True, entity=job)
    data, status = parse_job_data(row.get("data")), _read_status(row.get("status"))
    text, share = data.get("description"), data.get("progress")
    is_number = isinstance(share, int | float) and not isinstance(share, bool)
    return JobState(
        job.id,
        status=status if isinstance(status, str) else None,
        description=text if isinstance(text, str) else None,
        progress=share if is_number else None,
        entity=job,
    )


def known_state(job: Job) -> JobState:
    """Return the state of *job* in the latest values that were loaded, if any."""
    return state_in(job, {name: remote_value(job, name) for name in ("status", "data")})
