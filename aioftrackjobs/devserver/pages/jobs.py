"""Jobs as the page shows them, and what its user can do with them."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from pydantic_core import from_json, to_json

from aioftrackjobs.devserver.api.request import Caller
from aioftrackjobs.devserver.api_errors import EntityNotFoundError, RequestError
from aioftrackjobs.devserver.auth import Identity
from aioftrackjobs.devserver.engine import Engine
from aioftrackjobs.devserver.pages.job_feed import data_of, until_of
from aioftrackjobs.protocol.query import quote, quote_list
from aioftrackjobs.protocol.values import decode_tagged

#: Rows of a page.
MOST_ROWS = 2000
STATUSES = ("queued", "running", "done", "failed", "lost")
#: Characters of a reason that a Job shows, and of a text.
LONGEST_REASON, _LONGEST_TEXT = 200, 400
#: Characters that every JSON encoder leaves in a Job's data as they are.
_ODD = re.compile(r"[^A-Za-z0-9 .:,()-]+")
_PERCENTAGE = re.compile(r"\d{1,3} %(, )?")
#: What stands before the reason of a failure, which the status says.
_FAILED = re.compile(r"(\([^()]*\) - )?failed: ")

_SELECT = (
    "select id, status, type, data, created_at, finished_at, user.username,"
    " job_components.component.name, job_components.component.file_type,"
    " job_components.component.size from Job"
)


@dataclass(frozen=True, slots=True)
class Filter:
    """Which Jobs a page shows.

    Attributes:
        user: A user name; all if empty.
        status: One of :data:`STATUSES`; all if empty.
        text: What a Job must show somewhere.
        start: How many later Jobs are on earlier pages.
    """

    user: str = ""
    status: str = ""
    text: str = ""
    start: int = 0

    @classmethod
    def of(cls, query: Mapping[str, str]) -> Filter:
        """Return the filter in the query of an address; what is not known is left out."""
        status = query.get("status", "")
        start = query.get("start", "")
        return cls(
            query.get("user", ""),
            status if status in STATUSES else "",
            query.get("q", "").strip(),
            int(start) if re.fullmatch("[0-9]{1,9}", start) else 0,
        )

    def query(self, **changes: str) -> dict[str, str]:
        """Return the query of its address, with *changes*."""
        fields = {"user": self.user, "status": self.status, "q": self.text}
        return {name: value for name, value in (fields | changes).items() if value}

    def criteria(self) -> list[str]:
        """Return the criteria of a query that finds at least these Jobs, but for lost ones."""
        found = list[str]()
        if self.user:
            found.append(f"user.username is {quote(self.user)}")
        if self.status:
            status = "running" if self.status == "lost" else self.status
            found.append(f"status is {quote(status)}")
        if self.text:
            pattern = quote(f"%{_ODD.sub('%', self.text)}%")
            paths = ("data", "id", "type", "user.username", "job_components.component.name")
            found.append(f"({' or '.join(f'{path} like {pattern}' for path in paths)})")
        return found

    def matches(self, job: JobRow) -> bool:
        """Return whether a Job that the query has found is one of them."""
        is_lost = self.status != "lost" or job.state == "lost"
        return is_lost and self.text.casefold() in job.shown.casefold()


@dataclass(frozen=True, slots=True)
class JobRow:
    """A Job as it is shown.

    Attributes:
        status: As the server has it.
        title: What it does.
        message: How far it is, or how it has ended.
        progress: From 0 to 1, if it was reported.
        owner: Host and process that run it, if they are known.
        until: When their lease ends.
        stop: The stop request: ``by``, ``at`` and ``reason``.
        attachments: Of each its ``id``, ``name`` and ``size``.
        data: The JSON object in its data.
        raw: Its data if that is no JSON object.
    """

    id: str
    status: str
    kind: str
    title: str
    message: str
    progress: float | None
    user: str
    created_at: datetime | None
    finished_at: datetime | None
    owner: str
    until: datetime | None
    stop: Mapping[str, str] | None
    attachments: tuple[Mapping[str, Any], ...]
    data: Mapping[str, Any]
    raw: str

    @property
    def state(self) -> str:
        """The status, or ``lost`` or ``stopping``."""
        if self.status != "running":
            return self.status
        if self.until is not None and self.until < datetime.now(UTC):
            return "lost"
        return "stopping" if self.stop is not None else "running"

    @property
    def shown(self) -> str:
        """All texts that it shows."""
        names = " ".join(each["name"] for each in self.attachments)
        return " ".join((self.title, self.message, self.user, self.owner, self.id, names, self.raw))

    @property
    def is_over(self) -> bool:
        """Whether it has ended."""
        return is_over(self.status)

    @property
    def order(self) -> str:
        """What the rows are sorted by."""
        return self.created_at.isoformat() if self.created_at else ""


def rows(
    engine: Engine, wanted: Filter, ids: Collection[str] | None = None
) -> tuple[list[JobRow], bool]:
    """Return the Jobs that a filter finds, the latest first, and whether there are older ones.

    Args:
        engine: The server.
        wanted: The filter.
        ids: Only of these.

    Raises:
        ApiError: If they cannot be read.
    """
    criteria = wanted.criteria()
    if ids is not None:
        if not ids:
            return [], False
        criteria.append(f"id in {quote_list(sorted(ids))}")
    where = f" where {' and '.join(criteria)}" if criteria else ""
    order = " order by created_at descending"
    query = f"{_SELECT}{where}{order} offset {wanted.start} limit {MOST_ROWS + 1}"
    found = [_row(entity) for entity in from_json(engine.query(query))[0]["data"]]
    return [row for row in found[:MOST_ROWS] if wanted.matches(row)], len(found) > MOST_ROWS


def row(engine: Engine, job_id: str) -> JobRow:
    """Return one Job.

    Raises:
        EntityNotFoundError: If there is none.
    """
    found, _ = rows(engine, Filter(), [job_id])
    if not found:
        raise EntityNotFoundError("There is no such Job. It may have been deleted.")
    return found[0]


def _row(entity: Mapping[str, Any]) -> JobRow:
    text = entity["data"] if isinstance(entity["data"], str) else ""
    data = data_of(text)
    kind = str(entity["type"] or "job")
    title, message = (each[:_LONGEST_TEXT] for each in _texts(data, kind))
    progress = data.get("progress")
    is_running = entity["status"] == "running"
    lease = data.get("lease")
    return JobRow(
        id=entity["id"],
        status=str(entity["status"]),
        kind=kind,
        title=title,
        message=message,
        progress=_share(progress) if is_running else None,
        user=(entity["user"] or {}).get("username") or "",
        created_at=_time(entity["created_at"]),
        finished_at=_time(entity["finished_at"]),
        owner=_owner(lease) if isinstance(lease, dict) and not is_over(entity["status"]) else "",
        until=until_of(data) if is_running else None,
        stop=stop_in(data),
        attachments=tuple(
            _attachment(link["component"]) for link in entity["job_components"] if link["component"]
        ),
        data=data,
        raw="" if data or text in ("", "{}") else text,
    )


def is_over(status: object) -> bool:
    """Return whether a Job of this status has ended."""
    return status in ("done", "failed")


def _texts(data: Mapping[str, Any], kind: str) -> tuple[str, str]:
    """Return what a Job does, and how far it is: apart if it was this package that wrote them."""
    text, base = data.get("description"), data.get("base_description")
    if not isinstance(text, str) or not text.strip():
        return kind.replace("_", " ").capitalize(), ""
    if not isinstance(base, str) or not base or not text.startswith(base) or text == base:
        return text, ""
    message = text.removeprefix(base).strip().removeprefix("- ")
    if _FAILED.match(message):
        return base, _FAILED.sub("", message, count=1)
    if message.startswith("(") and message.endswith(")"):
        message = message[1:-1]
    return base, _PERCENTAGE.sub("", message, count=1) if message[:1].isdigit() else message


def _share(progress: object) -> float | None:
    is_number = isinstance(progress, int | float) and not isinstance(progress, bool)
    return min(1.0, max(0.0, float(progress))) if is_number else None  # type: ignore[arg-type]


def _time(value: Any) -> datetime | None:
    time = decode_tagged(value) if isinstance(value, dict) else None
    return time if isinstance(time, datetime) else None


def _owner(lease: Mapping[str, Any]) -> str:
    host, pid = lease.get("host"), lease.get("pid")
    return ":".join(str(part) for part in (host, pid) if isinstance(part, str | int))


def stop_in(data: Mapping[str, Any]) -> dict[str, str] | None:
    """Return the stop request in the data of a Job; None if there is none."""
    stop = data.get("stop")
    parts = stop.items() if isinstance(stop, dict) else ()
    texts = {name: value for name, value in parts if isinstance(value, str) and value.strip()}
    return {name: texts.get(name, "") for name in ("by", "at", "reason")} if texts else None


def _attachment(component: Mapping[str, Any]) -> dict[str, Any]:
    name = f"{component['name'] or ''}{component['file_type'] or ''}"
    return {"id": component["id"], "name": name or "file", "size": component["size"]}


def stop_job(engine: Engine, identity: Identity, job_id: str, reason: str) -> bool:
    """Write a stop request into a Job (docs/jobs.md); one without an owner fails at once.

    Returns:
        Whether its owner may still overwrite the request: it writes all data of the Job, and may
        have read them before.

    Raises:
        EntityNotFoundError: If there is no such Job.
        RequestError: If it has ended, or the reason is too long.
        ApiError: If the server refuses the change.
    """
    job, reason = row(engine, job_id), " ".join(reason.split())
    if is_over(job.status):
        raise RequestError(f"This Job has ended already: it is {job.status}.", 409)
    if len(reason) > LONGEST_REASON:
        raise RequestError(f"A reason takes {LONGEST_REASON} characters, not {len(reason)}.", 422)
    stop = {"by": identity.username, "at": _now(), **({"reason": reason} if reason else {})}
    data = {**_kept(job), "stop": stop}
    if job.state in ("queued", "lost"):  # no program would read it
        why = f"stopped by {identity.username}{f': {reason}' if reason else ''}"
        _update(engine, identity, {job_id: {"status": "failed", "data": _failed(data, why)}})
        return False
    _update(engine, identity, {job_id: {"data": data}})
    return True


def fail_lost(engine: Engine, identity: Identity, wanted: Filter, ids: Collection[str]) -> int:
    """Fail those of the lost Jobs that are *wanted* and have one of *ids*; return their number.

    Raises:
        ApiError: If the server refuses the change.
    """
    found, _ = rows(engine, wanted, ids)
    changes = dict[str, dict[str, Any]]()
    for job in found:
        lease = job.data["lease"]
        host, at = lease.get("host"), f"{job.until:%Y-%m-%d %H:%M:%S} UTC"
        note = {"holder": lease.get("holder"), "at": _now(), "by": f"{identity.username}:page"}
        data = {**_kept(job), "recovered": note}
        why = f"worker process ended unexpectedly on {host} at {at}"
        changes[job.id] = {"status": "failed", "data": _failed(data, why)}
    _update(engine, identity, changes)
    return len(changes)


def _kept(job: JobRow) -> dict[str, Any]:
    """Return the data of a Job that stay when others are added."""
    return {"previous_data": job.raw} if job.raw else dict(job.data)


def _failed(data: dict[str, Any], reason: str) -> dict[str, Any]:
    text = data.get("description") or ""
    base = data.get("base_description", text)
    described = f"{text} - failed: {reason}" if text else f"failed: {reason}"
    kept = {name: value for name, value in data.items() if name != "lease"}
    return {**kept, "base_description": base, "description": described}


def _update(engine: Engine, identity: Identity, changes: Mapping[str, Mapping[str, Any]]) -> None:
    operations = [
        {
            "action": "update",
            "entity_type": "Job",
            "entity_key": [job_id],
            "entity_data": {
                "__entity_type__": "Job",
                **values,
                "data": to_json(values["data"]).decode(),
            },
        }
        for job_id, values in changes.items()
    ]
    if operations:
        call = engine.parse(to_json(operations), Caller(identity, ""))
        engine.respond(call, engine.limits.response)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
