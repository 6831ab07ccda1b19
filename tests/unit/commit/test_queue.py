"""What can be sent, and what of it travels together."""

from __future__ import annotations

import pytest

from aioftrackjobs.commit import queue as outboxes
from aioftrackjobs.commit.queue import GROUP_OPERATIONS, SendQueue
from aioftrackjobs.commit.request import NotApplied, Outcome, PendingRequest, WithdrawnError
from aioftrackjobs.protocol.operations import Update
from aioftrackjobs.protocol.values import Reference


def ignore(_: Outcome) -> None: ...


def commit(number: int, operations: int = 1) -> PendingRequest:
    target = Reference("Job", (("id", f"j{number}"),))
    ticket = PendingRequest.of_commit([Update(target, {"data": "{}"})] * operations, ignore)
    ticket.number = number
    return ticket


def call(number: int) -> PendingRequest:
    ticket = PendingRequest.of_call([{"action": "query", "expression": "Job"}])
    ticket.number = number
    return ticket


def withdraw(*tickets: PendingRequest) -> None:
    for ticket in tickets:
        ticket.finish(NotApplied(WithdrawnError("gone")))


def filled(*tickets: PendingRequest, group_commit: bool = True) -> SendQueue:
    outbox = SendQueue(group_commit=group_commit)
    for ticket in tickets:
        outbox.add(ticket)
    return outbox


def taken(outbox: SendQueue, *, departs: bool = True) -> list[list[int]]:
    groups = iter(lambda: outbox.take(departs=departs), [])
    return [[ticket.number for ticket in group] for group in groups]


def test_commits_travel_together_in_the_order_of_arrival() -> None:
    assert taken(filled(commit(1), commit(3), commit(2))) == [[1, 2, 3]]


def test_each_travels_alone_without_group_commit() -> None:
    assert taken(filled(commit(1), commit(2), group_commit=False)) == [[1], [2]]


def test_a_call_travels_by_itself_when_it_is_its_turn() -> None:
    outbox = filled(commit(2), call(1), call(4), commit(3), commit(5))

    assert taken(outbox) == [[1], [2, 3, 5], [4]]


def test_calls_leave_while_commits_may_not() -> None:
    outbox = filled(commit(1), call(2))

    assert outbox.has_some(departs=False)
    assert taken(outbox, departs=False) == [[2]]
    assert not outbox.has_some(departs=False)
    assert outbox.has_some(departs=True)


def test_groups_that_left_before_leave_first_and_as_they_are() -> None:
    outbox = filled(commit(1))
    outbox.groups += [[commit(2), commit(3)], [commit(4)]]

    assert outbox.has_some(departs=False)
    assert taken(outbox) == [[2, 3], [4], [1]]


@pytest.mark.parametrize(
    ("sizes", "groups"),
    [
        ((GROUP_OPERATIONS - 1, 1, 1), [[0, 1], [2]]),
        ((GROUP_OPERATIONS + 1, 1), [[0], [1]]),
        ((1, GROUP_OPERATIONS, 1), [[0], [1], [2]]),
    ],
    ids=["as many as fit", "one that is too much", "one that just fits"],
)
def test_no_more_operations_share_a_request_than_are_allowed(
    sizes: tuple[int, ...], groups: list[list[int]]
) -> None:
    assert taken(filled(*(commit(place, size) for place, size in enumerate(sizes)))) == groups


def test_no_more_bytes_share_a_request_than_are_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    tickets = [commit(number) for number in range(4)]
    monkeypatch.setattr(outboxes, "GROUP_BYTES", 2 * len(tickets[0].encode()))

    assert taken(filled(*tickets)) == [[0, 1], [2, 3]]


def test_what_cannot_be_encoded_travels_alone() -> None:
    """Its error ends no other commit."""
    odd = Update(Reference("Job", (("id", "\ud800"),)), {"data": "x"})
    unencodable = PendingRequest.of_commit([odd], ignore)
    unencodable.number = 2

    assert taken(filled(commit(1), unencodable, commit(3), commit(4))) == [[1], [2], [3, 4]]


def test_what_is_withdrawn_does_not_travel() -> None:
    tickets = [commit(1), commit(2), commit(3), call(4), call(5)]
    outbox = filled(*tickets)
    withdraw(tickets[0], tickets[2], tickets[3])

    assert taken(outbox) == [[2], [5]]


def test_what_is_withdrawn_is_dropped_before_it_is_most_of_what_waits() -> None:
    outbox, kept = filled(), [commit(0), call(1)]
    for ticket in kept:
        outbox.add(ticket)
    most = 0
    for number in range(2, 100):
        ticket = commit(number) if number % 2 else call(number)
        outbox.add(ticket)
        withdraw(ticket)
        outbox.note_withdrawn()
        most = max(most, len(outbox.commits) + len(outbox.calls))

    assert most <= 2 * len(kept) + 1
    assert taken(outbox) == [[0], [1]]
