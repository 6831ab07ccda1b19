"""Servers whose responses have no end, or hardly move: no request waits for them for ever."""

from __future__ import annotations

import gzip
import json
import tracemalloc
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import cache
from itertools import chain, repeat
from pathlib import Path
from typing import Any

import anyio
import pytest
from anyio.abc import ByteStream

from aioftrackjobs import (
    AsyncSession,
    FtrackJobsError,
    MalformedResponseError,
    TransportError,
)
from aioftrackjobs.config.retry import NO_RETRIES
from aioftrackjobs.config.timings import DEFAULT_TIMINGS

from .settings import Setting
from .wires import listening, receive_request, response

MIB = 1024 * 1024
#: Seconds that a server may be silent. An exchange has twice as many.
TIMEOUT = 0.5
#: For servers that never pause, each of which has the event loop to itself.
SHORT = 0.2
#: For those whose size ends the exchange.
LONG = 10.0
#: A pause that leaves time to the other servers of a test.
BREATH = 0.01
SMALL = replace(DEFAULT_TIMINGS, response_size=MIB)

OK = b"HTTP/1.1 200 OK\r\n"
LENGTH = OK + b"content-length: 1400000000\r\n\r\n"
CHUNKED = OK + b"transfer-encoding: chunked\r\n\r\n"
GZIP = OK + b"content-encoding: gzip\r\ntransfer-encoding: chunked\r\n\r\n"


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


#: The beginning of a compressed body, and a part of one that has no content.
GZIP_HEAD, NOTHING = gzip.compress(b"")[:10], b"\0\0\0\xff\xff"


@cache
def bomb() -> tuple[bytes, ...]:
    """Return a compressed response of 64 MiB."""
    return GZIP, chunk(gzip.compress(bytes(64 * MIB), 1)), chunk(b"")


#: What a server sends, piece by piece, and how many seconds it waits in between.
ENDLESS: dict[str, tuple[Callable[[], Iterator[bytes]], float]] = {
    "a byte now and then": (lambda: chain([LENGTH], repeat(b" ")), 0.1),
    "a chunk now and then": (lambda: chain([CHUNKED], repeat(chunk(b" "))), 0.1),
    "headers, byte by byte": (lambda: chain([OK], repeat(b"x")), 0.1),
    "headers without end": (lambda: chain([OK], repeat(b"x: y\r\n" * 1000)), BREATH),
    "a header without end": (lambda: chain([OK, b"x: "], repeat(b"y" * 4096)), BREATH),
    "interim responses now and then": (lambda: repeat(b"HTTP/1.1 100 Continue\r\n\r\n"), 0.1),
    "interim responses without end": (lambda: repeat(b"HTTP/1.1 100 Continue\r\n\r\n" * 99), 0.0),
    "extensions of a chunk": (lambda: chain([CHUNKED, b"1"], repeat(b";x=y" * 999)), BREATH),
    "long extensions of small chunks": (
        lambda: chain([CHUNKED], repeat(b"1;x=" + b"y" * 60_000 + b"\r\n \r\n")),
        BREATH,
    ),
    "trailers without end": (lambda: chain([CHUNKED, b"0\r\n"], repeat(b"x: y\r\n" * 999)), BREATH),
    "trailers now and then": (lambda: chain([CHUNKED, b"0\r\n"], repeat(b"x: y\r\n")), 0.1),
}
HUGE: dict[str, tuple[Callable[[], Iterator[bytes]], float]] = {
    "a gigabyte": (lambda: chain([LENGTH], repeat(b" " * 65536)), 0.0),
    "a gigabyte in chunks": (lambda: chain([CHUNKED], repeat(chunk(b" " * 65536))), 0.0),
    "what was compressed": (lambda: iter(bomb()), 0.0),
    "nothing, compressed": (
        lambda: chain([GZIP, chunk(GZIP_HEAD)], repeat(chunk(NOTHING * 10_000))),
        0.0,
    ),
}


