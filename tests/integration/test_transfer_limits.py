"""The limit of transfers at the same time: the others wait, and API calls do not."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import pytest

from aioftrackjobs import AsyncSession, Job
from aioftrackjobs.devserver import ServerHandle
from aioftrackjobs.protocol.upload import PartSizes
from aioftrackjobs.session import context_of
from aioftrackjobs.transfers import upload as upload_module
from aioftrackjobs.transfers.content import open_content
from aioftrackjobs.transfers.upload import upload

from .waiting import until

BODY = os.urandom(300_000)
SIZES = PartSizes((), largest=50_000, fewest=3)


class Watch:
    """Counts the open files and the bodies in transmission of a session, and can hold the bodies.

    Attributes:
        files: The highest number of files that were open at once.
        bodies: The highest number of bodies that were sent at once.
    """

    def __init__(self, session: AsyncSession, monkeypatch: pytest.MonkeyPatch) -> None:
        self.files = self.bodies = 0
        self._now = {"files": 0, "bodies": 0}
        self._may_go = anyio.Event()
        self._may_go.set()
        self._send = session._connection.transport.send
        self._open = open_content
        monkeypatch.setattr(session._connection.transport, "send", self._watched_send)
        monkeypatch.setattr(upload_module, "open_content", self._watched_open)

    def hold(self) -> None:
        self._may_go = anyio.Event()

    def release(self) -> None:
        self._may_go.set()

    async def until_sending(self, count: int) -> None:
        await until(lambda: self._now["bodies"] >= count)

    @asynccontextmanager
    async def _counted(self, kind: str) -> AsyncIterator[None]:
        self._now[kind] += 1
        setattr(self, kind, max(getattr(self, kind), self._now[kind]))
        try:
            yield
        finally:
            self._now[kind] -= 1

    async def _watched_send(self, request: Any) -> Any:
        if request.method != "PUT":
            return await self._send(request)
        async with self._counted("bodies"):
            await self._may_go.wait()
            return await self._send(request)

    @asynccontextmanager
    async def _watched_open(self, *arguments: Any) -> AsyncIterator[Any]:
        async with self._counted("files"), self._open(*arguments) as content:
            yield content


@pytest.fixture
async def watch(session: AsyncSession, monkeypatch: pytest.MonkeyPatch) -> Watch:
    return Watch(session, monkeypatch)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "a.exr"
    path.write_bytes(BODY)
    return path


@asynccontextmanager
async def held(
    watch: Watch,
    send: Callable[[Path], Coroutine[Any, Any, object]],
    path: Path,
    count: int,
    admitted: int = 8,
) -> AsyncIterator[None]:
    """Start *count* transfers, and hold them once the *admitted* ones send."""
    watch.hold()
    async with anyio.create_task_group() as group:
        for _ in range(count):
            group.start_soon(send, path)
        await watch.until_sending(admitted)
        yield
        watch.release()


async def send_in_parts(session: AsyncSession, source: Any) -> Any:
    return await upload(context_of(session), source, data={}, sizes=SIZES)


async def test_a_hundred_uploads_open_only_as_many_files_and_requests_as_are_admitted(
    session: AsyncSession, watch: Watch, path: Path
) -> None:
    async with held(watch, session.create_component, path, 100):
        pass

    assert (watch.files, watch.bodies) == (8, 8)
    assert len(await session.query("select id from Component").all()) == 100


async def test_the_parts_of_all_files_share_the_admitted_requests(
    session: AsyncSession, watch: Watch, path: Path
) -> None:
    async with held(watch, partial(send_in_parts, session), path, 20):
        pass

    assert (watch.files, watch.bodies) == (8, 8)


async def test_api_calls_do_not_wait_for_transfers(
    session: AsyncSession, watch: Watch, path: Path
) -> None:
    async with held(watch, session.create_component, path, 12):
        with anyio.fail_after(10):
            job = session.create(Job, {})
            await session.commit()
            assert await session.get(Job, job["id"]) is job


async def test_a_transfer_that_waits_for_admission_can_be_cancelled(
    session: AsyncSession, watch: Watch, path: Path
) -> None:
    async with held(watch, session.create_component, path, 8):
        async with anyio.create_task_group() as waiting_group:
            waiting_group.start_soon(session.create_component, path)
            await anyio.wait_all_tasks_blocked()
            waiting_group.cancel_scope.cancel()

    await session.create_component(path)
    assert watch.files == 8
    assert len(await session.query("select id from Component").all()) == 9


@pytest.mark.parametrize("count", [1, 2])
async def test_the_number_of_transfers_is_an_option_of_the_session(
    server: ServerHandle, path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    async with AsyncSession(
        server.url, server.api_key, server.api_user, transfers=count
    ) as session:
        watch = Watch(session, monkeypatch)
        async with held(watch, partial(send_in_parts, session), path, 4, admitted=count):
            pass

    assert (watch.files, watch.bodies) == (count, count)


async def test_an_upload_that_reads_from_a_download_is_admitted_once(
    server: ServerHandle, path: Path, tmp_path: Path
) -> None:
    async with AsyncSession(server.url, server.api_key, server.api_user, transfers=1) as session:
        first = await session.create_component(path)

        async def copied() -> AsyncIterator[bytes]:
            yield (await session.download(first, tmp_path / "copy")).read_bytes()

        with anyio.fail_after(10):
            second = await session.create_component(copied(), name="b.exr")
            await session.download(second, tmp_path / "back")

    assert (tmp_path / "back").read_bytes() == BODY


def test_a_session_without_transfers_is_refused() -> None:
    with pytest.raises(ValueError, match="above 0"):
        AsyncSession("http://ftrack.test", "key", "user", transfers=0)
