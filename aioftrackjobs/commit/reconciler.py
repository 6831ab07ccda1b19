"""Asking the server which entities exist, so that each commit gets its true outcome.

After a request was refused or its response was lost, the server is asked what exists. A key that
was made for its entity belongs to no other: if the entity exists, the commit has created it. Under
a key that a user chose there may be the entity of another client. Therefore a commit with such
keys travels alone, and before it is sent the server is asked which of them are free:

- The key was taken before: the entity is not ours, even with the very same values. Keys serve as
  locks, which only one may get.
- It was free before, and the values are those that were sent: ours. Another client may have
  used the same key for the same values in between; that is taken for ours too, since it is what
  the caller wanted.
- It was free before, and the values differ: ours, changed since, or of another client. This
  cannot be known, so the commit stays uncertain.
- The server does not say which keys are free: if the response is lost, the values decide alone.

Source:
    protocol.md, section 2.2.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from aioftrackjobs.commit.api_client import ApiClient
from aioftrackjobs.commit.request import PendingRequest
from aioftrackjobs.errors import (
    AuthenticationError,
    MalformedResponseError,
    ServerError,
    TransportError,
)
from aioftrackjobs.protocol.reconciliation import (
    Question,
    Row,
    puzzling,
    questions,
    questions_before,
)
from aioftrackjobs.protocol.values import Reference

#: HTTP status code: the request is too big.
_TOO_BIG = 413


@dataclass(slots=True)
class _Answers:
    """What the server said.

    Attributes:
        found: The entities that exist.
        untold: Those that it answers no questions about.
    """

    found: dict[Reference, Row] = field(default_factory=dict)
    untold: set[Reference] = field(default_factory=set)


class Reconciler:
    """Asks about tickets, and notes in them what is known.

    Args:
        exchange: Makes the API calls.
    """

    def __init__(self, exchange: ApiClient) -> None:
        self._exchange = exchange

    async def before(self, group: Sequence[PendingRequest]) -> None:
        """Ask which chosen keys are free before *group* is sent.

        Raises:
            TransportError: The server did not say.
        """
        for ticket in group:
            if not ticket.has_chosen_keys or ticket.free is not None or ticket.doubt is not None:
                continue
            answers = await self._ask(questions_before(ticket.changes))
            if ticket.chosen.isdisjoint(answers.untold):
                ticket.free = ticket.chosen - answers.found.keys()

    async def after(self, group: Sequence[PendingRequest]) -> tuple[bool, Sequence[PendingRequest]]:
        """Take for done what the server has done of *group*.

        Returns:
            Whether there is anything, and the tickets of which it does not tell.

        Raises:
            TransportError: It did not tell.
        """
        asked = questions(change for ticket in group for change in ticket.changes_left)
        if not asked:
            return False, ()
        try:
            answers = await self._ask(asked)
        except ServerError as exc:
            if exc.is_retryable:
                unheard = TransportError(f"the server does not tell what it did: {exc}")
                unheard.retry_after = exc.retry_after
                raise unheard from exc
            return False, ()
        any_done = False
        for ticket in group:
            any_done |= ticket.narrow(answers.found)
            created = ticket.may_have_created
            if puzzling(ticket.changes_left, answers.found, created) and ticket.doubt is None:
                ticket.doubt = TransportError("what it creates exists by now, with other values")
        untold = [
            ticket
            for ticket in group
            if any(change.target in answers.untold for change in ticket.changes_left)
        ]
        return any_done, untold

    async def _ask(self, asked: Sequence[Question]) -> _Answers:
        """Ask in one request; questions that are refused, in halves, to find those that are not."""
        answers = _Answers()
        left = [asked]
        while left:
            part = left.pop()
            try:
                results = await self._exchange.call([question.operation for question in part])
            except ServerError as exc:
                if not may_be_ones_fault(exc):
                    raise
                if len(part) == 1:
                    answers.untold.update(part[0].asked)
                else:
                    middle = len(part) // 2
                    left += [part[:middle], part[middle:]]
                continue
            try:
                for question, result in zip(part, results, strict=True):
                    for reference, row in question.found(result).items():
                        answers.found[reference] = {**answers.found.get(reference, {}), **row}
            except (LookupError, TypeError):
                raise MalformedResponseError("a query's result has no rows", status=200) from None
        return answers


def may_be_ones_fault(refusal: ServerError) -> bool:
    """Tell whether *refusal* of a group may be about one commit, rather than all requests."""
    if isinstance(refusal, AuthenticationError) or refusal.is_retryable:
        return False
    by_ftrack = refusal.kind != f"HTTP {refusal.status}"  # a proxy in between names no error
    return by_ftrack or refusal.status == _TOO_BIG


def knows_the_key_was_taken(ticket: PendingRequest) -> bool:
    """Tell whether *ticket* is known to use keys that others have used before it."""
    return (
        ticket.has_chosen_keys and ticket.free is not None and ticket.chosen.isdisjoint(ticket.free)
    )
