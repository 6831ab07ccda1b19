"""Asking the server which entities exist, so that each commit is told the truth about itself.

*Before* commits are sent together, it is asked which of the keys that users have chosen are free.
*After* a request of theirs was refused or its answer lost, it is asked what exists. A key made for
its entity is nobody else's: if it exists, the commit has created it. A chosen key may be somebody
else's, and is told apart so:

- It was taken before: the entity is not ours, even with the very same values. Keys serve as
  locks, which only one may get.
- It was free before, and the values are those that were sent: ours. Another client may have
  used the same key for the same values in between; that is taken for ours too, since it is what
  was asked for.
- It was free before, and the values differ: ours, changed since, or somebody else's. Nobody can
  tell, so the commit is in doubt.
- A lone create is not worth a question before. If its answer is lost, its values decide alone.

Source:
    protocol.md, section 2.2.
"""

from __future__ import annotations

from collections.abc import Sequence, Set
from dataclasses import dataclass, field

from aioftrackjobs.commit.api_client import ApiClient
from aioftrackjobs.commit.request import PendingRequest
from aioftrackjobs.errors import (
    AuthenticationError,
    MalformedResponseError,
    ServerError,
    TransportError,
)
from aioftrackjobs.protocol.operations import Create
from aioftrackjobs.protocol.reconciliation import (
    Question,
    Row,
    is_chosen,
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

    async def before(self, group: Sequence[PendingRequest]) -> Sequence[PendingRequest]:
        """Ask which chosen keys are free before *group* is sent in one request.

        Returns:
            Those tickets of which the server does not tell. Each has to travel alone, so that a
            refusal of its request can be nobody else's fault, nor its own anybody else's.

        Raises:
            ServerError: It refuses all questions.
            TransportError: It did not tell.
        """
        if len(group) == 1 and group[0].count == 1:
            return ()  # refused, it is not done
        asking = [ticket for ticket in group if _has_to_ask(ticket)]
        if not asking:
            return ()
        changes = [change for ticket in asking for change in ticket.changes]
        answers = await self._ask(questions_before(changes))
        apart: list[PendingRequest] = []
        for ticket in asking:
            chosen = _chosen(ticket)
            if chosen.isdisjoint(answers.untold):
                ticket.free = chosen - answers.found.keys()
            elif len(group) > 1:
                apart.append(ticket)
        return apart

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
        made: set[Reference] = set()  # what was created once cannot have been created again
        for ticket in group:
            made |= _created(ticket)
            free = _may_have_made(ticket) - made
            any_done |= ticket.narrow(answers.found, free)
            made |= _created(ticket)
            free -= made
            if puzzling(ticket.changes_left, answers.found, free) and ticket.doubt is None:
                ticket.doubt = TransportError("what it creates exists by now, with other values")
            if ticket.free is not None:
                ticket.free = free
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
    chosen = {each.target for each in ticket.changes_left if is_chosen(each)}
    return bool(chosen) and ticket.free is not None and chosen.isdisjoint(ticket.free)


def _has_to_ask(ticket: PendingRequest) -> bool:
    if ticket.free is not None or ticket.doubt is not None:
        return False
    for change in ticket.changes:  # not any(): this runs for each operation of a farm
        if type(change) is Create and not change.fresh and is_chosen(change):
            return True
    return False


def _chosen(ticket: PendingRequest) -> Set[Reference]:
    return {change.target for change in ticket.changes if is_chosen(change)}


def _created(ticket: PendingRequest) -> Set[Reference]:
    return {change.target for change in ticket.done if isinstance(change, Create)}


def _may_have_made(ticket: PendingRequest) -> Set[Reference]:
    """Return the entities under chosen keys that it has created if they have its values."""
    if ticket.free is not None:
        return ticket.free
    return _chosen(ticket) if ticket.doubt is not None else frozenset()
