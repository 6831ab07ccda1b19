"""The event hub of a session: listening, publishing, replies, and a new connection after a loss."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import anyio
import httpx
import pytest
from ftrack_api.event.base import Event as OfficialEvent
from httpx_aiohttp import HttpxAiohttpClient

from aioftrackjobs import (
    ArgumentError,
    AsyncSession,
    AuthenticationError,
    ConfigurationError,
    EventQueueFullError,
    EventTimeoutError,
    Job,
    SessionStateError,
    UnserialisableValueError,
    job_context,
)
from aioftrackjobs.devserver import ServerHandle
from aioftrackjobs.events import (
    ActionDiscover,
    ActionLaunch,
    Event,
    EventStream,
    Gap,
    Lagged,
    UpdateEvent,
)
from aioftrackjobs.testing import Drop, Duplicate

from .conftest import Official
from .frames import leaks
from .settings import QUICK, Setting, connected
from .waiting import until

pytestmark = [pytest.mark.every_client, pytest.mark.usefixtures("can_upgrade")]


async def next_event(events: EventStream[Any]) -> Any:
    with anyio.fail_after(20):
        return await anext(events)


async def test_a_handler_gets_changes_by_the_names_of_the_api(
    session: AsyncSession, other: AsyncSession
) -> None:
    events: list[UpdateEvent] = []
    session.events.on(UpdateEvent)(events.append)
    await session.events.ready()

    shot = (await other.query("Shot").first()) or pytest.fail("no shot")
    statuses = await other.query("select id from Status").all()
    status = next(each for each in statuses if each["id"] != shot["status_id"])
    shot["status_id"] = status["id"]
    await other.commit()
    await until(lambda: events)

    (change,) = events[0].changes
    assert (change.entity_type, change.table, change.action) == ("Shot", "task", "update")
    assert change.id == shot["id"]
    assert change.attributes["status_id"].new == status["id"]
    assert change.attributes["statusid"] is change.attributes["status_id"]
    assert list(change.attributes) == ["status_id"]
    assert [each.entity_type for each in change.parents][-1] == "Project"
    assert change.parents[0].id == shot["parent_id"]
    assert events[0].user.username == other.api_user


async def test_a_loop_gets_what_its_expression_selects(
    session: AsyncSession, other: AsyncSession
) -> None:
    async with session.events.subscribe("topic=a.* and data.n=2") as events:
        await other.events.publish("a.b", {"n": 1})
        await other.events.publish("b", {"n": "2"})
        published = await other.events.publish("a.b", {"n": "2", "é": [None, 1.5]})

        event = await next_event(events)

    assert isinstance(event, Event)
    assert (event.id, event.topic, event.data) == (published, "a.b", {"n": "2", "é": [None, 1.5]})
    assert event.source["id"] == other.events.id


async def test_a_condition_is_an_expression_or_a_function(
    session: AsyncSession, other: AsyncSession
) -> None:
    with_text = session.events.subscribe("topic=a or topic=b", where="data.n='1'")
    with_function = session.events.subscribe("topic=a", where=lambda event: event.data["n"] == 2)
    async with with_text as texts, with_function as numbers:
        for topic, number in (("a", 1), ("c", "1"), ("b", "1"), ("a", 2)):
            await other.events.publish(topic, {"n": number})
        await other.events.publish("a", "no object")  # the function raises an error

        assert (await next_event(texts)).topic == "b"
        assert (await next_event(numbers)).data == {"n": 2}


async def test_what_a_handler_returns_is_the_reply(
    session: AsyncSession, other: AsyncSession
) -> None:
    @session.events.on("topic=farm.*")
    async def reply(event: Event) -> Any:
        await anyio.lowlevel.checkpoint()
        return {"twice": event.data["n"] * 2}

    await session.events.ready()
    answers = [(await other.events.request("farm.ask", {"n": n})).data for n in range(3)]

    assert answers == [{"twice": 0}, {"twice": 2}, {"twice": 4}]


async def test_a_request_has_many_replies_or_none(
    session: AsyncSession, other: AsyncSession
) -> None:
    for name in ("first", "second"):
        session.events.on("topic=who")(lambda _, name=name: name)
    await session.events.ready()

    replies = [reply.data async for reply in other.events.request_many("who", count=2, timeout=20)]
    for timeout in (0.2, 2, 20):  # the replies may be late
        in_time = [reply.data async for reply in other.events.request_many("who", timeout=timeout)]
        if len(in_time) == 2:
            break
    with pytest.raises(EventTimeoutError, match=r"within 0\.05 s") as caught:
        await other.events.request("nobody", timeout=0.05)

    assert sorted(replies) == sorted(in_time) == ["first", "second"]
    assert isinstance(caught.value, TimeoutError)
    assert (caught.value.topic, caught.value.was_sent) == ("nobody", True)


async def test_a_target_chooses_the_subscribers(session: AsyncSession, other: AsyncSession) -> None:
    mine = session.events.subscribe("topic=a", subscriber={"applicationId": "mine"})
    async with mine as own, session.events.subscribe("topic=a") as events:
        await other.events.publish("a", {"n": 1}, target="applicationId=mine")
        await other.events.publish("a", {"n": 2})

        assert (await next_event(own)).data == {"n": 1}
        assert (await next_event(events)).data == {"n": 2}


async def test_an_action_is_discovered_and_launched(
    server: ServerHandle, session: AsyncSession
) -> None:
    @session.events.on(ActionDiscover)
    def offer(event: ActionDiscover) -> dict[str, Any]:
        kinds = [each.entity_type for each in event.selection]
        return {"items": [{"label": ", ".join(kinds), "actionIdentifier": "deliver"}]}

    @session.events.on(ActionLaunch, where="data.actionIdentifier=deliver")
    async def launch(event: ActionLaunch) -> dict[str, Any]:
        async with job_context(session, description="Deliver"):
            pass
        return {"success": True, "message": f"{event.identifier} {event.values}"}

    await session.events.ready()
    shot = server.inspector.find("Shot")[0]
    project = server.inspector.find("Project")[0]

    (item,) = await anyio.to_thread.run_sync(server.actions.discover, [shot, project])
    reply = await anyio.to_thread.run_sync(
        lambda: server.actions.launch(item, [shot], values={"codec": "prores"})
    )

    assert item["label"] == "TypedContext, Project"
    assert reply == {"success": True, "message": "deliver {'codec': 'prores'}"}
    assert [job["status"] for job in server.inspector.find("select status from Job")] == ["done"]


async def test_handlers_are_registered_before_the_session_is_opened(
    server: ServerHandle, other: AsyncSession
) -> None:
    session = AsyncSession(server.url, server.api_key, server.api_user)
    events: list[Event] = []
    session.events.on("topic=a")(events.append)
    assert session.health.events.state == "off"
    async with session:
        await session.events.ready()
        await other.events.publish("a")
        await until(lambda: events)
        health = session.health.events

    assert (health.state, health.subscriptions, health.received) == ("connected", 1, 1)
    with pytest.raises(SessionStateError):
        await session.events.publish("a")


async def test_a_lost_connection_is_made_again_and_its_gap_is_reported(
    server: ServerHandle, session: AsyncSession, other: AsyncSession
) -> None:
    gaps: list[Gap] = []
    handled: list[Any] = []
    session.events.on("topic=a", on_gap=gaps.append)(lambda event: handled.append(event.data))
    await session.events.ready()
    server.faults.inject(Drop(), on="events")

    async with session.events.subscribe("topic=a") as events:
        await other.events.publish("a", {"n": 1})  # lost, with the connection
        gap = await next_event(events)
        await other.events.publish("a", {"n": 2})
        event = await next_event(events)

    assert isinstance(gap, Gap)
    assert gap.since < gap.until
    assert event.data == {"n": 2}
    await until(lambda: handled)
    assert handled == [{"n": 2}]
    assert len(gaps) == 1
    assert session.health.events.reconnects == 1


async def test_an_event_that_comes_twice_is_delivered_once(
    server: ServerHandle, session: AsyncSession, other: AsyncSession
) -> None:
    async with session.events.subscribe("topic=a") as events:
        server.faults.inject(Duplicate(), on="events")
        await other.events.publish("a", {"n": 1})
        await other.events.publish("a", {"n": 2})

        assert [(await next_event(events)).data["n"] for _ in range(2)] == [1, 2]


async def test_a_slow_consumer_is_told_what_it_has_missed(
    session: AsyncSession, other: AsyncSession
) -> None:
    short = session.events.subscribe("topic=a", queue=2)
    strict = session.events.subscribe("topic=a", queue=2, overflow="raise")
    async with short as events, strict as failing:
        for number in range(5):
            await other.events.publish("a", {"n": number})
        await until(lambda: session.health.events.dropped == 6)

        assert session.health.events.lag == 4
        assert await next_event(events) == Lagged(3)
        assert [(await next_event(events)).data["n"] for _ in range(2)] == [3, 4]
        with pytest.raises(EventQueueFullError, match="3 event"):
            await next_event(failing)


async def test_the_official_client_and_ours_reply_to_each_other(
    session: AsyncSession, official: Official
) -> None:
    session.events.on("topic=to.us")(lambda event: {"us": event.data["é"]})
    await session.events.ready()

    def work(theirs: Any) -> list[Any]:
        hub = theirs.event_hub
        hub.connect()
        subscribed: list[Any] = []
        hub._on_subscribed = lambda *_: subscribed.append(1)
        hub.subscribe("topic=to.them", lambda event: {"them": event["data"]["n"]})
        replies: list[Any] = []
        hub.publish(
            OfficialEvent("to.us", data={"é": "✓"}), on_reply=lambda e: replies.append(e["data"])
        )
        _handle_until(hub, lambda: replies and subscribed)
        anyio.from_thread.run_sync(ready.set)
        _handle_until(hub, done.is_set)
        return replies

    ready, done = anyio.Event(), anyio.Event()
    replies: list[Any] = []

    async def theirs() -> None:
        replies.extend(await official.run(work))

    async with anyio.create_task_group() as group:
        group.start_soon(theirs)
        await ready.wait()
        reply = await session.events.request("to.them", {"n": 7}, timeout=20)
        done.set()

    assert reply.data == {"them": 7}
    assert replies == [{"us": "✓"}]


def _handle_until(hub: Any, condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        hub.wait(0)


@pytest.mark.usefixtures("needs_no_upgrade")
async def test_a_client_that_cannot_upgrade_is_refused(
    server: ServerHandle, setting: Setting
) -> None:
    if setting.client != "aiohttp":
        pytest.skip("about another client")
    async with HttpxAiohttpClient() as client, connected(server, client=client) as session:
        with pytest.raises(ConfigurationError, match=r"httpx-aiohttp.*; pass AsyncSession\(client"):
            await session.events.ready()
        with pytest.raises(ConfigurationError):
            await session.events.publish("a")
        assert session.health.events.state == "closed"
        await session.query("Job").all()


async def test_refused_credentials_are_an_error(server: ServerHandle) -> None:
    wrong = AsyncSession(server.url, "a-wrong-key", server.api_user)
    async with wrong as session:
        with pytest.raises(AuthenticationError) as caught:
            await session.events.ready()
        assert leaks(caught.value, "a-wrong-key") == []
        with pytest.raises(AuthenticationError):
            await session.events.publish("a")
        assert session.health.events.state == "refused"
        assert not session.health.is_good


async def test_credentials_that_are_withdrawn_while_it_is_connected_are_a_state_and_a_warning(
    server: ServerHandle, other: AsyncSession, caplog: pytest.LogCaptureFixture
) -> None:
    name, key = next(each for each in server.api_keys.items() if each[0] != server.api_user)
    timings = replace(QUICK, event_refusal_pause=0.0)
    async with AsyncSession(server.url, key, name, timings=timings) as session:
        session.events.on("topic=a")(lambda _: None)
        await session.events.ready()
        user = await other.query("User where username is {name}", name=name).one()
        user["is_active"] = False
        await other.commit()
        server.faults.inject(Drop(), on="events")
        await other.events.publish("a")  # lost, with the connection
        await until(lambda: session.health.events.state == "refused")

        user["is_active"] = True
        await other.commit()
        await until(lambda: session.health.events.state == "connected")
    texts = [each.getMessage() for each in caplog.records if "refuses" in each.getMessage()]
    assert len(texts) == 1
    assert key not in caplog.text


async def test_wrong_arguments_are_refused_before_anything_is_sent(session: AsyncSession) -> None:
    hub = session.events
    wrong: list[Callable[[], object]] = [
        lambda: hub.subscribe("topic=a and"),
        lambda: hub.subscribe(""),
        lambda: hub.subscribe(Job),  # type: ignore[type-var]
        lambda: hub.subscribe("topic=a", where="b"),
        lambda: hub.subscribe("topic=a", queue=0),
        lambda: hub.subscribe("topic=a", overflow="block"),  # type: ignore[call-overload]
        lambda: hub.on("topic=a", concurrency=0),
        lambda: hub.on("topic=a", key="id"),  # type: ignore[call-overload]
        lambda: hub.on("topic=a")(None),  # type: ignore[type-var]
        lambda: hub.off(print),
        lambda: hub.request_many("a", count=0),
        lambda: hub.request_many("a", timeout=0),
        lambda: hub.request_many(""),
    ]
    for call in wrong:
        with pytest.raises(ArgumentError):
            call()
    with pytest.raises(ArgumentError, match="target"):
        await hub.publish("a", target="id=")
    with pytest.raises(UnserialisableValueError, match="object"):
        await hub.publish("a", {"x": [object()]})
    assert session.health.events.state == "off"


async def test_closing_ends_handlers_in_order(
    server: ServerHandle, other: AsyncSession, caplog: pytest.LogCaptureFixture
) -> None:
    finished: list[str] = []
    replies: list[Any] = []
    started = anyio.Event()

    async def request() -> None:
        replies.append((await other.events.request("quick", timeout=20)).data)

    timings = replace(QUICK, closing_wait=0.2)
    async with anyio.create_task_group() as group:
        async with connected(server, timings=timings) as session:

            @session.events.on("topic=quick")
            async def quick(_: Event) -> str:
                await anyio.sleep(0.05)
                finished.append("quick")
                return "reply"

            @session.events.on("topic=slow")
            async def slow(_: Event) -> None:
                async with job_context(session, description="Slow", grace=5):
                    started.set()
                    await anyio.sleep_forever()

            await session.events.ready()
            await other.events.publish("slow")
            with anyio.fail_after(20):
                await started.wait()
            group.start_soon(request)
            await until(lambda: session.health.events.received == 2)

        assert finished == ["quick"]
        assert [job["status"] for job in server.inspector.find("select status from Job")] == [
            "failed"
        ]

    assert replies == ["reply"]  # it was sent before the connection was closed
    assert not [each for each in caplog.records if each.levelno >= logging.WARNING]


async def test_the_hub_goes_through_the_client_of_the_caller(
    server: ServerHandle, setting: Setting
) -> None:
    """Its headers and cookies are those of the studio."""
    seen: list[httpx.Request] = []

    async def note(request: Any) -> None:
        seen.append(request)

    client = setting.client_type(
        headers={"x-studio": "1"}, cookies={"sso": "abc"}, event_hooks={"request": [note]}
    )
    async with client, connected(server, client=client) as session:
        await session.events.publish("a")

    paths = [each.url.path for each in seen]
    assert [path[:20] for path in paths] == ["/socket.io/1/", "/socket.io/1/websock"]
    for request in seen:
        assert (request.headers["x-studio"], request.headers["cookie"]) == ("1", "sso=abc")
