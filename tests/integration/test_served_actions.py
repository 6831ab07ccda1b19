"""Actions on a real event hub, as the web interface discovers and launches them."""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import anyio
import ftrack_api
import ftrack_api.event.base
import pytest
from anyio.to_thread import run_sync
from pydantic import BaseModel, Field

from aioftrackjobs import ArgumentError, AsyncSession, AuthenticationError, Job, RunningJob
from aioftrackjobs.actions import Actions, Launch
from aioftrackjobs.devserver import ServerHandle
from aioftrackjobs.testing import Restart

from ..amounts import amount
from .conftest import Official
from .settings import connected
from .waiting import until

pytestmark = pytest.mark.own_client  # httpx-aiohttp has no event hub

#: Launches that are under way when the server restarts.
LAUNCHES = amount(20, 200)


class Delivery(BaseModel):
    quality: int = Field(80, ge=1, le=100)


def handlers_of(session: AsyncSession) -> set[str]:
    """Return the names of the handlers of actions."""
    return {each.__name__ for each in session.events._handlers} & {"discover", "launch"}


@asynccontextmanager
async def served(session: AsyncSession, actions: Actions, **options: Any) -> AsyncIterator[None]:
    async with anyio.create_task_group() as group:
        group.start_soon(partial(actions.serve, session, **options))
        await until(lambda: len(handlers_of(session)) == 2)
        await session.events.ready()
        yield
        group.cancel_scope.cancel()
    assert handlers_of(session) == set()


async def jobs_of(session: AsyncSession) -> list[Job]:
    return await session.query("select status, data, user.username from Job").of(Job).all()


@pytest.mark.every_loop
async def test_an_action_is_found_filled_in_launched_and_reported(
    server: ServerHandle, session: AsyncSession, other: AsyncSession
) -> None:
    actions = Actions()

    @actions.action("Deliver", variant="client", on="Task")
    async def deliver(launch: Launch, form: Delivery, job: RunningJob) -> str:
        (task,) = await launch.selection("Task", "name")
        return f"{task['name']} in {form.quality} %"

    (task,) = server.inspector.find('Task where name is "comp" and parent.name is "sh010"')
    async with served(session, actions):
        discover = partial(server.actions.discover, user=server.api_user)
        assert await run_sync(partial(discover, timeout=0.1)) == []
        (item,) = await run_sync(discover, [task])
        assert (item["label"], item["variant"]) == ("Deliver", "client")
        launch = partial(server.actions.launch, item, [task], user=server.api_user)
        form = await run_sync(launch)
        assert [each["name"] for each in form["items"]] == ["quality"]
        wrong = await run_sync(partial(launch, values={"quality": 101}))
        assert "100" in wrong["items"][0]["value"]
        reply = await run_sync(partial(launch, values={"quality": "40"}))
        assert reply == {"success": True, "message": "Deliver - client has started."}
        await until(lambda: server.actions.messages)

    assert server.actions.messages[-1] == {
        "type": "message",
        "success": True,
        "message": "comp in 40 %",
    }
    (job,) = await jobs_of(other)
    assert (job.status, job.description) == ("done", "Deliver - client - comp in 40 %")
    assert job["user"]["username"] == server.api_user


@pytest.mark.asyncio_only
async def test_the_official_client_gets_items_and_results(
    session: AsyncSession, official: Official
) -> None:
    actions = Actions()

    @actions.action("Count", job=None)
    async def count(launch: Launch) -> str:
        return f"{len(launch.selected)} selected"

    def ask(client: Any) -> list[Any]:
        replies = list[Any]()
        client.event_hub.connect()
        selection = [{"entityType": "task", "entityId": "a"}]
        for topic, data in (("discover", {}), ("launch", {"actionIdentifier": "count"})):
            event = ftrack_api.event.base.Event(
                topic=f"ftrack.action.{topic}", data={**data, "selection": selection}
            )
            seen = len(replies)
            client.event_hub.publish(event, on_reply=lambda each: replies.append(each["data"]))
            while len(replies) == seen:
                client.event_hub.wait(0.05)
        return replies

    async with served(session, actions):
        found, result = await official.run(ask)

    assert found == {"items": [{"label": "Count", "actionIdentifier": "count"}]}
    assert result == {"success": True, "message": "1 selected"}


