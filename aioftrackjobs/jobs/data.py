"""The ``data`` of a Job: what each report writes into it. No I/O.

``data`` is one JSON text that is always written as a whole, and others keep values in it too. So
each report starts from what the server holds, and changes only the keys of this package:

- ``description``: the text in the jobs menu: the base text, followed by progress or a failure;
- ``base_description``: the base text, for as long as the description is longer than it, so that a
  Job that runs again starts from the text that it had; empty if it had none;
- ``progress``: from 0 to 1, once some was reported;
- ``lease``: who owns the Job, and until when, for as long as it runs;
- ``recovered``: who found that the owner was gone, and when; only the owner may overrule that;
- ``stop``: a request to stop the Job, which other clients write, see
  :mod:`aioftrackjobs.jobs.stopping`; one that is left from an earlier run is removed;
- ``taken_over``: from whom its owner has taken it over, and when;
- ``previous_data``: what stood in ``data`` before, if that was no JSON object.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any
from weakref import WeakSet

from aioftrackjobs.commit.unit_of_work import UnitOfWork
from aioftrackjobs.entities.context import EntityContext
from aioftrackjobs.errors import ArgumentError, EntityError, ServerError
from aioftrackjobs.jobs.ending import End
from aioftrackjobs.jobs.ownership import LEASE, TAKEN_OVER
from aioftrackjobs.jobs.progress import FAILURE, Progress, add_failure, compose_description
from aioftrackjobs.jobs.stopping import STOP
from aioftrackjobs.models import Job, JobStatus, current_value, parse_job_data, remote_value
from aioftrackjobs.protocol.operations import NOT_SET

#: Characters of a Job's text, which travels with each report.
_LONGEST_TEXT = 2000

#: The same of one that replaces a text which the server refuses.
_LONGEST_PLAIN = 200

#: Texts of reports that are kept: a program may have read one of them, and set it again.
_LATEST = 8

#: The beginning of a text that is progress alone.
_PERCENTAGE = r"\d{1,3} %(, |$)"

#: The key that a recovery writes, see :func:`compose_recovered_data`.
RECOVERED = "recovered"

#: The keys that a final status sets anew, or removes.
_FINAL_KEYS = ("description", "base_description", LEASE, RECOVERED, TAKEN_OVER)

#: The keys that only reports write.
_OWN_KEYS = (*_FINAL_KEYS, "progress", "previous_data")

#: The attributes that a final report sets.
_REPORTED = ("status", "data")


@dataclass(eq=False, slots=True)
class JobData:
    """What a Job reports about itself.

    Attributes:
        description: The base text; None to keep the text that the Job has.
        progress: The latest progress; None if none was reported.
        is_done: Whether the work is done, so that its progress is not shown any more.
        is_queued: Whether the work is to be tried again, from its beginning.
        result: What was done, or when it is tried again; None if nothing was said about it.
        failure_reason: Why the Job fails; None if it does not.
        lease: The owner of the Job, as ``data`` holds it; None for no lease.
        extra: Values of the program that go along with the next report.
        is_running: Whether the Job runs, so that others may report its progress.
        taken_over: From whom the owner has taken the Job over; None if it has not.
    """

    description: str | None
    progress: Progress | None = None
    is_done: bool = False
    is_queued: bool = False
    result: str | None = None
    failure_reason: str | None = None
    lease: Mapping[str, Any] | None = None
    extra: Mapping[str, Any] | None = None
    is_running: bool = False
    taken_over: Mapping[str, Any] | None = None
    is_plain: bool = False
    _latest: tuple[str, ...] = ()

    def adopt_description(self, data: object) -> None:
        """Continue with the description in *data*, unless one is given.

        Args:
            data: What an existing Job has, or what the user gave for a new one.
        """
        if self.description is None:
            kept = data if isinstance(data, Mapping) else _read(data)
            base = kept.get("base_description", kept.get("description"))
            self.description = base if isinstance(base, str) else None

    def adopt_change(self, before: object, after: object) -> None:
        """Continue with the description that the program has changed in the *data* of its Job.

        Args:
            before: The data that the program has seen.
            after: The data that it has set. It may have a text of an earlier report, which is none
                of the program's.
        """
        old, new = _read(before), _read(after)
        text = new.get("description", old.get("description"))
        if text != old.get("description") and isinstance(text, str | None):
            self.adopt_text(text or "")

    def adopt_text(self, text: str) -> None:
        """Continue with *text*, unless it is that of an earlier report."""
        shown = self._progress_in(text)
        if text not in self._latest and not (shown and re.match(_PERCENTAGE, shown)):
            self.description = text

    def _is_report(self, text: str) -> bool:
        """Return whether *text* may be a report of a block that has joined the Job."""
        shown = self._progress_in(text)
        return bool(shown and (self.description != "" or re.match(_PERCENTAGE, shown)))

    def _progress_in(self, text: str) -> str | None:
        """Return what may be progress in *text*, if that is the base text with something else."""
        if not self.description:
            return text
        if text.startswith(f"{self.description} (") and text.endswith(")"):
            return text[len(self.description) + 2 : -1]
        return None

    def adopt_values(self, before: object, after: object) -> None:
        """Keep the values of others that the program has changed in the *data* of its Job."""
        old = _read(before)
        changed = {
            name: value
            for name, value in _read(after).items()
            if name not in _OWN_KEYS and (name not in old or old[name] != value)
        }
        self.extra = {**(self.extra or {}), **changed}

    def compose(self, data: object, extra: Mapping[str, Any] | None = None) -> Mapping[str, Any]:
        """Return the new content of *data*.

        Args:
            data: What the server holds: JSON text, or whatever else others have written.
            extra: Values to keep in it from now on.
        """
        encodable = _plain if self.is_plain else _encodable
        composed = {**_read(data), **(self.extra or {}), **(extra or {})}
        base, progress = self.description, self.progress
        text = base or ""
        found = composed.get("description")
        if progress is not None or self.result is not None or self.failure_reason is not None:
            shown = None if self.is_done else progress
            text = compose_description(base, shown, self.result, self.failure_reason)
        elif self.is_running and isinstance(found, str) and RECOVERED not in composed:
            text = found if self._is_report(found) else text  # this block reports nothing
        is_bare = composed.get("base_description") == ""  # what is shown is a report alone
        for key in ("base_description", LEASE, RECOVERED, TAKEN_OVER):
            composed.pop(key, None)
        if text:
            composed["description"] = text = encodable(text)
            if text != base and text not in self._latest:
                self._latest = (*self._latest[1 - _LATEST :], text)
        elif base is not None or progress is not None or is_bare:
            composed.pop("description", None)
        if text and text != base:
            composed["base_description"] = encodable(base or "")
        if progress is not None or self.is_queued:
            composed["progress"] = progress and progress.fraction
            if self.is_queued or composed["progress"] is None:
                del composed["progress"]
        if self.lease is not None:
            composed[LEASE] = self.lease
        if self.taken_over is not None:
            composed[TAKEN_OVER] = self.taken_over
        return composed

    def note_end(self, end: End, decided: End | None) -> None:
        """Take note of how the Job ends, and of what its block had *decided* before."""
        self.is_running = False
        self.is_done = end.status is JobStatus.DONE
        if end.status is JobStatus.QUEUED:
            self.is_done = self.is_queued = True
            self.result = end.text
            return
        if end.status is JobStatus.FAILED:
            self.failure_reason = end.text
        if decided is not None and decided.status is JobStatus.DONE:
            self.result = decided.text


def add_lease(data: object, lease: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the content of *data* with *lease*."""
    return {**_read(data), LEASE: lease}


