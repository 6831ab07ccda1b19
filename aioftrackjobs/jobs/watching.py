"""Watching a block of ``job_context``: for an observer, and to keep what the block logs.

Most blocks are watched by nothing, and this module is not imported then.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Any, Protocol

from aioftrackjobs.jobs.job_log import JobLog
from aioftrackjobs.models import Job, JobStatus, parse_job_data, remote_value
from aioftrackjobs.telemetry import JobOutcome, ObservedJob, SafeObserver

_OUTCOMES: Mapping[JobStatus, JobOutcome] = {
    JobStatus.DONE: "done",
    JobStatus.FAILED: "failed",
    JobStatus.QUEUED: "queued",
}


class WatchedLifecycle(Protocol):
    """A Job's life that is watched.

    Attributes:
        watch: What watches it.
    """

    watch: Watch | None


class Watch(AbstractContextManager[None]):
    """Watches one block, from before its Job begins until after it has ended.

    Args:
        lifecycle: The life of the Job.
        observer: What it is shown to; None for nothing.
        is_joined: Whether the block works on the Job for its owner.
        keeps_log: Whether to keep what the block logs.

    Attributes:
        log: What the block has logged; None if that is not kept.
    """

    def __init__(
        self,
        lifecycle: WatchedLifecycle,
        observer: SafeObserver | None,
        *,
        is_joined: bool,
        keeps_log: bool,
    ) -> None:
        self._observer = observer
        self._job = ObservedJob(time.monotonic(), is_joined)
        self._has_begun = False
        self._status: JobStatus | None = None
        self.log: JobLog | None = JobLog() if keeps_log else None
        lifecycle.watch = self

    def __enter__(self) -> None:
        if self._observer is not None:
            self._observer.job_began(self._job)
        if self.log is not None:
            self.log.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self.log is not None:
            self.log.stop()
        if self._observer is not None:
            end = None if self._status is None else _OUTCOMES.get(self._status)
            self._job.outcome = (end or "left") if self._has_begun else "not_begun"
            self._job.error = error
            self._observer.job_ended(self._job)

    def added_to(self, data: Mapping[str, Any] | None) -> Mapping[str, Any] | None:
        """Return *data* of the program with what the observer adds to it."""
        return {**self._job.carrier, **(data or {})} or None

    def note_found(self, job: Job) -> None:
        """Take note of a Job that exists already, before anything is written."""
        data = parse_job_data(remote_value(job, "data"))
        texts = {name: value for name, value in data.items() if isinstance(value, str)}
        if self._observer is not None:
            self._job.id, self._job.found = job.id, texts
            self._observer.job_found(self._job)

    def note_begun(self, job: Job) -> None:
        """Take note that the Job runs."""
        self._has_begun, self._job.id = True, job.id
        if self._observer is not None:
            self._observer.job_running(self._job)

    def note_end(self, status: JobStatus) -> None:
        """Take note of the status with which the Job ends."""
        self._status = status
