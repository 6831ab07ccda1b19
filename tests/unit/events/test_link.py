"""The connection of a hub, on a server that does what real ones should not."""

from __future__ import annotations

import json
import logging
from typing import Any

import anyio
import pytest
from websockets.frames import Frame, Opcode

from aioftrackjobs import (
    AuthenticationError,
    ConfigurationError,
    ConnectError,
    EventTimeoutError,
    ServerError,
    TransportError,
)
from aioftrackjobs.events import Event, Gap
from tests.unit.events.fake_hub import FakeHub, Socket, following, until

pytestmark = pytest.mark.parametrize("anyio_backend", ["asyncio", "trio"])

#: A frame that is too long for its length, in a protocol that has no such opcode, and so on.
ODD_FRAMES = [
    *(
        "8::",
        "9::",
        "",
        "5",
        "5:::",
        "5:::{",
        "5:::null",
        "5:::[]",
        '5:::{"args":[]}',
        "6:::",
        "6:::x",
    ),
    *('5:::{"name":"ftrack.event","args":[{"topic":null}]}', "6:::999+[1]", "3:::text", "4:::{}"),
    *('5:::{"args":[{"topic":"a","id":{},"source":[],"target":7,"data":3,"inReplyToEvent":1}]}',),
    *('5:::{"args":[{"topic":"a","target":"((","data":null,"new":{"key":1}}]}', "7:::why+", "\x00"),
    *('5:7+::{"args":[{"topic":"numbered"}]}', "1::", "2::", "é:ü", "5:::" + "[" * 100_000),
]


async def test_no_odd_frame_ends_the_reader() -> None:
    hub = FakeHub()
    async with hub.session() as session, session.events.subscribe("topic=*") as events:
        socket = await hub.socket()
        for frame in ODD_FRAMES:
            socket.push(frame)
        socket.push_bytes(Frame(Opcode.BINARY, b"\xff\xfe").serialize(mask=False))
        socket.push_event("last")

        found = [await following(events)]
        while found[-1].topic != "last":
            found.append(await following(events))

        assert [event.topic for event in found] == ["a", "a", "numbered", "last"]
        assert (found[0].id, found[0].source, found[0].target, found[0].data) == (None, {}, "", 3)
        assert (found[1].data, found[1].new) == ({}, {"key": 1})
        await socket.until(lambda: "6:::7" in socket.frames and "2::" in socket.frames)
        assert len(hub.sockets) == 1


async def test_a_message_may_come_in_pieces_of_any_size() -> None:
    hub = FakeHub()
    async with hub.session() as session, session.events.subscribe("topic=*") as events:
        socket = await hub.socket()
        text = '5:::{"args":[{"topic":"a","data":{"text":"é✓"}}]}'.encode()
        whole = b"".join(
            frame.serialize(mask=False)
            for frame in (
                Frame(Opcode.TEXT, text[:47], fin=False),
                Frame(Opcode.PING, b"between"),
                Frame(Opcode.CONT, text[47:48], fin=False),
                Frame(Opcode.CONT, text[48:]),
            )
        )
        for place in range(len(whole)):
            socket.push_bytes(whole[place : place + 1])
        event = await following(events)
        assert event.data == {"text": "é✓"}


async def test_a_large_event_arrives() -> None:
    hub = FakeHub()
    async with hub.session() as session, session.events.subscribe("topic=*") as events:
        (await hub.socket()).push_event("a", data={"x": "y" * 3_000_000})
        event = await following(events)
        assert len(event.data["x"]) == 3_000_000


@pytest.mark.parametrize("ending", ["eof", "disconnect", "close", "garbage", "too big"])
async def test_each_end_of_a_connection_is_a_gap(ending: str) -> None:
    hub = FakeHub()
    async with hub.session(response_size=1000) as session:
        async with session.events.subscribe("topic=*") as events:
            socket = await hub.socket()
            match ending:
                case "eof":
                    socket.close()
                case "disconnect":
                    socket.push("0::")
                case "close":
                    socket.push_bytes(Frame(Opcode.CLOSE, b"\x03\xe9").serialize(mask=False))
                case "garbage":
                    socket.push_bytes(b"\xff" * 50)
                case "too big":
                    socket.push_event("a", data="y" * 2000)
            gap = await following(events)
            assert isinstance(gap, Gap)
            again = await hub.socket(2)
            assert again.subscriptions == ["topic=*"]
            again.push_event("b")
            assert (await following(events)).topic == "b"
            assert session.health.events.reconnects == 1


