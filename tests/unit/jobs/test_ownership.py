"""Leases: which process owns a Job, until when, and whether that process lives."""

from __future__ import annotations

import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from aioftrackjobs.jobs.data import compose_final_data, compose_recovered_data
from aioftrackjobs.jobs.ownership import (
    LEASE,
    TAKEN_OVER,
    Lease,
    is_owned_by_other,
    owner_of,
)
from aioftrackjobs.journal import Process, this_process

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
ELSEWHERE = Process("farm07", 4711, "another place", "1")


def test_a_lease_is_read_as_it_was_written() -> None:
    lease = Lease("me", ELSEWHERE, NOON)

    assert Lease.of({LEASE: lease.encode(), "theirs": 1}) == lease


@pytest.mark.parametrize(
    "value",
    [
        None,
        "mine",
        {},
        {"holder": "me", "until": "noon", **ELSEWHERE._asdict()},
        {"holder": "me", "until": "2026-03-01T12:00:00", **ELSEWHERE._asdict()},
        {"holder": "me", "until": NOON.isoformat(), "host": "farm07"},
    ],
)
def test_a_value_that_is_no_valid_lease_is_read_as_none(value: Any) -> None:
    assert Lease.of({LEASE: value}) is None


def test_a_claim_is_read_as_it_was_written() -> None:
    claim = Lease("me", ELSEWHERE, NOON, is_claim=True)

    assert Lease.of({LEASE: claim.encode()}) == claim
    assert "claim" not in Lease("me", ELSEWHERE, NOON).encode()


@pytest.mark.parametrize(
    ("status", "seconds", "is_owned"),
    [
        ("running", -1, True),
        ("queued", 0, True),
        ("running", 1, False),
        ("done", -1, False),
        ("failed", -1, False),
        ("of another kind", -1, False),
    ],
)
def test_an_owner_has_a_good_lease_and_a_job_that_has_not_ended(
    status: str, seconds: float, *, is_owned: bool
) -> None:
    data = {LEASE: Lease("me", ELSEWHERE, NOON).encode()}

    owner = owner_of(status, data, NOON + timedelta(seconds=seconds))

    assert (owner is not None) is is_owned


@pytest.mark.parametrize(
    ("data", "is_taken"),
    [
        ({}, False),
        ({LEASE: Lease("me", ELSEWHERE, NOON).encode()}, False),
        ({LEASE: Lease("you", ELSEWHERE, NOON).encode()}, True),
        ({LEASE: Lease("you", ELSEWHERE, NOON - timedelta(hours=1)).encode()}, False),
        ({LEASE: Lease("you", ELSEWHERE, NOON, is_claim=True).encode()}, False),
        ({TAKEN_OVER: {"holder": "me"}}, True),
        ({TAKEN_OVER: {"holder": "you"}}, False),
        ({TAKEN_OVER: "me"}, False),
        ({LEASE: Lease("me", ELSEWHERE, NOON).encode(), TAKEN_OVER: {"holder": "you"}}, False),
        ({LEASE: "nonsense"}, False),
    ],
)
def test_a_former_owner_sees_that_it_was_replaced(data: dict[str, Any], *, is_taken: bool) -> None:
    assert is_owned_by_other(data, "me", NOON) is is_taken


def test_a_lease_on_another_host_holds_until_its_end_and_the_grace_are_over() -> None:
    lease = Lease("me", ELSEWHERE, NOON)

    assert not lease.is_over(NOON + timedelta(seconds=60), grace=60)
    assert lease.is_over(NOON + timedelta(seconds=61), grace=60)


@pytest.mark.skipif(not this_process().place, reason="the system does not tell")
def test_a_process_is_distinguished_from_others_with_its_id() -> None:
    here = this_process()

    assert here.is_alive() is True
    assert here._replace(started="1").is_alive() is False
    assert here._replace(pid=2**22 + 1).is_alive() is False
    assert here._replace(place="another place").is_alive() is None


@pytest.mark.skipif(os.name == "nt", reason="no process can be looked at")
def test_a_process_that_ended_and_was_not_waited_for_is_dead() -> None:
    code = (
        "from aioftrackjobs.journal import this_process as t; p = t();"
        "print(p.pid, p.started, flush=True); input()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout is not None
        pid, _, started = child.stdout.readline().strip().partition(" ")
        process = this_process()._replace(pid=int(pid), started=started)
        assert process.is_alive() in (True, None)
        child.kill()
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)

        if process.place:
            assert process.is_alive() is False


def test_a_recovery_keeps_what_others_have_in_the_data_and_the_base_text() -> None:
    data = '{"description": "Render (50 %)", "base_description": "Render", "lease": {}, "n": 1}'

    assert compose_recovered_data(data, "gone", {"at": "noon"}) == {
        "description": "Render (50 %) - failed: gone",
        "base_description": "Render",
        "recovered": {"at": "noon"},
        "n": 1,
    }


@pytest.mark.parametrize(
    ("data", "base"),
    [
        ("{}", ""),
        ('{"description": "Render"}', "Render"),
        ('{"description": "50 %", "base_description": ""}', ""),
    ],
)
def test_a_job_that_runs_again_after_a_recovery_starts_from_its_own_text(
    data: str, base: str
) -> None:
    assert compose_recovered_data(data, "gone", {})["base_description"] == base


def test_a_late_final_status_undoes_a_recovery() -> None:
    data = '{"description": "x - failed: gone", "base_description": "x", "recovered": {}, "n": 1}'

    assert compose_final_data(data, {"description": "x"}) == {"description": "x", "n": 1}
