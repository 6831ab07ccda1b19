"""Limits of one request: enough for the work of any client, and less than the whole memory."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, fields
from threading import Lock
from time import monotonic, thread_time
from typing import Any, Final, TypeAlias

import anyio
from starlette.requests import ClientDisconnect, Request

from aioftrackjobs.devserver.api_errors import RequestError, ValidationError

_MIB = 1024 * 1024
#: Words, commas and parentheses in a query.
_MOST_WORDS = 50_000


@dataclass(frozen=True, slots=True)
class Limits:
    """The limits of one server; none is known of a real one.

    Attributes:
        request: Bytes in the body of a ``POST /api``.
        response: Bytes of the response to one, and about the bytes of what is read for it.
        idle: Seconds that the next piece of a body, an upload or a response may take.
        body: Seconds that the whole body of a ``POST /api`` may take, and that it waits for others.
        query: Seconds that the queries of one request may take.
        operations: Operations in a batch: others wait for its end.
        values: Commas, opening brackets and braces in the body of a ``POST /api``, also those in
            texts: about its values, lists and objects.
        expression: Characters in a query.
        list_entries: Entries of any list in an operation.
        upload: Bytes of one file.
        parts: Parts of the uploads that a batch announces; the official JavaScript client's own
            limit for one.
        uploads: Uploads, parts of files among them, that are received at the same time.
        queue_timeout: Seconds that other uploads and big responses wait until they are refused.
            Long, as the official JavaScript client does not repeat a part that is refused.
        event: Characters of a frame on the event hub.
        waiting_events: Characters that wait until a client of the event hub reads them; it is
            disconnected when there are more.
        subscriptions: Subscriptions of one connection to the event hub.
        conditions: Subscriptions of one user, and the conditions in them that are no equality:
            each event is tested against so many at most.
        event_connections: Connections to the event hub.
        heartbeat: Seconds within which clients of the event hub expect a heartbeat; they get
            three, and are disconnected if they send nothing in four times as many seconds.
        page_streams: Pages in browsers that are kept up to date at the same time.

    Raises:
        ValueError: If one of them is not positive.
    """

    request: int = 32 * _MIB
    response: int = 64 * _MIB
    idle: float = 30.0
    body: float = 60.0
    query: float = 20.0
    operations: int = 2_500
    values: int = 500_000
    expression: int = 512 * 1024
    list_entries: int = 20_000
    upload: int = 1024**4
    parts: int = 10_000
    uploads: int = 16
    queue_timeout: float = 300.0
    event: int = _MIB
    waiting_events: int = 8 * _MIB
    subscriptions: int = 1000
    conditions: int = 20_000
    event_connections: int = 4000
    heartbeat: float = 15.0
    page_streams: int = 100

    def __post_init__(self) -> None:
        for limit in fields(self):
            value = getattr(self, limit.name)
            if not value > 0:
                raise ValueError(f"the limit {limit.name!r} must be more than 0, not {value!r}")

    def check_body(self, body: bytes) -> None:
        """Check how many values a body has: others wait while they are made."""
        left = self.values
        for start in range(0, len(body), _MIB):
            left -= sum(body.count(each, start, start + _MIB) for each in (b",", b"[", b"{"))
            if left < 0:
                most = f"A request takes {self.values} commas and brackets at most, also in texts."
                raise RequestError(most, status=413)

    def check_batch(self, operations: list[Any]) -> int:
        """Check the size of a batch, and return it: its operations, and the parts of uploads."""
        if len(operations) > self.operations:
            problem = f"A request takes {self.operations} operations at most"
            raise RequestError(f"{problem}, not {len(operations)}: send several.", status=413)
        known = [each for each in operations if isinstance(each, dict)]
        for operation in known:
            self._check_lists(operation)
        parts = sum(wanted for each in known if isinstance(wanted := each.get("parts"), int))
        if parts > self.parts:
            raise ValidationError(
                f"The 'parts' of a request are {self.parts} at most, not {parts}."
            )
        return len(operations) + parts

    def _check_lists(self, operation: dict[str, Any]) -> None:
        data = operation.get("entity_data")
        for holder in (operation, data if isinstance(data, dict) else {}):
            for name, value in holder.items():
                if isinstance(value, list) and len(value) > self.list_entries:
                    raise ValidationError(
                        f"'{name}' takes {self.list_entries} entries at most, not {len(value)}."
                    )

    def check_expression(self, expression: str) -> None:
        """Check the length of a query, also in words: others wait while it is parsed."""
        words = len(expression.split()) + expression.count("(") + expression.count(",")
        if len(expression) > self.expression or words > _MOST_WORDS:
            most = f"{self.expression} characters, or {_MOST_WORDS} words, commas and parentheses"
            found = f"{len(expression)} and {words}"
            raise ValidationError(f"A query takes {most} at most, not {found}.")

    def response_too_big(self) -> ValidationError:
        """Return the error for a batch whose response is too big."""
        return ValidationError(
            f"A response takes {self.response} bytes at most: ask for less, or for one page after "
            "the other, by 'offset' and 'limit' at the end of the query."
        )

    def query_too_slow(self) -> ValidationError:
        """Return the error for queries that take too long."""
        return ValidationError(
            f"The queries of a request take {self.query:g} s at most: ask for less, or by criteria "
            "that need fewer relations."
        )


class Clock:
    """The time that the queries of one request may take.

    Args:
        seconds: The time; less than that only if others wait, see *short*.
        short: Seconds after which it ends if others wait. The time of writes does not count: a
            batch of many is no reason to refuse its queries.
        is_awaited: Returns whether others wait.
        error: Makes the error if the time is over.
    """

    def __init__(
        self,
        seconds: float,
        error: Callable[[], Exception],
        *,
        short: float = math.inf,
        is_awaited: Callable[[], bool] = lambda: False,
    ) -> None:
        # Of the processor, where others may wait: a busy one makes no query a long one.
        self._now = monotonic if short == math.inf else thread_time
        self._began = self._now()
        self._seconds = seconds
        self._short = short
        self._is_awaited = is_awaited
        self._queried = 0.0  # seconds
        self._querying_since: float | None = self._began
        #: Whether it is short while others wait.
        self.is_short: bool = short < math.inf
        self.error = error

    def is_over(self) -> bool:
        """Return whether the time is over."""
        now = self._now()
        if now - self._began > self._seconds:
            return True
        since = self._querying_since
        is_long = since is not None and self._queried + now - since > self._short
        return is_long and self._is_awaited()

    def enter(self, *, writes: bool) -> None:
        """Note that the next operation writes, or does not."""
        since = self._querying_since
        if writes and since is not None:
            self._queried += self._now() - since
            self._querying_since = None
        elif not writes and since is None:
            self._querying_since = self._now()

    def check(self) -> None:
        """Check the time, where no query runs."""
        if self.is_over():
            raise self.error()


#: For what no client requests.
unlimited: Final = Clock(math.inf, AssertionError)

#: Takes a number of bytes, and raises an error when the sum is more than is allowed.
Meter: TypeAlias = Callable[[int], None]


def slow_among_writes() -> ValidationError:
    """Return the error for a query that takes too long where other requests cannot go on."""
    return ValidationError(
        "This query takes too long for a batch that also writes: send it in a batch of its own."
    )


class SlowQueryError(Exception):
    """The queries of a request take so long that they must not keep others waiting."""


class NeedsSlotError(Exception):
    """The response is bigger than one may be that has no slot among the big ones."""


def response_cap(size: int, error: Callable[[], Exception]) -> Callable[[], Meter]:
    """Return what makes the meters of the bytes read for a response, and of the response itself.

    Each step has a meter of its own, as each can grow without end: rows where a query has no
    limit, entities where relations lead to the same ones again and again, and the JSON of
    schemas and addresses, which are no rows.
    """

    def meter() -> Meter:
        left = size

        def spend(size: int) -> None:
            nonlocal left
            left -= size
            if left < 0:
                raise error()

        return spend

    return meter


class BoundedCache:
    """A cache for several threads that is bounded by the size of its values.

    Those that were not used for the longest time go first. A value that takes more than an eighth
    of the room is not kept.
    """

    def __init__(self, room: int, size_of: Callable[[Any], int]) -> None:
        self.size: int = 0
        self._room = room
        self._size_of = size_of
        self._values: dict[Any, Any] = {}
        self._lock = Lock()

    def get(self, key: Any) -> Any:
        """Return the value of a key; None if it is not kept."""
        with self._lock:
            value = self._values.pop(key, None)
            if value is not None:
                self._values[key] = value
        return value

    def __setitem__(self, key: Any, value: Any) -> None:
        size = self._size_of(value)
        with self._lock:
            self._remove(key)
            if size > self._room // 8:
                return
            while self._values and self.size + size > self._room:
                self._remove(next(iter(self._values)))
            self._values[key] = value
            self.size += size

    def _remove(self, key: Any) -> None:
        if key in self._values:
            self.size -= self._size_of(self._values.pop(key))


async def read_body(request: Request, largest: int, *, seconds: float, idle: float) -> bytes:
    """Return the whole body, of *largest* bytes, in *seconds*, its next piece in *idle* seconds."""
    announced = request.headers.get("content-length", "")
    if announced.isdecimal() and int(announced[:20]) > largest:
        raise _too_big(largest)
    chunks, size, more = list[bytes](), 0, True
    ends_at = anyio.current_time() + seconds
    with anyio.CancelScope(deadline=min(ends_at, anyio.current_time() + idle)) as time:
        while more:
            message = await request.receive()
            if message["type"] == "http.disconnect":
                raise ClientDisconnect
            chunk, more = message.get("body", b""), message.get("more_body", False)
            size += len(chunk)
            if size > largest:
                raise _too_big(largest)
            chunks.append(chunk)
            time.deadline = min(ends_at, anyio.current_time() + idle)
    if more:
        raise too_slow(idle)
    return b"".join(chunks)


def _too_big(largest: int) -> RequestError:
    return RequestError(f"A request takes {largest} bytes at most.", status=413)


def too_slow(idle: float) -> RequestError:
    """Return the error for a body that arrives too slowly."""
    return RequestError(
        f"Nothing arrived for {idle:g} s, or the whole takes too long; the request is abandoned.",
        status=408,
    )
