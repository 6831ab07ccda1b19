"""The event hub, frame by frame over a real socket."""

from __future__ import annotations

import json
import logging
from contextlib import AsyncExitStack
from typing import Any

import anyio
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidState, InvalidStatus

from aioftrackjobs.devserver import Limits, ServerHandle, running

from .hub_client import HubClient, connected, handshake

OK = {"success": True}


async def test_the_handshake_offers_a_session_and_its_times(server: ServerHandle) -> None:
    response = await handshake(server)
    session, heartbeat, close, transports = response.text.split(":")
    assert response.status_code == 200
    assert len(session) == 32
    assert (heartbeat, close, transports) == ("15", "60", "websocket")


async def test_credentials_may_be_in_the_address(server: ServerHandle) -> None:
    query = {"api_user": server.api_user, "api_key": server.api_key}
    assert (await handshake(server, headers={}, params=query)).status_code == 200


@pytest.mark.parametrize(
    "headers", [{}, {"ftrack-user": "developer"}, {"ftrack-user": "maya", "ftrack-api-key": "no"}]
)
async def test_other_credentials_are_refused(server: ServerHandle, headers: Any) -> None:
    response = await handshake(server, headers=headers)
    assert response.status_code == 401
    assert response.json()["exception"] == "InvalidCredentialsError"


async def test_a_session_is_for_one_connection(server: ServerHandle) -> None:
    session = (await handshake(server)).text.partition(":")[0]
    url = f"ws{server.url.removeprefix('http')}/socket.io/1/websocket/"
    async with connect(url + session) as socket:
        assert await socket.recv() == "1::"
        for wrong in (session, "0" * 32):
            with pytest.raises(InvalidStatus):
                await connect(url + wrong)


async def test_nothing_of_credentials_is_logged(
    server: ServerHandle, caplog: pytest.LogCaptureFixture
) -> None:
    session = (await handshake(server)).text.partition(":")[0]
    url = f"ws{server.url.removeprefix('http')}/socket.io/1/websocket/{session}"
    with caplog.at_level(logging.DEBUG, "uvicorn"):
        async with connect(f"{url}?api_user=developer&api_key={server.api_key}") as socket:
            assert await socket.recv() == "1::"
    shown = [r.getMessage() for r in caplog.records if r.name.startswith("uvicorn")]
    assert shown
    assert not [text for text in shown if server.api_key in text or session in text]


async def test_an_event_reaches_those_who_subscribe_to_it(server: ServerHandle) -> None:
    async with connected(server) as one, connected(server) as other, connected(server) as third:
        assert await one.subscribe("topic=render.done and data.shot='sh 010'") == OK
        assert await other.subscribe("topic=render.*") == OK
        assert await third.subscribe("topic=render.done and data.shot='sh 020'") == OK
        event = {"data": {"shot": "sh 010", "text": "fertig ✓"}, "id": "e1"}
        assert await third.publish("render.done", **event) == OK
        for client in (one, other):
            assert (await client.event()) == {
                "topic": "render.done",
                "source": {"id": third.id},
                "target": "",
                **event,
            }
        assert await third.nothing_came()


async def test_an_event_comes_once_and_also_to_its_publisher(server: ServerHandle) -> None:
    async with connected(server) as client:
        await client.subscribe("topic=a")
        await client.subscribe("topic=*")
        await client.publish("a")
        assert (await client.event())["topic"] == "a"
        await client.publish("b")
        assert (await client.event())["topic"] == "b"


async def test_events_of_one_publisher_come_in_order(server: ServerHandle) -> None:
    async with connected(server) as client, connected(server) as other:
        await other.subscribe("topic=a")
        for number in range(200):
            await client.publish("a", data={"n": number})
        assert [(await other.event())["data"]["n"] for _ in range(200)] == list(range(200))


async def test_a_target_selects_subscribers(server: ServerHandle) -> None:
    async with connected(server) as one, connected(server) as other:
        for client, user in ((one, "maya"), (other, "tom")):
            page = {"applicationId": "ftrack.client.web", "user": {"id": user}}
            await client.subscribe("topic=*", id=client.id, **page)
        to_maya = 'applicationId=ftrack.client.web and user.id="maya"'
        await other.publish("a", target=to_maya)
        await other.publish("b", target=f"id={other.id}")
        await other.publish("c", target="id=nobody")
        assert (await one.event())["topic"] == "a"
        assert (await other.event())["topic"] == "b"
        await other.publish("d")
        assert [(await client.event())["topic"] for client in (one, other)] == ["d", "d"]


