"""The client against a server that was written from the protocol's description alone."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from aioftrackjobs import AsyncSession, Job, ServerError, job_context
from aioftrackjobs.protocol.upload import PartSizes
from aioftrackjobs.session import context_of
from aioftrackjobs.transfers.upload import upload

from ..benchmarks.attacking.servers import Server, started


@pytest.fixture(scope="module")
def memory() -> Iterator[Server]:
    with started("memory") as server:
        yield server


@pytest.mark.other_client
async def test_jobs_and_files(memory: Server, tmp_path: Path) -> None:
    sizes = PartSizes((), largest=300, fewest=2)
    data = b"0123456789" * 100
    async with AsyncSession(memory.url, memory.key, memory.user) as session:
        async with job_context(session, description="work", interval=0) as job:
            job.progress(0.5, "half")
            whole = await job.attach(data, name="a.txt")
        parts = await upload(context_of(session), data, data={}, name="b.txt", sizes=sizes)
        with pytest.raises(LookupError):
            async with job_context(session) as failed:
                raise LookupError("on purpose")

        ended = session.query("Job where id in {ids} order by id", ids=[job.id, failed.id])
        found = {each.id: each.status for each in await ended.of(Job).all()}
        for component in (whole, parts):
            await session.download(component, tmp_path / "x")
            assert (tmp_path / "x").read_bytes() == data
        with pytest.raises(ServerError, match=r"is missing|in:"):
            await session.query("Job where (status").all()

    assert found == {job.id: "done", failed.id: "failed"}
    assert await memory.statuses([job.id, failed.id]) == {job.id: "done", failed.id: "failed"}
