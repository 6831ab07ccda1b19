"""Floods of small things: each is cheap to send, and dear to take up. Others must not wait."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlsplit

import anyio
import pytest
from anyio.abc import SocketStream
from websockets.exceptions import ConnectionClosed

from aioftrackjobs.devserver import Limits, ServerHandle, running
from aioftrackjobs.devserver.pages import access, login

from .caller import Caller, create, query
from .hub_client import connected
from .test_attacks import head

OK = {"success": True}


@asynccontextmanager
async def stream_to(server: ServerHandle) -> AsyncIterator[SocketStream]:
    port = urlsplit(server.url).port
    assert port is not None
    async with await anyio.connect_tcp("127.0.0.1", port) as stream:
        yield stream


async def rest_of(stream: SocketStream) -> bytes:
    """Return what the server sends until it closes the connection."""
    received = b""
    with anyio.fail_after(20):
        try:
            while True:
                received += await stream.receive()
        except (anyio.EndOfStream, anyio.BrokenResourceError):
            return received


async def received_until(stream: SocketStream, end: bytes) -> None:
    """Receive what the server sends, until *end* is among it."""
    received = b""
    with anyio.fail_after(20):
        while end not in received:
            received += await stream.receive()


def chunked(server: ServerHandle, key: str) -> bytes:
    return head(server, key, 0).replace(b"Content-Length: 0", b"Transfer-Encoding: chunked")


@pytest.mark.parametrize("key", ["right", "wrong"])
async def test_a_body_in_a_great_many_tiny_chunks_is_refused(
    server: ServerHandle, key: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    async with stream_to(server) as stream:
        await stream.send(chunked(server, server.api_key if key == "right" else key))
        await stream.send(b"1\r\n \r\n" * 5000)
        received = await rest_of(stream)

    assert received.count(b"HTTP/1.1 ") == 1
    assert b"HTTP/1.1 400 " in received or key == "wrong"
    assert not caplog.records


async def test_many_chunks_of_a_usual_size_are_a_body(server: ServerHandle) -> None:
    async with stream_to(server) as stream:
        await stream.send(chunked(server, server.api_key))
        await stream.send(b"40\r\n" + b" " * 64 + b"\r\n")
        await stream.send((b"40\r\n" + b" " * 64 + b"\r\n") * 3000 + b"2\r\n[]\r\n0\r\n\r\n")
        assert b"HTTP/1.1 200 " in await stream.receive()


async def test_what_follows_a_refused_request_is_not_logged(
    server: ServerHandle, caplog: pytest.LogCaptureFixture
) -> None:
    async with stream_to(server) as stream:
        await stream.send(chunked(server, "wrong"))
        await received_until(stream, b"InvalidCredentials")
        await stream.send(b"this is no chunk\r\n")
        assert b"HTTP/1.1 " not in await rest_of(stream)

    assert not [each for each in caplog.records if each.levelno >= logging.WARNING]


class _Frames:
    """Frames as a client sends them, with a mask of zeros."""

    PINGS = b"\x89\x80\0\0\0\0" * 2000
    PONGS = b"\x8a\x80\0\0\0\0" * 2000
    PARTS = b"\x01\x81\0\0\0\0a" + b"\x00\x80\0\0\0\0" * 2000


@pytest.mark.parametrize("frames", [_Frames.PINGS, _Frames.PONGS, _Frames.PARTS])
async def test_many_frames_without_a_message_end_a_connection(
    server: ServerHandle, frames: bytes
) -> None:
    async with connected(server) as client:
        client.socket.transport.write(frames)
        with pytest.raises(ConnectionClosed), anyio.fail_after(20):
            while True:
                await client.socket.recv()


async def test_a_message_in_parts_among_pings_arrives(server: ServerHandle) -> None:
    async with connected(server) as client:
        for _ in range(20):
            client.socket.transport.write(_Frames.PINGS[: 6 * 90])
            assert await client.publish("a") == OK


async def test_conditions_that_each_event_is_tested_against_are_limited() -> None:
    async with (
        running(limits=Limits(conditions=10)) as server,
        connected(server) as one,
        connected(server) as other,
    ):
        costly = "topic=a and (" + " or ".join(f"data.x{n} > y" for n in range(8)) + ")"
        assert await one.subscribe(costly) == OK
        assert await other.subscribe("topic=a and data.x=y and data.y=z") == OK
        refused = await other.subscribe("topic=a")
        assert "conditions" in refused["message"]
        await one.socket.close()
        with anyio.fail_after(20):
            while await other.subscribe("topic=a") != OK:
                pass  # the server has not noticed yet that the other is gone


async def test_the_target_of_an_event_is_short(server: ServerHandle) -> None:
    async with connected(server) as client:
        target = " or ".join(f"id={n}" for n in range(21))

        refused = await client.publish("a", target=target)

    assert "target" in refused["message"].lower()


async def test_a_request_announces_no_more_parts_than_one_upload_may_have(api: Caller) -> None:
    operation: dict[str, Any] = {
        "action": "get_upload_metadata",
        "file_name": "x",
        "file_size": 1,
        "parts": 6000,
    }
    operations = [operation | {"component_id": name} for name in ("a", "b")]

    with pytest.raises(Exception, match="10000 at most"):
        await api.call(*operations)


async def test_a_search_takes_a_hundred_terms(api: Caller) -> None:
    with pytest.raises(Exception, match="100 terms"):
        await api.call({"action": "search", "entity_type": "Task", "terms": ["a"] * 101})


@pytest.mark.parametrize(
    "criteria",
    [
        " or ".join(f'name like "{n}"' for n in range(1001)),
        " and ".join(f'not (name is "{n}" or parent.name is "{n}")' for n in range(200)),
        " or ".join(f"children.children any (name is {n})" for n in range(100)),
        "name is a order by " + ", ".join(["parent.name"] * 150),
    ],
    ids=["flat", "in parentheses", "relations", "sorted"],
)
async def test_a_query_of_very_many_conditions_is_refused(api: Caller, criteria: str) -> None:
    with pytest.raises(Exception, match="1000 conditions"):
        await api.query(f"TypedContext where {criteria}")


async def test_a_query_of_many_conditions_is_read_beside_others(api: Caller) -> None:
    many = query("TypedContext where " + " or ".join(f'name like "{n}"' for n in range(600)))

    assert (await api.call(many))[0]["data"] == []
    assert "in a batch of its own" in (await api.refused(create("Job"), many))["content"]


@pytest.mark.parametrize("path", ["/pages/login", "/user/api_credentials?redirect_url=http://a"])
@pytest.mark.parametrize(("length", "status"), [(1000, 408), (17_000, 413)])
async def test_forms_of_strangers_are_bounded_in_time_and_size(
    server: ServerHandle, monkeypatch: pytest.MonkeyPatch, path: str, length: int, status: int
) -> None:
    monkeypatch.setattr(access, "_SECONDS", 0.1)
    monkeypatch.setattr(login, "_SECONDS", 0.1)
    async with stream_to(server) as stream:
        await stream.send(head(server, "", length).replace(b"/api ", f"{path} ".encode()))
        assert f"HTTP/1.1 {status} ".encode() in await stream.receive()
