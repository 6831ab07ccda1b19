"""The event loop of a session: what differs between asyncio and trio, and who may use it.

A session has futures, tasks and connections of the event loop in which it was opened. In another
loop, in a thread beside the loop, or in a forked process, they are of no use: at best an ``await``
would never end. So whatever records a change or sends a request asks for the current task first,
which raises :class:`SessionStateError` in the wrong place.
"""

from __future__ import annotations

import inspect
import os
import sys
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Coroutine, Generator
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

import sniffio

from aioftrackjobs.errors import SessionStateError

if TYPE_CHECKING:
    import asyncio

    import trio

#: The task in which trio calls functions for other threads. They belong to no task of the program,
#: as the callbacks of asyncio.
_CALLBACKS_OF_TRIO = "<TrioToken.run_sync_soon task>"


class _Process:
    """This process. To ask the operating system for its id takes long, as often as it is needed."""

    id = os.getpid()

    @classmethod
    def note_fork(cls) -> None:
        cls.id = os.getpid()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_Process.note_fork)


class Waiter(Protocol):
    """What one task awaits until its result is set: an asyncio future, or the same for trio."""

    def done(self) -> bool:
        """Return whether the result is set, or the wait was cancelled."""
        ...

    def set_result(self, result: None, /) -> None:
        """Wake the task that awaits it."""
        ...

    def __await__(self) -> Generator[Any, Any, None]:
        """Wait for the result."""
        ...


class _EventWaiter:
    """A waiter for trio, which has no futures."""

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


class EventLoop(ABC):
    """The event loop in which this was made, in its thread and process.

    Tasks are of asyncio or of trio, so that nothing is known of them but their identity.

    Attributes:
        new_waiter: Makes what one task of the loop waits for.
        checkpoint: Lets other tasks run, as ``anyio.lowlevel.checkpoint``, which asks each time
            which event loop it is in; that takes several times as long.
        is_released: Whether it refuses nothing any more, because the session is closed.
    """

    new_waiter: Callable[[], Waiter]
    checkpoint: Callable[[], Coroutine[Any, Any, None]]

    def __init__(self) -> None:
        self._process = os.getpid()
        self._thread = threading.get_ident()
        self.is_released: bool = False

    def release(self) -> None:
        """Refuse nothing any more, because the session is closed."""
        self.is_released = True

    @abstractmethod
    def require_here(self) -> None:
        """Raise SessionStateError in another event loop, thread or process."""

    @abstractmethod
    def current_task(self) -> Any:
        """Return the running task; None in a callback, or while the loop does not run.

        Raises:
            SessionStateError: This is another event loop, thread or process.
        """

    @abstractmethod
    def is_running(self) -> bool:
        """Return whether the loop runs, so that code without a task is in one of its callbacks."""

    @abstractmethod
    def at_end_of(self, task: Any, callback: Callable[[Any], object]) -> None:
        """Call ``callback(task)`` after the end of *task*, which is running."""

    @staticmethod
    @abstractmethod
    def name_of(task: Any) -> str:
        """Return the name of *task*."""

    def _require_not_elsewhere(self, *, is_running: bool) -> None:
        """Raise unless this is the loop's own thread, where no other loop runs.

        Args:
            is_running: Whether an event loop of the same library runs here.
        """
        if self.is_released:
            return
        if os.getpid() != self._process:
            raise SessionStateError(
                f"this session belongs to process {self._process}, which opened it; open one "
                "session in each process, after the fork"
            )
        if threading.get_ident() != self._thread:
            raise SessionStateError(
                "this session belongs to the event loop of another thread. In a worker thread, "
                "write anyio.from_thread.run(session.commit), and anyio.from_thread.run_sync("
                "session.create, ...) for what is not awaited, with an `async with "
                "session.unit_of_work()` block around the thread; a thread with an event loop "
                "of its own opens a session of its own"
            )
        if is_running or _is_anything_running():
            raise SessionStateError(
                "this session belongs to another event loop; open one session in each event loop: "
                "async with AsyncSession(...) as session, inside of what asyncio.run() runs. In "
                "tests, run the fixture of the session in the event loop of the tests"
            )


