"""Progress of a Job: as text, and written at most once per interval."""

from __future__ import annotations

import logging
import math
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import anyio

from aioftrackjobs.errors import FtrackJobsError
from aioftrackjobs.host import Host

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


class CoalescingWriter:
    """Calls *write* soon after :meth:`touch`, but at most once per *interval*.

    However often it is touched, one call writes the latest state. A failed call is logged; the
    next touch brings the next one.

    Args:
        host: Where it runs; it has a task only while there is something to write.
        write: Writes the state of the moment it is called.
        interval: Seconds from one call to the next.
    """

    def __init__(
        self, host: Host, write: Callable[[], Awaitable[None]], *, interval: float
    ) -> None:
        self._host = host
        self._write = write
        self._interval = interval
        self._touched = False
        self._next_write = -math.inf
        self._finished: anyio.Event | None = None
        self._stopping = anyio.Event()

    def touch(self) -> None:
        """Let the state be written soon. Never waits."""
        self._touched = True
        if self._finished is None and not self._stopping.is_set():
            finished = anyio.Event()
            try:
                self._host.spawn(self._run, finished)
            except FtrackJobsError:
                logger.warning("progress is not written any more", exc_info=True)
            else:
                self._finished = finished

    async def stop(self) -> None:
        """Write no more, and wait for the end of a call that is under way."""
        self._stopping.set()
        if self._finished is not None:
            await self._finished.wait()

    async def _run(self, finished: anyio.Event) -> None:
        try:
            while self._touched and not self._stopping.is_set():
                pause = self._next_write - anyio.current_time()
                if pause > 0:
                    with anyio.move_on_after(pause):
                        await self._stopping.wait()
                    continue
                self._touched = False
                self._next_write = anyio.current_time() + self._interval
                await self._try_write()
        finally:
            self._finished = None
            finished.set()

    async def _try_write(self) -> None:
        try:
            await self._write()
        except FtrackJobsError:
            logger.warning("progress was not written; the work goes on", exc_info=True)
