"""Delivering a group of commits in one request, and finding out what became of each.

A commit has three ends: applied; refused or never sent; unknown. The unknown is not left at that:
the server is asked which of the entities exist, and what was not done is sent again, until the
time for it runs out (design.md, idea 4). A group that is refused is halved until the guilty
commit is alone, so that each caller gets its own outcome and a commit stays all or nothing;
whether a server takes a refused batch back is not known, so it is asked there too.

Source:
    protocol.md, section 2.2.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from copy import copy
from typing import Any, TypeAlias, TypeVar

from aioftrackjobs.commit.api_client import ApiClient
from aioftrackjobs.commit.reconciler import Reconciler, knows_the_key_was_taken, may_be_ones_fault
from aioftrackjobs.commit.request import NotApplied, Outcome, PendingRequest, Unknown
from aioftrackjobs.errors import (
    AuthenticationError,
    ConnectError,
    DuplicateEntryError,
    FtrackJobsError,
    PermissionDeniedError,
    QuerySyntaxError,
    ServerError,
    TransportError,
    ValidationError,
)
from aioftrackjobs.protocol.operations import Create, Delete, Operation, encode_operation
from aioftrackjobs.protocol.reconciliation import stages, untouched
from aioftrackjobs.protocol.wire import join_batches
from aioftrackjobs.retry import Backoff, Pauses, RetryPolicy

logger = logging.getLogger(__name__)

E = TypeVar("E", bound=FtrackJobsError)

Finish: TypeAlias = Callable[[PendingRequest, Outcome], None]

#: Refusals that the order of the operations has no part in.
_WHATEVER_ORDER = (
    AuthenticationError,
    DuplicateEntryError,
    PermissionDeniedError,
    QuerySyntaxError,
    ValidationError,
)


class BatchSender:
    """Sends tickets, and finishes those whose outcome becomes known.

    Args:
        exchange: Makes the API calls.
        finish: Hears of each outcome.
        retry: How long, and how often, what failed for a passing reason is tried again.
        pauses: Those between the attempts of all.
    """

    def __init__(
        self, exchange: ApiClient, finish: Finish, retry: RetryPolicy, pauses: Pauses
    ) -> None:
        self._exchange = exchange
        self._inquiry = Reconciler(exchange)
        self._finish = finish
        self._retry = retry
        self._pauses = pauses

    async def deliver(self, group: Sequence[PendingRequest]) -> Sequence[Sequence[PendingRequest]]:
        """Send *group* in one request; no error of it comes out.

        Returns:
            The groups to deliver next: if it was refused, its halves.
        """
        patience = self._retry.patience()
        group = _waiting(group)
        while group:
            try:
                group = await self._settle_doubts(group)
                await self._inquiry.before(group)
                group = _waiting(group)
                results = await self._send(group)
            except (ServerError, TransportError) as exc:
                self._note(exc, group)
                if not any(ticket.outcome is None for ticket in group):
                    return ()
                if exc.is_retryable and not patience.is_begun and self._retry.budget:
                    logger.warning("trying again for %g s: %s", self._retry.budget, exc)
                if not (exc.is_retryable and await self._pauses.take(patience, exc.retry_after)):
                    return await self._give_up(group, exc, patience)
                # Whoever was cancelled meanwhile has withdrawn what never left.
                group = _waiting(group)
            except FtrackJobsError as exc:  # it cannot even be tried
                for ticket in group:
                    self._finish(ticket, _ended_by(_own(exc, group), ticket))
                return ()
            else:
                end = 0
                for ticket in group:
                    start, end = end, end + ticket.count_left
                    self._finish(ticket, ticket.apply(results[start:end]))
                return ()
        return ()

    async def _send(self, group: Sequence[PendingRequest]) -> list[Any]:
        if not group:
            return []
        body = join_batches([ticket.encode() for ticket in group])
        for ticket in group:
            ticket.is_sent = True
        count = sum([ticket.count_left for ticket in group])
        return await self._exchange.send(body, count, group[0].call)

    def _note(self, error: ServerError | TransportError, group: Sequence[PendingRequest]) -> None:
        """Keep what *error* says about whether *group* was applied; end what cannot be repeated."""
        for ticket in group:
            ticket.trouble = error
            if not ticket.is_sent:
                continue  # a question came first, and failed
            if isinstance(error, ServerError) and not error.is_retryable:
                continue  # until it is known whether a part was kept, nobody withdraws it
            if isinstance(error, (ConnectError, ServerError)):
                ticket.is_sent = ticket.doubt is not None
                if not ticket.is_sent:
                    ticket.free = None  # others may take the keys until it is sent again
            elif not ticket.is_repeatable:
                self._finish(ticket, Unknown(error))
            elif ticket.changes:
                ticket.doubt = error

    async def _settle_doubts(self, group: Sequence[PendingRequest]) -> Sequence[PendingRequest]:
        """Find out what the server has done of tickets in doubt, and return what is left to do."""
        doubtful = [ticket for ticket in group if ticket.doubt is not None]
        if not doubtful:
            return group
        await self._inquiry.after(doubtful)
        return self._finish_done(group)

    async def _give_up(
        self,
        group: Sequence[PendingRequest],
        error: ServerError | TransportError,
        patience: Backoff,
    ) -> Sequence[Sequence[PendingRequest]]:
        """End *group*, after *error*, or return what to try instead."""
        left = _waiting(group)
        if isinstance(error, ServerError):
            if len(left) > 1 and may_be_ones_fault(error):
                return await self._halve(left, patience)
            rests: list[Sequence[PendingRequest]] = []
            for ticket in left:
                outcome = await self._refused(ticket, _own(error, left), patience)
                if outcome is None:
                    rests.append([ticket])
                else:
                    self._finish(ticket, outcome)
            return rests
        for ticket in left:
            self._finish(ticket, _ended_by(_own(error, left), ticket))
        return ()

    async def _look(
        self, group: Sequence[PendingRequest], patience: Backoff
    ) -> tuple[bool, Sequence[PendingRequest]]:
        """Find out what the server has done of *group*; the question may be asked again."""
        while True:
            try:
                return await self._inquiry.after(group)
            except TransportError as exc:
                if not (exc.is_retryable and await self._pauses.take(patience, exc.retry_after)):
                    raise

    async def _halve(
        self, group: Sequence[PendingRequest], patience: Backoff
    ) -> Sequence[Sequence[PendingRequest]]:
        """Return the halves of a refused *group*, without what was applied all the same."""
        try:
            _, untold = await self._look(group, patience)
        except TransportError as exc:
            for ticket in group:  # to send it again could do it twice
                self._finish(ticket, Unknown(exc))
            return ()
        for ticket in untold:
            ticket.doubt = ticket.doubt or TransportError("the server does not tell what it did")
        for ticket in group:
            ticket.is_sent = ticket.doubt is not None
        left = self._finish_done(group)
        middle = (len(left) + 1) // 2
        return [half for half in (left[:middle], left[middle:]) if half]

    def _finish_done(self, group: Sequence[PendingRequest]) -> Sequence[PendingRequest]:
        """Finish those of which nothing is left to do, and return the others."""
        left: list[PendingRequest] = []
        for ticket in group:
            if ticket.outcome is not None:
                continue  # withdrawn meanwhile
            if ticket.count_left:
                left.append(ticket)
            else:
                self._finish(ticket, ticket.apply([]))
        return left

    async def _refused(
        self, ticket: PendingRequest, refusal: ServerError, patience: Backoff
    ) -> Outcome | None:
        """Return the outcome of a refused *ticket* that was alone, or whose request was refused.

        None if there is a rest of it to deliver: what was refused may be what was done already.
        """
        if not may_be_ones_fault(refusal):
            return _ended_by(refusal, ticket)
        try:
            if await self._is_done_in_part(ticket, patience):
                return None if ticket.count_left else ticket.apply([])
            if not isinstance(refusal, _WHATEVER_ORDER):
                return await self._deliver_in_stages(ticket, refusal)
        except TransportError as exc:
            return Unknown(exc)
        is_duplicate = isinstance(refusal, DuplicateEntryError)
        if is_duplicate and ticket.doubt is not None and not knows_the_key_was_taken(ticket):
            return Unknown(ticket.doubt)  # what it duplicates may be its own
        return NotApplied(refusal, ticket.done)

    async def _is_done_in_part(self, ticket: PendingRequest, patience: Backoff) -> bool:
        """Find out whether the server has kept anything of a *ticket* that it refused alone."""
        if ticket.count_left == 1 and ticket.doubt is None:
            ticket.free = frozenset()  # what was refused by itself has created nothing
        any_done, _ = await self._look([ticket], patience)
        return any_done

    async def _deliver_in_stages(self, ticket: PendingRequest, refusal: ServerError) -> Outcome:
        """Send a refused *ticket* so that nothing is named in the request that creates it."""
        parts = stages(ticket.changes_left)
        if len(parts) <= 1:
            return NotApplied(refusal, ticket.done)
        sent: list[Operation] = []
        results: list[Any] = []
        for part in parts:
            try:
                results += await self._exchange.call([encode_operation(each) for each in part])
            except ServerError as exc:
                return await self._take_back(ticket, sent, exc)
            sent += part
        return ticket.apply(results)

    async def _take_back(
        self, ticket: PendingRequest, sent: Sequence[Operation], refusal: ServerError
    ) -> Outcome:
        """Delete what the stages *sent* of a commit have created: it is all or nothing.

        What they have updated or deleted cannot be taken back, and counts as done.
        """
        created = [operation.target for operation in sent if isinstance(operation, Create)]
        parts = {id(operation) for operation in sent}
        left = [operation for operation in ticket.changes_left if id(operation) not in parts]
        ticket.note_done(untouched(sent, left))
        deletes = [encode_operation(Delete(target)) for target in reversed(created)]
        if deletes:
            try:
                await self._exchange.call(deletes)
            except FtrackJobsError:
                await self._inquiry.after([ticket])
        return NotApplied(refusal, ticket.done)


def _waiting(group: Sequence[PendingRequest]) -> Sequence[PendingRequest]:
    """Return those of *group* that have not ended: others may have been withdrawn meanwhile."""
    return [ticket for ticket in group if ticket.outcome is None]


def _own(error: E, group: Sequence[PendingRequest]) -> E:
    """Return an error for one of *group*: raising it leaves traces of the caller's frames in it."""
    return error if len(group) == 1 else copy(error)


def _ended_by(error: FtrackJobsError, ticket: PendingRequest) -> Outcome:
    """Return how *ticket* ends that was given up after *error*."""
    if ticket.doubt is not None:
        return Unknown(ticket.doubt)
    if isinstance(error, TransportError) and not isinstance(error, ConnectError):
        if ticket.is_sent:
            return Unknown(error)
        error = ConnectError(f"it was not sent, since a question before it failed: {error}")
    return NotApplied(error, ticket.done)
