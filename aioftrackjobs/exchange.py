"""One API call: operations go out, results or a typed error come back.

Source:
    protocol.md, sections 1 and 2.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from aioftrackjobs.contact import Contact
from aioftrackjobs.errors import FtrackJobsError, ServerError, TransportError
from aioftrackjobs.protocol.headers import decode_retry_after
from aioftrackjobs.protocol.values import JSONValue
from aioftrackjobs.protocol.wire import decode_answer, encode_batch
from aioftrackjobs.transport import Transport, WireRequest, WireResponse


class Exchange:
    """Sends API calls.

    Args:
        transport: Sends the requests.
        url: Where to.
        headers: Sent with each request.
        redact: Takes secrets out of a text that an error will show.
        contact: Told of each answer, and of each failure to get one.
    """

    def __init__(
        self,
        transport: Transport,
        *,
        url: str,
        headers: Mapping[str, str | bytes],
        redact: Callable[[str], str] = str,
        contact: Contact | None = None,
    ) -> None:
        self._transport = transport
        self._url = url
        self._headers = headers
        self._redact = redact
        self._contact = contact or Contact()

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
        request = WireRequest("POST", self._url, self._headers, body)
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
