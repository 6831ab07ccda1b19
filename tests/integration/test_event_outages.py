"""The event hub while connections break, servers restart and proxies stand between."""

from __future__ import annotations

import ssl
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import pytest
import trustme

from aioftrackjobs import AsyncSession, RetryPolicy, ServerError
from aioftrackjobs.devserver import Limits, ServerHandle, running
from aioftrackjobs.events import (
    ActionDiscover,
    Event,
    EventCursor,
    EventStream,
    Gap,
    Lagged,
    UpdateEvent,
)
from aioftrackjobs.testing import Delay, Drop, Reorder, Restart, StopHeartbeats

from ..amounts import amount
from .settings import connected
from .waiting import until
from .wires import Proxy, listening, over_tls

pytestmark = [pytest.mark.every_loop, pytest.mark.usefixtures("can_upgrade")]


async def following(events: EventStream[Any]) -> Any:
    with anyio.fail_after(20):
        return await anext(events)


async def test_a_restart_of_the_server_is_a_gap(
    server: ServerHandle, session: AsyncSession, other: AsyncSession
) -> None:
    async with session.events.subscribe("topic=a") as events:
        server.faults.inject(Restart(0.05))
        await other.query("Job").all()  # repeated until the server is back
        assert isinstance(await following(events), Gap)
        await other.events.publish("a")
        assert (await following(events)).topic == "a"


async def test_heartbeats_that_stop_are_noticed_within_the_time_of_the_server() -> None:
    async with running(limits=Limits(heartbeat=0.3)) as server, connected(server) as session:
        async with session.events.subscribe("topic=a") as events:
            await until(lambda: session.health.events.last_heartbeat)
            server.faults.inject(StopHeartbeats())
            assert isinstance(await following(events), Gap)
            assert session.health.events.reconnects == 1


async def test_events_that_are_late_or_out_of_order_all_arrive(
    server: ServerHandle, session: AsyncSession, other: AsyncSession
) -> None:
    async with session.events.subscribe("topic=a") as events:
        server.faults.inject(Reorder(), on="events")
        server.faults.inject(Delay(0.05), on="events")
        for number in range(5):
            await other.events.publish("a", {"n": number}, wait=False)
        found = [(await following(events)).data["n"] for _ in range(5)]
    assert sorted(found) == list(range(5))


async def test_discoveries_at_once_all_get_their_reply(
    session: AsyncSession, other: AsyncSession
) -> None:
    @session.events.on(ActionDiscover, concurrency=8)
    async def offer(event: ActionDiscover) -> dict[str, Any]:
        await anyio.lowlevel.checkpoint()
        return {"items": [{"label": str(event.data["n"])}]}

    await session.events.ready()
    count = amount(300, 1000)
    labels: list[str] = []

    async def discover(number: int) -> None:
        data = {"selection": [], "n": number}
        reply = await other.events.request("ftrack.action.discover", data, timeout=30)
        labels.append(reply.data["items"][0]["label"])

    async with anyio.create_task_group() as group:
        for number in range(count):
            group.start_soon(discover, number)
    assert sorted(map(int, labels)) == list(range(count))
    assert session.health.events.dropped == other.health.events.pending == 0


async def test_an_event_that_is_too_big_for_the_server_is_refused(
    session: AsyncSession, other: AsyncSession
) -> None:
    async with session.events.subscribe("topic=a") as events:
        with pytest.raises(ServerError, match="1048576 characters"):
            await other.events.publish("a", "x" * 1_100_000)
        await other.events.publish("a", "y" * 1_000_000)
        assert len((await following(events)).data) == 1_000_000


