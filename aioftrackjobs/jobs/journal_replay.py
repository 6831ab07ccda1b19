"""JournalReplay: delivers what the journal keeps.

That is the final statuses that the server has not acknowledged, the failure of Jobs whose process
died, and the removal of uploads that were never registered.

What is written depends on the state of the Job on the server right before: a Job that another
session runs by now, or that has ended otherwise, is left alone.
"""

from __future__ import annotations

import json
import math
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from typing import Any, TypeVar

import anyio

from aioftrackjobs.background import SafeLogger, text_of, type_name
from aioftrackjobs.entities.context import EntityContext
from aioftrackjobs.errors import (
    AuthenticationError,
    EntityError,
    FtrackJobsError,
    ServerError,
    SessionStateError,
    TransportError,
)
from aioftrackjobs.jobs.data import (
    RECOVERED,
    compose_final_data,
    compose_recovered_data,
    simplified,
)
from aioftrackjobs.jobs.keys import is_left_to_engine
from aioftrackjobs.jobs.late_creation import CREATE_FOR, create_ended_job, log_in, report_of_lost
from aioftrackjobs.jobs.ownership import Lease, is_owned_by_other
from aioftrackjobs.jobs.termination import (
    END_STATUSES,
    Ends,
    lost_reason,
    may_pass_later,
    recovery_note,
    terminate_jobs,
)
from aioftrackjobs.journal import Entry
from aioftrackjobs.models import Job, JobStatus, parse_job_data, remote_value

logger: SafeLogger = SafeLogger(__name__)

T = TypeVar("T")

#: Jobs that are read and written together.
_CHUNK = 100

#: Seconds after which a Job that the server does not have is not going to appear any more.
_CREATION_DEADLINE = 120.0


