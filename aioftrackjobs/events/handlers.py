"""The tasks that run a handler: several at a time, and in order for each key."""

from __future__ import annotations

import inspect
from collections import deque
from collections.abc import Awaitable, Callable, Hashable
from typing import Any, Generic, Protocol, TypeVar

import anyio.abc

from aioftrackjobs.background import SafeLogger, format_error, is_cancellation_of_task, type_name
from aioftrackjobs.events.models import Event, Gap, Lagged

logger: SafeLogger = SafeLogger(__name__)

E = TypeVar("E", bound=Event)

#: The key of all events of a handler that has no keys: those do not wait for each other.
_NO_KEY = object()


class HandlerHost(Protocol):
    """What handlers need of their hub."""

    def start(self, function: Callable[[], Awaitable[None]], name: str) -> bool:
        """Run *function* in a task; False if it is too early or too late for that."""
        ...

    def reply_with(self, event: Event, data: Any) -> None:
        """Publish *data* as the reply to *event*."""
        ...

    def report_gap(self, gap: Gap) -> None:
        """Log a gap that the program does not ask for."""
        ...

    def redact(self, text: str) -> str:
        """Return *text* without secrets."""
        ...

    def end_turn(self, name: str) -> None:
        """Drop what the running task has recorded and not committed."""
        ...


