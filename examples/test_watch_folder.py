"""Tests of watch_folder.py, with the ftrack server of the pytest plugin of aioftrackjobs."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import aclosing
from pathlib import Path

import pytest
from PIL import Image
from watch_folder import take, watch

from aioftrackjobs import AsyncSession
from aioftrackjobs.testing import FtrackServer

pytestmark = pytest.mark.anyio


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "incoming").mkdir()
    return tmp_path / "incoming"


@pytest.fixture
def picture(folder: Path) -> Callable[[str], Path]:
    def make(name: str) -> Path:
        Image.new("RGB", (64, 48)).save(folder / name)
        return folder / name

    return make


async def test_a_picture_becomes_a_version_that_waits_for_a_review(
    ftrack_server: FtrackServer,
    ftrack_session: AsyncSession,
    folder: Path,
    picture: Callable[[str], Path],
) -> None:
    picture("demo_sh010_comp_v003.png")
    (folder / ".hidden").write_bytes(b"")

    async with aclosing(watch(ftrack_session, folder, pause=0.01)) as taken:
        assert await anext(taken) == folder / "demo_sh010_comp_v003.png"

    assert [path.name for path in (folder / "done").iterdir()] == ["demo_sh010_comp_v003.png"]
    (version,) = ftrack_server.find(
        "select version, asset.name, task.name, task.status.name, components.name from AssetVersion"
    )
    assert (version["version"], version["asset"]["name"]) == (3, "demo_sh010_comp_v003")
    assert (version["task"]["name"], version["task"]["status"]["name"]) == (
        "comp",
        "Pending review",
    )
    assert "ftrackreview-image" in {each["name"] for each in version["components"]}
    mine = [job for job in ftrack_server.jobs() if "Publish" in (job["description"] or "")]
    assert [job["status"] for job in mine] == ["done"]


async def test_what_cannot_be_published_fails_and_moves_aside(
    ftrack_server: FtrackServer,
    ftrack_session: AsyncSession,
    folder: Path,
    picture: Callable[[str], Path],
) -> None:
    (folder / "done").mkdir()
    picture("done/demo_sh010_comp_v001.png")

    await take(ftrack_session, picture("holiday.png"))
    await take(ftrack_session, picture("demo_nowhere_comp_v001.png"))
    await take(ftrack_session, picture("demo_sh010_comp_v001.png"))

    assert {job["status"] for job in ftrack_server.jobs()} == {"failed"}
    assert "name it as in" in ftrack_server.jobs()[0]["description"]
    assert {path.name for path in (folder / "failed").iterdir()} == {
        "holiday.png",
        "demo_nowhere_comp_v001.png",
    }
    assert [path.name for path in (folder / "duplicates").iterdir()] == ["demo_sh010_comp_v001.png"]
    assert ftrack_server.find("AssetVersion") == []
