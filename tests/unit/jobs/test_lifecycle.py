"""The life of a Job on a transport without a socket: what is sent, and what the server has then."""

from __future__ import annotations

import json
from typing import Any

import anyio
import pytest

from aioftrackjobs import AsyncSession, ConnectError, RetryPolicy, job_context
from aioftrackjobs.config.timings import Timings
from tests.tables import Tables

SOON = RetryPolicy(first_delay=0.001, longest_delay=0.001)


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> str:
    backend: str = request.param
    return backend


@pytest.fixture
def tables() -> Tables:
    made = Tables()
    made.rows["maya"] = {"__entity_type__": "User", "id": "u1", "username": "maya"}
    return made


def the_job(tables: Tables) -> dict[str, Any]:
    """Return the only Job, with its data as a dictionary."""
    (row,) = (row for row in tables.rows.values() if row["__entity_type__"] == "Job")
    return {**row, "data": json.loads(row["data"])}


def statuses(tables: Tables) -> list[str]:
    """Return the statuses in the order in which they were applied."""
    values = [each.get("entity_data", {}) for each in tables.applied]
    return [data["status"] for data in values if "status" in data]


async def end(session: AsyncSession, error: BaseException | None = None, **options: Any) -> None:
    """Run a Job whose block raises *error*, if there is one."""
    async with job_context(session, description="x", attach_traceback=False, **options):
        if error is not None:
            raise error


async def test_a_block_that_ends_makes_its_job_running_then_done(tables: Tables) -> None:
    async with tables.session() as session:
        await end(session)

    assert statuses(tables) == ["running", "done"]
    assert the_job(tables)["user_id"] == "u1"
    assert the_job(tables)["data"]["description"] == "x"


async def test_an_error_of_the_block_fails_the_job_and_is_raised(tables: Tables) -> None:
    async with tables.session() as session:
        with pytest.raises(ZeroDivisionError, match="by nothing"):
            await end(session, ZeroDivisionError("by nothing"))

    assert statuses(tables) == ["running", "failed"]
    assert "ZeroDivisionError: by nothing" in the_job(tables)["data"]["description"]


async def test_a_cancelled_block_fails_the_job(tables: Tables) -> None:
    async with tables.session() as session:
        with anyio.CancelScope() as scope:
            async with job_context(session, description="x"):
                scope.cancel()
                await anyio.sleep_forever()

    assert scope.cancelled_caught
    assert statuses(tables) == ["running", "failed"]
    assert the_job(tables)["data"]["description"] == "x - failed: cancelled"


@pytest.mark.parametrize("fault", ["refused connection", "lost request", "lost response"])
async def test_a_final_status_is_sent_until_it_has_arrived(tables: Tables, fault: str) -> None:
    async with tables.session(retry=SOON) as session:
        async with job_context(session, description="x"):
            tables.faults.extend([fault] * 3)

    assert list(dict.fromkeys(statuses(tables))) == ["running", "done"]
    assert the_job(tables)["status"] == "done"
    assert not tables.faults, "it was tried again after each"


async def test_a_final_status_that_cannot_be_sent_in_time_raises(tables: Tables) -> None:
    async with tables.session(retry=SOON) as session:
        with pytest.raises(ConnectError):
            async with job_context(session, description="x", grace=0.3):
                tables.faults.extend(["refused connection"] * 10_000)

    assert statuses(tables) == ["running"]


async def test_a_final_status_that_never_leaves_raises_what_says_so(tables: Tables) -> None:
    timings = Timings(data_send_limit=-1.0)  # each request waits too long for its turn
    async with tables.session(retry=SOON, timings=timings) as session:
        with pytest.raises(ConnectError, match=r"not sent within 0\.3 s"):
            async with job_context(session, description="x", grace=0.3):
                pass

    assert statuses(tables) == ["running"]


async def test_the_blocks_error_wins_over_one_of_the_report(tables: Tables) -> None:
    async with tables.session(retry=SOON) as session:
        with pytest.raises(ZeroDivisionError):
            async with job_context(session, description="x", grace=0.02):
                tables.faults.extend(["refused connection"] * 10_000)
                raise ZeroDivisionError

    assert statuses(tables) == ["running"]


async def test_a_job_that_is_refused_at_its_beginning_never_runs(tables: Tables) -> None:
    tables.refuses = lambda operation: operation["action"] == "create"
    has_run = False
    async with tables.session() as session:
        with pytest.raises(Exception, match="refused"):
            async with job_context(session, description="x"):
                has_run = True

    assert not has_run
    assert statuses(tables) == []


async def test_progress_travels_at_the_latest_with_the_final_status(tables: Tables) -> None:
    async with tables.session() as session:
        async with job_context(session, description="x", interval=60) as job:
            for step in range(100):
                job.progress(step + 1, total=100)

    assert the_job(tables)["data"]["description"] == "x"
    assert the_job(tables)["data"]["progress"] == 1.0
    assert len(tables.batches) <= 4
