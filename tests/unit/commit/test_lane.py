"""What can be sent, and what of it travels together."""

from __future__ import annotations

import pytest

from aioftrackjobs.commit import lane as lanes
from aioftrackjobs.commit.lane import GROUP_OPERATIONS, SendQueue
from aioftrackjobs.commit.request import NotApplied, Outcome, PendingRequest, WithdrawnError
from aioftrackjobs.protocol.operations import Update
from aioftrackjobs.protocol.values import Reference


def ignore(_: Outcome) -> None: ...


def commit(number: int, operations: int = 1) -> PendingRequest:
    target = Reference("Job", (("id", f"j{number}"),))
    request = PendingRequest.of_commit([Update(target, {"data": "{}"})] * operations, ignore)
    request.number = number
    return request


def call(number: int) -> PendingRequest:
    request = PendingRequest.of_call([{"action": "query", "expression": "Job"}])
    request.number = number
    return request


def withdraw(*requests: PendingRequest) -> None:
    for request in requests:
        request.end(NotApplied(WithdrawnError("gone")))


def filled(*requests: PendingRequest, group_commit: bool = True) -> SendQueue:
    queue = SendQueue(group_commit=group_commit)
    for request in requests:
        queue.add(request)
    return queue


def taken(queue: SendQueue, *, may_send_commits: bool = True) -> list[list[int]]:
    groups = iter(lambda: queue.take(may_send_commits=may_send_commits), [])
    return [[request.number for request in group] for group in groups]


def test_commits_travel_together_in_the_order_of_arrival() -> None:
    assert taken(filled(commit(1), commit(3), commit(2))) == [[1, 2, 3]]


def test_each_travels_alone_without_group_commit() -> None:
    assert taken(filled(commit(1), commit(2), group_commit=False)) == [[1], [2]]


def test_a_call_travels_by_itself_when_it_is_its_turn() -> None:
    queue = filled(commit(2), call(1), call(4), commit(3), commit(5))

    assert taken(queue) == [[1], [2, 3, 5], [4]]


def test_calls_leave_while_commits_may_not() -> None:
    queue = filled(commit(1), call(2))

    assert taken(queue, may_send_commits=False) == [[2]]
    assert not taken(queue, may_send_commits=False)
    assert taken(queue) == [[1]]


def test_groups_that_left_before_leave_first_and_as_they_are() -> None:
    queue = filled(commit(1))
    queue.groups += [[commit(2), commit(3)], [commit(4)]]

    assert taken(queue) == [[2, 3], [4], [1]]


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
    requests = [commit(number) for number in range(4)]
    monkeypatch.setattr(lanes, "GROUP_BYTES", 2 * len(requests[0].encode()))

    assert taken(filled(*requests)) == [[0, 1], [2, 3]]


def test_a_commit_that_cannot_be_encoded_travels_alone() -> None:
    """Its error ends no other commit."""
    odd = Update(Reference("Job", (("id", "\ud800"),)), {"data": "x"})
    unencodable = PendingRequest.of_commit([odd], ignore)
    unencodable.number = 2

    assert taken(filled(commit(1), unencodable, commit(3), commit(4))) == [[1], [2], [3, 4]]


def test_a_withdrawn_commit_is_not_sent() -> None:
    requests = [commit(1), commit(2), commit(3), call(4), call(5)]
    queue = filled(*requests)
    withdraw(requests[0], requests[2], requests[3])

    assert taken(queue) == [[2], [5]]


def test_withdrawn_commits_are_dropped_before_they_are_most_of_the_queue() -> None:
    queue, kept = filled(), [commit(0), call(1)]
    for request in kept:
        queue.add(request)
    most = 0
    for number in range(2, 100):
        request = commit(number) if number % 2 else call(number)
        queue.add(request)
        withdraw(request)
        queue.note_withdrawn()
        most = max(most, len(queue.commits) + len(queue.calls))

    assert most <= 2 * len(kept) + 1
    assert taken(queue) == [[0], [1]]
