"""The background tasks of a session, in a task group that no caller's cancel scope contains.

A session is often opened in one task and closed in another; a task group that the caller enters
does not survive that. So the task group lives in a task of its own, the *host task*: the only task
of this package that is not started by a task group (idea 2 of the design).

When an asyncio program ends by an error, its runner cancels *every* task, the host task too, while
Jobs still have their final status to send. The host task then starts a new task group, and goes on
as long as anything *keeps it alive*. A block that no task is left to exit does not keep it alive
any more: such a block is in a generator that was never closed, and the runner closes generators
only after all tasks have ended.

The cancellation of asyncio ignores shields: ``asyncio.timeout`` or a second ``cancel()`` breaks
into a shielded scope. So what must run to its end runs here, and its caller only waits for it; the
waiter keeps waiting even when it is cancelled.

A fault ends the piece of work that has it, and nothing else: the work of all Jobs runs side by side
here. :class:`.FaultGuard` decides what is a fault. It guards each piece of work that is spawned; a
loop whose next round matters guards each round by :meth:`BackgroundTasks.surviving`.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from contextvars import Context, ContextVar, copy_context
from functools import partial
from typing import TYPE_CHECKING, Any

import anyio
import anyio.lowlevel
import sniffio

from aioftrackjobs.background._event_loop import EventLoop, Waiter, loop_caller, running_event_loop
from aioftrackjobs.background._faults import (
    FaultGuard,
    Surviving,
    interrupt_asyncio,
    interrupt_trio,
    is_cancellation_of_task,
)
from aioftrackjobs.background._texts import name_of_function
from aioftrackjobs.errors import SessionStateError

if TYPE_CHECKING:
    import asyncio

Work = tuple[Context, Callable[..., Coroutine[Any, Any, None]], tuple[Any, ...], int]
CleanUp = Callable[[], Coroutine[Any, Any, None]]

#: Name of the host task and of the tasks that it starts.
_NAME = "aioftrackjobs host"

#: What has spawned this work, unless a caller waits for it in :meth:`BackgroundTasks.finish`.
_spawned_by: ContextVar[BackgroundTasks | None] = ContextVar("aioftrackjobs_spawned", default=None)

#: How often work is started again if the shutdown of the event loop has cancelled it.
_RESTARTS = 3


class KeepAlive:
    """Keeps background tasks running inside ``with``; it can be entered any number of times."""

    __slots__ = ("_background",)

    def __init__(self, background: BackgroundTasks) -> None:
        self._background = background

    def __enter__(self) -> None:
        self._background._kept_alive += 1

    def __exit__(self, *_: object) -> None:
        self._background.end_wait()


class _KeepAliveForBlock(KeepAlive):
    """The same for a user's block."""

    __slots__ = ()

    def __enter__(self) -> None:
        self._background._blocks += 1
        super().__enter__()

    def __exit__(self, *_: object) -> None:
        self._background._blocks -= 1
        super().__exit__()