class Handler(Generic[E]):
    """Runs a function for each event of a subscription.

    Args:
        host: The hub.
        function: Called with an event; what it returns, or what that awaits, is the reply.
        concurrency: Events that are handled at the same time.
        key: Events with the same key are handled one after the other, in their order.
        limit: Events that may wait; if there are more, the oldest ones are dropped.
        on_gap: Called with a gap; None to log it.
        on_lag: Called with the number of dropped events; None to log it.

    Attributes:
        dropped: Events that were dropped so far.
    """

    def __init__(
        self,
        host: HandlerHost,
        function: Callable[[E], object],
        *,
        concurrency: int,
        key: Callable[[E], Hashable] | None,
        limit: int,
        on_gap: Callable[[Gap], object] | None,
        on_lag: Callable[[Lagged], object] | None,
    ) -> None:
        self._host = host
        self.function = function
        self.name: str = str(getattr(function, "__qualname__", type_name(function)))
        self._concurrency = concurrency
        self._key = key
        self._limit = limit
        self._on_gap = on_gap
        self._on_lag = on_lag
        self._notices: deque[Gap | Lagged] = deque()
        self._ready: deque[tuple[Hashable, E]] = deque()  # may be begun
        self._behind: dict[Hashable, deque[E]] = {}  # wait for those of the same key
        self._waiting = 0  # events in both
        self._workers = 0
        self._is_closed = False
        self._idle = anyio.Event()
        self._scopes: set[anyio.CancelScope] = set()
        self.dropped: int = 0

    def __len__(self) -> int:
        return self._waiting

    def put(self, event: E) -> None:
        """Let *event* be handled."""
        if self._is_closed:
            return
        key = self._key_of(event)
        if key is not _NO_KEY and key in self._behind:
            self._behind[key].append(event)
        else:
            if key is not _NO_KEY:
                self._behind[key] = deque()
            self._ready.append((key, event))
        self._waiting += 1
        if self._waiting > self._limit:
            self._drop()
        if self._workers < self._concurrency and self._ready:
            self._start_worker()

    def _key_of(self, event: E) -> Hashable:
        if self._key is None:
            return _NO_KEY
        try:
            key = self._key(event)
            hash(key)
        except Exception as exc:  # noqa: BLE001 - a function of the user's may raise anything
            self._report(exc, "the key of an event")
            return _NO_KEY
        return key

    def _drop(self) -> None:
        """Drop the event that has waited longest, or one of those behind an event in progress."""
        if self._ready:
            key, _ = self._ready.popleft()
            self._release(key)
        else:
            longest = max(self._behind.values(), key=len)
            longest.popleft()
        self._waiting -= 1
        self.dropped += 1
        last = self._notices[-1] if self._notices else None
        if isinstance(last, Lagged):
            self._notices[-1] = Lagged(last.count + 1)
        else:
            self._notices.append(Lagged(1))

    def put_gap(self, gap: Gap) -> None:
        """Report a gap to the program, or in the log."""
        if self._is_closed:
            return
        if self._on_gap is None:
            self._host.report_gap(gap)
            return
        last = self._notices[-1] if self._notices else None
        if isinstance(last, Gap):
            self._notices[-1] = last.joined(gap)
        else:
            self._notices.append(gap)
        if self._workers == 0:
            self._start_worker()

    def begin(self) -> None:
        """Handle what has waited for the hub to start."""
        while self._workers < min(self._concurrency, len(self._ready)):
            if not self._start_worker():
                return

    def _start_worker(self) -> bool:
        if not self._host.start(self._work, self.name):
            return False
        self._workers += 1
        return True

    async def _work(self) -> None:
        with anyio.CancelScope() as scope:
            self._scopes.add(scope)
            try:
                await self._work_off()
            finally:
                self._scopes.discard(scope)
                self._workers -= 1
                if self._workers == 0:
                    self._idle.set()

    async def _work_off(self) -> None:
        while self._ready or self._notices:
            while self._notices:
                await self._notify(self._notices.popleft())
            if self._ready:
                await self._handle(*self._ready.popleft())

    async def _handle(self, key: Hashable, event: E) -> None:
        self._waiting -= 1
        try:
            reply = self.function(event)
            if inspect.isawaitable(reply):
                reply = await reply
        except BaseException as exc:
            if is_cancellation_of_task(exc) or isinstance(exc, KeyboardInterrupt | GeneratorExit):
                raise
            self._report(exc, f"an event {event.topic}")
        else:
            if reply is not None:
                self._reply(event, reply)
        finally:
            self._host.end_turn(self.name)
            self._release(key)

    def _reply(self, event: E, reply: object) -> None:
        try:
            self._host.reply_with(event, reply)
        except Exception as exc:  # noqa: BLE001 - what is no JSON ends this reply alone
            logger.error(  # noqa: TRY400 - our own code
                "the handler %(handler)s cannot reply to %(topic)s: %(error)s",
                handler=self.name,
                topic=event.topic,
                error=exc,
            )

    def _release(self, key: Hashable) -> None:
        """Let the next event of *key* be handled."""
        behind = self._behind.get(key)
        if behind is None:
            return
        if behind:
            self._ready.append((key, behind.popleft()))
        else:
            del self._behind[key]

    async def _notify(self, notice: Gap | Lagged) -> None:
        function: Any = self._on_gap if isinstance(notice, Gap) else self._on_lag
        if function is None:
            logger.warning(
                "the handler %(handler)s is too slow: events were dropped: %(dropped)s",
                handler=self.name,
                dropped=notice,
            )
            return
        try:
            outcome = function(notice)
            if inspect.isawaitable(outcome):
                await outcome
        except BaseException as exc:
            if is_cancellation_of_task(exc) or isinstance(exc, KeyboardInterrupt | GeneratorExit):
                raise
            self._report(exc, f"a notice: {notice}")
        finally:
            self._host.end_turn(self.name)

    def _report(self, error: BaseException, what: str) -> None:
        text = format_error(error, self._host.redact)
        logger.error(
            "the handler %(handler)s failed with %(work)s: %(error)s",
            handler=self.name,
            work=what,
            error=text,
        )

    def close(self) -> None:
        """Take no more events."""
        self._is_closed = True

    def cancel(self) -> None:
        """Cancel what is being handled, and forget what waits."""
        self._ready.clear()
        self._behind.clear()
        self._notices.clear()
        self._waiting = 0
        for scope in self._scopes:
            scope.cancel()

    @property
    def is_busy(self) -> bool:
        """Whether an event is being handled."""
        return self._workers > 0

    async def wait_idle(self) -> None:
        """Wait until what has arrived is handled."""
        while self._workers:
            self._idle = anyio.Event()
            await self._idle.wait()
