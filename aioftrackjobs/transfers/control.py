"""What uploads and downloads have in common: where they run, how they stop, how they try again.

A transfer runs in the background of the session, not in the caller's task. A cancellation that
strikes a request of httpcore 1.0 at a bad moment leaves a connection in its pool that nobody can
use any more. So a cancelled caller has its transfer *stop*: it ends by itself at the next piece of
data, with an ordinary error that httpcore cleans up after. Only what has not stopped after a
while, because the network is stuck, is cancelled.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import TypeAlias, TypeVar

import anyio

from aioftrackjobs.background import BackgroundTasks
from aioftrackjobs.errors import FtrackJobsError, SessionStateError, TransferError, TransportError
from aioftrackjobs.retry import Backoff, RetryPolicy

T = TypeVar("T")

#: Called with the bytes that are done, and how many there are, if that is known.
ProgressCallback: TypeAlias = Callable[[int, int | None], object]

#: Seconds in which a transfer that is to stop may come to the next piece of its data.
_STOPPING_GRACE = 0.5


class StoppedError(Exception):
    """A transfer was told to stop, and does."""


class RetryableError(Exception):
    """An attempt failed in a way that may pass.

    Attributes:
        error: What to raise if it does not.
        asked: Seconds that the server asked to be left alone for, if it did.
    """

    def __init__(self, error: TransferError, asked: float | None = None) -> None:
        super().__init__(error)
        self.error = error
        self.asked = asked


class StopToken:
    """The way to stop a transfer, shared by all that belongs to it."""

    def __init__(self) -> None:
        self._scope = anyio.CancelScope()
        self._pauses: set[anyio.CancelScope] = set()
        self._reason: Exception | None = None
        self.stopped = False

    def stop(self, reason: Exception | None = None) -> None:
        """Let the transfer end soon; the first *reason* given is what it ends with."""
        self._reason = self._reason or reason
        if not self.stopped:
            self.stopped = True
            self._scope.deadline = anyio.current_time() + _STOPPING_GRACE
            for pause in self._pauses:
                pause.cancel()

    def check(self) -> None:
        """Raise StoppedError if the transfer is to stop; called between pieces of data."""
        if self.stopped:
            raise StoppedError

    async def pause(self, patience: Backoff, asked: float | None) -> bool:
        """Wait until another attempt is due, if there is one, and the transfer is not stopped."""
        self.check()
        again = False
        with anyio.CancelScope() as pause:
            self._pauses.add(pause)
            try:
                again = await patience.pause(asked)
            finally:
                self._pauses.discard(pause)
        self.check()
        return again

    async def guard(self, work: Callable[[StopToken], Awaitable[T]]) -> T:
        """Return what *work* returns; raise why it was stopped, if it was."""
        with self._scope, suppress(StoppedError):
            return await work(self)
        raise self._reason or StoppedError


class Attempts:
    """Repeats what failed in passing, for as long as the policy says."""

    def __init__(self, policy: RetryPolicy, halt: StopToken) -> None:
        self._policy = policy
        self._halt = halt
        self._patience: Backoff | None = None

    def renew(self) -> None:
        """Begin to count anew: there was progress, so the next failure is a new one."""
        self._patience = None

    async def run(self, attempt: Callable[[], Awaitable[T]]) -> T:
        """Return what *attempt* returns, when it does.

        Raises:
            TransportError: The server could not be reached, also not later.
            TransferError: It failed, for good or for too long.
        """
        while True:
            self._halt.check()
            error: FtrackJobsError
            try:
                return await attempt()
            except TransportError as exc:
                if not exc.is_retryable:
                    raise
                error, asked = exc, None
            except RetryableError as exc:
                error, asked = exc.error, exc.asked
            # The budget is for the trouble: a transfer may have gone well for hours before it.
            self._patience = self._patience or self._policy.backoff()
            if not await self._halt.pause(self._patience, asked):
                raise error


class Meter:
    """Counts the bytes of a transfer, and tells; what is sent again counts once.

    Args:
        total: How many there are; None if that is not known.
        callback: Called on the event loop whenever there are more than ever before.
    """

    def __init__(self, total: int | None, callback: ProgressCallback | None) -> None:
        self.total = total
        self._callback = callback
        self._counts: dict[int, int] = {}
        self._told = 0

    def set(self, part: int, count: int) -> None:
        """Say that *count* bytes of a part are done; fewer than before if it begins anew."""
        self._counts[part] = count
        done = sum(self._counts.values())
        if self._callback is not None and done > self._told:
            self._told = done
            self._callback(done, self.total)

    def finish(self, done: int) -> None:
        """Say that all is done, unless the callback knows."""
        if self._callback is not None and (self._told, self.total) != (done, done or None):
            self._callback(done, done)


async def run_in_background(host: BackgroundTasks, work: Callable[[StopToken], Awaitable[T]]) -> T:
    """Run *work* in the background, and return what it returns; who is cancelled stops it.

    Raises:
        SessionStateError: The session was closed meanwhile.
    """
    halt, ended = StopToken(), anyio.Event()
    results: list[T] = []
    errors: list[Exception] = []

    async def run() -> None:
        try:
            results.append(await halt.guard(work))
        except Exception as exc:  # noqa: BLE001 - raised where the caller waits
            errors.append(exc)
        finally:
            ended.set()

    with host.keep_alive():
        host.spawn(run)
        try:
            await ended.wait()
        except BaseException:
            halt.stop()
            with suppress(SessionStateError):
                await host.finish(ended.wait)
            raise
    for error in errors:
        raise error
    if not results:
        raise SessionStateError("the session was closed during a transfer")
    return results[0]
