"""The event loop of blocking code: one thread for each process, which all sessions share.

The event loop's thread is a daemon, so that a program can end. When the main thread has ended, the
sessions are closed, which ends the Jobs that still run; a process that has forked begins anew.
"""

from __future__ import annotations

import asyncio
import atexit
import os
import sys
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import Executor
from contextlib import suppress
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, ParamSpec, TypeVar, overload

from aioftrackjobs.background import SafeLogger
from aioftrackjobs.blocking._calls import Call, Callers
from aioftrackjobs.errors import SessionStateError
from aioftrackjobs.session import AsyncSession

if sys.platform == "win32":
    _PlainLoop = asyncio.ProactorEventLoop
else:  # not that of a policy, which may be the loop of a GUI
    _PlainLoop = asyncio.SelectorEventLoop

P = ParamSpec("P")
T = TypeVar("T")

logger = SafeLogger(__name__)

#: Seconds for which a fork waits until the event loop holds no lock and imports no module, and for
#: which it holds up the loop.
_LONGEST_PAUSE = 10.0

#: Seconds for the thread to end after its sessions are closed.
_LONGEST_END = 2.0

_HERE = str(Path(__file__).parent)


class _Loop(_PlainLoop):
    def run_in_executor(  # type: ignore[override]
        self, executor: Executor | None, func: Callable[..., Any], *args: Any
    ) -> asyncio.Future[Any]:
        """Run *func* in a thread, also when the main thread has ended: no executor would.

        It looks up names of servers, whose addresses the last connections may need.
        """
        if executor is not None:
            return super().run_in_executor(executor, func, *args)
        future = self.create_future()
        run = partial(_run_into, self, future, partial(func, *args))
        try:
            threading.Thread(target=run, name="aioftrackjobs lookup", daemon=True).start()
        except RuntimeError:  # the interpreter starts no threads any more
            run()
        return future


def _run_into(
    loop: asyncio.AbstractEventLoop, future: asyncio.Future[Any], function: Callable[[], Any]
) -> None:
    try:
        set_outcome = partial(future.set_result, function())
    except Exception as exc:  # noqa: BLE001 - it is raised where the future is awaited
        set_outcome = partial(future.set_exception, exc)
    except BaseException as exc:  # noqa: BLE001 - it is for the thread, not for who awaits it
        set_outcome = partial(future.set_exception, RuntimeError(f"its thread was ended: {exc!r}"))
    with suppress(RuntimeError):  # the event loop has ended
        loop.call_soon_threadsafe(lambda: future.done() or set_outcome())


async def in_thread(function: Callable[..., T], *args: Any) -> T:
    """Call *function* in a new thread, in which it may call what any thread may.

    Its end is not awaited if the caller is cancelled.
    """
    loop = asyncio.get_running_loop()
    future: asyncio.Future[T] = loop.create_future()
    name = getattr(function, "__qualname__", "aioftrackjobs")
    run = partial(_run_into, loop, future, partial(function, *args))
    threading.Thread(target=run, name=name, daemon=True).start()
    return await future


