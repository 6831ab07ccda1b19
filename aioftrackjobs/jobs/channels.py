"""When the progress and the leases of Jobs are written: together for many, once in an interval.

A :class:`Channel` belongs to one Job. The Job touches it when it has a new state; the writer then
reads what others have written meanwhile, and writes the state that the Job has by then, so that
states in between are never sent.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import TypeAlias
from weakref import WeakSet

import anyio
import anyio.lowlevel

from aioftrackjobs.background import BackgroundTasks, SafeLogger
from aioftrackjobs.commit.lane import GROUP_OPERATIONS
from aioftrackjobs.commit.request import Applied, Outcome, PendingRequest, Settle, WithdrawnError
from aioftrackjobs.config.retry import Backoff, Pauses, RetryPolicy
from aioftrackjobs.errors import FtrackJobsError
from aioftrackjobs.jobs.reading import JobReader, ReadableJob
from aioftrackjobs.jobs.writing import allows_no_read, may_pass, retry_after_of

logger: SafeLogger = SafeLogger(__name__)

#: Seconds between two rounds of lease renewals.
_RENEWAL_ROUND = 1.0

#: Seconds after a refusal until the Job is written again: at first, and at most.
_REFUSAL_PAUSE, _LONGEST_REFUSAL_PAUSE = 1.0, 60.0

#: Queues a write of a Job's current state, and calls back with the outcome; None if there is
#: nothing to write.
Post: TypeAlias = Callable[[Settle], PendingRequest | None]


class Channel:
    """The progress reports of one Job.

    The latest state is written, however often the channel is touched. A write that may have failed
    is never repeated as it was: the Job is read again after a pause, and its state is written anew.
    When the retry policy allows no further attempt, that is logged, and the next touch leads to the
    next write. After a refusal that comes after a pause, each time after a longer one, and apart
    from other Jobs: together with them it would have all of them sent again.

    Attributes:
        is_touched: Whether a state is yet to be read for a write.
        backoff: What is left of the attempts after a write that has failed.
        peers: All channels of the same Job. One of them at a time reads and writes it, because
            what one has read is outdated when another has written.
    """

    peers: Sequence[Channel] = ()

    def __init__(self, writer: ProgressWriter, job: ReadableJob, post: Post) -> None:
        self.job = job
        self._writer = writer
        self._post = post
        self._request: PendingRequest | None = None
        self._is_waiting = False  # for the read of the Job, or for another attempt
        self.is_touched: bool = False
        self._is_stopped = False
        self._pause = 0.0  # after the latest refusal
        self.backoff: Backoff | None = None

    def touch(self) -> None:
        """Have the state written soon. Never waits."""
        self.is_touched = not self._is_stopped
        if self.is_touched and self._request is None and not self._is_waiting:
            self._writer.add(self)

    def close(self) -> None:
        """Write no more, nor what was not sent yet."""
        self._is_stopped, self.is_touched = True, False
        if self._request is not None:
            self._request.withdraw()

    async def stop(self) -> None:
        """Write no more, and wait for the end of a write that the server may have received."""
        self.close()
        if self._request is not None:
            await self._request.ended()

    @property
    def _is_busy(self) -> bool:
        return self._is_waiting or self._request is not None

    def _end_turn(self) -> None:
        """Let what was touched meanwhile be written."""
        for channel in self.peers or (self,):
            if channel.is_touched and not channel._is_busy:
                channel._writer.add(channel)

    def begin_read(self) -> bool:
        """Note that the Job is being read; return whether that is still of use."""
        if any(each._is_busy for each in self.peers):
            return False  # it is added again when the turn of that one ends
        self._is_waiting, self.is_touched = self.is_touched, False
        return self._is_waiting

    def drop(self) -> None:
        """Do not write now: the Job could not be read, or there is no further attempt."""
        self._is_waiting, self.backoff = False, None
        self._end_turn()

    def repeat(self) -> None:
        """Read and write the Job again after a write that has failed."""
        self._is_waiting = False
        self.touch()

    def write(self) -> None:
        """Queue a write of the current state, unless the channel was stopped meanwhile.

        Only one is under way: a signal handler may touch the channel while its write is queued.
        """
        if self._is_stopped or self._request is not None:
            self._is_waiting = False
            return
        self.is_touched = False
        try:
            self._request = self._post(self._settle)
        except Exception as exc:  # noqa: BLE001 - others may keep in data what cannot be sent
            self._writer.log_failure(exc)
        finally:
            self._is_waiting = False
        if self._request is None:  # there was nothing to write
            self._end_turn()

    def _settle(self, outcome: Outcome) -> None:
        self._request = None
        if isinstance(outcome, Applied):
            self.backoff, self._pause = None, 0.0
        elif not self._is_stopped:
            if isinstance(outcome.error, WithdrawnError):  # it has waited for too long
                self.is_touched = True
            elif may_pass(outcome.error):
                self._is_waiting = True
                self._writer.repeat(self, outcome.error)
                return
            else:
                self._writer.log_failure(outcome.error)
                self._is_waiting = True
                self._pause = min(max(2 * self._pause, _REFUSAL_PAUSE), _LONGEST_REFUSAL_PAUSE)
                self._writer.write_apart(self, self._pause)
                return
        self._end_turn()

    def end_pause(self) -> bool:
        """End the pause after a refusal; return whether the Job is to be read, and written."""
        self._is_waiting = False
        if self.is_touched and self.begin_read():
            return True
        self._end_turn()
        return False


class ProgressWriter:
    """Writes the channels of any number of Jobs together, each at most once in an interval.

    Args:
        background: Where the writer runs; it has a task only while there is something to write.
        reader: Reads the Jobs before they are written.
        retry: For how long, and how often, writes are repeated.
        pauses: Pauses between the attempts of all requests of the session.
        interval: Seconds from one round of writes to the next.
    """

    def __init__(
        self,
        background: BackgroundTasks,
        reader: JobReader,
        retry: RetryPolicy,
        pauses: Pauses,
        *,
        interval: float,
    ) -> None:
        self._background = background
        self._reader = reader
        self._retry, self._pauses = retry, pauses
        self._failed: list[Channel] = []
        self._interval = interval
        self._channels = WeakSet[Channel]()
        self._touched: dict[Channel, None] = {}
        self._next_round = -math.inf
        self._is_running = False
        self._failures = 0

    @property
    def is_idle(self) -> bool:
        """Whether no Job uses the writer, and a new one would write as soon as this one."""
        return not self._channels and not self._is_running and time.monotonic() >= self._next_round

    def open_channel(self, job: ReadableJob, post: Post) -> Channel:
        """Return a channel for *job*, which *post* writes."""
        channel = Channel(self, job, post)
        self._channels.add(channel)
        return channel

    def add(self, channel: Channel) -> None:
        """Have *channel* written in the next round."""
        self._touched[channel] = None
        if not self._is_running:
            self._is_running = True
            try:
                self._background.spawn(self._run)
            except FtrackJobsError:  # the session is closed: nothing is written any more
                self._is_running = False
                self._touched.clear()

    def repeat(self, channel: Channel, error: FtrackJobsError) -> None:
        """Write *channel* again after a pause, with all others that fail at the same time."""
        self._failed.append(channel)
        if len(self._failed) == 1:
            try:
                self._background.spawn(self._repeat_failed, error)
            except FtrackJobsError:  # the session ends, and with it all Jobs that are left
                self._failed.clear()

    async def _repeat_failed(self, error: FtrackJobsError) -> None:
        await anyio.lowlevel.checkpoint()
        failed, self._failed = self._failed, []
        may_repeat = False
        try:
            may_repeat = await self._pause(failed, error)
        finally:  # also if a function of the user's retry policy has raised
            for channel in failed:
                if may_repeat:
                    channel.repeat()
                else:
                    channel.drop()
                    self.log_failure(error)

    async def _pause(self, failed: Sequence[Channel], error: FtrackJobsError) -> bool:
        """Wait for another attempt to write *failed* channels; return whether there is one."""
        budget = self._retry.budget
        backoff = next((each.backoff for each in failed if each.backoff), self._retry.backoff())
        for channel in failed:
            channel.backoff = channel.backoff or backoff
        if budget and not backoff.is_begun:
            logger.warning(
                "progress is written again for %(seconds)g s: %(error)s",
                seconds=budget,
                error=error,
            )
        return await self._pauses.wait(backoff, retry_after_of(error))

    def write_apart(self, channel: Channel, pause: float) -> None:
        """Write *channel* after a pause in seconds, if it is touched by then; not with others."""
        try:
            self._background.spawn(self._write_after, channel, pause)
        except FtrackJobsError:  # the session ends, and with it all Jobs that are left
            channel.close()

    async def _write_after(self, channel: Channel, pause: float) -> None:
        await anyio.sleep(pause)
        if channel.end_pause():
            await self._write([channel])

    def log_failure(self, error: BaseException) -> None:
        """Log that a write failed: in one line for all writes that fail at the same time."""
        self._failures += 1
        if self._failures > 1:
            return
        try:
            self._background.spawn(self._log_failures, error)
        except FtrackJobsError:  # the session ends, and with it all Jobs that are left
            logger.warning("progress was not written; the work goes on: %(error)s", error=error)

    async def _log_failures(self, error: BaseException) -> None:
        await anyio.lowlevel.checkpoint()
        number, self._failures = self._failures, 0
        if number == 1:
            logger.warning("progress was not written; the work goes on: %(error)s", error=error)
            return
        logger.warning(
            "progress was not written for %(count)d Jobs; the work goes on: %(error)s",
            count=number,
            error=error,
        )

    async def _run(self) -> None:
        try:
            while self._touched:
                pause = self._next_round - time.monotonic()
                await anyio.sleep(max(pause, 0))
                self._next_round = time.monotonic() + self._interval
                with self._background.surviving("a round of progress reports"):
                    await self._write_all()
        except FtrackJobsError:
            logger.warning("progress is not written any more", exc_info=True)
        finally:
            self._is_running = False

    async def _write_all(self) -> None:
        """Write all touched channels.

        As many are read and written together as one request carries.
        """
        # In this order: a signal handler may add a channel at any moment.
        touched, self._touched = self._touched, {}
        channels = [channel for channel in touched if channel.begin_read()]
        for start in range(0, len(channels), GROUP_OPERATIONS):
            # In a task of its own: a read that hangs must not hold up the Jobs of later rounds.
            self._background.spawn(self._write, channels[start : start + GROUP_OPERATIONS])
            await anyio.lowlevel.checkpoint()

    async def _write(self, channels: Sequence[Channel]) -> None:
        try:
            await self._reader.read([channel.job for channel in channels])
        except BaseException as exc:
            # That no read is allowed is no reason to report nothing.
            if not (isinstance(exc, FtrackJobsError) and allows_no_read(exc)):
                for channel in channels:
                    channel.drop()
                    self.log_failure(exc)
                if not isinstance(exc, FtrackJobsError):
                    raise
                return
        for channel in channels:
            try:
                channel.write()
            except BaseException as exc:
                channel.drop()
                if not self._background.survives(exc, "a progress report"):
                    raise


class ProgressWriters:
    """The progress writers of a session: one for each interval that its Jobs use."""

    def __init__(
        self, background: BackgroundTasks, reader: JobReader, retry: RetryPolicy, pauses: Pauses
    ) -> None:
        self._make = partial(ProgressWriter, background, reader, retry, pauses)
        self._writers: dict[float, ProgressWriter] = {}

    def __len__(self) -> int:
        return len(self._writers)

    def open_channel(self, interval: float, job: ReadableJob, post: Post) -> Channel:
        """Return a channel for *job*, which *post* writes at most every *interval* seconds."""
        if interval not in self._writers:
            # Idle writers are dropped: a daemon that computes its intervals would keep them all.
            self._writers = {key: each for key, each in self._writers.items() if not each.is_idle}
            self._writers[interval] = self._make(interval=interval)
        return self._writers[interval].open_channel(job, post)


class Channels:
    """The channels of one Job, which may be touched in any thread, callback or signal handler.

    Args:
        background: Whose event loop a touch from elsewhere is handed over to.
        writers: The progress writers of the session.
        job: The Job.
        post: Queues a write of it.
        may_write: Whether anything may be written about it now.
        interval: Seconds from one report to the next.
    """

    def __init__(
        self,
        background: BackgroundTasks,
        writers: ProgressWriters,
        job: ReadableJob,
        post: Post,
        may_write: Callable[[], bool],
        *,
        interval: float,
    ) -> None:
        self._background = background
        self._writers = writers
        self._job, self._post, self._may_write = job, post, may_write
        self._interval = interval
        self._is_handed_over = False  # whether a touch is on its way to the event loop
        self._by_interval: dict[float, Channel] = {}  # opened when first used
        self._for_reports: Channel | None = None

    @property
    def are_used(self) -> bool:
        """Whether anything was to be written."""
        return bool(self._by_interval)

    def touch(self) -> None:
        """Have a report of the Job written soon. Never waits, and raises no error."""
        if self._for_reports is not None and self._for_reports.is_touched:
            return  # as most often: that write is yet to come
        try:
            if self._background.is_called_by_task():
                self._touch(self._interval)
            elif not self._is_handed_over:  # one that is on its way takes this change along
                self._is_handed_over = True
                self._background.call_in_loop(self._touch_handed_over)
        except (FtrackJobsError, RuntimeError) as exc:  # there is no event loop any more, or a fork
            logger.debug(
                "%(job)r: its progress is not written any more: %(error)s", job=self._job, error=exc
            )

    def _touch_handed_over(self) -> None:
        self._is_handed_over = False
        self._touch(self._interval)

    def touch_for_lease(self) -> None:
        """Have the Job written soon, however long the interval of its reports is."""
        self._touch(_RENEWAL_ROUND)

    def _touch(self, interval: float) -> None:
        if not self._may_write():
            return
        if interval not in self._by_interval:
            channel = self._writers.open_channel(interval, self._job, self._post)
            self._by_interval[interval] = channel
            for each in self._by_interval.values():
                each.peers = tuple(self._by_interval.values())
            self._for_reports = self._by_interval.get(self._interval)
        self._by_interval[interval].touch()

    def close(self) -> None:
        """Write no more."""
        for channel in self._by_interval.values():
            channel.close()

    async def stop(self) -> None:
        """Write no more, and wait for the end of a write that the server may have received."""
        for channel in self._by_interval.values():
            await channel.stop()
