"""What a session's requests tell of its server: whether it answers, and what time it is there."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from aioftrackjobs.errors import FtrackJobsError, ServerError, TransportError
from aioftrackjobs.protocol.headers import decode_date, decode_retry_after
from aioftrackjobs.protocol.values import JSONValue
from aioftrackjobs.protocol.wire import decode_answer, encode_batch
from aioftrackjobs.retry import Pauses
from aioftrackjobs.transport import Transport, WireRequest, WireResponse

#: The header tells seconds, and is a while on its way.
_PRECISION = timedelta(seconds=2)


class ServerStatus:
    """Keeps the latest news of the server.

    Attributes:
        last_success: When it last answered, by the clock of this host.
        last_failure: When it last did not.
        failing_since: The first failure since it last answered; None while it answers.
        last_error: What the latest failure was.
        ahead: By how much the server's clock is ahead of this host's, as far as it has told.
        on_step: Called when that turns out to be another, with by how much: a clock was set.
        pauses: Of those who wait for another attempt; its answers cut them short.
    """

    def __init__(self) -> None:
        self.last_success: datetime | None = None
        self.last_failure: datetime | None = None
        self.failing_since: datetime | None = None
        self.last_error: str | None = None
        self.ahead = timedelta(0)
        self._told: tuple[datetime, float] | None = None  # its clock, and when it was that
        self.on_step: Callable[[timedelta], None] = lambda _: None
        self.pauses = Pauses()

    def note_answer(self, headers: Mapping[str, str]) -> None:
        """Note that the server answered; its header ``Date`` tells its clock."""
        self.last_success, self.failing_since = datetime.now(UTC), None
        self.pauses.shorten()
        date = decode_date(headers)
        if date is not None:
            self._told = date, time.monotonic()
            self._set_ahead(date - self.last_success)

    def _set_ahead(self, ahead: timedelta) -> None:
        """Keep a difference of clocks that is more than the header's precision, and no noise."""
        change = abs(ahead - self.ahead)
        if change > _PRECISION:
            self.ahead = ahead
            self.on_step(change)

    def note_failure(self, error: str) -> None:
        """Note that no complete answer came."""
        self.last_failure, self.last_error = datetime.now(UTC), error
        self.failing_since = self.failing_since or self.last_failure

    def server_time(self) -> datetime:
        """Return the time of the server; while it has not told, that of this host.

        Never less than what it told and the time since: a lease that is written after this host's
        clock was put back would be over, until the next answer shows that it was.
        """
        now = datetime.now(UTC) + self.ahead
        if self._told is None:
            return now
        date, at = self._told
        return max(now, date + timedelta(seconds=time.monotonic() - at))


class ApiClient:
    """Sends API calls.

    Args:
        transport: Sends the requests.
        url: Where to.
        headers: Sent with each request.
        redact: Takes secrets out of a text that an error will show.
        contact: Told of each answer, and of each failure to get one.

    Attributes:
        url: Where to, from the next request on.
    """

    def __init__(
        self,
        transport: Transport,
        *,
        url: str,
        headers: Mapping[str, str | bytes],
        redact: Callable[[str], str] = str,
        contact: ServerStatus | None = None,
    ) -> None:
        self._transport = transport
        self.url = url
        self._headers = headers
        self._redact = redact
        self._contact = contact or ServerStatus()

    async def call(self, operations: Sequence[Mapping[str, JSONValue]]) -> list[Any]:
        """Send *operations*, and return one result for each; raises as :meth:`send`."""
        return await self.send(encode_batch(operations), len(operations), operations)

    async def send(
        self, body: bytes, count: int, queries: Sequence[Mapping[str, JSONValue]] = ()
    ) -> list[Any]:
        """Send *body*, which is operations as JSON, and return one result for each.

        Args:
            body: A list in JSON.
            count: Number of operations in it.
            queries: Those among them that an error may quote.

        Raises:
            ServerError: The server refused.
            ConnectError: The request never left.
            TransportError: It was sent, and no complete answer came.
        """
        request = WireRequest("POST", self.url, self._headers, body)
        try:
            response = await self._transport.send(request)
        except FtrackJobsError as exc:
            self._contact.note_failure(str(exc))
            raise
        except Exception as exc:  # noqa: BLE001 - a transport of the caller's may raise anything
            reason = type(exc).__name__
        else:
            return self._decode(response, count, queries)
        error = TransportError(f"the transport failed: {reason}")
        self._contact.note_failure(str(error))
        raise error

    def _decode(
        self, response: WireResponse, count: int, queries: Sequence[Mapping[str, JSONValue]]
    ) -> list[Any]:
        try:
            results = decode_answer(
                response.status,
                response.body,
                count,
                expression=_sole_expression(queries),
                redact=self._redact,
            )
        except (ServerError, TransportError) as exc:
            exc.retry_after = decode_retry_after(response.headers, datetime.now(UTC))
            if isinstance(exc, ServerError):
                self._contact.note_answer(response.headers)
            else:
                self._contact.note_failure(str(exc))
            raise
        self._contact.note_answer(response.headers)
        return results


def _sole_expression(operations: Sequence[Mapping[str, JSONValue]]) -> str | None:
    """Return the expression of the query among *operations*; None unless there is just one."""
    expressions = [str(each["expression"]) for each in operations if "expression" in each]
    return expressions[0] if len(expressions) == 1 else None