class LoopThread:
    """The thread of the event loop.

    Attributes:
        callers: What carries out the calls of its threads.
        sessions: The open sessions, which are closed when the program ends.
        is_over: Whether the program ends, so that nothing can be called any more.
        opening: Held while a session is opened.
    """

    def __init__(self) -> None:
        self.loop = _Loop()
        self.sessions = set[AsyncSession]()
        self.is_over = False
        self.opening = threading.Lock()
        self.callers = Callers(self.loop)
        self._paused = threading.local()
        self._closing = threading.Lock()
        self._thread = threading.Thread(target=self._run, name="aioftrackjobs", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        asyncio.set_event_loop(self.loop)
        try:
            self.loop.run_forever()
            for task in (tasks := asyncio.all_tasks(self.loop)):
                task.cancel()
            ended = asyncio.gather(*tasks, self.loop.shutdown_asyncgens(), return_exceptions=True)
            self.loop.run_until_complete(ended)
        finally:
            self.loop.close()

    @property
    def is_current_thread(self) -> bool:
        """Whether the calling code runs in the event loop."""
        return threading.current_thread() is self._thread

    def call(self, function: Callable[[], Any], *, is_last_step: bool) -> Any:
        """See :func:`call`."""
        if self.is_current_thread:
            raise SessionStateError(
                "a blocking call in the event loop that would carry it out: it would never end. "
                "Callbacks, as those for the progress of a transfer, can report on a Job, and "
                "hand other work to a thread"
            )
        if self.is_over:
            raise SessionStateError("the program ends, and its sessions are closed")
        made = Call(function, is_last_step=is_last_step)
        self.loop.call_soon_threadsafe(self.callers.of_this_thread().put, made)
        made.wait(self.loop)
        made.take_over_context()
        if made.error is not None:
            try:
                raise made.error.with_traceback(_without_ours(made.error.__traceback__))
            finally:
                del made  # the traceback has this frame
        return made.result

    # Forks

    def pause(self) -> None:
        """Hold the event loop where it holds no lock: a forked process could never open that."""
        if self.is_current_thread or self.loop.is_closed():
            return
        reached, go_on = threading.Event(), threading.Event()
        self._paused.go_on = go_on

        def hold() -> None:
            reached.set()
            go_on.wait(_LONGEST_PAUSE)

        self.loop.call_soon_threadsafe(hold)
        reached.wait(_LONGEST_PAUSE)

    def resume(self) -> None:
        """Let the event loop go on."""
        if (go_on := getattr(self._paused, "go_on", None)) is not None:
            go_on.set()

    # The end of the program

    def close_when_unused(self) -> None:
        """Close the sessions when all threads have ended for which the program waits."""
        main = threading.main_thread()
        for thread in [
            each for each in self.callers.threads if not each.daemon and each is not main
        ]:
            thread.join()
        self.close()

    def close(self) -> None:
        """Close the sessions, within the grace of their Jobs, and end the thread."""
        with self._closing:
            if self.is_over:
                return
            self.is_over = True
            closing = asyncio.run_coroutine_threadsafe(self._close_sessions(), self.loop)
            try:
                closing.result()
            finally:
                self.callers.are_closed = True
                self.loop.call_soon_threadsafe(self.loop.stop)
                self._thread.join(_LONGEST_END)

    async def _close_sessions(self) -> None:
        outcomes = await asyncio.gather(
            *(each.aclose() for each in tuple(self.sessions)), return_exceptions=True
        )
        for outcome in outcomes:
            if outcome is not None:
                logger.warning(
                    "a session was not closed at the end of the program: %(error)s", error=outcome
                )


@overload
def call(
    function: Callable[P, Coroutine[Any, Any, T]], /, *args: P.args, **kwargs: P.kwargs
) -> T: ...
@overload
def call(function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T: ...
def call(function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
    """Call *function* in the event loop, and wait for the coroutine that it returns, if any.

    Raises:
        SessionStateError: The calling code runs in the event loop; or the program ends.
        CancelledError: The block of a Job was stopped in which this is called.
    """
    return current_loop().call(partial(function, *args, **kwargs), is_last_step=False)


def call_last_step(
    function: Callable[P, Coroutine[Any, Any, T]], /, *args: P.args, **kwargs: P.kwargs
) -> T:
    """Do as :func:`call` for the end of a block, which takes place whatever has happened."""
    result: T = current_loop().call(partial(function, *args, **kwargs), is_last_step=True)
    return result


def check_interruption() -> None:
    """Raise what the next call would raise because the block around it was stopped."""
    current_loop().callers.of_this_thread().check()


def current_loop() -> LoopThread:
    """Return the event loop of this process; start it if need be."""
    if _state.loop is None:
        with _state.lock:
            if _state.loop is None:
                _state.loop = LoopThread()
                _state.end_with_program()
    return _state.loop


def _without_ours(trace: TracebackType | None) -> TracebackType | None:
    """Return *trace* from where the called function begins, for readers."""
    while trace is not None and trace.tb_frame.f_code.co_filename.startswith(_HERE):
        trace = trace.tb_next
    return trace


class _State:
    """The event loop of this process."""

    def __init__(self) -> None:
        self.loop: LoopThread | None = None
        self.lock = threading.Lock()
        self._left = list[LoopThread]()  # kept: to close them would disturb the other process
        self._is_registered = False

    def end_with_program(self) -> None:
        if self._is_registered:  # also in a forked process
            return
        self._is_registered = True
        atexit.register(self.close)
        try:
            # Earlier than atexit: then, no thread can be started any more.
            threading._register_atexit(self.close_soon)  # type: ignore[attr-defined]
        except (AttributeError, RuntimeError):  # it is not there, or the program ends already
            logger.debug("the sessions are closed by atexit")

    def close_soon(self) -> None:
        """Close the sessions in a thread that the interpreter waits for, as for other threads."""
        if self.loop is not None:
            closer = threading.Thread(
                target=self.loop.close_when_unused, name="aioftrackjobs end", daemon=False
            )
            with suppress(RuntimeError):  # some Pythons start no thread here: atexit does it then
                closer.start()

    def close(self) -> None:
        if self.loop is not None:
            self.loop.close()

    def before_fork(self) -> None:
        if self.loop is not None:
            self.loop.pause()

    def after_fork_in_parent(self) -> None:
        if self.loop is not None:
            self.loop.resume()

    def after_fork_in_child(self) -> None:
        self.lock = threading.Lock()
        if self.loop is not None:
            self._left.append(self.loop)
            self.loop = None


_state = _State()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=_state.before_fork,
        after_in_parent=_state.after_fork_in_parent,
        after_in_child=_state.after_fork_in_child,
    )
