"""A second attachment of a Job warns, at the line that attaches it."""

from __future__ import annotations

import asyncio
import inspect
import logging
import warnings
from collections.abc import Callable
from typing import Any

import anyio
import pytest

from aioftrackjobs import AsyncSession, FileComponent, Job, RunningJob, job_context


def line_of(part: str, function: Callable[..., Any]) -> int:
    """Return the number of the line of *function* that contains *part*."""
    lines, first = inspect.getsourcelines(function)
    return first + next(number for number, line in enumerate(lines) if part in line)


def lines_of(caught: list[warnings.WarningMessage]) -> list[int]:
    """Return at which lines of this file the only kinds of warnings point."""
    assert all("second attachment" in str(each.message) for each in caught)
    assert {each.filename for each in caught} == {__file__}
    return [each.lineno for each in caught]


@pytest.fixture
def caught() -> Any:
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        yield found


@pytest.mark.every_loop
async def test_the_warning_points_at_the_line_that_awaits(
    session: AsyncSession, caught: list[warnings.WarningMessage]
) -> None:
    async with job_context(session) as job:
        await job.attach(b"1", name="1.txt")
        assert caught == []
        await job.attach(b"2", name="2.txt")
        await job.attach(b"3", name="3.txt")

    assert lines_of(caught) == [
        line_of('name="2.txt"', test_the_warning_points_at_the_line_that_awaits)
    ]


@pytest.mark.every_loop
async def test_the_warning_points_at_the_line_that_starts_a_task(
    session: AsyncSession, caught: list[warnings.WarningMessage]
) -> None:
    async with job_context(session) as job:
        await job.attach(b"1", name="1.txt")
        async with anyio.create_task_group() as group:
            group.start_soon(lambda: job.attach(b"2", name="2.txt"))

    assert lines_of(caught) == [
        line_of('name="2.txt"', test_the_warning_points_at_the_line_that_starts_a_task)
    ]


@pytest.mark.every_loop
async def test_the_warning_points_at_the_line_that_passes_the_method(
    session: AsyncSession, caught: list[warnings.WarningMessage]
) -> None:
    async with job_context(session) as job:
        await job.attach(__file__)
        async with anyio.create_task_group() as group:
            group.start_soon(job.attach, __file__)

    assert [each.filename for each in caught] == [__file__]


@pytest.mark.asyncio_only
async def test_the_warning_points_at_the_line_that_gathers(
    session: AsyncSession, caught: list[warnings.WarningMessage]
) -> None:
    async with job_context(session) as job:
        await job.attach(b"1", name="1.txt")
        await asyncio.gather(job.attach(b"2", name="2.txt"))

    assert lines_of(caught) == [
        line_of("asyncio.gather", test_the_warning_points_at_the_line_that_gathers)
    ]


async def attach_through(job: RunningJob, name: str) -> FileComponent:
    return await job.attach(b"x", name=name)


@pytest.mark.asyncio_only
async def test_the_warning_points_at_the_innermost_line_of_the_user(
    session: AsyncSession, caught: list[warnings.WarningMessage]
) -> None:
    async with job_context(session) as job:
        for name in ("1.txt", "2.txt"):
            await asyncio.create_task(attach_through(job, name))

    assert lines_of(caught) == [line_of("job.attach", attach_through)]


async def test_the_traceback_of_an_earlier_run_counts(
    session: AsyncSession, other: AsyncSession, caught: list[warnings.WarningMessage]
) -> None:
    with pytest.raises(ZeroDivisionError):
        async with job_context(session) as job:
            raise ZeroDivisionError

    async with job_context(other, job=job.id) as again:
        await again.attach(b"1", name="1.txt")

    assert lines_of(caught) == [
        line_of('name="1.txt"', test_the_traceback_of_an_earlier_run_counts)
    ]


async def test_a_traceback_after_that_of_an_earlier_run_is_logged(
    session: AsyncSession, other: AsyncSession, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(ZeroDivisionError):
        async with job_context(session) as job:
            raise ZeroDivisionError
    assert "second attachment" not in caplog.text

    with pytest.raises(ZeroDivisionError):
        async with job_context(other, job=job.id):
            raise ZeroDivisionError

    assert "its traceback is a second attachment" in caplog.text


async def test_a_traceback_after_an_attachment_is_logged(
    session: AsyncSession,
    caught: list[warnings.WarningMessage],
    caplog: pytest.LogCaptureFixture,
) -> None:
    with pytest.raises(ZeroDivisionError):
        async with job_context(session) as job:
            await job.attach(b"1", name="1.txt")
            raise ZeroDivisionError

    assert caught == []
    records = [each for each in caplog.records if "second attachment" in each.getMessage()]
    assert [each.levelno for each in records] == [logging.WARNING]
    assert job.id in records[0].getMessage()


@pytest.mark.parametrize("committed", [True, False])
async def test_links_that_were_created_by_hand_count(
    session: AsyncSession, caught: list[warnings.WarningMessage], committed: bool
) -> None:
    async with job_context(session) as job:
        component = await session.create_component(b"0", name="0.txt")
        link = session.create("JobComponent", {"component": component, "job": job.entity})
        if committed:
            await session.commit()
        await job.attach(b"1", name="1.txt")
        await session.commit()
        assert link["job_id"] == job.id

    assert lines_of(caught) == [line_of('name="1.txt"', test_links_that_were_created_by_hand_count)]


async def test_warnings_that_are_errors_leave_the_attachment(
    session: AsyncSession, other: AsyncSession
) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(UserWarning, match="second attachment"):
            async with job_context(session, attach_traceback=False) as job:
                await job.attach(b"1", name="1.txt")
                await job.attach(b"2", name="2.txt")

    links = await other.query("JobComponent where job_id is {id}", id=job.id).all()
    assert len(links) == 2
    held = await other.get(Job, job.id)
    assert held is not None
    assert held.status == "failed"
