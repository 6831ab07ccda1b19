"""What uploads and downloads share: background, cancellation, retries and progress.

How a cancelled transfer stops: it runs in the background of the session and not in the caller's
task, because a cancellation in the middle of a request can leave an unusable connection in the pool
of httpcore 1.0. If the caller is cancelled, the transfer is *stopped*. It raises StoppedError at
its next piece of data, or at once if it pauses between attempts, and httpcore cleans up after this
ordinary error. If it has not ended after ``_STOPPING_GRACE``, because the network does not respond,
it is cancelled, too. The caller's cancellation continues when the transfer has ended.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from contextvars import copy_context
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Literal, TypeAlias, TypeVar

import anyio

from aioftrackjobs.background import BackgroundTasks, is_cancellation_of_task
from aioftrackjobs.config.retry import Backoff, RetryPolicy
from aioftrackjobs.errors import FtrackJobsError, SessionStateError, TransferError, TransportError
from aioftrackjobs.protocol.headers import decode_retry_after

if TYPE_CHECKING:
    from aioftrackjobs.telemetry import SafeObserver

T = TypeVar("T")

#: Called with the number of bytes transferred, and of all bytes if it is known.
ProgressCallback: TypeAlias = Callable[[int, int | None], object]

#: Times that a new URL is asked for because a store rejects the latest, which may have expired.
RENEWALS = 2

#: Seconds in which a stopped transfer should reach its next piece of data.
_STOPPING_GRACE = 0.5

#: Tasks that work on the files of one call.
_AT_ONCE = 8

_SERVER_FAULT, _TOO_MANY_REQUESTS = 5, 429


class StoppedError(Exception):
    """The transfer was stopped, and ends."""


class CallbackExitError(Exception):
    """A callback has raised what is no Exception, such as the SystemExit of ``sys.exit``.

    Attributes:
        error: What it raised; the caller of the transfer gets it.
    """

    def __init__(self, error: BaseException) -> None:
        super().__init__(error)
        self.error = error


class RetryableError(Exception):
    """An attempt failed, and another attempt may succeed.

    Attributes:
        error: What to raise if there is no other attempt.
        retry_after: Seconds for which the server asked not to be called, if it did.
    """

    def __init__(self, error: TransferError, retry_after: float | None = None) -> None:
        super().__init__(error)
        self.error = error
        self.retry_after = retry_after


def failure_of(
    status: int, headers: Mapping[str, str], error: TransferError
) -> TransferError | RetryableError:
    """Return *error*, wrapped as RetryableError if the status says that it may pass."""
    if status // 100 == _SERVER_FAULT or status == _TOO_MANY_REQUESTS:
        return RetryableError(error, decode_retry_after(headers, datetime.now(UTC)))
    return error


class StopToken:
    """Stops a transfer; all parts of the transfer share it."""

    def __init__(self) -> None:
        self._scope = anyio.CancelScope()
        self._pauses: set[anyio.CancelScope] = set()
        self._reason: Exception | None = None
        self.stopped: bool = False

    def stop(self, reason: Exception | None = None) -> None:
        """Let the transfer end soon; it raises the first *reason* that was given."""
        self._reason = self._reason or reason
        if not self.stopped:
            self.stopped = True
            self._scope.deadline = anyio.current_time() + _STOPPING_GRACE
            for pause in self._pauses:
                pause.cancel()

    def check(self) -> None:
        """Raise StoppedError if the transfer was stopped; called between pieces of data."""
        if self.stopped:
            raise StoppedError

    async def pause(self, backoff: Backoff, retry_after: float | None) -> bool:
        """Wait for the next attempt, or until the transfer is stopped.

        Returns:
            Whether the back-off allows another attempt.
        """
        self.check()
        again = False
        with anyio.CancelScope() as pause:
            self._pauses.add(pause)
            try:
                again = await backoff.pause(retry_after)
            finally:
                self._pauses.discard(pause)
        self.check()
        return again

    async def guard(self, work: Callable[[], Awaitable[T]]) -> T:
        """Return the result of *work*; raise the reason of the stop if it was stopped."""
        with self._scope, suppress(StoppedError):
            return await work()
        raise self._reason or StoppedError


class Attempts:
    """Repeats an attempt that failed with a retryable error, as long as the policy allows it."""

    def __init__(self, policy: RetryPolicy, stop_token: StopToken) -> None:
        self._policy = policy
        self._stop_token = stop_token
        self._backoff: Backoff | None = None

    def reset(self) -> None:
        """Give the next failure the whole budget, because there was progress since the last one."""
        self._backoff = None

    async def run(self, attempt: Callable[[], Awaitable[T]]) -> T:
        """Return the result of the first *attempt* that succeeds.

        Raises:
            TransportError: The last attempt did not reach the server.
            TransferError: The last attempt failed, or one failed for good.
        """
        while True:
            self._stop_token.check()
            error: FtrackJobsError
            try:
                return await attempt()
            except TransportError as exc:
                if not exc.is_retryable:
                    raise
                error, retry_after = exc, None
            except RetryableError as exc:
                error, retry_after = exc.error, exc.retry_after
            # The budget begins with the failure, because the attempt may have run for hours.
            self._backoff = self._backoff or self._policy.backoff()
            if not await self._stop_token.pause(self._backoff, retry_after):
                raise error


class Meter:
    """Counts the bytes of a transfer, and reports them; bytes that are sent again count once.

    Args:
        total: Number of all bytes; None if it is not known.
        callback: Called on the event loop whenever more bytes are done than ever before, with the
            context variables of the task that makes this object.
    """

    def __init__(self, total: int | None, callback: ProgressCallback | None) -> None:
        self.total = total
        self._callback = callback
        self._context = copy_context()
        self._counts: dict[int, int] = {}
        self._reported = 0

    @property
    def done(self) -> int:
        """Number of bytes that are done."""
        return sum(self._counts.values())

    def set(self, part: int, count: int) -> None:
        """Set how many bytes of a part are done; fewer than before if the part begins anew."""
        self._counts[part] = count
        done = self.done
        if self._callback is not None and done > self._reported:
            self._reported = done
            self._call(self._callback, done, self.total)

    def finish(self, done: int) -> None:
        """Report that all *done* bytes are done, unless the callback was last called with them."""
        if self._callback is not None and (self._reported, self.total) != (done, done or None):
            self._call(self._callback, done, done)

    def _call(self, callback: ProgressCallback, done: int, total: int | None) -> None:
        try:
            self._context.run(callback, done, total)
        except Exception:
            raise
        except BaseException as exc:  # it would end the event loop, or all work in the background
            raise CallbackExitError(exc) from exc


@contextmanager
def observing(
    observer: SafeObserver | None, direction: Literal["upload", "download"], meter: Meter
) -> Iterator[None]:
    """Show the block to *observer*, if there is one, as the transfer whose bytes *meter* counts."""
    if observer is None:
        yield
        return
    began, failure = time.monotonic(), None
    try:
        yield
    except BaseException as exc:
        failure = exc
        raise
    finally:
        from aioftrackjobs.telemetry import ObservedTransfer

        seconds = time.monotonic() - began
        observer.transfer_ended(ObservedTransfer(direction, meter.done, seconds, failure))


async def run_in_background(
    background: BackgroundTasks, work: Callable[[], Awaitable[T]], stop_token: StopToken
) -> T:
    """Run *work* in the background, and return its result; stop it if the caller is cancelled.

    Raises:
        SessionStateError: The session was closed meanwhile.
    """
    ended = anyio.Event()
    results: list[T] = []
    errors: list[BaseException] = []

    async def run() -> None:
        try:
            results.append(await stop_token.guard(work))
        except BaseException as exc:  # raised in the caller's task, whose source or client it is of
            if isinstance(exc, GeneratorExit) or is_cancellation_of_task(exc):
                raise
            errors.append(exc)
        finally:
            ended.set()

    closed = SessionStateError("the session was closed during a transfer")
    with background.optional(partial(stop_token.stop, closed)):
        background.spawn(run)
        try:
            await ended.wait()
        except BaseException:
            stop_token.stop()
            with suppress(SessionStateError):
                await background.finish(ended.wait)
            raise
    for error in errors:
        raise error.error if isinstance(error, CallbackExitError) else error
    if not results:
        raise SessionStateError("the session was closed during a transfer")
    return results[0]


async def for_each(items: Iterable[T], work: Callable[[T], Awaitable[object]]) -> None:
    """Do *work* for each item, several at a time; the first error ends the others, and is raised.

    How many files are open at the same time is limited by the session.
    """
    waiting = iter(items)
    errors: list[Exception] = []

    async def work_on_some() -> None:
        try:
            for each in waiting:
                await work(each)
        except Exception as exc:  # noqa: BLE001 - raised below, without a group around it
            errors.append(exc)
            group.cancel_scope.cancel()

    async with anyio.create_task_group() as group:
        for _ in range(_AT_ONCE):
            group.start_soon(work_on_some)
    for error in errors:
        raise error


class Detached:
    """Work that goes on in the background when its caller has stopped waiting for it.

    Args:
        background: Runs it.
        work: Is repeated from its beginning if the shutdown of the event loop cancels it.
    """

    def __init__(self, background: BackgroundTasks, work: Callable[[], Awaitable[None]]) -> None:
        self._background = background
        self._work = work
        self._ended: anyio.Event | None = None
        self._is_done = False

    async def wait(self, seconds: float) -> None:
        """Start the work if it does not run; wait for its end, but no longer than some *seconds*.

        Raises:
            SessionStateError: The session was closed.
        """
        if self._ended is None or (self._ended.is_set() and not self._is_done):
            self._ended = anyio.Event()
            self._background.spawn(self._run, self._ended)
        with anyio.move_on_after(seconds):
            await self._ended.wait()

    async def _run(self, ended: anyio.Event) -> None:
        try:
            with self._background.keep_alive():
                await self._work()
            self._is_done = True
        finally:
            ended.set()
