"""Delivering a group of commits in one request, and finding out what became of each.

A group that the server refuses is halved until the guilty commit is alone, so that each caller
gets its own outcome and a commit stays all or nothing. Whether a server takes a refused batch
back is not known, so before anything is sent again it is asked which entities exist. A delete of
what is gone is done, whoever did it.

Source:
    protocol.md, section 2.2.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

from aioftrackjobs.errors import (
    AuthenticationError,
    ConnectError,
    DuplicateEntryError,
    FtrackJobsError,
    MalformedAnswerError,
    PermissionDeniedError,
    QuerySyntaxError,
    ServerError,
    TransportError,
    ValidationError,
)
from aioftrackjobs.protocol.operations import Create, Delete, Operation, encode_operation
from aioftrackjobs.protocol.reconciliation import questions, stages
from aioftrackjobs.protocol.values import JSONValue, Reference
from aioftrackjobs.protocol.wire import decode_answer, encode_batch, join_batches
from aioftrackjobs.tickets import NotApplied, Outcome, Ticket, Unknown
from aioftrackjobs.transport import Transport, WireRequest

Finish: TypeAlias = Callable[[Ticket, Outcome], None]

#: Refusals that the order of the operations has no part in.
_WHATEVER_ORDER = (
    AuthenticationError,
    DuplicateEntryError,
    PermissionDeniedError,
    QuerySyntaxError,
    ValidationError,
)

#: HTTP status code of a request that is too big.
_TOO_BIG = 413


class Delivery:
    """Sends tickets, and finishes those whose outcome becomes known.

    Args:
        transport: Sends the requests.
        finish: Hears of each outcome.
        url: Where to send.
        headers: Sent with each request.
        redact: Takes secrets out of a text that an error will show.
    """

    def __init__(
        self,
        transport: Transport,
        finish: Finish,
        *,
        url: str,
        headers: Mapping[str, str | bytes],
        redact: Callable[[str], str] = str,
    ) -> None:
        self._transport = transport
        self._finish = finish
        self._url = url
        self._headers = headers
        self._redact = redact

    async def deliver(self, group: Sequence[Ticket]) -> Sequence[Sequence[Ticket]]:
        """Send *group* in one request; no error of it comes out.

        Returns:
            The groups to deliver next: if it was refused, its halves.
        """
        operations = [each for ticket in group for each in ticket.wire_left]
        try:
            body = join_batches([ticket.body for ticket in group])
            results = await self._exchange(body, operations)
        except ServerError as exc:
            if len(group) > 1 and _may_be_ones_fault(exc):
                return await self._halve(group)
            for ticket in group:
                self._finish(ticket, await self._refused(ticket, exc))
        except FtrackJobsError as exc:
            for ticket in group:
                self._finish(ticket, _ended_by(exc))
        else:
            end = 0
            for ticket in group:
                start, end = end, end + ticket.count_left
                self._finish(ticket, ticket.apply(results[start:end]))
        return ()

    async def _exchange(
        self, body: bytes, operations: Sequence[Mapping[str, JSONValue]]
    ) -> list[Any]:
        request = WireRequest("POST", self._url, self._headers, body)
        try:
            response = await self._transport.send(request)
            return decode_answer(response.status, response.body, operations, redact=self._redact)
        except FtrackJobsError:
            raise
        except Exception as exc:  # noqa: BLE001 - a transport of the caller's may raise anything
            reason = type(exc).__name__
        raise TransportError(f"the transport failed: {reason}")

    async def _halve(self, group: Sequence[Ticket]) -> Sequence[Sequence[Ticket]]:
        """Return the halves of a refused *group*, without what was applied all the same."""
        try:
            await self._narrow(group)
        except TransportError as exc:
            for ticket in group:  # to send it again could do it twice
                self._finish(ticket, Unknown(exc))
            return ()
        left = []
        for ticket in group:
            if ticket.count_left:
                left.append(ticket)
            else:
                self._finish(ticket, ticket.apply([]))
        middle = (len(left) + 1) // 2
        return [half for half in (left[:middle], left[middle:]) if half]

    async def _refused(self, ticket: Ticket, refusal: ServerError) -> Outcome:
        """Return the outcome of a refused *ticket* that was alone, or whose request was refused."""
        if not _may_be_ones_fault(refusal):
            return NotApplied(refusal, ticket.done)
        try:
            while await self._narrow([ticket]):
                # What was refused may be what was done already: the rest may yet be accepted.
                if not ticket.count_left:
                    return ticket.apply([])
                try:
                    return ticket.apply(await self._exchange(ticket.body, ticket.wire_left))
                except ServerError as exc:
                    refusal = exc
            if not isinstance(refusal, _WHATEVER_ORDER):
                return await self._deliver_in_stages(ticket, refusal)
        except TransportError as exc:
            return Unknown(exc)
        return NotApplied(refusal, ticket.done)

    async def _narrow(self, group: Sequence[Ticket]) -> bool:
        """Ask the server what of a refused *group* it has done; return whether there is any.

        Raises:
            TransportError: It did not tell.
        """
        left = [each for ticket in group for each in ticket.changes_left]
        if not (asked := questions(left)):
            return False
        operations = [question.operation for question in asked]
        existing: set[Reference] = set()
        try:
            answers = await self._exchange(encode_batch(operations), operations)
            for question, answer in zip(asked, answers, strict=True):
                existing.update(question.existing(answer))
        except ServerError:
            return False  # it does not tell: refused batches are taken back, as is documented
        except (LookupError, TypeError):
            raise MalformedAnswerError("a query's result has no rows", status=200) from None
        narrowed = [ticket.narrow(existing) for ticket in group]
        return any(narrowed)

    async def _deliver_in_stages(self, ticket: Ticket, refusal: ServerError) -> Outcome:
        """Send a refused *ticket* so that nothing is named in the request that creates it."""
        parts = stages(ticket.changes_left)
        if len(parts) <= 1:
            return NotApplied(refusal, ticket.done)
        created: list[Operation] = []
        results: list[Any] = []
        for part in parts:
            operations = [encode_operation(operation) for operation in part]
            try:
                results += await self._exchange(encode_batch(operations), operations)
            except ServerError as exc:
                return await self._take_back(ticket, created, exc)
            created += [operation for operation in part if isinstance(operation, Create)]
        return ticket.apply(results)

    async def _take_back(
        self, ticket: Ticket, created: Sequence[Operation], refusal: ServerError
    ) -> Outcome:
        """Delete what earlier stages of a commit have created, which is all or nothing."""
        deletes = [encode_operation(Delete(operation.target)) for operation in reversed(created)]
        if deletes:
            try:
                await self._exchange(encode_batch(deletes), deletes)
            except FtrackJobsError:
                await self._narrow([ticket])
        return NotApplied(refusal, ticket.done)


def _may_be_ones_fault(refusal: ServerError) -> bool:
    """Tell whether *refusal* of a group may be about one commit, rather than all requests."""
    if isinstance(refusal, AuthenticationError):
        return False
    by_ftrack = refusal.kind != f"HTTP {refusal.status}"  # a proxy in between names no error
    return by_ftrack or refusal.status == _TOO_BIG


def _ended_by(error: FtrackJobsError) -> Outcome:
    if isinstance(error, TransportError) and not isinstance(error, ConnectError):
        return Unknown(error)
    return NotApplied(error)