@asynccontextmanager
async def sending(
    pieces: Callable[[], Iterator[bytes]],
    pause: float,
    *,
    requests: tuple[str, ...] = ("POST", "GET", "PUT"),
) -> AsyncIterator[str]:
    """Give the URL of a server that sends *pieces* as its response, and none otherwise."""

    async def serve(stream: ByteStream) -> None:
        while True:
            request = await receive_request(stream)
            if request.method not in requests:  # an upload is announced
                found = [
                    {"url": f"{url}/x", "headers": {}} for _ in json.loads(request.body or b"[]")
                ]
                await stream.send(response("200 OK", json.dumps(found).encode()))
                continue
            for piece in pieces():
                await stream.send(piece)
                await anyio.sleep(pause)

    async with listening(serve) as port:
        url = f"http://127.0.0.1:{port}"
        yield url


async def attack(
    peers: dict[str, tuple[Callable[[], Iterator[bytes]], float]],
    do: Callable[[AsyncSession, str], Awaitable[object]],
    *requests: str,
) -> dict[str, str]:
    """Return by which error each request to one of *peers* ends.

    What never pauses takes turns, so that it takes no time from the others: a connection would
    exceed its own limit.
    """
    ends: dict[str, str] = {}

    async def run(name: str) -> None:
        pieces, pause = peers[name]
        timeout = LONG if name in HUGE else TIMEOUT if pause else SHORT
        options: dict[str, Any] = {"timeout": timeout, "retry": NO_RETRIES, "timings": SMALL}
        async with sending(pieces, pause, requests=requests) as url:
            async with AsyncSession(url, "KEY", "maya", **options) as session:
                ends[name] = "ConnectError"
                while ends[name] == "ConnectError":  # on a busy machine
                    try:
                        await do(session, name)
                    except FtrackJobsError as exc:
                        ends[name] = type(exc).__name__
                        session.rollback()
                    else:
                        ends[name] = "no error"

    async with anyio.create_task_group() as group:
        for name, (_, pause) in peers.items():
            if pause:
                group.start_soon(run, name)
    for name, (_, pause) in peers.items():
        if not pause:
            await run(name)
    return ends


@pytest.mark.other_client
async def test_a_query_ends_whatever_the_server_sends() -> None:
    ends = await attack(
        ENDLESS | HUGE, lambda session, _: session.query("User limit 1").all(), "POST"
    )
    assert {ends[name] for name in HUGE} == {"MalformedResponseError"}
    assert set(ends.values()) == {"TransportError", "MalformedResponseError"}


@pytest.mark.every_loop
async def test_a_response_that_moves_on_may_take_longer() -> None:
    """Than twice the time-out, which is the bound for one that does not."""
    rows = b'[{"data": [' + b" " * 160 * 1024 + b"]}]"
    pieces = [OK + b"content-length: %d\r\n\r\n" % len(rows)]
    pieces += [rows[start : start + 8192] for start in range(0, len(rows), 8192)]
    async with (
        sending(lambda: iter(pieces), TIMEOUT / 8) as url,
        AsyncSession(url, "KEY", "maya", timeout=TIMEOUT, retry=NO_RETRIES) as session,
    ):
        assert await session.query("User").all() == []


@pytest.mark.every_loop
async def test_a_commit_ends_as_uncertain_whatever_the_server_sends() -> None:
    async def commit(session: AsyncSession, _: str) -> None:
        session.create("Note", {"content": "x"})
        await session.commit()

    ends = await attack(ENDLESS | HUGE, commit, "POST")
    assert ends == dict.fromkeys(ENDLESS | HUGE, "CommitUncertainError")


@pytest.mark.other_client
async def test_a_download_ends_whatever_the_server_sends(tmp_path: Path) -> None:
    """As long as it moves on, a file may have any size."""
    ends = await attack(
        ENDLESS, lambda session, name: session.download("c", tmp_path / name), "GET"
    )
    assert ends == dict.fromkeys(ENDLESS, "TransportError")


