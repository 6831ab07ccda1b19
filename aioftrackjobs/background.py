"""The session's host task: it owns the background work, so that no caller's scope does.

A session is often opened in one task and closed in another; a task group entered by the caller
does not survive that. So the task group lives in a task of its own, the only one in this package
that is not started by a task group (design.md, idea 2).

When an asyncio program ends by an error, its runner cancels *every* task, this one too, while
Jobs still have their last word to send. The host then starts a new task group, and goes on for
as long as somebody *holds* it. A block that no task is left to leave holds it no longer: it is in
a generator that nobody has closed, which the runner does only when all tasks have ended.

Asyncio's own cancellation knows no shields: ``asyncio.timeout`` or a second ``cancel()`` breaks
into a shielded scope. So what must run to its end runs here, and who waits for it, waits on.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Generator
from contextvars import Context, copy_context
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

import anyio
import anyio.lowlevel
import sniffio

from aioftrackjobs.errors import SessionStateError

if TYPE_CHECKING:
    import asyncio

    import trio

Work = tuple[Context, Callable[..., Coroutine[Any, Any, None]], tuple[Any, ...]]
CleanUp = Callable[[], Coroutine[Any, Any, None]]

#: How tasks are called that are the host's.
_NAME = "aioftrackjobs host"

#: Times that work is started again which the end of the program's event loop cut off.
_RESTARTS = 3


class Waiter(Protocol):
    """What one task awaits until somebody sets its result: a future of asyncio's, or its like."""

    def done(self) -> bool:
        """Tell whether the result is set, or the wait was cancelled."""
        ...

    def set_result(self, result: None, /) -> None:
        """Wake who awaits it."""
        ...

    def __await__(self) -> Generator[Any, Any, None]:
        """Wait for the result."""
        ...


class _EventWaiter:
    """A latch of trio's, which has no futures."""

    def __init__(self, event: trio.Event) -> None:
        self._event = event
        self._is_done = False

    def done(self) -> bool:
        return self._is_done

    def set_result(self, _: None, /) -> None:
        self._is_done = True
        self._event.set()

    def __await__(self) -> Generator[Any, Any, None]:
        try:
            yield from self._event.wait().__await__()
        finally:
            self._is_done = True


class KeepAlive:
    """Keeps a host running inside ``with``; any number of times, and at once."""

    __slots__ = ("_blocks", "_host")

    def __init__(self, host: BackgroundTasks, *, blocks: int) -> None:
        self._host = host
        self._blocks = blocks

    def __enter__(self) -> None:
        self._host._holds += 1
        self._host._blocks += self._blocks

    def __exit__(self, *_: object) -> None:
        host = self._host
        host._holds -= 1
        host._blocks -= self._blocks
        if not host._holds or host._orphaned:
            host._note_released()