async def test_silence_counts_as_a_loss() -> None:
    hub = FakeHub()
    hub.handshake = (200, "session:0.05:60:websocket")
    async with hub.session() as session, session.events.subscribe("topic=*"):
        await hub.socket(3)
        assert "nothing for 0.05 s" in str(session.health.events.problem) or (
            session.health.events.state == "connected"
        )


async def test_a_hub_that_accepts_and_says_nothing_is_given_up() -> None:
    hub = FakeHub()
    hub.handshake = (200, "session:0.05:60:websocket")
    hub.greets = False
    hub.on_socket = lambda socket: setattr(socket, "acknowledges", False)
    async with hub.session() as session:
        with pytest.raises(EventTimeoutError, match=r"nothing for 0\.05 s") as caught:
            await session.events.publish("a", timeout=0.5)
        assert not caught.value.was_sent
        await hub.socket(3)
        assert session.health.events.state == "connecting"


async def test_a_hub_without_heartbeats_is_pinged_when_it_is_silent(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("aioftrackjobs.protocol.socketio.DEFAULT_SILENCE", 0.05)
    hub = FakeHub()
    hub.handshake = (200, "session::60:websocket")
    async with hub.session() as session, session.events.subscribe("topic=*"):
        socket = await hub.socket()
        await socket.until(lambda: socket.pings > 2)
        assert len(hub.sockets) == 1
        socket.is_read = False  # it is dead
        await hub.socket(2)


async def test_heartbeats_are_answered_while_handlers_are_busy() -> None:
    hub = FakeHub()
    async with hub.session() as session:

        @session.events.on("topic=a")
        async def hang(_: Event) -> None:
            await anyio.sleep_forever()

        await session.events.ready()
        socket = await hub.socket()
        for _ in range(10):
            socket.push_event("a")
        for _ in range(3):
            socket.push("2::")
        await socket.until(lambda: socket.frames.count("2::") == 3)
        assert session.health.events.last_heartbeat is not None


async def test_a_hub_that_dies_before_it_acknowledges_gets_the_subscription_again() -> None:
    hub = FakeHub()

    def die(socket: Socket) -> None:
        socket.acknowledges = False
        if len(hub.sockets) < 2:
            socket.close()
        else:
            socket.acknowledges = True

    hub.on_socket = die
    async with hub.session() as session, session.events.subscribe("topic=a") as events:
        socket = await hub.socket(3)
        assert socket.subscriptions == ["topic=a"]
        socket.push_event("a")
        assert (await following(events)).topic == "a"  # no gap: it was never subscribed before


async def test_a_subscription_counts_as_made_if_the_hub_never_acknowledges(
    caplog: pytest.LogCaptureFixture,
) -> None:
    hub = FakeHub()
    hub.on_socket = lambda socket: setattr(socket, "acknowledges", False)
    async with hub.session(event_acknowledgement=0.02) as session:
        async with session.events.subscribe("topic=a") as events:
            (await hub.socket()).push_event("a")
            assert (await following(events)).topic == "a"
    assert "has not acknowledged 2 subscription(s)" in caplog.text


async def test_a_refused_subscription_is_an_error_of_its_own() -> None:
    hub = FakeHub()
    async with hub.session() as session, session.events.subscribe("topic=a") as events:
        socket = await hub.socket()
        socket.acknowledges = False

        async def refuse() -> None:
            await socket.until(lambda: len(socket.subscriptions) == 2)
            socket.push('6:::3+[{"success":false,"message":"too many"}]')

        async with anyio.create_task_group() as group:
            group.start_soon(refuse)
            with pytest.raises(ServerError, match="too many"):
                async with session.events.subscribe("topic=b"):
                    pass
        socket.push_event("a")
        assert (await following(events)).topic == "a"
        assert session.health.events.subscriptions == 1


async def test_a_service_does_not_run_with_a_refused_subscription() -> None:
    hub = FakeHub()
    hub.on_socket = lambda socket: setattr(socket, "acknowledges", False)
    async with hub.session() as session:
        session.events.on("topic=a")(print)

        async def refuse() -> None:
            socket = await hub.socket()
            await socket.until(lambda: len(socket.frames) == 2)
            socket.push("6:::1+[]")
            socket.push('6:::2+[{"success":false,"message":"too many"}]')

        async with anyio.create_task_group() as group:
            group.start_soon(refuse)
            with pytest.raises(ServerError, match="'topic=a': too many"):
                await session.events.run()


async def test_what_is_published_while_away_is_sent_after_the_subscriptions() -> None:
    hub = FakeHub()
    hub.accepts = False
    async with hub.session() as session:
        session.events.on("topic=x")(print)
        async with anyio.create_task_group() as group:
            group.start_soon(session.events.publish, "a")
            await until(lambda: hub.handshakes > 2)
            assert session.health.events.pending == 1
            hub.accepts = True
        topics = [each["topic"] for each in hub.sockets[0].events()]
        assert topics == ["ftrack.meta.subscribe"] * 2 + ["a"]


async def test_the_outbox_is_bounded() -> None:
    hub = FakeHub()
    hub.accepts = False
    async with hub.session(event_outbox=2) as session:
        for _ in range(2):
            await session.events.publish("a", wait=False)
        with pytest.raises(ConnectError, match="2 events wait"):
            await session.events.publish("a", wait=False)
        with pytest.raises(EventTimeoutError, match="could not be sent"):
            await session.events.publish("a", timeout=0.02)
        async with anyio.create_task_group() as group:
            group.start_soon(session.events.publish, "b")  # waits for room
            await anyio.sleep(0.01)
            hub.accepts = True
        assert [each["topic"] for each in hub.sockets[0].events()][1:] == ["a", "a", "b"]
        assert session.health.events.pending == 0


async def test_an_event_that_was_sent_is_not_sent_again() -> None:
    hub = FakeHub()
    async with hub.session() as session:
        await session.events.ready()
        socket = await hub.socket()
        socket.acknowledges = False

        async def lose() -> None:
            await socket.until(lambda: socket.events("a"))
            socket.close()

        async with anyio.create_task_group() as group:
            group.start_soon(lose)
            with pytest.raises(TransportError, match="unknown whether the event was delivered"):
                await session.events.publish("a")
        await session.events.publish("b")
        assert [each.events("a") for each in hub.sockets[1:]] == [[]]


async def test_a_cancelled_publisher_withdraws_its_event() -> None:
    hub = FakeHub()
    hub.accepts = False
    async with hub.session() as session:
        with anyio.move_on_after(0.01):
            await session.events.publish("a")
        hub.accepts = True
        await session.events.publish("b")
        assert [each["topic"] for each in hub.sockets[0].events()][1:] == ["b"]


async def test_withdrawn_credentials_are_tried_slowly_and_reported_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    hub = FakeHub()
    refusal = {"exception": "InvalidCredentialsError", "content": "It was withdrawn."}
    async with hub.session(event_refusal_pause=0.02) as session:
        async with session.events.subscribe("topic=a") as events:
            hub.handshake = (401, json.dumps(refusal))
            (await hub.socket()).close()
            await until(lambda: hub.handshakes > 3)
            health = session.health.events
            assert (health.state, health.is_good) == ("refused", False)
            assert "It was withdrawn." in str(health.problem)
            with pytest.raises(AuthenticationError):
                await session.events.publish("b")

            hub.handshake = (200, "session:5:60:websocket")
            assert isinstance(await following(events), Gap)
            await session.events.publish("b")
            assert session.health.events.state == "connected"
    warnings = [each.message for each in caplog.records if each.levelno >= logging.WARNING]
    assert len([each for each in warnings if "refuses the credentials" in each]) == 1


@pytest.mark.parametrize(
    ("handshake", "problem"),
    [
        ((200, "<html>sign in</html>"), "no handshake"),
        ((200, "session:5:60:xhr-polling"), "no WebSocket"),
        ((404, "nothing here"), "nothing here"),
        ((503, "down"), "503"),
        ((302, ""), "302"),
    ],
)
async def test_a_wrong_handshake_is_tried_again(handshake: tuple[int, str], problem: str) -> None:
    hub = FakeHub()
    hub.handshake = handshake
    async with hub.session() as session:
        with pytest.raises(EventTimeoutError):
            await session.events.publish("a", timeout=0.02)
        await until(lambda: session.health.events.problem)
        assert problem in str(session.health.events.problem)
        hub.handshake = (200, "session:5:60:websocket")
        await session.events.publish("a")


async def test_a_transport_without_connections_is_refused() -> None:
    class Lame(FakeHub):
        upgrade: Any = None

    async with Lame().session() as session:
        with pytest.raises(ConfigurationError):
            await session.events.ready()


async def test_an_unexpected_error_ends_the_connection_and_not_the_hub(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    hub = FakeHub()
    async with hub.session() as session, session.events.subscribe("topic=a") as events:
        with monkeypatch.context() as patched:
            patched.setattr("aioftrackjobs.protocol.socketio.read_frame", lambda _: 1 / 0)
            hub.sockets[0].push("2::")
            await until(lambda: session.health.events.state == "connecting")
        assert isinstance(await following(events), Gap)
        hub.sockets[-1].push_event("a")
        assert (await following(events)).topic == "a"
    assert "ZeroDivisionError" in caplog.text
