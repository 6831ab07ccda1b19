"""The event hubs of the official clients, unmodified, work with the server's."""

from __future__ import annotations

import threading
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest
from anyio.to_thread import run_sync

from aioftrackjobs.devserver import Limits, ServerHandle, running
from aioftrackjobs.testing import Drop, ServerProcess

from .hub_client import connected
from .test_javascript import node, programs  # noqa: F401 - a fixture

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)
    import ftrack_api
    from ftrack_api.event.base import Event


@contextmanager
def session_of(
    server: ServerHandle | ServerProcess, **changes: Any
) -> Iterator[ftrack_api.Session]:
    """A session of the official client that is connected to the hub."""
    arguments = {"schema_cache_path": False, "plugin_paths": [], "auto_connect_event_hub": True}
    session = ftrack_api.Session(
        server.url, server.api_key, server.api_user, **(arguments | changes)
    )
    try:
        until(lambda: session.event_hub.connected)
        yield session
    finally:
        session.close()


def until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.001)


def handle_until(session: ftrack_api.Session, condition: Callable[[], object]) -> None:
    """Handle events as they come, in this thread, until *condition* is true."""
    until(lambda: session.event_hub.wait(0) or condition())


async def test_the_python_client_gets_events_and_replies(server: ServerHandle) -> None:
    def work() -> None:
        with session_of(server) as asking, session_of(server) as replying:
            names, replies = list[str](), list[Any]()
            confirmed = threading.Event()
            replying.event_hub._on_subscribed = lambda *_: confirmed.set()
            subscription = f"topic=ask.* and source.user.username={server.api_user}"

            def reply(event: Event) -> str:
                names.append(event["data"]["é"])
                return "reply"

            replying.event_hub.subscribe(subscription, reply)
            assert confirmed.wait(20)
            asking.event_hub.publish(
                Event("ask.me", data={"é": "✓"}), on_reply=lambda e: replies.append(e["data"])
            )
            handle_until(replying, lambda: names)
            handle_until(asking, lambda: replies)
            assert (names, replies) == (["✓"], ["reply"])

    await run_sync(work)


async def test_the_python_client_replies_to_heartbeats() -> None:
    """It stays connected for longer than a silent client would."""

    def work(server: ServerHandle) -> None:
        with session_of(server) as session:
            reader, beats = session.event_hub._handle_packet, list[str]()

            def count(code: str, *rest: Any) -> None:
                beats.append(code)
                reader(code, *rest)

            session.event_hub._handle_packet = count
            until(lambda: beats.count("2") > 15)
            assert session.event_hub.connected

    async with running(limits=Limits(heartbeat=0.4)) as server:
        await run_sync(work, server)


async def test_the_python_client_resubscribes_after_a_lost_connection(
    server: ServerHandle,
) -> None:
    def work() -> None:
        with session_of(server) as session:
            hub, got = session.event_hub, list[Any]()
            hub._auto_reconnect_delay = 0.1
            hub.subscribe("topic=a", lambda event: got.append(event["data"]))
            lost = hub._connection
            server.faults.inject(Drop(), on="events")
            hub.publish(Event("a"))
            until(lambda: hub._connection is not lost and hub.connected)
            # It counts as connected before it has subscribed again, in another thread.
            handle_until(session, lambda: hub.publish(Event("a", data={"n": 1})) or got)
            assert got[0] == {"n": 1}

    await run_sync(work)


async def test_the_javascript_client_gets_events_and_replies_and_reconnects(
    server: ServerHandle,
    programs: Path,  # noqa: F811
) -> None:
    server.faults.inject(
        Drop(), on=lambda request: request.kind == "event" and request.path == "lose"
    )
    assert await node(server, programs, "events.mjs") == {"answer": 2}
    assert [each.fault for each in server.faults.injected] == [Drop()]


@pytest.mark.slow
async def test_the_javascript_client_reconnects_after_the_server_was_killed(
    tmp_path: Path,
    programs: Path,  # noqa: F811
) -> None:
    with ServerProcess(tmp_path) as server:

        async def kill_at_event() -> None:
            async with connected(server) as client:
                await client.subscribe("topic=lose", id="killer")
                waiting.set()
                await client.event()
                await run_sync(server.kill)
                await run_sync(server.start)

        waiting = anyio.Event()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(kill_at_event)
            await waiting.wait()
            assert await node(server, programs, "events.mjs") == {"answer": 2}