async def test_a_reply_reaches_its_event_s_publisher_alone(server: ServerHandle) -> None:
    async with connected(server) as asking, connected(server) as replying:
        for client in (asking, replying):
            await client.subscribe("topic=ftrack.meta.reply", id=client.id)
        await replying.subscribe("topic=question")
        await asking.publish("question", id="q1")
        event = await replying.event()
        reply = {"target": f"id={event['source']['id']}", "inReplyToEvent": event["id"]}
        await replying.publish("ftrack.meta.reply", data={"items": []}, **reply)
        assert (await asking.event())["inReplyToEvent"] == "q1"
        assert await replying.nothing_came()


async def test_who_unsubscribes_gets_no_more(server: ServerHandle) -> None:
    async with connected(server) as client:
        await client.subscribe("topic=a", id="s")
        data = {"subscriber": {"id": "s"}}
        assert await client.publish("ftrack.meta.unsubscribe", data=data) == OK
        await client.publish("a")
        assert await client.nothing_came()
        assert (await client.publish("ftrack.meta.unsubscribe", data=data))["success"] is False
        assert await client.subscribe("topic=a", id="s") == OK


async def test_an_id_is_free_again_when_its_connection_ends(server: ServerHandle) -> None:
    for _ in range(2):
        async with connected(server) as client:
            assert await client.subscribe("topic=a", id="s") == OK
            # Another connection may use it too: one that died may not have ended yet.
            async with connected(server) as other:
                assert await other.subscribe("topic=a", id="s") == OK


@pytest.mark.parametrize(
    "data",
    [
        pytest.param({}, id="nothing"),
        pytest.param({"subscriber": {"id": "s"}}, id="no subscription"),
        pytest.param({"subscriber": {}, "subscription": "topic=a"}, id="no id"),
        pytest.param({"subscriber": {"id": "s"}, "subscription": ""}, id="empty"),
        pytest.param({"subscriber": {"id": "s"}, "subscription": "topic=a and"}, id="cut off"),
        pytest.param({"subscriber": {"id": "s"}, "subscription": "topic=a" * 9999}, id="long"),
        pytest.param(
            {"subscriber": {"id": "s"}, "subscription": "(" * 99 + "a=1" + ")" * 99 + "("},
            id="unclosed",
        ),
        pytest.param({"subscriber": {"id": "s"}, "subscription": "not " * 99 + "a=1"}, id="deep"),
        pytest.param({"subscriber": {"id": "used"}, "subscription": "topic=a"}, id="duplicate"),
        pytest.param(None, id="null"),
    ],
)
async def test_what_cannot_be_subscribed_is_refused_on_an_open_socket(
    server: ServerHandle, data: Any
) -> None:
    async with connected(server) as client:
        await client.subscribe("topic=a", id="used")
        refused = await client.publish("ftrack.meta.subscribe", data=data)
        assert refused["success"] is False
        assert refused["message"]
        assert await client.publish("a") == OK
        assert (await client.event())["topic"] == "a"


@pytest.mark.parametrize(
    "frame",
    [
        "",
        "hello",
        "9:::",
        "5",
        "5:::",
        "5:::{",
        "5:::[1]",
        '5:::{"name":"ftrack.event","args":[]}',
        '5:::{"name":"ftrack.event","args":[{"data":{}}]}',
        '5:::{"name":"ftrack.event","args":[{"topic":"a","data":NaN}]}',
        '5:::{"name":"ftrack.event","args":[{"topic":"a","target":"("}]}',
        '5:::{"name":"ftrack.event","args":[{"topic":"a","target":{}}]}',
        '5:::{"name":"ftrack.event","args":[{"topic":"\\ud800"}]}',
        "5:::" + "[" * 100_000,
        "5:::" + "x" * 2_000_000,
        "1" * 100_000,
        b"\xff\xfe",
    ],
    ids=lambda frame: repr(frame[:60]),
)
async def test_a_bad_frame_leaves_the_socket_open(server: ServerHandle, frame: Any) -> None:
    async with connected(server) as client:
        await client.subscribe("topic=a")
        await client.socket.send(frame)
        await client.publish("a")
        assert (await client.event())["topic"] == "a"


