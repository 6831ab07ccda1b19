"""The Job, which users see in the jobs menu, its user, and its attachments."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping, MutableSequence
from datetime import date
from enum import Enum, StrEnum
from typing import Annotated, Any, ClassVar

from pydantic import Field

from aioftrackjobs.errors import InvalidValueError, NotLoadedError, UnserialisableValueError
from aioftrackjobs.models._component import Component
from aioftrackjobs.models._entity import Entity
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
    """The status of a Job. A status that only the server knows is read as a plain string."""

    QUEUED = "queued"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"


_STATUSES = {status.value: status for status in JobStatus}


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

    def _label(self) -> list[str]:
        status, data = self._current("status"), self._current("data")
        description = parse_job_data(data).get("description") if data else None
        return [*texts_of(status), *names_of(description)]

    def _parsed_data(self) -> dict[str, Any]:
        if "data" not in self and not self._is_new:
            raise NotLoadedError(self.entity_type, "data")
        return parse_job_data(self._current("data"))


class JobComponent(Entity):
    """An attachment of a Job. ftrack's web interface offers only one of them for download."""

    entity_type: ClassVar[str] = "JobComponent"
    is_typed: ClassVar[bool] = True
    primary_key_attributes: ClassVar[tuple[str, ...]] = ("component_id", "job_id")
    default_projections: ClassVar[tuple[str, ...]] = ("component_id", "job_id")

    component_id: str | None = None
    component: Component | None = None
    job_id: str | None = None
    job: Job | None = None
    url: Computed = None