class BackgroundTasks:
    """Runs background work from :meth:`start` to :meth:`aclose`.

    An error that escapes from work is logged, and the other work goes on.

    Args:
        clean_up: Awaited when all work has ended, for whatever reason.
        redact: Removes secrets from the text of an error that is logged.

    Attributes:
        event_loop: The event loop that runs the work; None before :meth:`start`.
        new_waiter: Makes what one task of this event loop waits for.
    """

    def __init__(self, clean_up: CleanUp, redact: Callable[[str], str] = str) -> None:
        self._clean_up = clean_up
        self._guard = FaultGuard(redact)
        self._group: anyio.abc.TaskGroup | None = None
        self._context = copy_context()
        # What has not begun, because there is no group or because its task has not had its first
        # turn. If the shutdown of the event loop cancels a task before that, nothing of it has run,
        # so that the next group starts it again.
        self._to_begin: dict[object, Work] = {}
        self._awaited: set[anyio.Event] = set()  # set when work ends that finish() waits for
        self._kept_alive = 0  # KeepAlive contexts that are entered
        self._blocks = 0  # those of them that were entered for a user's block
        self._keep_alive = KeepAlive(self)
        self._keep_alive_for_block = _KeepAliveForBlock(self)
        self._released: anyio.Event | None = None  # set when only blocks keep the tasks alive
        self._optional: set[Callable[[], object]] = set()  # what stops optional work
        self._stops_optional = False
        self._is_closing = False
        self._loop_is_shutting_down = False
        self._no_foreign_tasks = False  # during shutdown: only host tasks are left
        self._failure: BaseException | None = None
        self.event_loop: EventLoop | None = None
        self.new_waiter: Callable[[], Waiter]
        self._call_in_loop: Callable[[Callable[[], None]], object]
        self._unbegun: dict[object, Coroutine[Any, Any, None]] = {}  # coroutines of asyncio's tasks
        self._entry: Callable[[object], Coroutine[Any, Any, None]] = self._prepare
        self._task: asyncio.Task[None] | None = None  # asyncio keeps only weak references to tasks

    async def start(self) -> None:
        """Start the host task; returns once it is ready for work."""
        self._context = copy_context()
        self._started, self._stopping, self._stopped = anyio.Event(), anyio.Event(), anyio.Event()
        self.event_loop = running_event_loop()
        self.new_waiter = self.event_loop.new_waiter
        self._call_in_loop = loop_caller()
        library = sniffio.current_async_library()
        # A callback of asyncio is no task, in which anyio would find out the library by itself.
        self._context.run(_spawned_by.set, self)
        self._context.run(sniffio.current_async_library_cvar.set, library)
        if library == "trio":
            import trio

            # Ctrl-C is for the program: trio keeps it from its system tasks, but not from their
            # children. It keeps no other signal whose handler raises KeyboardInterrupt from them.
            @trio.lowlevel.enable_ki_protection
            async def begin(token: object) -> None:
                await self._begin(token)

            self._entry = begin
            self._guard.interrupt_program = interrupt_trio
            trio.lowlevel.spawn_system_task(self._run, name=_NAME)
        else:
            import asyncio

            self._task = asyncio.get_running_loop().create_task(self._run(), name=_NAME)
            self._guard.interrupt_program = partial(interrupt_asyncio, self._call_in_loop)
        try:
            await self._started.wait()
        except BaseException:
            self._stopping.set()
            raise

    def require_here(self) -> None:
        """Raise SessionStateError in another event loop, thread or process than the work's."""
        if self.event_loop is not None:
            self.event_loop.require_here()

    def is_called_by_task(self) -> bool:
        """Return whether the calling code is a task of the event loop, and may :meth:`spawn`.

        It is not in another thread, in a callback of the event loop, and in the handler of a signal
        that interrupts the loop's wait for something to do.
        """
        try:
            return self.event_loop is not None and self.event_loop.current_task() is not None
        except SessionStateError:
            return False

    def call_in_loop(self, function: Callable[[], None]) -> None:
        """Call *function* soon in the event loop; from any thread, callback or signal handler.

        Raises:
            SessionStateError: The event loop has ended.
        """
        try:
            self._call_in_loop(partial(self._call, function))
        except RuntimeError as exc:  # that of trio is one, too
            raise SessionStateError("the event loop of the session has ended") from exc

    def _call(self, function: Callable[[], None]) -> None:
        with self.surviving(name_of_function(function)):  # trio crashes by an error in a callback
            function()

    # Faults: see FaultGuard

    def surviving(self, what: str) -> Surviving:
        """Return a context for one round of work that goes on after a fault of it.

        Cancellations pass, and so does the SessionStateError of a session that is closed.

        Args:
            what: Names the work in the log.
        """
        return Surviving(self.survives, what)

    def survives(self, error: BaseException, what: str) -> bool:
        """Return whether *error* is a fault, which is logged then, so that other work goes on."""
        return self._guard.survives(error, what)

    def spawn(
        self, function: Callable[..., Coroutine[Any, Any, None]], *args: Any, turns: int = 0
    ) -> None:
        """Run ``function(*args)`` in the background, after some *turns* of the event loop.

        It runs in the context of the task that called :meth:`start`: work that takes long must not
        keep alive what its caller holds in context variables.

        Raises:
            SessionStateError: The background work has ended.
        """
        self._spawn(self._context, function, args, turns)

    def _spawn(
        self,
        context: Context,
        function: Callable[..., Coroutine[Any, Any, None]],
        args: tuple[Any, ...],
        turns: int = 0,
    ) -> None:
        if self.event_loop is None:
            raise SessionStateError("the session is not open")
        if self._failure is not None:
            raise SessionStateError("the session's background work failed") from self._failure
        if self._stopping.is_set():  # it would never begin
            raise SessionStateError("the session's background work has ended")
        token = object()
        self._to_begin[token] = context, function, args, turns
        if self._group is not None:
            self._start_in(self._group, context, token)

    def _start_in(self, group: anyio.abc.TaskGroup, context: Context, token: object) -> None:
        context.run(partial(group.start_soon, self._entry, token, name=_NAME))

    def _prepare(self, token: object) -> Coroutine[Any, Any, None]:
        self._unbegun[token] = coroutine = self._begin(token)
        return coroutine

    async def _begin(self, token: object) -> None:
        self._unbegun.pop(token, None)
        await self.wait_turns(self._to_begin[token][-1])
        _, function, args, _ = self._to_begin.pop(token)
        try:
            await function(*args)
        except SessionStateError:
            pass  # it is closed
        except BaseException as exc:
            if not self.survives(exc, name_of_function(function)):
                raise

    async def wait_turns(self, count: int) -> None:
        """Wait for some turns of the event loop."""
        assert self.event_loop is not None  # noqa: S101 - for type checkers
        for _ in range(count):
            await self.event_loop.checkpoint()

    async def finish(self, function: Callable[..., Coroutine[Any, Any, None]], *args: Any) -> None:
        """Run ``function(*args)`` to its end, however often the caller is cancelled meanwhile.

        If the caller is cancelled, it keeps waiting, and the cancellation is raised when the work
        is done. So the work must be bounded in time.

        Raises:
            SessionStateError: The background work has ended, or is in another event loop.
            Exception: What *function* raises.
        """
        self.require_here()
        finished = False
        failure: Exception | None = None

        async def run(ended: anyio.Event) -> None:
            nonlocal finished, failure
            try:
                await function(*args)
                finished = True
            except Exception as exc:
                if is_cancellation_of_task(exc):
                    raise
                failure, finished = exc, True
            finally:
                ended.set()

        cancellation: BaseException | None = None
        with self._keep_alive:
            for _ in range(1 + _RESTARTS):
                ended = anyio.Event()
                self._spawn(copy_context(), run, (ended,))
                self._awaited.add(ended)
                cancellation = await _wait_out(ended) or cancellation
                self._awaited.discard(ended)
                if finished:
                    break
        if failure is not None and (
            cancellation is None or not self.survives(failure, name_of_function(function))
        ):
            raise failure
        if cancellation is not None:
            raise cancellation

    def keep_alive(self) -> KeepAlive:
        """Return a context that keeps the tasks running while the event loop shuts down.

        When the session closes, it waits for the end of the context, but only for a while.
        """
        return self._keep_alive

    def begin_wait(self) -> bool:
        """Do as :meth:`keep_alive` up to :meth:`end_wait`, which must be called if this is true.

        It is not true in background work, for which no caller waits.
        """
        is_caller = _spawned_by.get() is not self
        self._kept_alive += is_caller
        return is_caller

    def end_wait(self) -> None:
        """Note that a caller waits no longer."""
        self._kept_alive -= 1
        if self._kept_alive == self._blocks or self._loop_is_shutting_down:
            self._note_exit()

    def keep_alive_for_block(self) -> KeepAlive:
        """Do as :meth:`keep_alive`, but only while there may be a task that exits the block.

        When the session closes, it does not wait for blocks: it ends their Jobs itself.
        """
        return self._keep_alive_for_block

    @contextmanager
    def optional(self, stop: Callable[[], object] | None = None) -> Iterator[anyio.CancelScope]:
        """Do as :meth:`keep_alive`, for work that is given up soon when the session closes.

        Args:
            stop: Called then; None to cancel the scope, which the context gives.
        """
        with self._keep_alive, anyio.CancelScope() as scope:
            stop = stop or scope.cancel
            self._optional.add(stop)
            if self._stops_optional:
                stop()
            try:
                yield scope
            finally:
                self._optional.discard(stop)

    def stop_optional(self) -> None:
        """Stop optional work, now and from now on."""
        self._stops_optional = True
        for stop in tuple(self._optional):
            stop()

    def _note_exit(self) -> None:
        if self._released is not None and self._kept_alive == self._blocks:
            self._released.set()
        self._stop_if_unneeded()

    def _stop_if_unneeded(self) -> None:
        """End a shutdown that nothing delays any more."""
        without_effect = self._blocks if self._no_foreign_tasks else 0
        if self._loop_is_shutting_down and self._kept_alive <= without_effect:
            self._stopping.set()

    async def _watch_foreign_tasks(self) -> None:
        """Let blocks delay the shutdown no longer when only host tasks are left to exit them."""
        import asyncio

        while others := [each for each in asyncio.all_tasks() if each.get_name() != _NAME]:
            await asyncio.wait(others)
        self._no_foreign_tasks = True
        self._stop_if_unneeded()

    async def wait_released(self) -> None:
        """Wait until nothing keeps the tasks alive, except blocks."""
        while self._kept_alive > self._blocks:
            self._released = anyio.Event()
            await self._released.wait()

    async def aclose(self, wind_down: CleanUp) -> None:
        """Run *wind_down* in the background, then end all work; waits even when it is cancelled.

        A second call waits for the end of the first.

        Raises:
            SessionStateError: It is in another event loop, or the clean-up has failed.
        """
        self.require_here()
        if not self._is_closing and not self._stopping.is_set():
            self._is_closing = True
            attempts = 1 + _RESTARTS

            async def close() -> None:
                nonlocal attempts
                attempts -= 1
                try:
                    with self._keep_alive_for_block:
                        await wind_down()
                except BaseException as exc:
                    is_shutdown = self._task is not None and is_cancellation_of_task(exc)
                    if is_shutdown and attempts and not self._stopping.is_set():
                        self.spawn(close)  # again, in the next group
                    else:
                        self._stopping.set()
                    raise
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

    def stop(self) -> None:
        """End all work soon, and do not wait for work that ignores its cancellation."""
        self._is_closing = True
        self._stopping.set()

    async def _run(self) -> None:
        try:
            while not self._stopping.is_set():
                try:
                    await self._run_group()
                except anyio.get_cancelled_exc_class():
                    self._loop_is_shutting_down = True
                    if not self._kept_alive or self._task is None:
                        # Trio cancels this task after all others have ended. What still keeps it
                        # alive is a block in a generator, which trio closes only after this task.
                        raise
                    self._task.uncancel()  # it is handled
        except GeneratorExit:  # the loop was closed: nothing can be awaited any more
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
            if self.event_loop is not None:
                self.event_loop.release()

    async def _run_group(self) -> None:
        try:
            async with anyio.create_task_group() as group:
                self._group = group
                for token, (context, *_) in self._to_begin.items():
                    self._start_in(group, context, token)
                if self._loop_is_shutting_down:
                    group.start_soon(self._watch_foreign_tasks, name=_NAME)
                self._started.set()
                try:
                    await self._stopping.wait()
                finally:
                    self._group = None  # from here on, work waits for the next group
                group.cancel_scope.cancel()
        finally:
            while self._unbegun:  # asyncio warns of coroutines that have not begun
                self._unbegun.popitem()[1].close()


async def _wait_out(event: anyio.Event) -> BaseException | None:
    """Wait for *event* although the caller may be cancelled; return the cancellation, if any."""
    cancellation: BaseException | None = None
    while not event.is_set():
        try:
            with anyio.CancelScope(shield=True):
                await event.wait()
        except anyio.get_cancelled_exc_class() as exc:  # asyncio's own ignores the shield
            cancellation = exc
    return cancellation
