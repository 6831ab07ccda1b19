"""API calls: one request each, with its response decoded, and what responses say of the server."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Protocol

from aioftrackjobs.background import is_cancellation_of_task, type_name
from aioftrackjobs.commit.request import WithdrawnError
from aioftrackjobs.config.retry import Pauses
from aioftrackjobs.config.secret import Secret, reveal
from aioftrackjobs.errors import (
    FtrackJobsError,
    MalformedResponseError,
    ServerError,
    TransportError,
)
from aioftrackjobs.protocol.headers import (
    REDIRECTIONS,
    REPEATABLE,
    decode_date,
    decode_location,
    decode_retry_after,
    is_same_server,
    without_query,
)
from aioftrackjobs.protocol.results import AnyOperation, first_problem
from aioftrackjobs.protocol.values import JSONValue
from aioftrackjobs.protocol.wire import (
    decode_response,
    encode_batch,
    is_foreign,
    redirection_refused,
)
from aioftrackjobs.transport import Departure, Headers, Transport, WireRequest, WireResponse

#: The header ``Date`` has whole seconds, and its response takes a while to arrive.
_DATE_PRECISION = timedelta(seconds=2)

#: A difference between two clocks that a single response does not prove.
_ODD_OFFSET = timedelta(days=1)

#: Redirections of one request that are followed, and the status of one that holds for ever.
_REDIRECTIONS, _PERMANENT = 5, 308


class ServerStatus:
    """Whether the server responds, and its clock; every response updates it.

    Args:
        expedited_pause: Seconds that a pause takes at most when there is a reason to try soon.

    Attributes:
        last_success: When it last responded, by the clock of this host.
        last_failure: When a request last failed without a response.
        failing_since: The first failure since it last responded; None while it responds.
        last_error: Text of the latest failure.
        clock_offset: By how much its clock is ahead of this host's, as far as is known.
        on_clock_step: Called when that changes because a clock was set; gets the change.
        pauses: Pauses between attempts, which end early when the server responds.
    """

    def __init__(self, *, expedited_pause: float = 1.0) -> None:
        self.last_success: datetime | None = None
        self.last_failure: datetime | None = None
        self.failing_since: datetime | None = None
        self.last_error: str | None = None
        self.clock_offset: timedelta = timedelta(0)
        self._date: tuple[datetime, float] | None = None  # the server's, and when it arrived
        self._doubted_offset: timedelta | None = None
        self.on_clock_step: Callable[[timedelta], None] = lambda _: None
        self.pauses: Pauses = Pauses(expedited_pause)

    def note_response(self, headers: Mapping[str, str], *, is_success: bool = False) -> None:
        """Note that the server responded; the header ``Date`` is the time of its clock.

        Args:
            headers: Those of the response.
            is_success: Whether the server has carried out the request.
        """
        self.last_success, self.failing_since = datetime.now(UTC), None
        self.pauses.shorten(also_asked=is_success)
        date = decode_date(headers)
        if date is not None and self._is_believed(date - self.last_success):
            self._date = date, time.monotonic()
            self._set_clock_offset(date - self.last_success)

    def _is_believed(self, offset: timedelta) -> bool:
        """Return whether *offset* may be that of the server's clock.

        A single response with an absurd date must not give leases an absurd end: an offset of more
        than a day has to be seen in two responses, one after the other.
        """
        doubted, self._doubted_offset = self._doubted_offset, None
        if abs(offset - self.clock_offset) <= _ODD_OFFSET:
            return True
        if doubted is not None and abs(offset - doubted) <= _ODD_OFFSET:
            return True
        self._doubted_offset = offset
        return False

    def _set_clock_offset(self, offset: timedelta) -> None:
        """Keep an offset that differs by more than the precision of the header."""
        change = abs(offset - self.clock_offset)
        if change > _DATE_PRECISION:
            self.clock_offset = offset
            self.on_clock_step(change)

    def note_failure(self, error: str) -> None:
        """Note that no complete response came."""
        self.last_failure, self.last_error = datetime.now(UTC), error
        self.failing_since = self.failing_since or self.last_failure

    def server_time(self) -> datetime:
        """Return the time of the server's clock; before its first response, of this host's.

        It is never less than the server's latest date plus the time since then. If this host's
        clock is set back, a lease would otherwise be written that is already over, until the next
        response corrects the offset.
        """
        now = datetime.now(UTC) + self.clock_offset
        if self._date is None:
            return now
        date, arrived_at = self._date
        return max(now, date + timedelta(seconds=time.monotonic() - arrived_at))


class Sending(Departure, Protocol):
    """Follows a request until it leaves.

    Attributes:
        replaced: The body that has left in place of the one that the request was made with; None
            if it was not replaced.
    """

    replaced: bytes | None


class ApiClient:
    """Sends API calls.

    Args:
        transport: Sends the requests.
        url: The API's URL.
        headers: Sent with each request.
        redact: Removes secrets from a text that an error will show.
        server_status: Notes each response, and each failure to get one.

    Attributes:
        url: Where the next request goes: to the API's URL, or where that was moved for ever.
    """

    def __init__(
        self,
        transport: Transport,
        *,
        url: str,
        headers: Headers,
        redact: Callable[[str], str] = str,
        server_status: ServerStatus | None = None,
    ) -> None:
        self._transport = transport
        self._given_url = url
        self.url: str | Secret[str] = url
        self._headers = headers
        self._redact = redact
        self._server_status = server_status or ServerStatus()

    async def call(
        self, operations: Sequence[Mapping[str, JSONValue]], departure: Sending | None = None
    ) -> list[Any]:
        """Send *operations*, and return one result for each; raises as :meth:`send`."""
        return await self.send(encode_batch(operations), lambda: operations, departure)

    async def send(
        self,
        body: bytes,
        operations: Callable[[], Sequence[AnyOperation]],
        departure: Sending | None = None,
    ) -> list[Any]:
        """Send *body*, which is operations as JSON, and return one result for each.

        Args:
            body: A list in JSON.
            operations: Returns the operations that have left.
            departure: Follows the request until it leaves, and may stop or change it before.

        Raises:
            ServerError: The server refused.
            ConnectError: The request never left.
            TransportError: It was sent, and no complete response came.
            WithdrawnError: It was stopped before it left.
        """
        url, has_moved = self.url, False
        for number in range(1 + _REDIRECTIONS):
            request = WireRequest("POST", url, self._headers, body, departure)
            response = await self._exchange(request)
            if departure is not None and departure.replaced is not None:
                body = departure.replaced
            if response.status not in REDIRECTIONS:
                results = self._decode(response, operations(), url)
                if has_moved:  # for ever, and the API is there: it may have been a proxy's login
                    self.url = url
                return results
            has_moved = response.status == _PERMANENT and (has_moved or not number)
            url, departure = self._redirected(response, url), None  # it has left
        self._server_status.note_response(response.headers)
        problem = f"after {_REDIRECTIONS} other redirections"
        origin, last = without_query(self.url), without_query(url)
        raise redirection_refused(response.status, origin, last, problem)

    def call_in_thread(
        self,
        send: Callable[[WireRequest], WireResponse],
        operations: Sequence[Mapping[str, JSONValue]],
    ) -> list[Any]:
        """Send *operations* by a function that blocks; does as :meth:`call`, in any thread.

        Raises:
            FtrackJobsError: As :meth:`send`; also if it is redirected.
        """
        request = WireRequest("POST", self.url, self._headers, encode_batch(operations))
        results, error = self._read(send(request), operations, self.url)
        if error is not None:
            raise error
        return results

    def _redirected(self, response: WireResponse, url: str | Secret[str]) -> Secret[str]:
        """Return where to send a request again that *url* redirects.

        Raises:
            ServerError: Method and body would not be kept, or the API key must not go there.
        """
        target = Secret(decode_location(reveal(url), response.headers) or "")
        if not target.reveal():
            problem = "which is no address"
        elif response.status not in REPEATABLE:
            problem = "which would turn the request into another one"
        elif not is_same_server(reveal(url), target.reveal()):
            problem = "where the API key must not be sent"
        else:
            return target
        self._server_status.note_response(response.headers)
        location = self._redact(without_query(target)) or "nowhere"
        raise redirection_refused(response.status, without_query(url), location, problem)

    async def _exchange(self, request: WireRequest) -> WireResponse:
        try:
            return await self._transport.send(request)
        except WithdrawnError:  # it says nothing about the server
            raise
        except FtrackJobsError as exc:
            self._server_status.note_failure(str(exc))
            raise
        except BaseException as exc:  # a transport or a hook of the caller's may raise anything
            is_interruption = isinstance(exc, (GeneratorExit, KeyboardInterrupt))
            if is_interruption or is_cancellation_of_task(exc):
                raise
            reason = type_name(exc)
        # Outside of the except clause: the foreign error may quote headers with the API key, so
        # that this one must not refer to it.
        error = TransportError(f"the transport failed: {reason}")
        self._server_status.note_failure(str(error))
        raise error

    def _decode(
        self, response: WireResponse, operations: Sequence[AnyOperation], url: str | Secret[str]
    ) -> list[Any]:
        """Return the results in *response*, and note what it says of the server."""
        results, error = self._read(response, operations, url)
        if error is None:
            self._server_status.note_response(response.headers, is_success=True)
            return results
        if not isinstance(error, ServerError) or is_foreign(error):
            self.url = self._given_url  # if it was moved, it may have been moved back
        error.retry_after = decode_retry_after(response.headers, datetime.now(UTC))
        if isinstance(error, ServerError):
            self._server_status.note_response(response.headers)
        else:
            self._server_status.note_failure(str(error))
        raise error

    def _read(
        self, response: WireResponse, operations: Sequence[AnyOperation], url: str | Secret[str]
    ) -> tuple[list[Any], ServerError | TransportError | None]:
        """Return the results in *response*, or the error to raise, in any thread.

        The error is without the frames that have read the body, and without their error: a
        traceback with variables would show what the body contains.
        """
        # Only an address that the server has redirected to may contain secrets.
        shown = url if isinstance(url, str) else without_query(url)
        try:
            results = decode_response(
                response.status,
                response.body,
                len(operations),
                expression=_only_expression(operations),
                redact=self._redact,
                url=shown,
            )
            if (problem := first_problem(operations, results)) is not None:
                raise MalformedResponseError(problem, status=response.status, url=shown)
        except (ServerError, TransportError) as exc:
            exc.__context__ = None
            return [], exc.with_traceback(None)
        return results, None


def _only_expression(operations: Sequence[AnyOperation]) -> str | None:
    """Return the expression of the query among *operations*; None unless there is just one."""
    calls = operations if operations and isinstance(operations[0], Mapping) else ()
    expressions = [
        str(each["expression"])
        for each in calls
        if isinstance(each, Mapping) and "expression" in each
    ]
    return expressions[0] if len(expressions) == 1 else None
