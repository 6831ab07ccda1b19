"""Handlers: order, concurrency, faults, and their end."""

from __future__ import annotations

import logging
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from aioftrackjobs.events import Event, Gap, Lagged
from tests.unit.events.fake_hub import FakeHub, following, until

pytestmark = pytest.mark.parametrize("anyio_backend", ["asyncio", "trio"])


async def test_events_of_a_key_are_handled_in_their_order_beside_those_of_others() -> None:
    hub = FakeHub()
    async with hub.session() as session:
        running, most = set[str](), 0
        handled = dict[str, list[int]]()

        @session.events.on("topic=a", concurrency=3, key=lambda event: event.data["key"])
        async def handle(event: Event) -> None:
            nonlocal most
            key = event.data["key"]
            assert key not in running
            running.add(key)
            most = max(most, len(running))
            for _ in range(3 + event.data["n"] % 3):
                await anyio.lowlevel.checkpoint()
            running.discard(key)
            handled.setdefault(key, []).append(event.data["n"])

        await session.events.ready()
        for number in range(60):
            hub.sockets[0].push_event("a", data={"key": "abcde"[number // 12], "n": number})
        await until(lambda: sum(map(len, handled.values())) == 60)

    assert most == 3
    assert all(numbers == sorted(numbers) for numbers in handled.values())
    assert len(handled) == 5


async def test_no_more_events_are_handled_at_a_time_than_may() -> None:
    hub = FakeHub()
    async with hub.session() as session:
        started, go = 0, anyio.Event()

        @session.events.on("topic=a", concurrency=2, queue=3)
        async def handle(_: Event) -> None:
            nonlocal started
            started += 1
            await go.wait()

        await session.events.ready()
        for _ in range(2):
            hub.sockets[0].push_event("a")
        await until(lambda: started == 2)
        for _ in range(5):
            hub.sockets[0].push_event("a")
        await until(lambda: session.health.events.received == 7)
        assert (started, session.health.events.lag, session.health.events.dropped) == (2, 3, 2)
        go.set()
        await until(lambda: started == 5)


async def test_handlers_that_fail_end_nothing(caplog: pytest.LogCaptureFixture) -> None:
    class Odd(BaseException):
        pass

    async def hang(_: Event) -> None:
        await anyio.sleep_forever()

    def fail(_: Event) -> None:
        raise ValueError("no luck with the key")

    async def fail_oddly(_: Event) -> None:
        raise Odd

    def no_json(_: Event) -> object:
        return {"a": object()}

    def fail_with_key(_: Event) -> Any:
        raise KeyError("x")

    hub = FakeHub()
    async with hub.session() as session:
        for function in (hang, fail, fail_oddly, no_json):
            session.events.on("topic=a")(function)
        got: list[Any] = []
        session.events.on("topic=a", key=fail_with_key)(lambda event: got.append(event.data["n"]))
        unhashable: Any = list
        session.events.on("topic=a", key=unhashable)(lambda event: got.append(event.data["n"]))
        await session.events.ready()
        for number in range(3):
            source = {"id": "other"}
            hub.sockets[0].push_event("a", data={"n": number}, source=source)
        await until(lambda: len(got) == 6 and session.health.events.lag == 0)
        assert session.health.events.state == "connected"

    errors = [each.message for each in caplog.records if each.levelno == logging.ERROR]
    assert len([each for each in errors if "ValueError: no luck with the ***" in each]) == 3
    assert len([each for each in errors if "no_json" in each and "type object" in each]) == 3
    assert any("Odd" in each for each in errors)
    assert not hub.sockets[0].events("ftrack.meta.reply")


async def test_replies_name_the_event_and_its_publisher() -> None:
    hub = FakeHub()
    async with hub.session() as session:

        @session.events.on("topic=a")
        async def handle(event: Event) -> Any:
            await session.events.reply(event, ["first"])
            return event.data

        await session.events.ready()
        socket = hub.sockets[0]
        socket.push_event("a", id="1", data=False, source={"id": "you"})
        socket.push_event("a", id="2", data="nobody")
        socket.push_event("a", id="3", data={"n": 1}, source={"id": "a b"})
        await socket.until(lambda: len(socket.events("ftrack.meta.reply")) == 4)

    found = [
        (each["inReplyToEvent"], each["target"], each["data"])
        for each in socket.events("ftrack.meta.reply")
    ]
    assert sorted(found, key=str) == [
        ("1", "id=you", False),
        ("1", "id=you", ["first"]),
        ("3", 'id="a b"', ["first"]),
        ("3", 'id="a b"', {"n": 1}),
    ]


async def test_gaps_and_lags_are_reported_to_functions_of_the_program() -> None:
    hub = FakeHub()
    async with hub.session() as session:
        notices: list[Gap | Lagged] = []
        busy = anyio.Event()

        async def note(notice: Gap | Lagged) -> None:
            notices.append(notice)

        def fail(_: Gap) -> None:
            raise ValueError

        @session.events.on("topic=a", concurrency=1, queue=1, on_gap=note, on_lag=notices.append)
        async def handle(_: Event) -> None:
            await busy.wait()

        session.events.on("topic=a", on_gap=fail)(lambda _: None)
        await session.events.ready()
        for _ in range(4):
            hub.sockets[0].push_event("a")
            await until(lambda: not hub.sockets[0]._arriving)
        hub.sockets[0].close()
        await hub.socket(2)
        await session.events.ready()
        busy.set()
        await until(lambda: len(notices) == 2)

    assert notices[0] == Lagged(2)
    assert isinstance(notices[1], Gap)


async def test_changes_that_a_handler_leaves_are_dropped(caplog: pytest.LogCaptureFixture) -> None:
    hub = FakeHub()
    async with hub.session() as session:
        seen: list[int] = []

        @session.events.on("topic=a", concurrency=1)
        async def handle(_: Event) -> None:
            await until(lambda: session.health.events.received == 2)
            session.create("Job", {"status": "queued"})
            seen.append(len(session.recorded_operations))

        await session.events.ready()
        for _ in range(2):
            hub.sockets[0].push_event("a")
        await until(lambda: len(seen) == 2)

    assert seen == [1, 1]
    assert "handle" in caplog.text


async def test_a_handler_that_is_taken_off_gets_no_more() -> None:
    hub = FakeHub()
    async with hub.session() as session:
        got: list[Event] = []
        session.events.on("topic=a")(got.append)
        async with session.events.subscribe("topic=a") as events:
            await session.events.ready()
            session.events.off(got.append)
            hub.sockets[0].push_event("a")
            await following(events)
            assert got == []
            await hub.sockets[0].until(lambda: hub.sockets[0].events("ftrack.meta.unsubscribe"))
            assert session.health.events.subscriptions == 1


async def test_closing_does_not_wait_for_ever(caplog: pytest.LogCaptureFixture) -> None:
    hub = FakeHub()
    ended = anyio.Event()
    started = anyio.Event()
    async with hub.session(closing_grace=0.1) as session:

        @session.events.on("topic=a")
        async def stubborn(_: Event) -> None:
            started.set()
            with anyio.CancelScope(shield=True):
                await ended.wait()

        await session.events.ready()
        hub.sockets[0].push_event("a")
        await started.wait()
    assert "handlers are busy: test_closing_does_not_wait_for_ever.<locals>.stubborn" in caplog.text
    ended.set()
    await anyio.lowlevel.checkpoint()


async def test_loops_end_when_the_session_closes() -> None:
    hub = FakeHub()
    got: list[Any] = []
    entered = anyio.Event()
    async with anyio.create_task_group() as group:
        async with hub.session() as session:

            async def listen() -> None:
                async with session.events.subscribe("topic=a") as events:
                    entered.set()
                    got.extend([event async for event in events])
                    got.append("end")

            async def run() -> None:
                await session.events.run()
                got.append("run")

            group.start_soon(listen)
            group.start_soon(run)
            await entered.wait()
            await session.events.ready()
            hub.sockets[0].push_event("a")
            await until(lambda: session.health.events.received == 1)
    assert [getattr(each, "topic", each) for each in got if each != "run"] == ["a", "end"]
    assert "run" in got
    # The connection was closed in good order.
    assert hub.sockets[0].frames[-1] == "0::"
