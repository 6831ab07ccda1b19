"""What happens to a running Job when another client stops, ends or deletes it.

A stop request is a value under ``stop`` in the ``data`` of a Job::

    "stop": {"by": "maya", "at": "2026-03-01T12:00:00+00:00", "reason": "wrong shot"}

Each of the three is optional, but one of them must be a text: a Job about a range of frames may
have ``{"start": 1001, "stop": 1100}`` in its data, which stops nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from datetime import datetime
from functools import cache
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, get_args

import anyio
import sniffio

from aioftrackjobs.background import BackgroundTasks
from aioftrackjobs.errors import JobStoppedError, SessionStateError

if TYPE_CHECKING:
    import asyncio

#: The key of a stop request in a Job's data.
STOP = "stop"

#: Characters of each part of a stop request that are shown.
_LONGEST_PART = 200

#: Seconds between two checks whether a block has left its shields.
_SHIELD_PAUSE = 0.02

#: What ends the block of a Job.
StopOn: TypeAlias = Literal["request", "any", "never"]
STOP_ON: tuple[StopOn, ...] = get_args(StopOn)

#: How another client has interfered with a Job: by a stop request, another status, a takeover or
#: a deletion.
Kind: TypeAlias = Literal["request", "status", "taken over", "deleted"]


class StopRequest:
    """Whether a running Job is to stop: a flag for loops and threads, and awaitable.

    ::

        for frame in frames:  # in any thread
            if job.stop_requested:
                break
            render(frame)

        await job.stop_requested  # returns when the Job is to stop

    It can be read in any thread, and awaited in the event loop of the session. It is true as well
    if another client has set the Job's status, or has deleted it: see *kind*.

    Attributes:
        kind: "request" for a stop request, "status" if another client has set its status, "taken
            over" if it has another owner, "deleted" if it is gone; None as long as the Job is not
            to stop.
        by: Who it was, if that is known.
        reason: Why, if that is known.
        at: When, if that is known.
    """

    def __init__(self, require_here: Callable[[], None]) -> None:
        self._require_here = require_here
        self.kind: Kind | None = None
        self.by: str | None = None
        self.reason: str | None = None
        self.at: datetime | None = None
        self._event: anyio.Event | None = None  # made when it is first awaited

    def __bool__(self) -> bool:
        return self.kind is not None

    def __str__(self) -> str:
        if self.kind is None:
            return "not stopped"
        return str(JobStoppedError("", self.by, self.reason))

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self}>"

    def __await__(self) -> Generator[Any, Any, StopRequest]:
        return self.wait().__await__()

    async def wait(self) -> StopRequest:
        """Wait until the Job is to stop; return this object.

        Raises:
            SessionStateError: The session belongs to another event loop, thread or process.
        """
        if self.kind is None:
            self._require_here()
            self._event = self._event or anyio.Event()
            await self._event.wait()
        return self

    def set(
        self,
        kind: Kind,
        *,
        by: str | None = None,
        reason: str | None = None,
        at: datetime | None = None,
    ) -> None:
        """Note that the Job is to stop, and wake all waiters. Only the first call has an effect."""
        if self.kind is not None:
            return
        self.by, self.reason, self.at = by, reason, at
        self.kind = kind  # last: another thread reads the rest after this
        if self._event is not None:
            self._event.set()

    def set_from(self, value: Mapping[str, Any]) -> None:
        """Note the stop request *value*, as a Job's data hold it."""
        at = value.get("at")
        self.set("request", by=_part(value, "by"), reason=_part(value, "reason"), at=_read_time(at))


