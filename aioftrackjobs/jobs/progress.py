"""Progress of Jobs: as text, and written together, at most once per interval."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias
from weakref import WeakSet

import anyio
import anyio.lowlevel

from aioftrackjobs.background import BackgroundTasks
from aioftrackjobs.commit.queue import GROUP_OPERATIONS
from aioftrackjobs.commit.request import Applied, Outcome, PendingRequest, Settle
from aioftrackjobs.errors import FtrackJobsError

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a Job is.

    Attributes:
        fraction: From 0 to 1.
        message: What it is doing.
    """

    fraction: float
    message: str | None = None

    @classmethod
    def of(cls, done: float, message: str | None, total: float | None) -> Progress:
        """Return the progress of *done* out of *total*, or out of 1; beyond it counts as it.

        Raises:
            ValueError: One of them is no number, or the total is not above 0.
        """
        whole = 1.0 if total is None else total
        if not whole > 0 or math.isnan(fraction := done / whole):
            raise ValueError(f"no progress: {done} of {whole}")
        return cls(round(min(max(fraction, 0.0), 1.0), 4), message)

    def __str__(self) -> str:
        percent = f"{self.fraction * 100:.0f} %"
        return f"{percent}, {self.message}" if self.message else percent


#: Writes what there is to tell of a Job, and calls back with what became of it.
Post: TypeAlias = Callable[[Settle], PendingRequest]


class Channel:
    """What one Job has on a board.

    However often it is touched, the board writes the latest state. A write that fails is logged;
    the next touch brings the next one.
    """

    def __init__(self, board: ProgressWriter, post: Post) -> None:
        self._board = board
        self._post = post
        self._ticket: PendingRequest | None = None
        self._touched = False
        self._stopped = False

    def touch(self) -> None:
        """Let the state be written soon. Never waits."""
        self._touched = not self._stopped
        if self._touched and self._ticket is None:
            self._board.add(self)

    async def stop(self) -> None:
        """Write no more, and wait for the end of a write that is under way."""
        self._stopped, self._touched = True, False
        if self._ticket is not None:
            await self._ticket.ended()

    def write(self) -> None:
        """Queue a write of the state as it is now, unless it was stopped meanwhile."""
        if not self._touched:
            return
        self._touched = False
        try:
            self._ticket = self._post(self._ended)
        except (FtrackJobsError, ValueError) as exc:  # what others keep in its data may not travel
            self._board.note_failure(exc)

    def _ended(self, outcome: Outcome) -> None:
        self._ticket = None
        if not isinstance(outcome, Applied):
            self._board.note_failure(outcome.error)
        if self._touched:
            self._board.add(self)


class ProgressWriter:
    """Writes the lines of any number of Jobs together: each at most once per *interval*.

    Args:
        host: Where it runs; it has a task only while there is something to write.
        interval: Seconds from one round of writes to the next.
    """

    def __init__(self, host: BackgroundTasks, *, interval: float) -> None:
        self._host = host
        self._interval = interval
        self._known = WeakSet[Channel]()
        self._lines: dict[Channel, None] = {}  # to be written
        self._next_round = -math.inf
        self._runs = False
        self._failures = 0

    @property
    def is_idle(self) -> bool:
        """Whether no Job has a line, and a new board would write as soon as this one."""
        return not self._known and not self._runs and anyio.current_time() >= self._next_round

    def line(self, post: Post) -> Channel:
        """Return a line that is written by *post*."""
        line = Channel(self, post)
        self._known.add(line)
        return line

    def add(self, line: Channel) -> None:
        """Let *line* be written in the next round."""
        self._lines[line] = None
        if not self._runs:
            try:
                self._host.spawn(self._run)
            except FtrackJobsError:
                logger.warning("progress is not written any more", exc_info=True)
            else:
                self._runs = True

    def note_failure(self, error: Exception) -> None:
        """Log that a write failed: one line for all that do at the same time."""
        self._failures += 1
        if self._failures > 1:
            return
        try:
            self._host.spawn(self._tell_failures, error)
        except FtrackJobsError:  # the session ends, and so do all that are left
            logger.warning("progress was not written; the work goes on: %s", error)

    async def _tell_failures(self, error: Exception) -> None:
        await anyio.lowlevel.checkpoint()
        number, self._failures = self._failures, 0
        jobs = "" if number == 1 else f" for {number} Jobs"
        logger.warning("progress was not written%s; the work goes on: %s", jobs, error)

    async def _run(self) -> None:
        try:
            while self._lines:
                pause = self._next_round - anyio.current_time()
                await anyio.sleep(max(pause, 0))
                self._next_round = anyio.current_time() + self._interval
                await self._write_all()
        except FtrackJobsError:
            logger.warning("progress is not written any more", exc_info=True)
        finally:
            self._runs = False

    async def _write_all(self) -> None:
        """Write all lines: as many in one go as one request carries, then others have a turn."""
        lines, self._lines = list(self._lines), {}
        for start in range(0, len(lines), GROUP_OPERATIONS):
            for line in lines[start : start + GROUP_OPERATIONS]:
                line.write()
            await anyio.lowlevel.checkpoint()


class ProgressBoards:
    """The boards of a session: one for each interval that its Jobs have."""

    def __init__(self, host: BackgroundTasks) -> None:
        self._host = host
        self._boards: dict[float, ProgressWriter] = {}

    def board(self, interval: float) -> ProgressWriter:
        """Return the board that is written every *interval* seconds."""
        if interval not in self._boards:
            # Or a daemon whose intervals are computed would keep one for each.
            self._boards = {key: each for key, each in self._boards.items() if not each.is_idle}
            self._boards[interval] = ProgressWriter(self._host, interval=interval)
        return self._boards[interval]