def remove_lease(data: object, before: object, lease: Mapping[str, Any]) -> object:
    """Return *data* without *lease*: what was there *before* it, if it was not changed since."""
    kept = _read(data)
    if kept == add_lease(before, lease):
        return before
    kept.pop(LEASE, None)
    return kept


def compose_final_data(data: object, final: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the content of *data* with that of a *final* report, which was composed from none."""
    kept = {key: value for key, value in _read(data).items() if key not in _FINAL_KEYS}
    return {**kept, **final}


#: What is sent of a Job's data at its end: all, with short texts in ASCII, or nothing.
WHOLE, PLAIN, NOTHING = range(3)


def level_after(refusals: int) -> int:
    """Return what is sent after some *refusals*, which may be about it, and may pass.

    After two of them it becomes less, and then begins again.
    """
    return (refusals - 1) % 3 if refusals else WHOLE


class Refusals:
    """The refusals of what is written while a Job runs, one after the other."""

    _count = 0

    @property
    def level(self) -> int:
        """What is sent."""
        return level_after(self._count)

    def note(self, error: Exception) -> bool:
        """Note an *error*; return whether to write again soon, and perhaps less."""
        is_refusal = isinstance(error, ServerError) and not error.is_retryable
        if not (is_refusal or isinstance(error, EntityError)):
            return False
        self._count += 1
        return self._count % 4 > 0  # all that there is was tried

    def note_success(self) -> None:
        """Note that the server has applied a write: the next one has everything again."""
        self._count = 0 if self.level == WHOLE else 1


def simplified(data: Mapping[str, Any], refusals: int) -> Mapping[str, Any] | None:
    """Return what is sent of *data* after some *refusals*; None for nothing."""
    level = level_after(refusals)
    if level == WHOLE:
        return data
    if level == NOTHING:
        return None
    texts = {key: data.get(key) for key in ("description", "base_description")}
    return {**data, **{key: _plain(text) for key, text in texts.items() if isinstance(text, str)}}


def compose_recovered_data(
    data: object, reason: str, recovered: Mapping[str, Any]
) -> Mapping[str, Any]:
    """Return the content of *data* of a Job that fails because its owner is gone.

    Args:
        data: What the server holds: the text that the owner left, with its progress.
        reason: Why the Job fails; it is added to the text.
        recovered: Who found it, and when.
    """
    kept = _read(data)
    text = kept.get("description")
    kept.setdefault("base_description", text or "")
    kept.pop(LEASE, None)
    return {**kept, "description": _encodable(add_failure(text, reason)), RECOVERED: recovered}


def add_stop(data: object, request: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the content of *data* with a stop *request* in it."""
    return {**_read(data), STOP: request}


def compose_stopped_data(
    data: object, reason: str, request: Mapping[str, Any]
) -> Mapping[str, Any]:
    """Return the content of *data* of a Job that is stopped before it begins, or without an owner.

    Args:
        data: What the server holds.
        reason: Why the Job fails; it is added to the text.
        request: The stop request, which stays.
    """
    kept = dict(add_stop(data, request))
    text = kept.get("description")
    kept.setdefault("base_description", text or "")
    kept.pop(LEASE, None)
    return {**kept, "description": _encodable(add_failure(text, reason))}


def is_mistaken_failure(status: object, data: Mapping[str, Any], holder: str) -> bool:
    """Return whether a recovery has failed a Job although its owner, *holder*, lives."""
    note = data.get(RECOVERED)
    return (
        status == JobStatus.FAILED
        and isinstance(note, Mapping)
        and note.get("holder") in (None, holder)
    )


def parse_given_data(data: str) -> Mapping[str, Any]:
    """Return the JSON object that a user gave as the text of a Job's data.

    Raises:
        ArgumentError: It is not the text of a JSON object.
    """
    try:
        parsed = json.loads(data)
    except (ValueError, RecursionError):
        parsed = None
    if not isinstance(parsed, dict):
        raise ArgumentError("data", "a mapping, or the text of a JSON object", "another text")
    return parsed


def _read(data: object) -> dict[str, Any]:
    if not isinstance(data, str):  # a new Job, or one without data
        return {}
    kept = parse_job_data(data)
    if not kept and data.strip() not in ("", "{}", "null"):
        return {"previous_data": data}
    return kept


def _encodable(text: str) -> str:
    """Return *text*, of limited length, without what no server can keep.

    That is lone surrogates, which file names have that are no UTF-8, and the character NUL.
    """
    if len(text) > _LONGEST_TEXT:
        text = f"{text[: _LONGEST_TEXT - 1]}…"
    return text.encode(errors="replace").decode().replace("\0", "?")


def _plain(text: str) -> str:
    """Return *text* in ASCII and without control characters, and of a length that all accept.

    Why a Job failed stands at its end, and is kept.
    """
    what, mark, why = text.rpartition(FAILURE)
    parts = [what, f"{mark}{why}"] if mark else [text]
    most = _LONGEST_PLAIN // len(parts)
    cut = "".join(each if len(each) <= most else f"{each[: most - 3]}..." for each in parts)
    printable = "".join(each if each.isprintable() else " " for each in cut)
    return printable.encode("ascii", errors="replace").decode()


class Assignments:
    """Observes what the program sets on the entity of its Job, unless another block does.

    It may set a status or a text as on every other entity, and commit that or not. Both is
    respected: the Job ends with this status, and continues with this text. What is not committed
    goes along with the final report. Otherwise the program's next commit would send it after that.

    Args:
        entities: The entities of the session.
        job: The Job.
        data: What the Job reports; continues with texts that the program sets.
        statuses: Gets the statuses that the program sets.
        write_soon: Has the Job written soon.
    """

    def __init__(
        self,
        entities: EntityContext,
        job: Job,
        data: JobData,
        statuses: set[object],
        *,
        write_soon: Callable[[], None],
    ) -> None:
        self._entities = entities
        self._job = job
        self._data = data
        self._statuses = statuses
        self._write_soon = write_soon
        self._units = WeakSet[UnitOfWork]()
        self._texts: tuple[str | None, str | None] = None, None  # before and after it has set data
        entities.observers.setdefault(id(job), self._note)

    def end(self) -> None:
        """Observe it no more: the entity is the program's again."""
        observers = self._entities.observers
        if observers.get(id(self._job)) == self._note:
            del observers[id(self._job)]

    def _note(self, name: str, value: object, unit: UnitOfWork) -> None:
        self._units.add(unit)
        if name == "status" and value is not NOT_SET:
            self._statuses.add(value)
        elif name == "data":
            self._note_data(value)
            self._write_soon()

    def _note_data(self, value: object) -> None:
        current, remote = current_value(self._job, "data"), remote_value(self._job, "data")
        before, after = self._texts
        if value is not NOT_SET:
            before = self._data.description if current is remote else before
            self._data.adopt_change(current, value)
            self._texts = before, self._data.description
        elif self._data.description == after:
            self._data.description = before

    @property
    def status(self) -> JobStatus | None:
        """The status that the program has set, and the Job still has; None to decide it anew."""
        if not self._statuses:
            return None
        status = current_value(self._job, "status")
        is_end = isinstance(status, JobStatus) and status is not JobStatus.RUNNING
        return status if is_end else None

    def take_over(self) -> None:
        """Let the next report contain what is not committed, and no later commit."""
        for unit in tuple(self._units):
            left = unit.drop_updates(self._job, _REPORTED)
            self._data.adopt_values(remote_value(self._job, "data"), left.get("data"))