class BackgroundTasks:
    """Runs background work from :meth:`start` to :meth:`aclose`.

    Work handles its own errors: one that escapes is a defect, ends the others, and is raised by
    the next :meth:`spawn` and by :meth:`aclose`.

    Args:
        clean_up: Awaited when the work has ended, however that came about.
    """

    def __init__(self, clean_up: CleanUp) -> None:
        self._clean_up = clean_up
        self._group: anyio.abc.TaskGroup | None = None
        self._context = copy_context()
        # What has not begun: it waits for a group, or for its first turn in one. The end of the
        # program cancels tasks before that, and nothing of them has run then.
        self._to_begin: dict[object, Work] = {}
        self._awaited: set[anyio.Event] = set()  # ends that finish() waits for
        self._holds = 0
        self._blocks = 0  # of these holds
        self._hold, self._hold_for_block = KeepAlive(self, blocks=0), KeepAlive(self, blocks=1)
        self._orphaned = False
        self._alone = False
        self._failure: BaseException | None = None
        self._new_latch: Callable[[], Waiter]
        self._task: asyncio.Task[None] | None = None  # asyncio keeps only weak references to tasks

    async def start(self) -> None:
        """Start the host task; returns once it is ready for work."""
        self._context = copy_context()
        self._started, self._stopping, self._stopped = anyio.Event(), anyio.Event(), anyio.Event()
        self._released = anyio.Event()
        if sniffio.current_async_library() == "trio":
            import trio

            self._new_latch = lambda: _EventWaiter(trio.Event())
            trio.lowlevel.spawn_system_task(self._run, name=_NAME)
        else:
            import asyncio

            loop = asyncio.get_running_loop()
            self._new_latch = loop.create_future
            self._task = loop.create_task(self._run(), name=_NAME)
        try:
            await self._started.wait()
        except BaseException:
            self._stopping.set()
            raise

    @property
    def new_waiter(self) -> Callable[[], Waiter]:
        """Makes what a single task waits for, at the least cost; once the host was started."""
        return self._new_latch

    def spawn(self, function: Callable[..., Coroutine[Any, Any, None]], *args: Any) -> None:
        """Run ``function(*args)`` in the background.

        It runs in the context that the host was started in: what goes on for long must not keep
        alive what the flow that happened to start it holds in its context variables.

        Raises:
            SessionStateError: The background work has ended.
        """
        self._spawn(self._context, function, args)

    def _spawn(
        self,
        context: Context,
        function: Callable[..., Coroutine[Any, Any, None]],
        args: tuple[Any, ...],
    ) -> None:
        if self._failure is not None:
            raise SessionStateError("the session's background work failed") from self._failure
        if self._stopping.is_set():  # what is accepted from here on would never begin
            raise SessionStateError("the session's background work has ended")
        token = object()
        self._to_begin[token] = context, function, args
        if self._group is not None:
            self._start_in(self._group, context, token)

    def _start_in(self, group: anyio.abc.TaskGroup, context: Context, token: object) -> None:
        context.run(partial(group.start_soon, self._begin, token, name=_NAME))

    async def _begin(self, token: object) -> None:
        _, function, args = self._to_begin.pop(token)
        await function(*args)

    async def finish(self, function: Callable[..., Coroutine[Any, Any, None]], *args: Any) -> None:
        """Run ``function(*args)`` to its end, however often the caller is cancelled meanwhile.

        The caller waits, and a cancellation that came is raised when the work is done. So the
        work must be bounded in time.

        Raises:
            SessionStateError: The background work has ended.
        """
        finished = False

        async def run(ended: anyio.Event) -> None:
            nonlocal finished
            try:
                await function(*args)
                finished = True
            finally:
                ended.set()

        cancellation: BaseException | None = None
        with self.hold():
            for _ in range(1 + _RESTARTS):
                ended = anyio.Event()
                self._spawn(copy_context(), run, (ended,))
                self._awaited.add(ended)
                cancellation = await _wait_out(ended) or cancellation
                self._awaited.discard(ended)
                if finished:
                    break
        if cancellation is not None:
            raise cancellation

    def hold(self) -> KeepAlive:
        """Keep the host running: while its loop shuts down, and for a while when it is closed."""
        return self._hold

    def hold_for_block(self) -> KeepAlive:
        """Do as :meth:`hold` for as long as there may be a task that leaves the block."""
        return self._hold_for_block

    def _note_released(self) -> None:
        if not self._holds:
            self._released.set()
        self._end_if_orphaned()

    def _end_if_orphaned(self) -> None:
        if self._orphaned and self._holds <= (self._blocks if self._alone else 0):
            self._stopping.set()

    async def _end_when_alone(self) -> None:
        """Let blocks hold the host no longer when no tasks are left but those of hosts."""
        import asyncio

        while others := [each for each in asyncio.all_tasks() if each.get_name() != _NAME]:
            await asyncio.wait(others)
        self._alone = True
        self._end_if_orphaned()

    async def released(self) -> None:
        """Wait until nobody holds the host."""
        while self._holds:
            self._released = anyio.Event()
            await self._released.wait()

    async def aclose(self, wind_down: CleanUp) -> None:
        """Let *wind_down* run in the background, then end it; waits for that in any case.

        A second call waits for the end of the first.
        """
        if not self._stopping.is_set():

            async def close() -> None:
                try:
                    await wind_down()
                finally:
                    self._stopping.set()

            try:
                self.spawn(close)
            except SessionStateError:
                self._stopping.set()
        cancellation = await _wait_out(self._stopped)
        if self._failure is not None:
            raise SessionStateError("the session's background work failed") from self._failure
        if cancellation is not None:
            raise cancellation

    async def _run(self) -> None:
        try:
            while not self._stopping.is_set():
                try:
                    await self._run_group()
                except anyio.get_cancelled_exc_class():
                    self._orphaned = True
                    if not self._holds or self._task is None:
                        # Trio cancels this task when all others have ended; what still holds it
                        # is a generator that nobody closed, which comes after it.
                        raise
                    self._take_back_cancellation()
        except GeneratorExit:  # the loop was closed over it: nothing can be awaited any more
            self._stopped.set()
            raise
        except Exception as exc:  # noqa: BLE001 - kept, and raised by spawn and aclose
            self._failure = exc
            await self._end()
        except BaseException:
            await self._end()
            raise
        else:
            await self._end()

    async def _end(self) -> None:
        self._started.set()
        self._stopping.set()
        for ended in self._awaited:  # the work may not even have begun
            ended.set()
        try:
            with anyio.CancelScope(shield=True):
                await self._clean_up()
        finally:
            self._stopped.set()

    async def _run_group(self) -> None:
        async with anyio.create_task_group() as group:
            self._group = group
            for token, (context, _, _) in self._to_begin.items():
                self._start_in(group, context, token)
            if self._orphaned:
                group.start_soon(self._end_when_alone, name=_NAME)
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


def loop_caller() -> Callable[[Callable[[], None]], object]:
    """Return what calls a function in the running event loop, from any thread."""
    if sniffio.current_async_library() == "trio":
        import trio

        return trio.lowlevel.current_trio_token().run_sync_soon
    import asyncio

    return asyncio.get_running_loop().call_soon_threadsafe


def turn_end_caller() -> Callable[[Callable[[], None]], object]:
    """Return what calls a function when the running event loop's turn ends; only in the loop."""
    if sniffio.current_async_library() == "trio":
        return loop_caller()
    import asyncio

    return asyncio.get_running_loop().call_soon  # without waking who is awake, a system call each


async def _wait_out(event: anyio.Event) -> BaseException | None:
    """Wait for *event* although the caller may be cancelled; return the cancellation, if any."""
    cancellation: BaseException | None = None
    while not event.is_set():
        try:
            with anyio.CancelScope(shield=True):
                await event.wait()
        except anyio.get_cancelled_exc_class() as exc:  # asyncio's own, which no shield keeps off
            cancellation = exc
    return cancellation
