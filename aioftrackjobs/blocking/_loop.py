"""The event loop of blocking code: one thread for each process, which all sessions share.

Each thread that calls has a task in the event loop, which carries out its calls one after the
other. So a thread is to the session what a task is: what it records is in a unit of work of its
own, and a stop request ends the call that it waits in, or its next one. A call sees the context
variables of the thread, and sets them.

The event loop's thread is a daemon, so that a program can end. When the main thread has ended, the
sessions are closed, which ends the Jobs that still run; a process that has forked begins anew.
"""

from __future__ import annotations

import asyncio
import atexit
import os
import sys
import threading
from collections import deque
from collections.abc import Callable, Coroutine
from concurrent.futures import Executor
from contextvars import Context, copy_context
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, ParamSpec, TypeVar, overload
from weakref import WeakSet

import anyio
import sniffio

from aioftrackjobs.background import SafeLogger
from aioftrackjobs.errors import SessionStateError
from aioftrackjobs.session import AsyncSession

if sys.platform == "win32":
    _PlainLoop = asyncio.ProactorEventLoop
else:  # not that of a policy, which may be the loop of a GUI
    _PlainLoop = asyncio.SelectorEventLoop

P = ParamSpec("P")
T = TypeVar("T")

logger = SafeLogger(__name__)

#: Seconds after which a wait looks for Ctrl-C where a lock cannot be interrupted; else for ever.
_WAIT = 0.2 if sys.platform == "win32" else -1

#: Seconds for which a fork waits until the event loop holds no lock, and holds up the loop.
_LONGEST_PAUSE = 1.0

#: Seconds for the thread to end after its sessions are closed.
_LONGEST_END = 2.0

_HERE = str(Path(__file__).parent)

_UNSET = object()


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
    loop.call_soon_threadsafe(lambda: future.done() or set_outcome())


class _Call:
    """A call that a thread waits for.

    Args:
        function: What is called; the coroutine that it returns is awaited.
        is_last_step: Whether it is the end of a block, which is run whatever has happened.
    """

    def __init__(self, function: Callable[[], Any], *, is_last_step: bool) -> None:
        self.function = function
        self.is_last_step = is_last_step
        self.context = copy_context()
        self.ended = threading.Lock()
        self.ended.acquire()
        self.scope: anyio.CancelScope | None = None
        self.is_cancelled = False
        self.result: Any = None
        self.error: BaseException | None = None

    def wait(self, loop: asyncio.AbstractEventLoop) -> None:
        """Wait for the end. Ctrl-C cancels the call, and is raised when that has ended."""
        try:
            self._wait()
        except BaseException:
            loop.call_soon_threadsafe(self._cancel)
            self._wait()  # a second Ctrl-C does not wait any longer
            raise

    def _wait(self) -> None:
        while not self.ended.acquire(timeout=_WAIT):
            pass

    def _cancel(self) -> None:
        self.is_cancelled = True
        if self.scope is not None:
            self.scope.cancel()

    def take_over_context(self) -> None:
        """Set the context variables in this thread that the call has set."""
        for variable, value in self.context.items():
            is_ours = variable is sniffio.current_async_library_cvar
            if not is_ours and variable.get(_UNSET) is not value:
                variable.set(value)


