"""What is true once a request has left, and whose clock is believed."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest

from aioftrackjobs.commit.api_client import ServerStatus
from aioftrackjobs.commit.request import NotApplied, Outcome, PendingRequest, WithdrawnError
from aioftrackjobs.commit.sender import Withdrawal
from aioftrackjobs.protocol.operations import Update
from aioftrackjobs.protocol.values import Reference


def ignore(_: Outcome) -> None: ...


def commit(key: str) -> PendingRequest:
    update = Update(Reference("Job", (("id", key),)), {"data": "{}"})
    return PendingRequest.of_commit([update], ignore)


def withdraw(request: PendingRequest) -> None:
    request.end(NotApplied(WithdrawnError("gone")))


async def test_a_group_loses_what_is_withdrawn_before_it_leaves() -> None:
    kept, withdrawn = commit("j1"), commit("j2")
    withdrawal = Withdrawal([kept, withdrawn], set())

    with withdrawal.sending([kept, withdrawn]):
        withdraw(withdrawn)
        body = withdrawal.leave(may_replace=True)

    assert body is not None
    assert (b"j1" in body, b"j2" in body) == (True, False)
    assert list(withdrawal.group) == [kept]


async def test_a_group_that_has_left_is_not_changed_by_a_redirection() -> None:
    """The same body is sent again, whoever does not wait for it any more."""
    kept, withdrawn = commit("j1"), commit("j2")
    withdrawal = Withdrawal([kept, withdrawn], set())

    with withdrawal.sending([kept, withdrawn]):
        assert withdrawal.leave(may_replace=False) is None
        withdraw(withdrawn)
        assert withdrawal.leave(may_replace=False) is None
        withdraw(kept)
        withdrawal.proceed()

    assert list(withdrawal.group) == [kept, withdrawn]


@pytest.mark.parametrize("may_replace", [True, False])
async def test_a_fixed_body_does_not_leave_without_a_part_nor_any_body_without_all(
    *, may_replace: bool
) -> None:
    requests = [commit("j1"), commit("j2")]
    withdrawal = Withdrawal(requests, set())

    with pytest.raises(WithdrawnError), withdrawal.sending(requests):
        for request in requests if may_replace else requests[:1]:
            withdraw(request)
        withdrawal.leave(may_replace=may_replace)


def test_an_absurd_date_is_believed_when_it_is_seen_twice_in_a_row() -> None:
    status = ServerStatus()
    steps: list[timedelta] = []
    status.on_clock_step = steps.append

    def respond(days: float) -> int:
        """Return the days of the offset after a response with such a date."""
        date = datetime.now(UTC) + timedelta(days=days)
        status.note_response({"date": format_datetime(date, usegmt=True)})
        return round(status.clock_offset / timedelta(days=1))

    shown = [respond(days) for days in (0, 3, 0, 3, 3, 3, -3, 3, -3, -3, -3.5)]

    assert shown == [0, 0, 0, 0, 3, 3, 3, 3, 3, -3, -4]
    assert [round(step / timedelta(hours=12)) for step in steps] == [6, 12, 1]
