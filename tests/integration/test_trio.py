"""What works under trio, which comes through anyio; asyncio is what the rest is tested on."""

from __future__ import annotations

from pathlib import Path

import anyio
import pytest

from aioftrackjobs import AsyncSession, Job, JobStatus, job_context
from aioftrackjobs.devserver import running


async def main(folder: Path) -> list[tuple[str, str | None]]:
    async with (
        running() as server,
        AsyncSession(server.url, server.api_key, server.api_user) as session,
    ):
        async with job_context(session, description="done") as job:
            job.progress(0.5)
            component = await job.attach(b"hello", name="hello.txt")
        with anyio.move_on_after(0.1):
            async with job_context(session, description="cancelled"):
                await anyio.sleep_forever()
        with pytest.raises(ValueError, match="bad"):
            async with job_context(session, description="error"):
                raise ValueError("bad frame")
        await session.download(component, folder / "hello.txt")
        jobs = await session.query("Job order by data").of(Job).all()
        return [(str(job.status), job.description) for job in jobs]


def test_jobs_run_under_trio(tmp_path: Path) -> None:
    jobs = anyio.run(main, tmp_path, backend="trio")

    assert jobs == [
        (JobStatus.FAILED, "cancelled - failed: cancelled"),
        (JobStatus.DONE, "done (50 %)"),
        (JobStatus.FAILED, "error - failed: ValueError: bad frame"),
    ]
    assert (tmp_path / "hello.txt").read_bytes() == b"hello"