class _Caller:
    """What carries out the calls of one thread, in a task of the event loop.

    Attributes:
        interruption: Why the next call is not begun: the block around it was cancelled.
    """

    def __init__(self, thread: LoopThread) -> None:
        self._thread, self._loop = thread, thread.loop
        self._process = os.getpid()
        self._name = threading.current_thread().name
        self._calls = deque[_Call | None]()
        self._wake: asyncio.Future[None] | None = None
        self._task: asyncio.Task[None] | None = None
        self.interruption: BaseException | None = None

    def put(self, call: _Call | None) -> None:
        """Have *call* carried out; None to end. Called in the event loop."""
        self._calls.append(call)
        if self._task is None:
            # In a context of its own: it lives as long as the thread.
            self._task = self._loop.create_task(self._run(), name=self._name, context=Context())
        elif self._wake is not None and not self._wake.done():
            self._wake.set_result(None)

    def end(self) -> None:
        """End, because the thread ends; in any thread and process."""
        if os.getpid() == self._process and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self.put, None)

    async def _run(self) -> None:
        while True:
            while not self._calls:
                self._wake = self._loop.create_future()
                try:
                    await self._wake
                except asyncio.CancelledError as exc:
                    if self._thread.is_closed:
                        return
                    self.interruption = exc
            call = self._calls.popleft()
            if call is None:
                return
            await self._carry_out(call)

    async def _carry_out(self, call: _Call) -> None:
        try:
            with anyio.CancelScope() as call.scope:
                if call.is_cancelled:
                    call.scope.cancel()
                call.context.run(sniffio.current_async_library_cvar.set, "asyncio")
                result = call.context.run(call.function)
                if isinstance(result, Coroutine):
                    self._require_uninterrupted(call, result)
                    result = await _InContext(result, call.context)
                call.result = result
            if call.scope.cancelled_caught:
                call.error = asyncio.CancelledError()
        except BaseException as exc:  # raised in the thread
            call.error = exc
            if isinstance(exc, GeneratorExit):
                raise
        finally:
            call.ended.release()

    def _require_uninterrupted(self, call: _Call, coroutine: Coroutine[Any, Any, Any]) -> None:
        if call.is_last_step:
            self.interruption = None
        elif self.interruption is not None:
            coroutine.close()
            self.check()

    def check(self) -> None:
        """Raise what has interrupted the thread, if anything has."""
        interruption, self.interruption = self.interruption, None
        if interruption is not None:
            raise interruption


class _InContext:
    """Awaits a coroutine of which each step runs in a context."""

    def __init__(self, coroutine: Coroutine[Any, Any, Any], context: Context) -> None:
        self._coroutine = coroutine
        self._context = context

    def __await__(self) -> Any:
        resume = partial(self._coroutine.send, None)
        while True:
            try:
                awaited = self._context.run(resume)
            except StopIteration as stop:
                return stop.value
            try:
                yield awaited
            except BaseException as exc:  # noqa: BLE001 - it is raised in the coroutine
                resume = partial(self._coroutine.throw, exc)
            else:
                resume = partial(self._coroutine.send, None)


class _Handle:
    """Belongs to one thread, and ends what carries out its calls when the thread has ended."""

    def __init__(self, caller: _Caller) -> None:
        self.caller = caller

    def __del__(self) -> None:
        self.caller.end()


class LoopThread:
    """The thread of the event loop.

    Attributes:
        sessions: The open sessions, which are closed when the program ends.
        is_over: Whether the program ends, so that nothing can be called any more.
        is_closed: Whether the sessions are closed.
        opening: Held while a session is opened.
    """

    def __init__(self) -> None:
        self.loop = _Loop()
        self.sessions = set[AsyncSession]()
        self.is_over = self.is_closed = False
        self.opening = threading.Lock()
        self._callers = threading.local()
        self._threads = WeakSet[threading.Thread]()
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

    def caller(self) -> _Caller:
        """Return what carries out the calls of this thread."""
        handle: _Handle | None = getattr(self._callers, "handle", None)
        if handle is None:
            handle = self._callers.handle = _Handle(_Caller(self))
            self._threads.add(threading.current_thread())
        return handle.caller

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
        made = _Call(function, is_last_step=is_last_step)
        self.loop.call_soon_threadsafe(self.caller().put, made)
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
        for thread in [each for each in self._threads if not each.daemon and each is not main]:
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
                self.is_closed = True
                self.loop.call_soon_threadsafe(self.loop.stop)
                self._thread.join(_LONGEST_END)

    async def _close_sessions(self) -> None:
        outcomes = await asyncio.gather(
            *(each.aclose() for each in tuple(self.sessions)), return_exceptions=True
        )
        for outcome in outcomes:
            if outcome is not None:
                logger.warning("a session was not closed at the end of the program: %s", outcome)


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
    current_loop().caller().check()


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
            try:
                closer.start()
            except RuntimeError:
                self.loop.close()

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
