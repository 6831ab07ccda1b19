"""Uploads in parts, and how they resume after a broken connection; over real sockets."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import os
import threading
from collections.abc import AsyncIterator, Iterator
from itertools import repeat
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import anyio
import httpx
import pytest

from aioftrackjobs import (
    AsyncSession,
    FileChangedError,
    FileComponent,
    ServerError,
    SessionStateError,
    TransferError,
    TransportError,
)
from aioftrackjobs.config.retry import NO_RETRIES, RetryPolicy
from aioftrackjobs.config.timings import Timings
from aioftrackjobs.devserver import ServerHandle, running
from aioftrackjobs.protocol.upload import PartSizes, encode_upload_completion
from aioftrackjobs.session import context_of
from aioftrackjobs.transfers import content as content_module
from aioftrackjobs.transfers import control as control_module
from aioftrackjobs.transfers import multipart as multipart_module
from aioftrackjobs.transfers import upload as upload_module
from aioftrackjobs.transfers.upload import upload

from ..tables import result_of
from .waiting import cancelled_after

if TYPE_CHECKING:
    from tests.integration.conftest import FaultProxy

PART = 100_000
SIZES = PartSizes((), largest=PART, fewest=3)
BODY = os.urandom(5 * PART + 17)
PARTS = 6


class Pauses:
    """Records the pauses of a policy, and ends them at once."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self.policy = RetryPolicy(sleep=self._sleep)

    async def _sleep(self, seconds: float) -> None:
        self.seconds.append(seconds)
        await anyio.lowlevel.checkpoint()


@pytest.fixture
def pauses() -> Pauses:
    return Pauses()


@pytest.fixture
async def session(
    proxy: FaultProxy, server: ServerHandle, pauses: Pauses
) -> AsyncIterator[AsyncSession]:
    """A session whose requests all go through the proxy."""
    async with AsyncSession(
        proxy.url, server.api_key, server.api_user, retry=pauses.policy
    ) as opened:
        yield opened


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "render.exr"
    path.write_bytes(BODY)
    return path


async def send(session: AsyncSession, source: Any, **options: Any) -> FileComponent:
    return await upload(context_of(session), source, data={}, sizes=SIZES, **options)


async def stored(session: AsyncSession, component: FileComponent, folder: Path) -> bytes:
    return (await session.download(component, folder / "back")).read_bytes()


async def components(session: AsyncSession) -> list[Any]:
    return await session.query("select id from Component").all()


# Parts


async def test_a_big_file_is_sent_in_parts(
    session: AsyncSession, proxy: FaultProxy, path: Path, tmp_path: Path
) -> None:
    component = await send(session, path)

    assert await stored(session, component, tmp_path) == BODY
    assert (component.name, component.file_type, component.size) == ("render", ".exr", len(BODY))
    assert len(proxy.requests(b"PUT ")) == PARTS


async def chunks(body: bytes) -> AsyncIterator[bytes]:
    for start in range(0, len(body), 70_001):
        yield body[start : start + 70_001]


async def test_sources_of_all_kinds_are_sent_in_parts(
    session: AsyncSession, proxy: FaultProxy, path: Path, tmp_path: Path
) -> None:
    with path.open("rb") as file:
        file.seek(PART)
        component = await send(session, file, name="a")
        assert await stored(session, component, tmp_path) == BODY[PART:], "from its position on"
        assert file.read() == b"", "it is read to its end"
    for source in (BODY, chunks(BODY)):
        component = await send(session, source, name="a")
        assert await stored(session, component, tmp_path) == BODY

    assert len(proxy.requests(b"PUT ")) == 5 + 6 + 6


async def test_a_directory_is_sent_as_an_archive(session: AsyncSession, tmp_path: Path) -> None:
    (tmp_path / "plates").mkdir()
    for number in range(5):
        (tmp_path / "plates" / f"a.{number}.exr").write_bytes(BODY)

    component = await send(session, tmp_path / "plates")

    assert (component.name, component.file_type) == ("plates", ".zip")
    assert len(await stored(session, component, tmp_path)) == component.size


