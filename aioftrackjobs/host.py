"""The session's host task: it owns the background work, so that no caller's scope does.

A session is often opened in one task and closed in another; a task group entered by the caller
does not survive that. So the task group lives in a task of its own, the only one in this package
that is not started by a task group (design.md, idea 2).

When an asyncio program ends by an error, its runner cancels *every* task, this one too, while
Jobs still have their last word to send. The host then starts a new task group, and goes on for
as long as somebody *holds* it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from typing import Any

import anyio
import anyio.lowlevel
import sniffio

from aioftrackjobs.errors import SessionStateError

Work = tuple[Callable[..., Coroutine[Any, Any, None]], tuple[Any, ...]]


class Host:
    """Runs background work from :meth:`start` to :meth:`aclose`.

    Work handles its own errors: one that escapes is a defect, ends the others, and is raised by
    the next :meth:`spawn` and by :meth:`aclose`.
    """

    def __init__(self) -> None:
        self._group: anyio.abc.TaskGroup | None = None
        self._waiting: list[Work] = []
        self._holds = 0
        self._orphaned = False
        self._failure: BaseException | None = None
        self._task: asyncio.Task[None] | None = None  # asyncio keeps only weak references to tasks

    async def start(self) -> None:
        """Start the host task; returns once it is ready for work."""
        self._started, self._stopping, self._stopped = anyio.Event(), anyio.Event(), anyio.Event()
        if sniffio.current_async_library() == "trio":
            import trio

            trio.lowlevel.spawn_system_task(self._run, name="aioftrackjobs host")
        else:
            self._task = asyncio.get_running_loop().create_task(
                self._run(), name="aioftrackjobs host"
            )
        await self._started.wait()

    def spawn(self, function: Callable[..., Coroutine[Any, Any, None]], *args: Any) -> None:
        """Run ``function(*args)`` in the background.

        Raises:
            SessionStateError: The background work has ended.
        """
        if self._failure is not None:
            raise SessionStateError("the session's background work failed") from self._failure
        if self._stopped.is_set():
            raise SessionStateError("the session's background work has ended")
        if self._group is None:
            self._waiting.append((function, args))  # between two task groups
        else:
            self._group.start_soon(function, *args)

    @contextmanager
    def hold(self) -> Iterator[None]:
        """Keep the host running even if its program's event loop is shutting down."""
        self._holds += 1
        try:
            yield
        finally:
            self._holds -= 1
            if self._orphaned and not self._holds:
                self._stopping.set()

    async def aclose(self) -> None:
        """Cancel the background work, and wait for its end."""
        self._stopping.set()
        await self._stopped.wait()
        if self._failure is not None:
            raise SessionStateError("the session's background work failed") from self._failure

    async def _run(self) -> None:
        try:
            while not self._stopping.is_set():
                try:
                    await self._run_group()
                except anyio.get_cancelled_exc_class():
                    self._orphaned = True
                    if not self._holds:
                        raise
                    self._take_back_cancellation()
        except Exception as exc:  # noqa: BLE001 - kept, and raised by spawn and aclose
            self._failure = exc
        finally:
            self._started.set()
            self._stopped.set()

    async def _run_group(self) -> None:
        async with anyio.create_task_group() as group:
            self._group = group
            waiting, self._waiting = self._waiting, []
            for function, args in waiting:
                group.start_soon(function, *args)
            self._started.set()
            try:
                await self._stopping.wait()
            finally:
                self._group = None  # from here on, work waits for the next group
            group.cancel_scope.cancel()

    def _take_back_cancellation(self) -> None:
        """Tell asyncio that the cancellation was dealt with."""
        if self._task is not None:
            self._task.uncancel()