def stop_request_in(data: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """Return the stop request in a Job's *data*; None if there is none."""
    value = data.get(STOP)
    if not isinstance(value, Mapping):
        return None
    return value if any(_part(value, name) for name in ("by", "at", "reason")) else None


def stopped_error(job_id: str, request: Mapping[str, Any]) -> JobStoppedError:
    """Return the error about a Job that the stop *request* in its data has ended."""
    return JobStoppedError(job_id, _part(request, "by"), _part(request, "reason"))


def without_stop_request(data: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return *data* without a stop request, which was for an earlier run of the Job."""
    if stop_request_in(data) is None:
        return data
    return {key: value for key, value in data.items() if key != STOP}


def _part(value: Mapping[str, Any], name: str) -> str | None:
    """Return one part of a stop request, in one line; None if it is no text."""
    text = value.get(name)
    line = " ".join(text.split()) if isinstance(text, str) else ""
    if len(line) > _LONGEST_PART:
        line = f"{line[: _LONGEST_PART - 1]}…"
    return line or None


def _read_time(text: object) -> datetime | None:
    try:
        return datetime.fromisoformat(text) if isinstance(text, str) else None
    except ValueError:
        return None


class BlockScope:
    """Cancels a block, but not the task that runs it.

    On trio that is a cancel scope. On asyncio it is a cancellation of the task that is taken back
    at the end of the block, as ``asyncio.timeout`` does it: a cancel scope would have to be left in
    the task that has entered it, and fixtures and hooks of frameworks do not.

    Args:
        background: Waits for the end of shields in the block.

    Attributes:
        is_cancelled: Whether the block was left because of :meth:`cancel`.
    """

    def __init__(self, background: BackgroundTasks) -> None:
        self._background = background
        self._scope: anyio.CancelScope | None = None  # on trio
        self._task: asyncio.Task[Any] | None = None  # on asyncio, inside of the block
        self._is_entered = False
        self._early_reason: str | None = None  # if it was cancelled before it was entered
        self._cancellations = 0  # of the task, before the block
        self._around: anyio.CancelScope | None = None
        self._has_cancelled = False
        self.is_cancelled: bool = False

    def __enter__(self) -> BlockScope:
        self._task = current_task()
        if self._task is None:
            self._scope = anyio.CancelScope()
            self._scope.__enter__()
        else:
            self._cancellations = self._task.cancelling()
            self._around = _innermost_scope(self._task)
        self._is_entered = True
        if self._early_reason is not None:
            self.cancel(self._early_reason)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> bool:
        if self._scope is not None:
            is_caught = bool(self._scope.__exit__(kind, error, trace))
            self.is_cancelled = self._scope.cancelled_caught
            return is_caught
        task, self._task = self._task, None
        if task is None or not self._has_cancelled:
            return False
        is_by_others = task.uncancel() > self._cancellations
        is_cancellation = isinstance(error, anyio.get_cancelled_exc_class())
        self.is_cancelled = is_cancellation and not is_by_others and task is current_task()
        return self.is_cancelled

    def cancel(self, reason: str) -> bool:
        """Cancel the block, as soon as it is in no shield; return whether that is possible.

        It is not if the task that has entered the block has ended, or the session is closed.

        Args:
            reason: The message of the ``CancelledError`` on asyncio.
        """
        if not self._is_entered:
            self._early_reason = reason
            return True
        if self._scope is not None:
            self._scope.cancel()
            return True
        if self._task is None or self._task.done():
            return False
        if self._is_shielded(self._task):
            try:
                self._background.spawn(self._cancel_after_shields, reason)
            except SessionStateError:
                return False  # it is closed, and the Job has its end
        else:
            self._cancel_task(self._task, reason)
        return True

    async def _cancel_after_shields(self, reason: str) -> None:
        while self._task is not None and not self._task.done():
            if not self._is_shielded(self._task):
                self._cancel_task(self._task, reason)
                return
            await anyio.sleep(_SHIELD_PAUSE)

    def _is_shielded(self, task: asyncio.Task[Any]) -> bool:
        """Return whether *task* is in a shield in the block: cancelling the task ignores it."""
        scope = _innermost_scope(task)
        while scope is not None and scope is not self._around:
            if scope.shield:
                return True
            scope = getattr(scope, "_parent_scope", None)
        return False

    def _cancel_task(self, task: asyncio.Task[Any], reason: str) -> None:
        self._has_cancelled = True
        task.cancel(reason)


@cache
def _scopes_of_tasks() -> Mapping[Any, Any]:
    from anyio._backends._asyncio import _task_states

    return _task_states


def _innermost_scope(task: asyncio.Task[Any]) -> anyio.CancelScope | None:
    """Return the cancel scope that *task* is in; anyio has no public way to see another task's."""
    try:
        scope: anyio.CancelScope | None = _scopes_of_tasks()[task].cancel_scope
    except (ImportError, LookupError, AttributeError):
        return None
    return scope


def current_task() -> asyncio.Task[Any] | None:
    """Return the task of asyncio that runs now; None on trio, or outside of a task."""
    try:
        if sniffio.current_async_library() != "asyncio":
            return None
    except sniffio.AsyncLibraryNotFoundError:
        return None
    import asyncio  # here, as in background: it is loaded already, or not needed

    return asyncio.current_task()