async def test_the_hub_uses_proxies_and_certificates_of_the_environment(
    server: ServerHandle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    proxy = Proxy("maya:PASSWORD")
    async with listening(proxy.handle) as port, over_tls(server.url, context) as secure_port:
        for name in ("HTTP_PROXY", "ALL_PROXY", "NO_PROXY", "no_proxy", "https_proxy"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv("HTTPS_PROXY", f"http://maya:PASSWORD@127.0.0.1:{port}")
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
        async with connected(server, f"https://127.0.0.1:{secure_port}") as session:
            async with session.events.subscribe("topic=a") as events:
                await session.events.publish("a")
                assert (await following(events)).topic == "a"
    assert {each.method for each in proxy.received} == {"CONNECT"}


async def test_with_a_cursor_nothing_is_lost_and_without_it_every_loss_is_announced(
    server: ServerHandle, other: AsyncSession, tmp_path: Path
) -> None:
    """A small version of ``tests/benchmarks/hub.py soak``."""
    cuts = amount(8, 100)
    job = other.create("Job", {"status": "running", "user": await other.current_user()})
    await other.commit()
    written: dict[str, tuple[datetime, datetime]] = {}
    plain: list[Event | Gap | Lagged] = []
    complete: list[str] = []

    def text_of(event: Any) -> str:
        return str(event.changes[0].attributes["data"].new)

    async def listen(session: AsyncSession, ready: anyio.Event) -> None:
        async with session.events.subscribe(UpdateEvent) as events:
            ready.set()
            async for item in events:
                plain.append(item)

    async def follow(session: AsyncSession, ready: anyio.Event) -> None:
        cursor = EventCursor(tmp_path / "soak.cursor")
        async with session.events.subscribe(UpdateEvent, cursor=cursor) as events:
            ready.set()
            async for item in events:
                complete.append(text_of(item))

    soon = RetryPolicy(first_delay=0.01)
    async with connected(server, retry=soon) as one, connected(server, retry=soon) as two:
        async with anyio.create_task_group() as group:
            for work, session in ((listen, one), (follow, two)):
                ready = anyio.Event()
                group.start_soon(work, session, ready)
                await ready.wait()
            for number in range(cuts * 4):
                if number % 4 == 1:
                    server.faults.inject(Drop(), on="events", times=1 + number % 2)
                began = datetime.now(UTC)
                job["data"] = text = f'{{"n": {number}}}'
                await other.commit()
                written[text] = began, datetime.now(UTC)
            server.faults.clear()
            await until(lambda: len(complete) >= len(written))
            await one.events.ready()  # with the gaps before
            await other.events.publish("ftrack.update")
            await until(lambda: plain and getattr(plain[-1], "changes", None) == [])
            group.cancel_scope.cancel()

        assert complete == list(written)
        gaps = [each for each in plain if isinstance(each, Gap)]
        seen = {text_of(each) for each in plain if isinstance(each, UpdateEvent) and each.changes}
        lost = written.keys() - seen
        assert lost
        for text in lost:
            began, ended = written[text]
            assert any(gap.since <= ended and began <= gap.until for gap in gaps), text


SERVICE = """
import asyncio, sys
from aioftrackjobs import AsyncSession, job_context

async def serve(started):
    async with AsyncSession(*sys.argv[1:]) as session:
        @session.events.on("topic=go")
        async def go(event):
            async with job_context(session, description="In a handler"):
                started.set()
                await asyncio.sleep(1000)

        await session.events.ready()
        await session.events.publish("go")
        await session.events.run()

async def main():
    started = asyncio.Event()
    service = asyncio.create_task(serve(started))
    await started.wait()

asyncio.run(main())  # which cancels all tasks, those of the session among them
"""


@pytest.mark.asyncio_only
async def test_the_job_of_a_handler_ends_with_the_event_loop(server: ServerHandle) -> None:
    arguments = [server.url, server.api_key, server.api_user]
    with anyio.fail_after(30):
        done = await anyio.run_process([sys.executable, "-c", SERVICE, *arguments], check=False)

    assert (done.returncode, done.stderr.decode()) == (0, "")
    jobs = server.inspector.find("select status from Job")
    assert [job["status"] for job in jobs] == ["failed"]
