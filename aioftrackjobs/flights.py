"""The commits of a unit of work that are under way, and what becomes of what they carry."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from aioftrackjobs.models import settle_late
from aioftrackjobs.protocol.operations import Create, Operation, Update
from aioftrackjobs.protocol.values import Reference
from aioftrackjobs.recorded import Recorded
from aioftrackjobs.tickets import Outcome, Settle, Ticket


@dataclass(eq=False, slots=True)
class Flight:
    """A commit that is under way; called with the outcome.

    Attributes:
        taken: What it carries.
        land: Keeps the books of it when it has ended.
        settle: Hears of the outcome, if somebody wants to besides who waits.
        ticket: Its request.
        rolled_back: Whether its operations are to be forgotten if they were not applied.
    """

    taken: list[Recorded]
    land: Callable[[Flight, Outcome], None]
    settle: Settle | None = None
    ticket: Ticket | None = None
    rolled_back: bool = False

    def __call__(self, outcome: Outcome) -> None:
        """Land with *outcome*."""
        self.land(self, outcome)
        if self.settle is not None:
            self.settle(outcome)


def split_done(
    taken: Sequence[Recorded], done: Sequence[Operation]
) -> tuple[list[Recorded], list[Recorded]]:
    """Split what a commit has *taken* into what the server has *done*, and the rest."""
    if not done:
        return [], list(taken)
    ends = {(type(operation), operation.target) for operation in done}
    to_be_born: set[Reference] = set()  # what comes after its creation has not happened either
    settled, rest = list[Recorded](), list[Recorded]()
    for each in taken:
        target = each.operation.target
        ended = (type(each.operation), target) in ends and target not in to_be_born
        if isinstance(each.operation, Create) and not ended:
            to_be_born.add(target)
        (settled if ended else rest).append(each)
    return settled, rest


def settle_found(
    taken: Sequence[Recorded], ticket: Ticket, results: Sequence[Any]
) -> list[Recorded]:
    """Settle what a commit has *taken* of entities that an earlier attempt of it had created.

    What is known of them by now is newer. Updates were sent again, and are the latest.

    Returns:
        What there is to do of all that is taken.
    """
    found, updated = set[Reference](), dict[Reference, set[str]]()
    for change, result in zip(ticket.changes, results, strict=True):
        if isinstance(change, Create) and result is None:
            found.add(change.target)
        elif isinstance(change, Update):
            updated.setdefault(change.target, set()).update(change.values)
    left: list[Recorded] = []
    for each in reversed(taken):
        target = each.operation.target
        if target in found and updated.get(target, set()).isdisjoint(each.values):
            for name, value in each.values.items():
                settle_late(each.entity, name, value)
            left.append(replace(each, values={}))
        else:
            left.append(each)
    return left[::-1]
