"""The calls of a thread, and the task of the event loop that carries them out.

A thread is to a session what a task is: its task carries out its calls one after the other, so that
what it records is in a unit of work of its own, and a stop request ends the call that it waits in,
or its next one. A call sees the context variables of its thread, and sets them.
"""

from __future__ import annotations

import asyncio
import os
import sys
import threading
from collections import deque
from collections.abc import Callable, Coroutine
from contextvars import Context, copy_context
from functools import partial
from typing import Any
from weakref import WeakSet

import anyio
import sniffio

#: Seconds after which a wait looks for Ctrl-C where a lock cannot be interrupted; else for ever.
_WAIT = 0.2 if sys.platform == "win32" else -1

_UNSET = object()


class Call:
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


class Caller:
    """What carries out the calls of one thread, in a task of the event loop.

    Attributes:
        interruption: Why the next call is not begun: the block around it was cancelled.
        task: The task; None before the first call.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, all_: Callers) -> None:
        self._loop, self._all = loop, all_
        self._process = os.getpid()
        self._name = threading.current_thread().name
        self._calls = deque[Call | None]()
        self._wake: asyncio.Future[None] | None = None
        self.task: asyncio.Task[None] | None = None
        self.interruption: BaseException | None = None

    def put(self, call: Call | None) -> None:
        """Have *call* carried out; None to end. Called in the event loop."""
        self._calls.append(call)
        if self.task is None:
            # In a context of its own: it lives as long as the thread.
            self.task = self._loop.create_task(self._run(), name=self._name, context=Context())
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
                    if self._all.are_closed:
                        return
                    self.interruption = exc
            call = self._calls.popleft()
            if call is None:
                return
            await self._carry_out(call)

    async def _carry_out(self, call: Call) -> None:
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

    def _require_uninterrupted(self, call: Call, coroutine: Coroutine[Any, Any, Any]) -> None:
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


class Callers:
    """What carries out the calls of each thread.

    Attributes:
        threads: The threads that have called, and live.
        are_closed: Whether no thread calls any more.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._local = threading.local()
        self.threads = WeakSet[threading.Thread]()
        self.are_closed = False

    def of_this_thread(self) -> Caller:
        """Return what carries out the calls of the running thread."""
        handle: _Handle | None = getattr(self._local, "handle", None)
        if handle is None:
            handle = self._local.handle = _Handle(Caller(self._loop, self))
            self.threads.add(threading.current_thread())
        return handle.caller


class _Handle:
    """Belongs to one thread, and ends what carries out its calls when the thread has ended."""

    def __init__(self, caller: Caller) -> None:
        self.caller = caller

    def __del__(self) -> None:
        self.caller.end()
