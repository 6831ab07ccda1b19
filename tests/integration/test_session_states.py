"""Every public name of a session, before it is opened, while it is closed, and afterwards."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from inspect import isawaitable
from pathlib import Path
from typing import Any

import anyio
import pytest

from aioftrackjobs import (
    AsyncSession,
    Job,
    Query,
    SessionStateError,
    UnitOfWork,
    User,
    job_context,
    recover,
    shutdown_on_signals,
)
from aioftrackjobs.devserver import ServerHandle
from aioftrackjobs.session import connection_of
from aioftrackjobs.transport import WireRequest, WireResponse

from .relay import Relay, Send
from .waiting import until

Use = Callable[[AsyncSession], Any]

#: What communicates with the server, or records something for it.
CALLS: dict[str, Use] = {
    "query": lambda s: s.query("Job"),
    "get": lambda s: s.get(Job, "x"),
    "populate": lambda s: s.populate([], "status"),
    "call": lambda s: s.call([{"action": "query", "expression": "Job"}]),
    "call without operations": lambda s: s.call([]),
    "server_information": lambda s: s.server_information(),
    "schemas": lambda s: s.schemas(),
    "current_user": lambda s: s.current_user(),
    "custom_attributes": lambda s: s.custom_attributes(),
    "create": lambda s: s.create(Job, {}),
    "create of a type by name": lambda s: s.create("Anything", {}),
    "delete": lambda s: s.delete(Job(id="x")),
    "commit": lambda s: s.commit(),
    "unit_of_work": lambda s: s.unit_of_work(),
    "claim_job": lambda s: s.claim_job("Job"),
    "wait_for": lambda s: s.wait_for("x"),
    "watch": lambda s: s.watch("x"),
    "stop_job": lambda s: s.stop_job("x"),
    "ensure": lambda s: s.ensure(User, {"username": "maya"}),
    "create_component": lambda s: s.create_component(b"x", name="x.txt"),
    "create_component of a missing file": lambda s: s.create_component("/missing/x.txt"),
    "download": lambda s: s.download("x", "/missing/x.txt"),
    "create_sequence": lambda s: s.create_sequence("/missing/x.%04d.exr"),
    "create_thumbnail": lambda s: s.create_thumbnail(Job(id="x"), b"x", name="x.png"),
    "encode_media": lambda s: s.encode_media(b"x", name="x.mov"),
    "queue_job": lambda s: s.queue_job(),
    "create_note": lambda s: s.create_note(Job(id="x"), "x"),
    "statuses": lambda s: s.statuses(Job(id="x"), "Task"),
    "types": lambda s: s.types(Job(id="x")),
    "use_models": lambda s: s.use_models([Job]),
    "job_context": lambda s: job_context(s).__aenter__(),
    "job_context of a Job": lambda s: job_context(s, job="x", user="maya").__aenter__(),
    "recover": recover,
    "recover in a dry run": lambda s: recover(s, dry_run=True, older_than=timedelta(days=1)),
    "shutdown_on_signals": lambda s: shutdown_on_signals(s).__aenter__(),
}

#: What says something about the session itself, or forgets what is recorded.
LOCAL: dict[str, Use] = {
    "server_url": lambda s: s.server_url,
    "api_user": lambda s: s.api_user,
    "health": lambda s: s.health.is_good,
    "events": lambda s: s.events.is_started,
    "recorded_operations": lambda s: s.recorded_operations,
    "uncertain_operations": lambda s: s.uncertain_operations,
    "created": lambda s: s.created,
    "modified": lambda s: s.modified,
    "deleted": lambda s: s.deleted,
    "rollback": lambda s: s.rollback(),
    "repr": repr,
}


@asynccontextmanager
async def never_opened(server: ServerHandle) -> AsyncIterator[AsyncSession]:
    yield AsyncSession(server.url, server.api_key, server.api_user)


@asynccontextmanager
async def closed(server: ServerHandle) -> AsyncIterator[AsyncSession]:
    async with AsyncSession(server.url, server.api_key, server.api_user) as session:
        pass
    yield session


@asynccontextmanager
async def being_closed(server: ServerHandle) -> AsyncIterator[AsyncSession]:
    """A session that waits for the final status of a Job."""
    gate = anyio.Event()

    async def hold(request: WireRequest, send: Send) -> WireResponse:
        await gate.wait()
        return await send(request)

    async def close() -> None:
        await session.__aexit__(None, None, None)

    session = AsyncSession(server.url, server.api_key, server.api_user)
    async with anyio.create_task_group() as group, session:
        async with job_context(session):
            Relay(session, hold)
            group.start_soon(close)
            await until(lambda: connection_of(session).is_closing)
            try:
                yield session
            finally:
                gate.set()


STATES = [never_opened, closed, being_closed]


def test_the_tables_name_everything_that_is_public() -> None:
    public = {name for name in dir(AsyncSession) if not name.startswith("_")}

    assert public - {"open", "aclose"} <= {*CALLS, *LOCAL}


@pytest.mark.every_loop
@pytest.mark.parametrize("state", STATES)
async def test_a_session_that_is_not_open_refuses_every_call(
    server: ServerHandle, state: Callable[[ServerHandle], Any]
) -> None:
    async with state(server) as session:
        for name, use in CALLS.items():
            with pytest.raises(SessionStateError) as caught:
                result = use(session)
                if isawaitable(result):
                    await result
            assert "open" in str(caught.value), name
        if state is not never_opened:
            with pytest.raises(SessionStateError, match="only once"):
                await session.__aenter__()
        assert session.health.commits_queued == 0


@pytest.mark.parametrize("state", STATES)
async def test_a_session_that_is_not_open_describes_itself(
    server: ServerHandle, state: Callable[[ServerHandle], Any]
) -> None:
    async with state(server) as session:
        found = {name: use(session) for name, use in LOCAL.items()}

    assert found == {
        "server_url": server.url,
        "api_user": server.api_user,
        "health": True,
        "events": False,
        "recorded_operations": (),
        "uncertain_operations": (),
        "created": [],
        "modified": [],
        "deleted": [],
        "rollback": None,
        "repr": f"<AsyncSession {server.api_user} at {server.url}>",
    }


async def test_what_an_open_session_gave_is_refused_when_it_is_closed(
    server: ServerHandle, tmp_path: Path
) -> None:
    async with AsyncSession(server.url, server.api_key, server.api_user) as session:
        user = await session.current_user()
        query: Query[User] = session.query("User").of(User)
        block = session.unit_of_work()
        unit: UnitOfWork = await block.__aenter__()
        user["first_name"] = "Maya"
        context = job_context(session)

    for use in (query.all, query.one, query.first, unit.commit, context.__aenter__):
        with pytest.raises(SessionStateError, match="closed"):
            await use()
    with pytest.raises(SessionStateError, match="closed"):
        async for _ in query:
            pass
    assert len(unit.recorded_operations) == 1
    with pytest.raises(SessionStateError, match="closed"):
        await block.__aexit__(None, None, None)