async def test_four_parts_are_sent_at_a_time(
    session: AsyncSession, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    in_progress, most, four = 0, 0, anyio.Event()
    put = session._connection.transport.send

    async def count(request: Any) -> Any:
        nonlocal in_progress, most
        in_progress += request.method == "PUT"
        most = max(most, in_progress)
        if in_progress == 4:
            four.set()
        if request.method == "PUT":
            with anyio.fail_after(20):  # the first parts last until the fourth has begun
                await four.wait()
        try:
            return await put(request)
        finally:
            in_progress -= request.method == "PUT"

    monkeypatch.setattr(session._connection.transport, "send", count)
    await send(session, path)

    assert most == 4


async def test_a_server_without_multi_part_uploads_gets_the_whole_file(
    session: AsyncSession, proxy: FaultProxy, path: Path, tmp_path: Path, monkeypatch: Any
) -> None:
    call = session._connection.call

    async def without_parts(operations: Any) -> Any:
        return await call([{**operations[0], "parts": None}])

    monkeypatch.setattr(session._connection, "call", without_parts)
    component = await send(session, path)
    monkeypatch.undo()

    assert await stored(session, component, tmp_path) == BODY
    assert len(proxy.requests(b"PUT ")) == 1


@pytest.mark.parametrize("verified", [True, False])
async def test_bytes_are_hashed_in_threads_or_not_at_all(
    session: AsyncSession, path: Path, monkeypatch: pytest.MonkeyPatch, verified: bool
) -> None:
    hashed: list[tuple[int, int]] = []

    class NotingDigest:
        def __init__(self, **options: Any) -> None:
            self._digest = hashlib.md5(**options)
            self.digest, self.hexdigest = self._digest.digest, self._digest.hexdigest

        def update(self, data: bytes) -> None:
            hashed.append((threading.get_ident(), len(data)))
            self._digest.update(data)

    for module in (content_module, multipart_module):
        monkeypatch.setattr(module, "hashlib", SimpleNamespace(md5=NotingDigest))
    await send(session, path, verified=verified)
    await session.create_component(path, checksum=verified)

    assert sum(count for _, count in hashed) == (2 * len(BODY) if verified else 0)
    assert threading.get_ident() not in {thread for thread, _ in hashed}


# Broken connections


async def test_only_the_part_whose_connection_broke_is_sent_again(
    session: AsyncSession, proxy: FaultProxy, path: Path, tmp_path: Path
) -> None:
    proxy.plan(b"PUT ", sent=PART // 2)
    seen: list[tuple[int, int | None]] = []

    component = await send(session, path, progress=lambda *counts: seen.append(counts))

    assert await stored(session, component, tmp_path) == BODY
    assert len(proxy.requests(b"PUT ")) == PARTS + 1
    done = [count for count, _ in seen]
    assert done == sorted(set(done)), "what is sent again does not count twice"
    assert seen[-1] == (len(BODY), len(BODY))


async def test_a_part_is_sent_again_if_its_response_is_lost(
    session: AsyncSession, proxy: FaultProxy, path: Path, tmp_path: Path
) -> None:
    proxy.plan(b"PUT ", received=1, times=2)

    component = await send(session, path)

    assert await stored(session, component, tmp_path) == BODY


async def test_a_whole_file_whose_connection_broke_is_sent_again(
    session: AsyncSession, proxy: FaultProxy, tmp_path: Path
) -> None:
    proxy.plan(b"PUT ", sent=1000, times=2)

    for source in (b"x" * 50_000, chunks(b"x" * 50_000)):
        component = await session.create_component(source, name="a")
        assert await stored(session, component, tmp_path) == b"x" * 50_000

    assert len(proxy.requests(b"PUT ")) == 4


async def test_an_upload_pauses_as_long_as_retry_after_says(
    session: AsyncSession, proxy: FaultProxy, path: Path, tmp_path: Path, pauses: Pauses
) -> None:
    for status in (b"429 Too Many Requests", b"503 Busy"):
        proxy.plan(b"PUT ", response=b"HTTP/1.1 " + status + b"\r\nretry-after: 7")

    component = await send(session, path)

    assert await stored(session, component, tmp_path) == BODY
    assert pauses.seconds == [7, 7]
    assert len(proxy.requests(b"PUT ")) == PARTS + 2


@pytest.mark.parametrize("source", [BODY, b"small"], ids=["parts", "whole"])
async def test_a_rejected_upload_is_not_sent_again(
    session: AsyncSession, proxy: FaultProxy, source: bytes, pauses: Pauses
) -> None:
    proxy.plan(b"PUT ", times=99, response=b"HTTP/1.1 409 No")

    with pytest.raises(TransferError, match="409"):
        await send(session, source, name="a.exr")

    assert pauses.seconds == []
    assert len(proxy.requests(b"PUT ")) <= 4
    assert await components(session) == []


async def test_a_part_that_arrives_damaged_is_sent_again(
    session: AsyncSession, proxy: FaultProxy, path: Path, tmp_path: Path
) -> None:
    proxy.plan(b"PUT ", damage=True)

    component = await send(session, path)

    assert await stored(session, component, tmp_path) == BODY
    assert len(proxy.requests(b"PUT ")) == PARTS + 1


async def test_damage_in_every_attempt_raises(
    proxy: FaultProxy, server: ServerHandle, path: Path
) -> None:
    proxy.plan(b"PUT ", damage=True, times=99)

    async with AsyncSession(
        proxy.url, server.api_key, server.api_user, retry=NO_RETRIES
    ) as session:
        with pytest.raises(TransferError, match="damaged"):
            await send(session, path)
        assert await components(session) == []


async def test_a_whole_file_that_arrives_damaged_is_sent_again(
    session: AsyncSession, proxy: FaultProxy, path: Path, tmp_path: Path
) -> None:
    path.write_bytes(BODY[:PART])
    for source in (path, BODY[:PART], io.BytesIO(BODY[:PART]), chunks(BODY[:PART])):
        proxy.heads.clear()
        proxy.plan(b"PUT ", damage=True)

        component = await send(session, source, name="a")

        assert await stored(session, component, tmp_path) == BODY[:PART]
        assert len(proxy.requests(b"PUT ")) == 2


async def test_a_whole_file_that_is_rejected_as_damaged_is_sent_three_times(
    session: AsyncSession, proxy: FaultProxy, path: Path, pauses: Pauses
) -> None:
    path.write_bytes(BODY[:PART])
    proxy.plan(b"PUT ", damage=True, times=99)

    with pytest.raises(TransferError, match="rejected with HTTP 400"):
        await send(session, path)

    assert len(proxy.requests(b"PUT ")) == 3
    assert len(pauses.seconds) == 2
    assert await components(session) == []


async def test_a_bad_request_for_a_file_that_was_not_hashed_is_not_repeated(
    session: AsyncSession, proxy: FaultProxy, path: Path
) -> None:
    path.write_bytes(BODY[:PART])
    proxy.plan(b"PUT ", response=b"HTTP/1.1 400 No", times=99)

    with pytest.raises(TransferError, match="rejected with HTTP 400"):
        await send(session, path, verified=False)

    assert len(proxy.requests(b"PUT ")) == 1


async def test_an_upload_fails_when_the_budget_is_spent(
    proxy: FaultProxy, server: ServerHandle, path: Path
) -> None:
    proxy.plan(b"PUT ", sent=1000, times=99)

    async with AsyncSession(
        proxy.url, server.api_key, server.api_user, retry=RetryPolicy(budget=0.05)
    ) as session:
        with pytest.raises(TransportError):
            await send(session, path)


# URLs that expire


EXPIRED = b"HTTP/1.1 403 Forbidden"


@pytest.mark.parametrize("retry", [RetryPolicy(), NO_RETRIES], ids=["retries", "no retries"])
async def test_new_urls_are_asked_for_when_those_of_a_whole_file_expire(
    proxy: FaultProxy, server: ServerHandle, tmp_path: Path, retry: RetryPolicy
) -> None:
    proxy.plan(b"PUT ", response=EXPIRED, times=2)
    async with AsyncSession(proxy.url, server.api_key, server.api_user, retry=retry) as session:
        component = await send(session, b"small", name="a.exr")

        assert await stored(session, component, tmp_path) == b"small"
    assert len(proxy.requests(b"PUT ")) == 3


async def test_new_urls_are_asked_for_when_those_of_parts_expire(
    session: AsyncSession, proxy: FaultProxy, path: Path, tmp_path: Path, pauses: Pauses
) -> None:
    """The embedded server begins a new upload with them."""
    proxy.plan(b"PUT ", response=EXPIRED, times=4)

    component = await send(session, path)

    assert await stored(session, component, tmp_path) == BODY
    assert len(proxy.requests(b"PUT ")) <= 4 + 2 * PARTS
    assert pauses.seconds == []


@pytest.mark.parametrize("source", [BODY, b"small"], ids=["parts", "whole"])
async def test_new_urls_are_asked_for_a_limited_number_of_times(
    session: AsyncSession, proxy: FaultProxy, source: bytes, pauses: Pauses
) -> None:
    proxy.plan(b"PUT ", times=99, response=EXPIRED)

    with pytest.raises(TransferError, match="403"):
        await send(session, source, name="a.exr")

    assert pauses.seconds == []
    assert len(proxy.requests(b"PUT ")) <= 4 * 3
    assert await components(session) == []


class ExpiringStore:
    """A server whose store accepts a number of requests at the URLs that were given together.

    Attributes:
        uploads: The ids of the uploads, in the order in which the URLs were given.
        accepted: The numbers of the parts that were accepted, for each upload.
        completed: The id of the upload that was completed.
    """

    def __init__(
        self,
        lives: Iterator[int],
        *,
        goes_on: bool,
        rejection: tuple[int, str] = (403, "AccessDenied"),
    ) -> None:
        self._lives = lives
        self._goes_on = goes_on
        self._rejection = rejection
        self._left: list[int] = []
        self.uploads: list[str] = []
        self.accepted: dict[str, list[int]] = {}
        self.completed: str | None = None

    def respond(self, request: httpx.Request) -> httpx.Response:
        if request.url.host == "store.test":
            return self._store(*map(int, request.url.path[1:].split("/")))
        results: list[dict[str, Any]] = []
        for operation in json.loads(request.content or b"[]"):
            if operation["action"] == "get_upload_metadata":
                results.append(self._announce(operation["parts"]))
            elif operation["action"] == "complete_multipart_upload":
                self.completed = operation["upload_id"]
                assert sorted(self.accepted[self.completed]) == [*range(1, PARTS + 1)]
                results.append({})
            else:
                results.append(result_of(operation))
        return httpx.Response(200, json=results)

    def _announce(self, parts: int) -> dict[str, Any]:
        self._left.append(next(self._lives))
        number = len(self._left)
        self.uploads.append("u1" if self._goes_on else f"u{number}")
        urls = [
            {"part_number": each, "signed_url": f"https://store.test/{number}/{each}?SECRET"}
            for each in range(1, parts + 1)
        ]
        return {"upload_id": self.uploads[-1], "urls": urls}

    def _store(self, urls: int, part: int) -> httpx.Response:
        if not self._left[urls - 1]:
            status, code = self._rejection
            return httpx.Response(status, text=f"<Error><Code>{code}</Code></Error>")
        self._left[urls - 1] -= 1
        self.accepted.setdefault(self.uploads[urls - 1], []).append(part)
        return httpx.Response(200, headers={"etag": '"tag"'})


@pytest.mark.parametrize("rejection", [(403, "AccessDenied"), (400, "ExpiredToken"), (401, "")])
@pytest.mark.parametrize("life", [1, 2, 5])
async def test_an_upload_goes_on_with_the_part_whose_url_has_expired(
    life: int, rejection: tuple[int, str]
) -> None:
    store = ExpiringStore(repeat(life), goes_on=True, rejection=rejection)

    await to_store(store)

    assert sorted(store.accepted["u1"]) == [*range(1, PARTS + 1)]
    assert store.completed == "u1"
    assert len(store.uploads) <= -(-PARTS // life)


async def test_all_parts_are_sent_again_if_the_server_begins_a_new_upload() -> None:
    store = ExpiringStore(iter([4, 0, 5, 99]), goes_on=False)

    await to_store(store)

    assert store.completed == "u4"
    assert len(store.accepted["u1"]) == 4


async def test_an_upload_that_takes_longer_than_its_urls_live_fails() -> None:
    store = ExpiringStore(repeat(5), goes_on=False)

    with pytest.raises(TransferError, match="403"):
        await to_store(store)

    assert len(store.uploads) <= 4


# Completion


async def test_a_completion_whose_response_is_lost_is_verified(
    session: AsyncSession, proxy: FaultProxy, path: Path, tmp_path: Path
) -> None:
    proxy.plan(b"complete_multipart_upload", received=1)

    component = await send(session, path)

    assert await stored(session, component, tmp_path) == BODY


async def test_a_rejected_completion_registers_nothing(
    session: AsyncSession, path: Path, monkeypatch: Any
) -> None:
    monkeypatch.setattr(
        multipart_module,
        "encode_upload_completion",
        lambda component_id, upload_id, _: encode_upload_completion(component_id, upload_id, {}),
    )
    with pytest.raises(ServerError, match="name each of them"):
        await send(session, path)
    monkeypatch.undo()

    assert await components(session) == []
    assert session.recorded_operations == ()


# Files that change


@pytest.mark.parametrize("change", ["grow", "rewrite"])
async def test_a_file_that_changes_registers_nothing(
    session: AsyncSession, path: Path, change: str, monkeypatch: Any
) -> None:
    call = session._connection.call

    async def change_then_call(operations: Any) -> Any:
        with path.open("ab" if change == "grow" else "r+b") as file:
            file.write(b"more")
        os.utime(path, ns=(0, 0))
        return await call(operations)

    monkeypatch.setattr(session._connection, "call", change_then_call)
    with pytest.raises(FileChangedError, match=r"render\.exr"):
        await send(session, path)
    monkeypatch.undo()

    assert await components(session) == []


# Callbacks and cancellation


async def test_an_error_of_the_callback_ends_the_upload(session: AsyncSession, path: Path) -> None:
    def fail(done: int, total: int | None) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await send(session, path, progress=fail)

    assert await components(session) == []


async def test_an_empty_file_is_reported_too(session: AsyncSession) -> None:
    seen: list[tuple[int, int | None]] = []

    await session.create_component(b"", name="a", progress=lambda *counts: seen.append(counts))

    assert seen == [(0, 0)]


async def test_cancelled_uploads_lose_no_connections(tmp_path: Path, path: Path) -> None:
    limits = httpx.Limits(max_connections=4)
    async with (
        running(storage=tmp_path / "files") as server,
        httpx.AsyncClient(limits=limits, timeout=5) as client,
        AsyncSession(server.url, server.api_key, server.api_user, client=client) as session,
    ):
        for checkpoints in range(0, 200, 5):
            async with cancelled_after(checkpoints):
                await send(session, path)

        registered = len(await components(session))
        files = [
            each
            for each in (tmp_path / "files" / "components").iterdir()
            if not each.name.startswith(".")
        ]
        assert len(files) == registered
        component = await send(session, path)
        assert await stored(session, component, tmp_path) == BODY
        pool = client._transport._pool  # type: ignore[attr-defined]
        assert all(connection.is_idle() for connection in pool.connections)


async def test_an_upload_that_is_stuck_can_be_cancelled(
    session: AsyncSession, proxy: FaultProxy, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stuck = anyio.Event()
    monkeypatch.setattr(control_module, "_STOPPING_GRACE", 0.05)
    put = session._connection.transport.send

    async def hang(request: Any) -> Any:
        if request.method == "PUT":
            stuck.set()
            await anyio.sleep_forever()
        return await put(request)

    monkeypatch.setattr(session._connection.transport, "send", hang)
    async with anyio.create_task_group() as group:
        group.start_soon(send, session, path)
        await stuck.wait()
        group.cancel_scope.cancel()
    monkeypatch.undo()

    assert await components(session) == []


async def test_a_file_completed_after_its_upload_was_cancelled_is_removed(
    tmp_path: Path, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If it were removed before its completion, a file without a component would remain."""
    monkeypatch.setattr(control_module, "_STOPPING_GRACE", 0.0)
    monkeypatch.setattr(upload_module, "_CANCELLED_GRACE", 0.0)
    reached, release = anyio.Event(), anyio.Event()
    async with (
        running(storage=tmp_path / "files") as server,
        AsyncSession(server.url, server.api_key, server.api_user) as session,
    ):
        send_on = session._connection.transport.send

        async def hold_back(request: Any) -> Any:
            if b"complete_multipart_upload" in (request.body if request.method == "POST" else b""):
                reached.set()
                await release.wait()
            return await send_on(request)

        monkeypatch.setattr(session._connection.transport, "send", hold_back)
        async with anyio.create_task_group() as group:
            group.start_soon(send, session, path)
            await reached.wait()
            group.cancel_scope.cancel()
        release.set()

    assert list((tmp_path / "files" / "components").iterdir()) == []


async def test_a_session_that_closes_ends_its_transfers(
    proxy: FaultProxy, server: ServerHandle, path: Path
) -> None:
    pausing = anyio.Event()
    proxy.plan(b"PUT ", times=99, response=b"HTTP/1.1 503 No")

    async def sleep(_: float) -> None:
        pausing.set()
        await anyio.sleep_forever()

    async def send_in_vain(session: AsyncSession) -> None:
        with pytest.raises(SessionStateError, match="closed during a transfer"):
            await send(session, path)

    policy = RetryPolicy(sleep=sleep)
    async with anyio.create_task_group() as group:
        async with AsyncSession(
            proxy.url,
            server.api_key,
            server.api_user,
            retry=policy,
            timings=Timings(closing_grace=0.05),
        ) as session:
            group.start_soon(send_in_vain, session)
            await pausing.wait()


async def test_a_pause_between_attempts_can_be_cancelled(
    proxy: FaultProxy, server: ServerHandle, path: Path
) -> None:
    proxy.plan(b"PUT ", times=99, response=b"HTTP/1.1 503 No\r\nretry-after: 50")
    pausing = anyio.Event()

    async def sleep(_: float) -> None:
        pausing.set()
        await anyio.sleep_forever()

    policy = RetryPolicy(sleep=sleep)
    async with AsyncSession(proxy.url, server.api_key, server.api_user, retry=policy) as session:
        async with anyio.create_task_group() as group:
            group.start_soon(send, session, path)
            await pausing.wait()
            group.cancel_scope.cancel()

        assert await components(session) == []


# Other stores


class Store:
    """A server whose files go to a store with its own format of ETags."""

    def __init__(self, tag: str | None) -> None:
        self.headers = {} if tag is None else {"etag": tag}
        self.completed: list[Any] = []

    def respond(self, request: httpx.Request) -> httpx.Response:
        if request.url.host == "store.test":
            return httpx.Response(200, headers=self.headers)
        results: list[dict[str, Any]] = []
        for operation in json.loads(request.content or b"[]"):
            if operation["action"] == "get_upload_metadata":
                numbers = range(1, operation["parts"] + 1)
                urls = [
                    {"part_number": each, "signed_url": f"https://store.test/{each}?SECRET"}
                    for each in numbers
                ]
                results.append({"upload_id": "u1", "urls": urls})
            elif operation["action"] == "complete_multipart_upload":
                self.completed += operation["parts"]
                results.append({"action": operation["action"]})
            else:
                results.append(result_of(operation))
        return httpx.Response(200, json=results)


async def to_store(store: Store | ExpiringStore) -> None:
    async with (
        httpx.AsyncClient(transport=httpx.MockTransport(store.respond)) as client,
        AsyncSession(
            "https://ftrack.test", "key", "maya", client=client, retry=NO_RETRIES
        ) as session,
    ):
        await send(session, BODY, name="a")


async def test_an_etag_that_is_no_md5_is_passed_on_unverified() -> None:
    store = Store('"0x8DC2D7A5"')

    await to_store(store)

    assert store.completed == [
        {"part_number": number, "e_tag": "0x8DC2D7A5"} for number in range(1, PARTS + 1)
    ]


async def test_a_store_without_etags_is_reported() -> None:
    with pytest.raises(TransferError, match="no ETag for part"):
        await to_store(Store(None))


async def test_the_digest_of_a_whole_file_is_announced(
    session: AsyncSession, monkeypatch: Any
) -> None:
    calls: list[Any] = []
    call = session._connection.call

    async def note(operations: Any) -> Any:
        calls.extend(operations)
        return await call(operations)

    monkeypatch.setattr(session._connection, "call", note)
    await session.create_component(b"hello", name="a")

    digest = base64.b64encode(hashlib.md5(b"hello").digest()).decode()
    assert [operation["checksum"] for operation in calls] == [digest]


def test_parts_are_sent_and_stopped_under_trio(tmp_path: Path, path: Path) -> None:
    async def main() -> bytes:
        async with (
            running() as server,
            AsyncSession(server.url, server.api_key, server.api_user) as session,
        ):
            async with anyio.create_task_group() as group:

                def stop(done: int, total: int | None) -> None:
                    group.cancel_scope.cancel()

                await send(session, path, progress=stop)
            assert await components(session) == []
            return await stored(session, await send(session, chunks(BODY), name="a"), tmp_path)

    assert anyio.run(main, backend="trio") == BODY
