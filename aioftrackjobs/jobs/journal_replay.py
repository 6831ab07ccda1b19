"""Delivers what the journal keeps: last words, the failure of Jobs whose process died, clean-ups.

Whatever is written is decided by what the server holds right before: a Job that somebody else
runs by now, or that has ended in another way, is left alone.
"""

from __future__ import annotations

import json
import logging
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import anyio

from aioftrackjobs.entities.context import EntityContext
from aioftrackjobs.errors import FtrackJobsError, ServerError, SessionStateError, TransportError
from aioftrackjobs.jobs.data import RECOVERED, compose_recovery, compose_word
from aioftrackjobs.jobs.leases import Lease
from aioftrackjobs.jobs.termination import (
    END_STATUSES,
    end_jobs,
    fetch_jobs,
    lost_reason,
    recovery_note,
)
from aioftrackjobs.journal import Entry
from aioftrackjobs.models import Job, JobStatus, parse_job_data, remote_value
from aioftrackjobs.transfers.upload import remove_unregistered

logger = logging.getLogger(__name__)

#: Jobs that are looked at together.
_CHUNK = 100

#: Seconds before another look at what processes leave of which it cannot be told if they live,
#: and before another attempt where the server refused to tell anything.
_LOOK_AGAIN = 60.0

#: Seconds after which a Job that the server does not have is not going to appear any more.
_SETTLED = 120.0

#: Seconds in which the last request of a process that died arrives: it may register an upload.
_IN_FLIGHT = 2.0


class JournalReplay:
    """Brings the server up to date with the journal, in the background of a session.

    It runs when the session starts, and whenever a last word could not be delivered; for as long
    as something is left, however long the server is away.

    Args:
        workspace: The session's.
    """

    def __init__(self, workspace: EntityContext) -> None:
        self._workspace = workspace
        self._connection = workspace.connection
        self._journal = workspace.connection.journal
        # A server may be away for longer than anybody waits for a commit.
        self._policy = replace(workspace.connection.retry, budget=math.inf)
        self._refused: set[str] = set()
        self._woken: anyio.Event | None = None  # while it runs
        self._looks_again = False
        self._asked: float | None = None  # seconds that the server wants to be left alone for
        self._complaint: str | None = None

    def wake(self) -> None:
        """Deliver what waits, without delay for the caller."""
        if self._woken is not None:
            self._woken.set()
            return
        try:
            self._connection.host.spawn(self._run)
        except SessionStateError:
            return  # a later session does it
        self._woken = anyio.Event()

    async def _run(self) -> None:
        patience = self._policy.patience()
        try:
            while True:
                self._woken = woken = anyio.Event()
                with self._connection.host.hold():
                    is_all = await self.deliver()
                if not is_all:
                    await patience.pause(self._asked)
                elif self._looks_again:
                    with anyio.move_on_after(_LOOK_AGAIN):
                        await woken.wait()
                elif not woken.is_set():
                    return
        except SessionStateError:
            pass  # it is closed: a later one goes on
        finally:
            self._woken = None

    async def deliver(self) -> bool:
        """Deliver all that can be delivered now; return whether nothing is left to be.

        Raises:
            SessionStateError: The session is closed.
        """
        self._looks_again = await self._journal.claim()
        entries = [each for each in self._journal.unsettled() if each.id not in self._refused]
        jobs = [entry for entry in entries if entry.kind == "job"]
        uploads = [entry.id for entry in entries if entry.kind == "upload"]
        is_all, self._asked = True, None
        try:
            for start in range(0, len(jobs), _CHUNK):
                is_all &= await self._settle(jobs[start : start + _CHUNK])
            if uploads:
                await anyio.sleep(_IN_FLIGHT)
                is_all &= await remove_unregistered(self._workspace, uploads)
        except SessionStateError:
            raise
        except TransportError as exc:
            self._asked = exc.retry_after
            return False
        except FtrackJobsError as exc:
            if isinstance(exc, ServerError) and exc.is_retryable:
                self._asked = exc.retry_after
                return False
            self._complain(str(exc))  # such as of a key that is no longer good
            self._looks_again = True
            return True
        self._complaint = None
        return is_all

    def _complain(self, complaint: str) -> None:
        if complaint != self._complaint:
            logger.warning("what the journal keeps cannot be delivered: %s", complaint)
        self._complaint = complaint

    async def _settle(self, entries: Sequence[Entry]) -> bool:
        """Do what is to be done about some Jobs; return whether nothing is left to be."""
        found = await fetch_jobs(self._workspace, [entry.id for entry in entries])
        ends: dict[Job, tuple[JobStatus, Mapping[str, Any]]] = {}
        is_all = True
        for entry in filter(self._journal.has, entries):  # what is still so, after the look
            job = found.get(entry.id)
            if job is None:
                # Its creation may be on its way since the death of its process; the entry may be
                # much older than that.
                if abs(time.time() - max(entry.since, entry.lost_at or 0.0)) < _SETTLED:
                    is_all = False
                else:
                    self._journal.release_job(entry.id)
            elif (end := self._end_of(entry, job)) is None:
                self._journal.release_job(entry.id)
            else:
                ends[job] = end
        for job, error in (await end_jobs(self._workspace, ends)).items():
            if error is None:
                self._journal.release_job(job.id)
            elif isinstance(error, ServerError) and not error.is_retryable:
                self._refused.add(job.id)
                logger.warning("%r: the server refuses its last word: %s", job, error)
            else:
                self._asked = getattr(error, "retry_after", None) or self._asked
                is_all = False
        return is_all

    def _end_of(self, entry: Entry, job: Job) -> tuple[JobStatus, Mapping[str, Any]] | None:
        """Return how *job* is to end; None if it is to be left alone."""
        status, text = remote_value(job, "status"), remote_value(job, "data")
        data = parse_job_data(text)
        lease = Lease.of(data)
        if lease is not None and lease.holder != entry.holder:
            return None  # somebody else runs it by now
        if (word := _read_word(entry)) is not None:
            note = data.get(RECOVERED)
            # The lease of who says it stands until he has said it: any other end was a mistake.
            is_mistaken = lease is not None or (
                isinstance(note, dict) and note.get("holder") == entry.holder
            )
            if status in END_STATUSES and not is_mistaken:
                return None
            ended, said = word
            return ended, compose_word(text, said)
        if status != JobStatus.RUNNING or entry.lost_host is None:
            return None
        at = datetime.fromtimestamp(entry.lost_at or entry.since, UTC)
        note = recovery_note(entry.holder, self._connection.contact.server_time())
        reason = lost_reason(entry.lost_host, at)
        return JobStatus.FAILED, compose_recovery(text, reason, note)


def _read_word(entry: Entry) -> tuple[JobStatus, Mapping[str, Any]] | None:
    """Return the status and the data of a last word; None if there is none that can be read."""
    if entry.word is None:
        return None
    try:
        word = json.loads(entry.word)
        return JobStatus(word["status"]), dict(word["data"])
    except (ValueError, LookupError, TypeError):
        logger.warning("Job %s: what the journal keeps as its last word is none", entry.id)
        return None
