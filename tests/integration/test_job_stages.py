"""Work of several steps: stages of a Job, in one task, in several, and in threads."""

from __future__ import annotations

from contextlib import suppress

import anyio
import pytest
from anyio.to_thread import run_sync

from aioftrackjobs import AsyncSession, job_context

from .waiting import shows

pytestmark = pytest.mark.every_loop


async def test_reports_inside_of_a_stage_are_about_the_stage(
    session: AsyncSession, other: AsyncSession
) -> None:
    async with job_context(session, description="Publish", interval=0.01) as job:
        encode, upload = job.stage("encode", weight=3), job.stage("upload")
        async with encode:
            assert await shows(other, job, "Publish (0 %, encode)")
            assert [each async for each in job.track([1, 2])] == [1, 2]
            assert await shows(other, job, "Publish (75 %, encode: 2 of 2)")
            job.progress(0.5, "again")
            assert await shows(other, job, "Publish (38 %, encode: again)")
        assert await shows(other, job, "Publish (75 %)")
        async with upload:
            await job.attach(b"x" * 4096, name="a.bin", report_progress=True)
            assert await shows(other, job, "Publish (100 %, upload: uploaded 4.0 KiB of 4.0 KiB)")


async def test_each_task_has_its_stage(session: AsyncSession, other: AsyncSession) -> None:
    async with job_context(session, description="Render", interval=0.01) as job:
        stages = [job.stage(f"sh0{number}0") for number in range(1, 5)]

        async def in_turn(number: int, before: anyio.Event, after: anyio.Event) -> None:
            await before.wait()
            async with stages[number]:
                job.progress(0, total=2)
                await run_sync(job.advance)
                after.set()
                await all_shown.wait()

        all_shown = anyio.Event()
        events = [anyio.Event() for _ in range(5)]
        events[0].set()
        async with anyio.create_task_group() as group:
            for number in range(4):
                group.start_soon(in_turn, number, events[number], events[number + 1])
            assert await shows(other, job, "Render (50 %, sh040: 1 of 2)")
            all_shown.set()
        assert await shows(other, job, "Render (100 %)")


async def test_stages_may_be_nested_and_passed_on(
    session: AsyncSession, other: AsyncSession
) -> None:
    async with job_context(session, description="Publish", interval=0.01) as job:
        async with job.stage("render", weight=1, total=2) as render:
            async with job.stage("sh010") as shot:
                shot.progress(0.5, "frame 12")
                assert (render.fraction, shot.fraction) == (0.25, 0.5)
                assert await shows(other, job, "Publish (12 %, render: sh010: frame 12)")
            assert render.fraction == 0.5
            with render.stage("sh020"):
                pass
            assert render.fraction == 1
        assert "render" in repr(render)
        job.fail("looked at")

    assert await shows(other, job, "Publish (50 %) - failed: looked at")


async def test_a_stage_with_a_total_tracks_what_has_no_length(
    session: AsyncSession, other: AsyncSession
) -> None:
    async with job_context(session, description="Render", interval=0.01) as job:
        async with job.stage("frames", total=4) as frames:
            async for frame in job.track(iter(range(3))):
                if frame == 2:
                    assert await shows(other, job, "Render (25 %, frames: 2 of 4)")
        assert await shows(other, job, "Render (50 %)")
        frames.progress(0.1, "late")
        assert frames.fraction == 1
        job.message = "after it"
        assert await shows(other, job, "Render (50 %, after it)")


async def test_a_stage_that_fails_leaves_its_text(
    session: AsyncSession, other: AsyncSession
) -> None:
    with suppress(ZeroDivisionError):
        async with job_context(session, description="Publish", attach_traceback=False) as job:
            encode, _ = job.stage("encode"), job.stage("upload")
            async with encode:
                job.progress(0.5, "frame 12")
                raise ZeroDivisionError

    assert await shows(other, job, "Publish (25 %, encode: frame 12) - failed: ZeroDivisionError")


async def test_a_stage_may_be_entered_again_inside_of_itself(
    session: AsyncSession, other: AsyncSession
) -> None:
    async with (
        job_context(session, description="outer", interval=0.01) as outer,
        job_context(session, description="inner", interval=0.01) as inner,
    ):
        first, second = inner.stage("first"), inner.stage("second")
        with first, first, second, first:
            outer.progress(0.5)
            inner.progress(0.5)
            assert await shows(other, outer, "outer (50 %)")
            assert await shows(other, inner, "inner (25 %, first)")
        assert (first.fraction, second.fraction) == (1, 1)
        assert await shows(other, inner, "inner (100 %)")


async def test_a_stage_ends_when_it_is_left_for_the_last_time(
    session: AsyncSession, other: AsyncSession
) -> None:
    async with job_context(session, description="Render", interval=0.01) as job:
        frames = job.stage("frames", total=2)
        with frames:
            with frames:
                job.advance()
            assert frames.fraction == 0.5
            assert await shows(other, job, "Render (25 %, frames: 1 of 2)")
            job.advance()
        assert await shows(other, job, "Render (50 %)")


async def test_a_stage_is_of_its_own_job(session: AsyncSession, other: AsyncSession) -> None:
    async with job_context(session, description="outer", interval=0.01) as outer:
        async with outer.stage("first"), job_context(session, description="inner") as inner:
            inner.progress(0.5)
            async with inner.stage("part"):
                outer.message = "busy"
                inner.message = "busy too"
                assert await shows(other, outer, "outer (0 %, first: busy)")
                assert await shows(other, inner, "inner (50 %, part: busy too)")


async def test_stages_that_make_no_sense_are_one_warning(
    session: AsyncSession, other: AsyncSession, caplog: pytest.LogCaptureFixture
) -> None:
    async with job_context(session, description="Publish", interval=0.01) as job:
        async with job.stage(None, weight=-1, total=0):  # type: ignore[arg-type]
            job.progress(1)
        async with job.stage("two", weight="x"):  # type: ignore[arg-type]
            pass
        async with job.stage("idle", weight=0):
            pass

    warnings = [record for record in caplog.records if record.levelname == "WARNING"]
    assert len(warnings) == 1
    assert warnings[0].pathname == __file__
