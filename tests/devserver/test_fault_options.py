"""Faults as the text of options."""

from __future__ import annotations

import pytest

from aioftrackjobs.devserver import Faults, ServerStartError, plan_faults
from aioftrackjobs.devserver.faults.kinds import (
    FAULTS,
    BadGateway,
    Delay,
    Drop,
    Fault,
    Refuse,
    SeenRequest,
)

READ = SeenRequest("POST", "/api", "call", ({"action": "query"},))
WRITE = SeenRequest("POST", "/api", "call", ({"action": "create"},))


@pytest.mark.parametrize(
    ("option", "fault"),
    [
        ("drop", Drop()),
        ("drop-before", Drop()),
        ("drop-after:0.1", Drop(applied=True)),
        ("drop:applied=true", Drop(applied=True)),
        ("delay:0.2:seconds=0.5", Delay(0.5)),
        ("delay-after:3x:seconds=2:on=writes", Delay(2, applied=True)),
        ("refuse:3x:kind=ValidationError", Refuse("ValidationError")),
        ("bad-gateway:status=503", BadGateway(503)),
    ],
)
def test_option_is_a_fault(option: str, fault: Fault) -> None:
    faults = Faults()

    plan_faults(faults, [option])

    assert faults.planned == (fault,)


@pytest.mark.parametrize("name", [fault.name for fault in FAULTS])
def test_every_fault_has_an_option(name: str) -> None:
    faults = Faults(own_process=True)

    plan_faults(faults, [f"{name}:0.5"])

    assert [fault.name for fault in faults.planned] == [name]


def test_number_of_times_requests_and_chance_are_heard() -> None:
    faults = Faults(1)
    plan_faults(faults, ["drop:2x:on=writes", "delay:0.5"])

    written = [faults.due(WRITE) for _ in range(2)]
    read = [faults.due(READ) is None for _ in range(40)]

    assert [due and due.fault for due in written] == [Drop(), Drop()]
    assert 10 < read.count(True) < 30


def test_a_share_of_the_requests_can_have_a_most() -> None:
    faults = Faults()
    plan_faults(faults, ["drop:0.5:1x"])

    due = [faults.due(WRITE) for _ in range(40)]

    assert [each.fault for each in due if each] == [Drop()]
    assert not faults.planned


@pytest.mark.parametrize(
    ("option", "problem"),
    [
        ("dorp", "there is no fault 'dorp'; did you mean drop?"),
        ("????", "there is no fault '????'; there are: refuse, bad-gateway"),
        ("drop:often", "'often' is neither a probability, such as 0.1, nor a number of times"),
        ("drop:manyx", "'manyx' is neither"),
        ("drop:2", "probability must be more than 0, and 1 at most"),
        ("drop:0.1:when=now", "'when=now' is not a setting of it; there are: applied, on"),
        ("drop:0.1:always", "'always' is neither a probability, such as 0.1, nor a number"),
        ("delay:seconds=long", "seconds cannot be 'long'"),
        ("delay:seconds=-1", "seconds must be 0 or more"),
        ("drop:applied=perhaps", "applied cannot be 'perhaps'"),
        ("drop:on=commits", "no requests are called 'commits'; there are: any, calls, reads"),
        ("lose-power", "use aioftrackjobs.testing.ServerProcess"),
    ],
)
def test_wrong_option_is_an_error_that_shows_what_to_write(option: str, problem: str) -> None:
    with pytest.raises(ServerStartError) as caught:
        plan_faults(Faults(), [option])

    assert str(caught.value).startswith(f"cannot inject the fault {option!r}: ")
    assert problem in str(caught.value)