async def test_a_hundred_discoveries_at_once_get_one_reply_each(
    server: ServerHandle, session: AsyncSession
) -> None:
    actions = Actions()
    for number in range(100):

        @actions.action(f"a{number}", identifier=f"a{number}")
        async def act() -> None: ...

    found: list[int] = []

    async def discover() -> None:
        found.append(len(await run_sync(partial(server.actions.discover, timeout=15.0))))

    async with served(session, actions), anyio.create_task_group() as group:
        for _ in range(100):
            group.start_soon(discover)

    assert found == [100] * 100


async def test_every_launch_ends_as_a_true_job_when_the_server_restarts(
    server: ServerHandle, other: AsyncSession
) -> None:
    actions, may_end = Actions(), anyio.Event()

    @actions.action("Render")
    async def render(launch: Launch, job: RunningJob) -> str:
        await may_end.wait()
        if launch.event["number"] % 2:
            raise OSError("disk full")
        return str(launch.event["number"])

    async with connected(server) as session, served(session, actions, concurrency=LAUNCHES):
        for number in range(LAUNCHES):
            item = {"actionIdentifier": "render", "number": number}
            reply = await run_sync(server.actions.launch, item)
            assert reply["success"] is True
        server.faults.inject(Restart(0.2))
        await other.query("User").first()
        may_end.set()

        async def ended() -> bool:
            return {job.status for job in await jobs_of(other)} == {"done", "failed"}

        await until(ended)

    texts = [job.description for job in await jobs_of(other)]
    assert sorted(map(str, texts)) == sorted(
        "Render - failed: OSError: disk full" if number % 2 else f"Render - {number}"
        for number in range(LAUNCHES)
    )


async def test_an_action_that_blocks_the_event_loop_keeps_its_job_and_the_other_launches(
    server: ServerHandle, other: AsyncSession
) -> None:
    actions, is_blocked, may_go_on = Actions(), threading.Event(), threading.Event()

    @actions.action("Render")
    async def render() -> str:
        is_blocked.set()
        assert may_go_on.wait(10)
        return "rendered"

    @actions.action("Publish")
    async def publish() -> str:
        return "published"

    def launch() -> list[Any]:
        with ThreadPoolExecutor(2) as pool:
            first = pool.submit(server.actions.launch, {"actionIdentifier": "render"})
            assert is_blocked.wait(10)
            second = pool.submit(server.actions.launch, {"actionIdentifier": "publish"})
            may_go_on.set()
            return [first.result(10), second.result(10)]

    async with connected(server) as session, served(session, actions):
        replies = await run_sync(launch)
        assert [reply["success"] for reply in replies] == [True, True]

        async def have_ended() -> bool:
            return [job.status for job in await jobs_of(other)] == ["done", "done"]

        await until(have_ended)
    texts = {str(job.description) for job in await jobs_of(other)}
    assert texts == {"Render - rendered", "Publish - published"}


async def test_serving_ends_with_a_typed_error_and_checks_its_arguments(
    server: ServerHandle, session: AsyncSession
) -> None:
    actions = Actions()
    with pytest.raises(ArgumentError, match="actions must be at least one"):
        await actions.serve(session)

    @actions.action("a")
    async def act() -> None: ...

    for wrong in (0, "8", True):
        with pytest.raises(ArgumentError):
            await actions.serve(session, concurrency=wrong)  # type: ignore[arg-type]
    with pytest.raises(ArgumentError):
        await actions.serve(server)  # type: ignore[arg-type]
    async with AsyncSession(server.url, "wrong", server.api_user) as refused:
        with pytest.raises(AuthenticationError):
            await actions.serve(refused)
    assert handlers_of(session) == set()