class JournalReplay:
    """Brings the server up to date with the journal, in the background of a session.

    It runs when the session starts, and whenever a final status could not be delivered. It goes on
    for as long as something is left, however long the server does not respond.

    Args:
        entities: The entities of the session.
    """

    def __init__(self, entities: EntityContext) -> None:
        self._entities = entities
        self._connection = entities.connection
        self._journal = entities.connection.journal
        # A server may be away for longer than any caller waits for a commit.
        self._retry = replace(entities.connection.retry, budget=math.inf)
        self._refused_since: dict[str, float] = {}
        self._refusals = Counter[str]()  # of each Job
        self._woken: anyio.Event | None = None  # not None while it runs
        self._rest: anyio.CancelScope | None = None  # until the next time
        self._looks_again = False
        self._retry_after: float | None = None
        self._logged_problem: str | None = None

    def wake(self) -> None:
        """Deliver what the journal keeps, without delay for the caller."""
        if self._woken is not None:
            self._woken.set()
            if self._rest is not None:
                self._rest.cancel()
            return
        if self._connection.is_closing:
            return  # a later session does it
        try:
            self._connection.background.spawn(self._run)
        except SessionStateError:
            return  # a later session does it
        self._woken = anyio.Event()

    async def _run(self) -> None:
        backoff, since = self._retry.backoff(), time.monotonic()
        interval = self._connection.timings.replay_interval
        rarely = replace(self._retry, first_delay=interval, longest_delay=interval, jitter=0.0)
        pauses = self._connection.server_status.pauses
        try:
            while True:
                self._woken = woken = anyio.Event()
                is_complete = False
                background = self._connection.background
                with background.optional() as scope, background.surviving("the journal's replay"):
                    is_complete = await self.deliver()
                if scope.cancel_called:
                    return  # the session is being closed: a later one goes on
                with anyio.CancelScope() as self._rest:
                    if not is_complete:
                        await pauses.wait(backoff, self._retry_after)
                    elif woken.is_set():
                        pass  # something else is to be delivered
                    elif self._looks_again:
                        # Earlier if the server is seen to be well, but not again and again: the
                        # longer it has refused something, the rarer.
                        so_far = time.monotonic() - since
                        await pauses.wait(rarely.backoff(), least=min(so_far, interval))
                    else:
                        return
        except SessionStateError:
            pass  # it is closed: a later session goes on
        finally:
            self._woken = None

    async def deliver(self) -> bool:
        """Deliver all that can be delivered now; return whether nothing is left to deliver.

        Raises:
            SessionStateError: The session is closed.
        """
        self._looks_again = await self._journal.claim()
        for entry in self._journal.unsettled():
            if entry.kind == "start":
                self._fail_start(entry)
        entries = self._journal.unsettled()
        jobs = [entry for entry in entries if entry.kind == "job"]
        uploads = [entry for entry in entries if entry.kind == "upload"]
        is_complete, self._retry_after = True, None
        try:
            for start in range(0, len(jobs), _CHUNK):
                chunk = jobs[start : start + _CHUNK]
                is_complete &= await self._deliver_in_parts(self._deliver_jobs, chunk)
            if ids := await self._abandoned(uploads):
                from aioftrackjobs.transfers.upload import remove_unregistered  # late: few crash

                remove = partial(
                    remove_unregistered, self._entities, refused_since=self._refused_since
                )
                is_complete &= await self._deliver_in_parts(remove, ids)
        except SessionStateError:
            raise
        except TransportError as exc:
            self._retry_after = exc.retry_after
            return False
        except FtrackJobsError as exc:
            if isinstance(exc, ServerError) and exc.is_retryable:
                self._retry_after = exc.retry_after
                return False
            self._log_problem(str(exc))  # for example that the API key is not valid any more
            self._looks_again = True
            return True
        if not self._looks_again:
            self._logged_problem = None
        return is_complete

    async def _deliver_in_parts(
        self, deliver: Callable[[Sequence[T]], Awaitable[bool]], items: Sequence[T]
    ) -> bool:
        """Deliver *items*, and if they are refused together, each half by itself.

        One of them may have an id, or something else, that the server does not accept, or that
        leads to a fault here. It must not hold up the others.
        """
        try:
            return await deliver(items)
        except (SessionStateError, TransportError, AuthenticationError):
            raise
        except Exception as exc:
            if isinstance(exc, ServerError) and exc.is_retryable:
                raise
            if len(items) == 1:
                name = getattr(items[0], "id", items[0])
                self._log_problem(f"{name}: {text_of(exc) or type_name(exc)}")
                self._looks_again = True
                return True
        middle = len(items) // 2
        is_complete = await self._deliver_in_parts(deliver, items[:middle])
        return await self._deliver_in_parts(deliver, items[middle:]) and is_complete

    async def _abandoned(self, uploads: Sequence[Entry]) -> list[str]:
        """Return the ids of those *uploads* that no request of their process registers any more.

        It waits for them a while, unless something else is to be delivered.
        """
        timings, now = self._connection.timings, time.time()
        ends = {each: max(each.since, each.lost_at or 0.0) for each in uploads}
        # A clock that was set back must not keep them for long.
        left = {each: timings.last_request_delay - abs(now - end) for each, end in ends.items()}
        pause = max(0.0, *left.values()) if left else 0.0
        if pause:
            pause = min(pause, timings.replay_interval)
            with anyio.move_on_after(pause):
                await (self._woken or anyio.Event()).wait()
        waited = time.time() - now
        self._looks_again |= any(seconds > waited for seconds in left.values())
        return [each.id for each, seconds in left.items() if seconds <= waited]

    def _log_problem(self, problem: str) -> None:
        if problem != self._logged_problem:
            logger.warning("what the journal keeps cannot be delivered: %(error)s", error=problem)
        self._logged_problem = problem

    async def _deliver_jobs(self, entries: Sequence[Entry]) -> bool:
        """Settle the entries of some Jobs; return whether nothing of them is left to deliver."""
        by_id = {entry.id: entry for entry in entries}
        missing = set(by_id)

        def decide(found: Mapping[str, Job]) -> Ends:
            missing.difference_update(found)
            ends: dict[Job, tuple[JobStatus, Mapping[str, Any] | None]] = {}
            for job in found.values():
                entry = by_id[job.id]
                if not self._journal.has(entry) or self._is_left_to_engine(entry, job):
                    continue  # it has changed during the read, or is looked at again
                if (end := self._end_of(entry, job)) is None:
                    self._journal.release_job(job.id)
                else:
                    status, data = end
                    ends[job] = status, simplified(data, self._refusals[job.id])
            return ends

        errors = await terminate_jobs(self._entities, list(by_id), decide)
        errors |= await self._create_jobs([each for each in entries if each.id in missing])
        is_complete = True
        for entry in entries:
            if entry.id not in missing or entry.id in errors or not self._journal.has(entry):
                continue
            # The request that creates it may still be on its way since its process died, which may
            # be long after the entry was written. One that was there before was deleted.
            age = abs(time.time() - max(entry.since, entry.lost_at or 0.0))
            if age < _CREATION_DEADLINE and not _has_begun(entry):
                is_complete = False
            else:
                self._journal.release_job(entry.id)
        for job_id, error in errors.items():
            if error is None:
                self._refused_since.pop(job_id, None)
                del self._refusals[job_id]
                self._journal.release_job(job_id)
            elif not may_pass_later(error) or self._is_refused_for_long(job_id, error):
                self._journal.release_job(job_id)
                logger.warning(
                    "Job %(job_id)s: the server refuses its final status: %(error)s",
                    job_id=job_id,
                    error=error,
                )
            elif isinstance(error, EntityError) or (
                isinstance(error, ServerError) and not error.is_retryable
            ):
                self._refusals[job_id] += 1
                self._log_problem(f"Job {job_id}: {error}")
                self._looks_again = True
            else:
                self._retry_after = getattr(error, "retry_after", None) or self._retry_after
                is_complete = False
        return is_complete

    def _fail_start(self, entry: Entry) -> None:
        """Have a Job created as failed whose process died before the server had it."""
        reason, note = self._loss_of(entry)
        self._journal.replace_start(entry, report_of_lost(entry.final_report, reason, note))

    def _loss_of(self, entry: Entry) -> tuple[str, dict[str, Any]]:
        """Return why the Job of a dead process failed, and the note about that."""
        at = datetime.fromtimestamp(entry.lost_at or entry.since, UTC)
        now = self._connection.server_status.server_time()
        return lost_reason(entry.lost_host or "", at), recovery_note(entry.holder, now)

    async def _create_jobs(self, entries: Sequence[Entry]) -> dict[str, FtrackJobsError | None]:
        """Create those Jobs that ended before the server could be reached; return their errors."""
        errors: dict[str, FtrackJobsError | None] = {}
        for entry in entries:
            report, final = _parse(entry.final_report), _read_final_report(entry)
            if final is None or CREATE_FOR not in report or not self._journal.has(entry):
                continue
            owner = report[CREATE_FOR]
            user = owner if isinstance(owner, str) else None
            try:
                await create_ended_job(self._entities, entry.id, user, *final, log_in(report))
            except SessionStateError:
                raise
            except FtrackJobsError as exc:
                errors[entry.id] = exc
            else:
                errors[entry.id] = None
        return errors

    def _is_refused_for_long(self, job_id: str, error: FtrackJobsError) -> bool:
        """Return whether *error*, which might have passed, has not passed for long."""
        if not isinstance(error, ServerError) or isinstance(error, AuthenticationError):
            return False
        if error.is_retryable:
            return False
        since = self._refused_since.setdefault(job_id, time.monotonic())
        if time.monotonic() - since < self._connection.timings.refusal_limit:
            return False
        del self._refused_since[job_id]
        return True

    def _is_left_to_engine(self, entry: Entry, job: Job) -> bool:
        """Return whether the engine of *job*, whose worker has died, may deliver its task again."""
        data = parse_job_data(remote_value(job, "data"))
        lease = Lease.of(data)
        if entry.final_report is not None or lease is None or lease.holder != entry.holder:
            return False
        now = self._connection.server_status.server_time()
        status = remote_value(job, "status")
        is_left = status == JobStatus.RUNNING and is_left_to_engine(status, data, now)
        self._looks_again |= is_left
        return is_left

    def _end_of(self, entry: Entry, job: Job) -> tuple[JobStatus, Mapping[str, Any]] | None:
        """Return the status and the data that *job* ends with; None to leave it alone."""
        status, text = remote_value(job, "status"), remote_value(job, "data")
        data = parse_job_data(text)
        lease = Lease.of(data)
        if lease is not None and lease.is_claim and status == JobStatus.RUNNING:
            lease = None  # it came too late
        if lease is not None and lease.holder != entry.holder:
            return None  # another session runs it by now
        if is_owned_by_other(data, entry.holder, self._connection.server_status.server_time()):
            return None  # and has ended it
        if (final := _read_final_report(entry)) is not None:
            # Its own session ended the Job. Any other end was a mistake: if the lease still stands,
            # or if a recovery took the session for dead.
            note = data.get(RECOVERED)
            is_mistaken = lease is not None or (
                isinstance(note, dict) and note.get("holder") == entry.holder
            )
            if status in END_STATUSES and not is_mistaken:
                return None
            ended, final_data = final
            return ended, compose_final_data(text, final_data)
        if status != JobStatus.RUNNING or entry.lost_host is None:
            return None
        reason, note = self._loss_of(entry)
        return JobStatus.FAILED, compose_recovered_data(text, reason, note)


def _has_begun(entry: Entry) -> bool:
    """Return whether the server is known to have had the Job of a final report."""
    return _parse(entry.final_report).get("has_begun") is True


def _read_final_report(entry: Entry) -> tuple[JobStatus, Mapping[str, Any]] | None:
    """Return the status and the data of a final report; None if there is none, or no valid one."""
    if entry.final_report is None:
        return None
    report = _parse(entry.final_report)
    data = report.get("data")
    try:
        return JobStatus(report["status"]), data if isinstance(data, dict) else {}
    except (ValueError, LookupError, TypeError):
        logger.warning(
            "Job %(job_id)s: what the journal keeps as its final status is none", job_id=entry.id
        )
        return None


def _parse(text: str | None) -> Mapping[str, Any]:
    try:
        report = json.loads(text or "null")
    except (ValueError, RecursionError):
        return {}
    return report if isinstance(report, dict) else {}
