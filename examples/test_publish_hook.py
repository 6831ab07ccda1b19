"""Tests of publish_hook.py, with the ftrack server of the pytest plugin of aioftrackjobs.

    pip install "aioftrackjobs[server]" pytest
    pytest test_publish_hook.py

With pytest-asyncio, mark the tests with pytest.mark.asyncio instead of pytest.mark.anyio.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from publish_hook import on_publish

from aioftrackjobs import AsyncSession, TransferError
from aioftrackjobs.testing import (
    BadGateway,
    Corrupt,
    Delay,
    Drop,
    Fault,
    FtrackServer,
    HtmlPage,
    Truncate,
)

pytestmark = pytest.mark.anyio


@pytest.fixture
def task_id(ftrack_server: FtrackServer) -> str:
    """A task of the demo project, which every such server has."""
    (task,) = ftrack_server.find('Task where name is "comp" and parent.name is "sh010"')
    return str(task["id"])


@pytest.fixture
def frames(tmp_path: Path) -> list[Path]:
    paths = [tmp_path / f"sh010.{number}.exr" for number in range(1001, 1005)]
    for path in paths:
        path.write_bytes(path.name.encode())
    return paths


def status_of(server: FtrackServer, task_id: str) -> str:
    (task,) = server.find(f'select status.name from Task where id is "{task_id}"')
    return str(task["status"]["name"])


async def test_publish_is_reviewed(
    ftrack_server: FtrackServer, ftrack_session: AsyncSession, task_id: str, frames: list[Path]
) -> None:
    await on_publish(ftrack_session, task_id, frames)

    (job,) = ftrack_server.jobs()
    assert job["status"] == "done"
    assert job["description"].startswith("Publish sh010 comp")
    (manifest,) = job["attachments"]
    assert ftrack_server.content(manifest["id"]).count(b"sh010.10") == 4
    assert status_of(ftrack_server, task_id) == "Pending review"


async def test_missing_frame_fails_the_job_and_leaves_the_task(
    ftrack_server: FtrackServer, ftrack_session: AsyncSession, task_id: str, frames: list[Path]
) -> None:
    before = status_of(ftrack_server, task_id)
    frames[2].unlink()

    with pytest.raises(FileNotFoundError):
        await on_publish(ftrack_session, task_id, frames)

    (job,) = ftrack_server.jobs()
    assert job["status"] == "failed"
    assert "FileNotFoundError" in job["description"]
    assert status_of(ftrack_server, task_id) == before


@pytest.mark.parametrize(
    "fault", [Drop(), Drop(applied=True), Truncate(), BadGateway(), HtmlPage(applied=True)], ids=str
)
async def test_bad_network_changes_nothing(
    ftrack_server: FtrackServer,
    ftrack_session: AsyncSession,
    task_id: str,
    frames: list[Path],
    fault: Fault,
) -> None:
    # A third of all requests. If this fails, the report says how to repeat the same faults.
    ftrack_server.faults.inject(fault, probability=0.3)
    ftrack_server.faults.inject(Delay(0.01), probability=0.3)

    await on_publish(ftrack_session, task_id, frames)

    (job,) = ftrack_server.jobs()  # only one Job, although requests were sent again
    assert job["status"] == "done"
    assert [file["name"] for file in job["attachments"]] == ["manifest.txt"]
    assert status_of(ftrack_server, task_id) == "Pending review"


async def test_damaged_manifest_is_never_attached(
    ftrack_server: FtrackServer, ftrack_session: AsyncSession, task_id: str, frames: list[Path]
) -> None:
    ftrack_server.faults.inject(Corrupt(), times=5, on="uploads")

    with pytest.raises(TransferError):
        await on_publish(ftrack_session, task_id, frames)

    (job,) = ftrack_server.jobs()
    assert job["status"] == "failed"
    assert "manifest.txt" not in [file["name"] for file in job["attachments"]]
    assert ftrack_server.faults.injected[0].fault == Corrupt()