class _AsyncioLoop(EventLoop):
    def __init__(self) -> None:
        import asyncio

        super().__init__()
        self._running_loop, self._task_of = asyncio.get_running_loop, asyncio.current_task
        self._loop = asyncio.get_running_loop()
        self.new_waiter = self._loop.create_future
        self.checkpoint = partial(asyncio.sleep, 0)

    def require_here(self) -> None:
        # For each change that is recorded: without a system call, unlike get_running_loop().
        is_own_thread = threading.get_ident() == self._thread and _Process.id == self._process
        if not (is_own_thread and self._loop.is_running()):
            self.current_task()

    def current_task(self) -> Any:
        try:
            loop = self._running_loop()
        except RuntimeError:  # also in a forked process
            loop = None
        if loop is self._loop:
            return self._task_of(loop)
        self._require_not_elsewhere(is_running=loop is not None)
        return None

    def is_running(self) -> bool:
        return self._loop.is_running()

    def at_end_of(self, task: Any, callback: Callable[[Any], object]) -> None:
        task.add_done_callback(callback)

    @staticmethod
    def name_of(task: asyncio.Task[Any]) -> str:
        return task.get_name()


class _TrioLoop(EventLoop):
    def __init__(self) -> None:
        import trio

        super().__init__()
        self._running_loop = trio.lowlevel.current_trio_token
        self._running_task = trio.lowlevel.current_task
        self._loop = trio.lowlevel.current_trio_token()
        self.new_waiter = lambda: _EventWaiter(trio.Event())
        self.checkpoint = trio.lowlevel.checkpoint
        self._at_end: dict[Any, Callable[[Any], object]] | None = None
        self._stop_watching: Callable[[], None]

    def require_here(self) -> None:
        self.current_task()

    def current_task(self) -> Any:
        try:
            loop, task = self._running_loop(), self._running_task()
        except RuntimeError:
            self._require_not_elsewhere(is_running=False)
            return None
        if loop is not self._loop or os.getpid() != self._process:
            self._require_not_elsewhere(is_running=True)
            return None
        return None if task.name == _CALLBACKS_OF_TRIO else task

    def is_running(self) -> bool:
        return True

    def at_end_of(self, task: Any, callback: Callable[[Any], object]) -> None:
        if self._at_end is None:
            self._at_end = self._watch_tasks()
        self._at_end[task] = callback

    def _watch_tasks(self) -> dict[Any, Callable[[Any], object]]:
        """Return the callbacks by task that are called at the end of their tasks from now on."""
        import trio

        callbacks = dict[Any, Callable[[Any], object]]()

        class Watch(trio.abc.Instrument):
            def task_exited(self, task: trio.lowlevel.Task) -> None:
                if (callback := callbacks.pop(task, None)) is not None:
                    callback(task)

        watch = Watch()
        trio.lowlevel.add_instrument(watch)
        self._stop_watching = partial(trio.lowlevel.remove_instrument, watch)
        return callbacks

    def release(self) -> None:
        super().release()
        if self._at_end is not None:
            self._at_end = None
            self._stop_watching()

    @staticmethod
    def name_of(task: trio.lowlevel.Task) -> str:
        return task.name


def running_event_loop() -> EventLoop:
    """Return the event loop that runs here."""
    return _TrioLoop() if sniffio.current_async_library() == "trio" else _AsyncioLoop()


def _is_anything_running() -> bool:
    try:
        sniffio.current_async_library()
    except sniffio.AsyncLibraryNotFoundError:
        return False
    return True


def mark_coroutine_functions(*functions: Callable[..., Coroutine[Any, Any, Any]]) -> None:
    """Let ``iscoroutinefunction`` be true of *functions* that return a coroutine.

    Frameworks call in a thread what is none, for example ``BackgroundTasks`` of Starlette.
    """
    if sys.version_info >= (3, 12):
        for function in functions:
            inspect.markcoroutinefunction(function)
    elif "asyncio" in sys.modules:
        import asyncio

        for function in functions:
            function._is_coroutine = asyncio.coroutines._is_coroutine  # type: ignore[attr-defined]


def loop_caller() -> Callable[[Callable[[], None]], object]:
    """Return a function that calls another one in the running event loop, from any thread."""
    if sniffio.current_async_library() == "trio":
        import trio

        return trio.lowlevel.current_trio_token().run_sync_soon
    import asyncio

    return asyncio.get_running_loop().call_soon_threadsafe


def turn_end_caller() -> Callable[[Callable[[], None]], object]:
    """Return a function that calls another one at the end of the event loop's turn.

    Unlike what :func:`loop_caller` returns, it must be called in the loop.
    """
    if sniffio.current_async_library() == "trio":
        return loop_caller()
    import asyncio

    # call_soon_threadsafe would wake a loop that is awake, by a system call each time.
    return asyncio.get_running_loop().call_soon
