"""Interventions: what other clients do to a running Job, as the reads of the Job show it.

They ask to stop it, set another status, change its text, fail it by mistake, take it over, or
delete it. A Job that is gone, or has another owner, is left alone at once: nothing is written about
it any more, and nothing waits for it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, cast

from aioftrackjobs.background import SafeLogger
from aioftrackjobs.errors import JobDeletedError, JobStoppedError, ServerError
from aioftrackjobs.jobs.context import JobsContext
from aioftrackjobs.jobs.data import RECOVERED, is_mistaken_failure
from aioftrackjobs.jobs.ownership import Lease, is_owned_by_other, owned_error
from aioftrackjobs.jobs.stopping import STOP, BlockScope, StopOn, StopRequest, stop_request_in
from aioftrackjobs.models import Job, JobStatus, parse_job_data, remote_value

logger: SafeLogger = SafeLogger(__name__)

#: Statuses that other clients may set. A status that only the server knows means nothing here.
_OTHER_STATUSES = (JobStatus.QUEUED, JobStatus.DONE, JobStatus.FAILED)

#: Texts of the latest reports: another client may write an older one again.
_OWN_TEXTS = 8

#: Times that the owner of a Job reads it before a block that has joined the Job takes a failure by
#: a recovery for its end.
_READS_OF_OWNER = 6


class Interventions:
    """Takes note of what other clients do to one Job, and ends its block if it has to.

    Until the Job runs, there is nothing to note; see :meth:`begin`.

    Args:
        jobs: What the Jobs of the session share.
        stop_on: What ends the block: see :func:`job_context`.
        write_soon: Has the Job written soon.
        adopt_text: Continues with a text that another client has given the Job.
        own_statuses: The statuses that the program of the block itself has set.
        leave: Has nothing written about the Job any more.

    Attributes:
        stop_requested: Whether the Job is to stop.
        read_at: When the Job was last read, in monotonic seconds.
        is_missing: Whether the latest read has not found it.
        is_deleted: Whether it was there, and is there no more.
        is_mistaken: Whether a recovery has failed it although this session runs it.
        is_taken_over: Whether another owner has taken it over.
        is_owner: Whether the block owns the Job, and has not only joined it.
        former: Names the session that the Job was taken from; None if it was not.
    """

    stop_requested: StopRequest
    _scope: BlockScope

    def __init__(
        self,
        jobs: JobsContext,
        stop_on: StopOn,
        *,
        write_soon: Callable[[], None],
        adopt_text: Callable[[str], None],
        own_statuses: Collection[object],
        leave: Callable[[], None],
    ) -> None:
        self._stop_on = stop_on
        self._holder, self._server, self._active = jobs.journal.holder, jobs.server, jobs.active
        self._new_owner: Lease | None = None
        self._background = jobs.background
        self._write_soon, self._adopt_text, self._leave = write_soon, adopt_text, leave
        self._own_statuses = own_statuses
        self._job: Job | None = None  # once it is known to run
        self._is_over = False
        self._was_seen = False  # by a read: some users may create Jobs that they cannot read
        self._is_hidden = False  # from this user, who could write it
        self._status: JobStatus | None = None  # that another client has set
        self._known: object = None  # data in which there is nothing new, as most often
        self._own_texts: tuple[object, ...] = ()
        self._has_lapsed = False  # its lease, since the latest read that shows it running
        self._recovered_at: float | None = None  # the first of the latest reads that show it
        self._owner_reads_within = (
            _READS_OF_OWNER * jobs.entities.connection.timings.job_read_interval
        )
        self.read_at: float = 0.0
        self.is_missing: bool = False
        self.is_deleted: bool = False
        self.is_mistaken: bool = False
        self.is_taken_over: bool = False
        self.is_owner = True
        self.former: str | None = None

    @property
    def forbid_writes(self) -> bool:
        """Whether nothing may be written about the Job any more."""
        return self.is_deleted or self.is_taken_over

    def begin(self, job: Job) -> None:
        """Take note that *job* runs."""
        self._job, self.read_at = job, time.monotonic()
        self.stop_requested = StopRequest(self._background.require_here)
        self._scope = BlockScope(self._background)
        self.note_text(parse_job_data(remote_value(job, "data")).get("description"))

    def end(self) -> None:
        """Take note that the block has ended: nothing can be stopped any more."""
        self._is_over = True

    def note_text(self, text: object) -> None:
        """Take note that the session writes *text* as the Job's description."""
        if not self._own_texts or self._own_texts[-1] != text:
            self._own_texts = (*self._own_texts[1 - _OWN_TEXTS :], text)

    # What the server says

    def note_read(self, row: Mapping[str, Any] | None) -> None:
        """Take note of the *row* that the server has for the Job; None if it has none."""
        if self.forbid_writes:
            return
        self.read_at = time.monotonic()
        self.is_missing = row is None
        self.is_mistaken = False
        if self._job is None:
            return
        if row is None:
            if self._was_seen:
                self._note_deletion()
            elif not self._is_hidden:  # perhaps it may not be read: a write shows that
                self._write_soon()
            return
        self._was_seen = True
        status, text = row.get("status"), row.get("data")
        if status == JobStatus.RUNNING:
            self._has_lapsed = False
            if text == self._known:
                return
        self._known = text
        data = parse_job_data(text)
        now = self._server.server_time()
        if self.is_owner and is_owned_by_other(data, self._holder, now, self.former):
            self.note_takeover(Lease.of(data), is_elsewhere=True)
        if not (self._is_over or self.is_taken_over):
            self._note_values(status, data)

    def _note_values(self, status: object, data: Mapping[str, Any]) -> None:
        if status == JobStatus.RUNNING:
            self._recovered_at = None
            lease = Lease.of(data)
            holder = None if lease is None else lease.holder
            if holder is None or holder != self.former:  # else a late write of that one
                self._note_text_of(data)
            if self.is_owner and self._active.has_leases and holder != self._holder:
                self._known = None  # until that is written
                self._write_soon()  # without it, another session may run the Job
            if STOP not in data:
                return
        if (request := stop_request_in(data)) is not None and not self.stop_requested:
            self.stop_requested.set_from(request)
            self._stop(ends_block=self._stop_on != "never")
        if self.is_owner and (
            is_mistaken_failure(status, data, self._holder) or self._has_lost_note(status, data)
        ):
            self.is_mistaken = True
            self._write_soon()
        elif status in _OTHER_STATUSES and not self.stop_requested:
            if status in self._own_statuses or self._may_be_overruled(status, data):
                return
            self.stop_requested.set("status", reason=f"its status was set to {status}")
            self._status = JobStatus(str(status))
            self._stop(ends_block=self._stop_on == "any")

    def _has_lost_note(self, status: object, data: Mapping[str, Any]) -> bool:
        """Return whether a write of this block has overwritten the note of a recovery.

        That may be if the lease was over before the write was applied: then a recovery could fail
        the Job between the read and the write.
        """
        lease = Lease.of(data)
        is_own = lease is not None and lease.holder == self._holder
        return status == JobStatus.FAILED and self._has_lapsed and is_own

    def _may_be_overruled(self, status: object, data: Mapping[str, Any]) -> bool:
        """Return whether a recovery has just failed the Job, whose owner elsewhere may live."""
        if self.is_owner or status != JobStatus.FAILED or RECOVERED not in data:
            return False
        self._recovered_at = self._recovered_at or self.read_at
        return self.read_at - self._recovered_at < self._owner_reads_within

    def _note_text_of(self, data: Mapping[str, Any]) -> None:
        text, base = data.get("description"), data.get("base_description")
        if isinstance(text, str) and text not in self._own_texts:
            self.note_text(text)
            # A block that has joined the Job reports with the same base text, or with its own.
            is_report = isinstance(base, str) and base and text.startswith(f"{base} (")
            self._adopt_text(str(base) if is_report else text)

    def note_written(self, *, had_lapsed: bool) -> None:
        """Take note that the server has applied a write of the Job.

        Args:
            had_lapsed: Whether the lease before it was over by then.
        """
        self._has_lapsed |= had_lapsed
        self._is_hidden = self.is_missing
        text = None if self._job is None else remote_value(self._job, "data")
        if isinstance(text, str) and f'"{STOP}"' not in text:  # one may not have been noted yet
            self._known = text

    def note_refusal(self, error: Exception) -> None:
        """Take note that the server has refused a write of the Job, perhaps because it is gone."""
        if not self.is_missing or self._is_hidden:
            return  # one that it could write although it cannot read it is refused for a reason
        if isinstance(error, ServerError) and not error.is_retryable:
            self._note_deletion()

    def _note_deletion(self) -> None:
        if self.is_deleted or self._job is None:
            return
        self.is_deleted = True
        self._leave()
        if not self._is_over and not self.stop_requested:
            self.stop_requested.set("deleted", reason="it was deleted")
            self._stop(ends_block=self._stop_on == "any")

    def note_takeover(self, owner: Lease | None = None, *, is_elsewhere: bool = False) -> None:
        """Leave the Job to another owner.

        Args:
            owner: The lease of the new owner; None if it has ended the Job already.
            is_elsewhere: Whether it is in another session.
        """
        if self.forbid_writes or self._job is None:
            return
        self.is_taken_over, self._new_owner = True, owner
        self._leave()
        by = "another" if owner is None else f"process {owner.process.pid} on {owner.process.host}"
        reason = f"it was taken over by {by}"
        if self._is_over:
            logger.warning(
                "%(job)r: %(reason)s; its end is not written", job=self._job, reason=reason
            )
            return
        self.stop_requested.set("taken over", reason=reason)
        ends_block = is_elsewhere and self._stop_on == "any"
        if not (ends_block and self._scope.cancel(reason)):
            logger.warning(
                "%(job)r: %(reason)s; its block goes on, and writes it no more",
                job=self._job,
                reason=reason,
            )

    def _stop(self, *, ends_block: bool) -> None:
        if not (ends_block and self._scope.cancel(str(self.stop_requested))):
            logger.warning(
                "%(job)r: %(reason)s; its block goes on", job=self._job, reason=self.stop_requested
            )

    # What becomes of the block

    @contextmanager
    def stoppable(self) -> Iterator[None]:
        """Let the block be cancelled when another client stops the Job.

        Raises:
            JobStoppedError: It was.
            JobDeletedError: It was, because the Job was deleted.
            JobOwnedError: It was, because the Job was taken over.
        """
        if self._stop_on == "never":
            yield
            return
        with self._scope:
            yield
        if self._scope.is_cancelled and self._job is not None:
            if self.is_deleted:
                raise JobDeletedError(self._job.id)
            if self.is_taken_over:
                raise owned_error(self._job.id, self._new_owner)
            stop = self.stop_requested
            raise JobStoppedError(self._job.id, stop.by, stop.reason)

    def has_caused(self, error: BaseException) -> bool:
        """Return whether *error* says that the block of this Job was stopped."""
        job_id = None if self._job is None else self._job.id
        # By its type, as except does: a class of the user's may have a __class__ that raises.
        is_stop = issubclass(type(error), JobStoppedError)
        return is_stop and cast("JobStoppedError", error).job_id == job_id

    @property
    def imposed_status(self) -> JobStatus | None:
        """The status for which the block was stopped, and which stays; None if there is none."""
        return self._status if self._status and self._scope.is_cancelled else None