@pytest.mark.every_loop
async def test_an_upload_ends_whatever_the_store_sends() -> None:
    async def create(session: AsyncSession, _: str) -> None:
        await session.create_component(b"x" * 100, name="x.txt")

    ends = await attack(ENDLESS | {"a gigabyte": HUGE["a gigabyte"]}, create, "PUT")
    assert set(ends.values()) <= {"TransportError", "MalformedResponseError"}


@pytest.mark.other_client
async def test_a_huge_response_is_not_kept_in_memory() -> None:
    for pieces, pause in HUGE.values():
        async with (
            sending(pieces, pause) as url,
            AsyncSession(url, "KEY", "maya", retry=NO_RETRIES, timings=SMALL) as session,
        ):
            tracemalloc.start()
            try:
                with pytest.raises(MalformedResponseError, match="more than 1 MiB"):
                    await session.query("User").all()
                assert tracemalloc.get_traced_memory()[1] < 16 * MIB
            finally:
                tracemalloc.stop()


@pytest.mark.other_client
@pytest.mark.parametrize("coding", ["gzip", "deflate", "identity", ""])
async def test_compressed_responses_are_decoded(coding: str) -> None:
    rows = json.dumps([{"data": [{"__entity_type__": "User", "id": "u", "username": "maya"}]}])
    coded = rows.encode()
    if coding in ("gzip", "deflate"):
        coded = gzip.compress(coded) if coding == "gzip" else zlib.compress(coded)

    async def serve(stream: ByteStream) -> None:
        while True:
            await receive_request(stream)
            headers = {"content_encoding": coding} if coding else {}
            await stream.send(response("200 OK", coded, **headers))

    async with (
        listening(serve) as port,
        AsyncSession(f"http://127.0.0.1:{port}", "KEY", "maya", retry=NO_RETRIES) as session,
    ):
        (user,) = await session.query("User limit 1").all()
        assert user["username"] == "maya"


@asynccontextmanager
async def hardly_reading(
    tmp_path: Path, **options: Any
) -> AsyncIterator[tuple[AsyncSession, Path]]:
    """Give a session with *options*, whose store reads 20 KiB a second, and a file for it."""
    source = tmp_path / "big"
    with source.open("wb") as file:
        file.truncate(16 * MIB)  # more than the buffers of the system

    async def serve(stream: ByteStream) -> None:
        while True:
            head = await stream.receive(1024)
            if head.startswith(b"POST"):
                await stream.send(response("200 OK", json.dumps([{"url": url}]).encode()))
            await anyio.sleep(0.05)

    async with listening(serve) as port:
        url = f"http://127.0.0.1:{port}/x"
        options |= {"timeout": TIMEOUT, "retry": NO_RETRIES, "timings": SMALL}
        async with AsyncSession(f"http://127.0.0.1:{port}", "KEY", "maya", **options) as session:
            yield session, source


@pytest.mark.every_loop
@pytest.mark.own_client
async def test_an_upload_ends_if_the_store_hardly_reads(tmp_path: Path) -> None:
    async with hardly_reading(tmp_path) as (session, source):
        with pytest.raises(TransportError, match=r"accepted .* data for 0\.5 s"):
            await session.create_component(source)


@pytest.mark.other_client
async def test_the_same_by_a_client_of_the_users_own(
    setting: Setting, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It cannot see what the network has taken, so that only the rate of whole chunks counts."""
    monkeypatch.setattr("aioftrackjobs.transport._httpx.SLOWEST_FILE", 64 * MIB)
    async with (
        setting.make_client(timeout=TIMEOUT) as client,
        hardly_reading(tmp_path, client=client) as (session, source),
    ):
        with pytest.raises(TransportError):
            await session.create_component(source)