async def test_the_sender_of_a_bad_frame_is_told_what_is_wrong(server: ServerHandle) -> None:
    async with connected(server) as client:
        await client.socket.send("hello")
        assert "A frame is" in await client.frame_of("7:::")
        assert (await client.ask("{"))["message"].startswith("The event is not JSON")
        assert (await client.ask('{"topic": "a"}'))["message"].startswith("An event is")
        too_big = await client.publish("a", data={"text": "x" * 1_500_000})
        assert too_big == {
            "success": False,
            "message": "An event takes 1048576 characters at most.",
        }


async def test_a_second_subscription_of_javascript_does_not_end_its_socket(
    server: ServerHandle,
) -> None:
    """That client subscribes to replies twice, without a number, and reconnects after an error."""
    async with connected(server) as client:
        event = {
            "topic": "ftrack.meta.subscribe",
            "data": {"subscriber": {"id": "s"}, "subscription": "topic=ftrack.meta.reply"},
        }
        for _ in range(2):
            await client.socket.send(f"5:::{json.dumps({'name': 'ftrack.event', 'args': [event]})}")
        await client.publish("ftrack.meta.reply")
        assert (await client.event())["topic"] == "ftrack.meta.reply"
        await client.publish("unheard")
        assert not client.events


async def test_heartbeats_keep_a_connection_whose_client_replies() -> None:
    async with running(limits=Limits(heartbeat=0.4)) as server, connected(server) as client:
        for _ in range(18):  # 2.4 s: longer than a silent client would be kept
            assert await client.frame() == "2::"
            await client.socket.send("2:::")


async def test_a_silent_client_is_disconnected() -> None:
    async with running(limits=Limits(heartbeat=0.1)) as server, connected(server) as client:
        with pytest.raises(ConnectionClosed):
            while True:
                await client.frame()


async def test_a_slow_reader_is_disconnected_and_others_go_on() -> None:
    async with running(limits=Limits(waiting_events=4 * 1024**2)) as server:
        async with connected(server, max_queue=1) as slow, connected(server) as other:
            for client in (slow, other):
                await client.subscribe("topic=big")
            slow.socket.transport.pause_reading()
            for number in range(40):
                await other.publish("big", data={"n": number, "text": "x" * 500_000})
                assert (await other.event())["data"]["n"] == number
            slow.socket.transport.resume_reading()
            with pytest.raises(ConnectionClosed):
                while True:
                    await slow.event()
            async with connected(server) as again:
                assert await again.subscribe("topic=big") == OK


async def test_connections_and_subscriptions_are_limited() -> None:
    limits = Limits(event_connections=1, subscriptions=2)
    async with running(limits=limits) as server, connected(server) as client:
        with pytest.raises(InvalidStatus):
            async with connected(server):
                raise AssertionError
        assert [await client.subscribe("topic=a") for _ in range(2)] == [OK, OK]
        assert (await client.subscribe("topic=a"))["success"] is False


async def test_a_server_stops_while_clients_are_connected() -> None:
    closed = anyio.Event()

    async def listen(client: HubClient) -> None:
        with pytest.raises(ConnectionClosed):
            await client.frame_of("never")
        closed.set()

    async with anyio.create_task_group() as tasks:
        async with running() as server:
            session = (await handshake(server)).text.partition(":")[0]
            url = f"ws{server.url.removeprefix('http')}/socket.io/1/websocket/{session}"
            client = HubClient(await connect(url, compression=None))
            tasks.start_soon(listen, client)
        await closed.wait()


async def test_a_connection_that_closes_already_does_not_disturb_the_server_s_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def shut_down(connection: Any) -> None:  # as uvicorn does between a close frame and the end
        connection.transport.close()
        raise InvalidState("connection is closing")

    protocol = "aioftrackjobs.devserver.serving.uvicorn_server._WebSocketProtocol.shutdown"
    monkeypatch.setattr(protocol, shut_down)
    async with AsyncExitStack() as longer, running() as server:
        client = await longer.enter_async_context(connected(server))
        assert await client.publish("a") == {"success": True}
