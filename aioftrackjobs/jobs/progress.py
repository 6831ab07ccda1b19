"""Progress of Jobs: its text in the jobs menu, and when it is written.

The latest state of many Jobs is written together, once in an interval. A :class:`Channel` belongs
to one Job. The Job touches it when it has a new state; the writer then reads what others have
written meanwhile, and writes the state that the Job has by then, so that states in between are
never sent.
:mod:`aioftrackjobs.jobs.data` puts the text into the ``data`` of the Job.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeAlias
from weakref import WeakSet

import anyio
import anyio.lowlevel

from aioftrackjobs.background import BackgroundTasks
from aioftrackjobs.commit.queue import GROUP_OPERATIONS
from aioftrackjobs.commit.request import Applied, Outcome, PendingRequest, Settle, WithdrawnError
from aioftrackjobs.errors import FtrackJobsError, MalformedResponseError, ServerError
from aioftrackjobs.jobs.reading import JobReader, ReadableJob
from aioftrackjobs.secret import Secret
from aioftrackjobs.transport import redact

logger = logging.getLogger(__name__)

#: Characters of a message or of a reason; the jobs menu shows one line.
LONGEST_LINE = 300

#: Seconds between two rounds of lease renewals.
_RENEWAL_ROUND = 1.0

#: Queues a write of a Job's current state, and calls back with the outcome; None if there is
#: nothing to write.
Post: TypeAlias = Callable[[Settle], PendingRequest | None]


def one_line(text: str, *secrets: Secret[str]) -> str:
    """Return *text* in one line of limited length, without any of *secrets*."""
    # A text of many megabytes is cut before it is searched. Secrets are removed from the rest of
    # it before that is cut to its final length, which could leave a part of one.
    line = " ".join(redact(text[: 10 * LONGEST_LINE], *secrets).split())
    return line if len(line) <= LONGEST_LINE else f"{line[: LONGEST_LINE - 1]}…"


def text_of(value: object) -> str | None:
    """Return ``str(value)``; None for None, and if that raises an error."""
    try:
        return None if value is None else str(value)
    except Exception:  # noqa: BLE001 - a broken __str__ is no reason to end the work
        return None


class Progress(NamedTuple):
    """How far a Job is.

    Attributes:
        fraction: From 0 to 1; None if that is not known.
        message: What the Job is doing.
    """

    fraction: float | None
    message: str | None = None

    def __str__(self) -> str:
        parts = []
        if self.fraction is not None:
            percent = round(self.fraction * 100)
            parts.append(f"{percent if self.fraction >= 1 else min(percent, 99)} %")
        if self.message and (message := one_line(self.message)):
            parts.append(message)
        return ", ".join(parts)


def compose_description(
    base: str | None, progress: Progress | None, result: str | None, failure_reason: str | None
) -> str:
    """Return the text in the jobs menu.

    It is the base text with the progress, and then with what was done, or why the Job failed. For
    example ``Render sh010 (40 %, frame 12 of 30) - failed: OSError: disk full``.
    """
    text = base or ""
    if result:
        text = f"{text} - {result}" if text else result
    elif progress is not None and (shown := str(progress)):
        text = f"{text} ({shown})" if text else shown
    if failure_reason is not None:
        text = add_failure(text, failure_reason)
    return text


def add_failure(text: object, reason: str) -> str:
    """Return *text*, if there is any, followed by why the Job failed."""
    return f"{text} - failed: {reason}" if text else f"failed: {reason}"


class Channel:
    """The progress reports of one Job.

    The latest state is written, however often the channel is touched. A write that fails is
    logged, and not repeated: the next touch leads to the next write.

    Attributes:
        is_touched: Whether a state is yet to be read for a write.
    """

    def __init__(self, writer: ProgressWriter, job: ReadableJob, post: Post) -> None:
        self.job = job
        self._writer = writer
        self._post = post
        self._request: PendingRequest | None = None
        self._is_being_read = False
        self.is_touched = False
        self._is_stopped = False

    def touch(self) -> None:
        """Have the state written soon. Never waits."""
        self.is_touched = not self._is_stopped
        if self.is_touched and self._request is None and not self._is_being_read:
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

    def begin_read(self) -> bool:
        """Note that the Job is being read; return whether that is still of use."""
        self._is_being_read, self.is_touched = self.is_touched, False
        return self._is_being_read

    def drop(self) -> None:
        """Do not write now, because the Job could not be read."""
        self._is_being_read = False
        if self.is_touched:
            self._writer.add(self)

    def write(self) -> None:
        """Queue a write of the current state, unless the channel was stopped meanwhile.

        Only one is under way: a signal handler may touch the channel while its write is queued.
        """
        if self._is_stopped or self._request is not None:
            self._is_being_read = False
            return
        self.is_touched = False
        try:
            self._request = self._post(self._settle)
        except (FtrackJobsError, ValueError) as exc:  # others may keep in data what cannot be sent
            self._writer.log_failure(exc)
        finally:
            self._is_being_read = False

    def _settle(self, outcome: Outcome) -> None:
        self._request = None
        if not (
            isinstance(outcome, Applied)
            or isinstance(outcome.error, WithdrawnError)
            or self._is_stopped
        ):
            self._writer.log_failure(outcome.error)
        if self.is_touched:
            self._writer.add(self)


class ProgressWriter:
    """Writes the channels of any number of Jobs together, each at most once in an interval.

    Args:
        background: Where the writer runs; it has a task only while there is something to write.
        reader: Reads the Jobs before they are written.
        interval: Seconds from one round of writes to the next.
    """

    def __init__(
        self,
        background: BackgroundTasks,
        reader: JobReader,
        *,
        interval: float,
    ) -> None:
        self._background = background
        self._reader = reader
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

    def log_failure(self, error: Exception) -> None:
        """Log that a write failed: in one line for all writes that fail at the same time."""
        self._failures += 1
        if self._failures > 1:
            return
        try:
            self._background.spawn(self._log_failures, error)
        except FtrackJobsError:  # the session ends, and with it all Jobs that are left
            logger.warning("progress was not written; the work goes on: %s", error)

    async def _log_failures(self, error: Exception) -> None:
        await anyio.lowlevel.checkpoint()
        number, self._failures = self._failures, 0
        jobs = "" if number == 1 else f" for {number} Jobs"
        logger.warning("progress was not written%s; the work goes on: %s", jobs, error)

    async def _run(self) -> None:
        try:
            while self._touched:
                pause = self._next_round - time.monotonic()
                await anyio.sleep(max(pause, 0))
                self._next_round = time.monotonic() + self._interval
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
        except (ServerError, MalformedResponseError):
            pass  # a server that allows no such query is no reason to report nothing
        except FtrackJobsError as exc:
            for channel in channels:
                channel.drop()
                self.log_failure(exc)
            return
        for channel in channels:
            channel.write()


class ProgressWriters:
    """The progress writers of a session: one for each interval that its Jobs use."""

    def __init__(self, background: BackgroundTasks, reader: JobReader) -> None:
        self._background = background
        self._reader = reader
        self._writers: dict[float, ProgressWriter] = {}

    def __len__(self) -> int:
        return len(self._writers)

    def open_channel(self, interval: float, job: ReadableJob, post: Post) -> Channel:
        """Return a channel for *job*, which *post* writes at most every *interval* seconds."""
        if interval not in self._writers:
            # Idle writers are dropped: a daemon that computes its intervals would keep them all.
            self._writers = {key: each for key, each in self._writers.items() if not each.is_idle}
            writer = ProgressWriter(self._background, self._reader, interval=interval)
            self._writers[interval] = writer
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
            logger.debug("%r: its progress is not written any more: %s", self._job, exc)

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
