"""Attacks on the embedded server, of one kind after the other, beside a client that keeps working.

    python tests/benchmarks/strangers.py [--seconds 60] [--only TEXT] [--list]

The server, the attackers and the client are processes of their own. For each kind it prints how
many requests of the client were done, how long they took, and how many failed. The aim is that the
slowest response comes in less than a second; the status is 1 if one of them does not, or fails. The
attackers have a low priority, as if they were on other machines.

The kinds in parentheses need a key, such as that of a colleague's script that is wrong.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import asdict, dataclass, field
from itertools import count
from pathlib import Path
from statistics import median
from typing import Any
from uuid import uuid4

import anyio
import httpx
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from aioftrackjobs.devserver.limits import Limits
from aioftrackjobs.testing import ServerProcess
from tests.devserver.caller import Caller, create, query, update

#: Seconds that a response may take.
AIM = 1.0
#: Attackers of one kind, and seconds between two bytes of a slow one.
MANY, PACE = 40, 0.2
#: Seconds before the client begins, in which the attackers do.
START = 1.0
MIB = 1024 * 1024
#: The most operations of a batch.
FULL = Limits().operations


@dataclass(frozen=True)
class Target:
    """The server that is attacked.

    Attributes:
        key: A key of *user*.
    """

    host: str
    port: int
    user: str
    key: str = field(repr=False)

    @property
    def url(self) -> str:
        """The address of the server."""
        return f"http://{self.host}:{self.port}"

    def head(self, length: int | None, *, key: str | None = None, path: str = "/api") -> bytes:
        """Return the head of a request with a body of *length* bytes, or one without end."""
        size = "Transfer-Encoding: chunked" if length is None else f"Content-Length: {length}"
        return (
            f"POST {path} HTTP/1.1\r\nHost: localhost\r\n{size}\r\nftrack-user: {self.user}\r\n"
            f"ftrack-api-key: {self.key if key is None else key}\r\n\r\n"
        ).encode()


Attack = Callable[[Target], Awaitable[None]]
KINDS: dict[str, Attack] = {}


def kind(name: str, at_once: int = MANY) -> Callable[[Attack], Attack]:
    """Make a function an attack, which *at_once* tasks repeat until the time is over."""

    def added(attack: Attack) -> Attack:
        async def repeat(target: Target) -> None:
            while True:
                with suppress(OSError, httpx.HTTPError, EOFError, asyncio.IncompleteReadError):
                    await attack(target)
                await asyncio.sleep(0.01)

        async def run(target: Target) -> None:
            async with asyncio.TaskGroup() as tasks:
                for _ in range(at_once):
                    tasks.create_task(repeat(target))

        KINDS[name] = run
        return attack

    return added


async def send_raw(target: Target, *pieces: bytes, then: Callable[[], bytes] | None = None) -> None:
    """Send *pieces*, and after them what *then* returns, slowly, until the server has enough."""
    reader, writer = await asyncio.open_connection(target.host, target.port)
    discarding = asyncio.ensure_future(reader.read())
    try:
        for piece in pieces:
            writer.write(piece)
            await writer.drain()
        while not discarding.done():
            if then is not None:
                writer.write(then())
                await writer.drain()
            await asyncio.wait([discarding], timeout=PACE)
    finally:
        discarding.cancel()
        writer.close()


async def post(target: Target, *operations: Any, timeout: float | None = None) -> None:
    """Send a batch, and read the response."""
    async with httpx.AsyncClient(base_url=target.url, timeout=timeout) as http:
        await Caller(http, target.user, target.key).post(*operations)


async def _without_attack(_: Target) -> None:
    await asyncio.sleep(3600)


KINDS["none"] = _without_attack


@kind("connections without a request", 700)
async def _idle(target: Target) -> None:
    await send_raw(target)


@kind("slow headers", 200)
async def _slow_headers(target: Target) -> None:
    await send_raw(target, b"POST /api HTTP/1.1\r\nX-Long: ", then=lambda: b"x")


@kind("long headers")
async def _long_headers(target: Target) -> None:
    await send_raw(
        target, b"GET / HTTP/1.1\r\n" + b"".join(b"X-%d: x\r\n" % n for n in range(9000))
    )


@kind("floods of connections")
async def _connections(target: Target) -> None:
    _, writer = await asyncio.open_connection(target.host, target.port)
    writer.write(b"GET /img/thumbnail2.png HTTP/1.1\r\nHost: localhost\r\n\r\n")
    writer.close()


@kind("slow bodies without a key")
async def _slow_bodies(target: Target) -> None:
    await send_raw(target, target.head(30 * MIB, key="wrong"), then=lambda: b" ")


@kind("bodies without end, without a key", 8)
async def _endless_bodies(target: Target) -> None:
    block = b"10000\r\n" + bytes(65536) + b"\r\n"
    await send_raw(target, target.head(None, key="wrong"), *[block] * 10_000)


@kind("tiny chunks", 8)
async def _tiny_chunks(target: Target) -> None:
    await send_raw(target, target.head(None, key="wrong"), *[b"1\r\n \r\n" * 10_000] * 100)


@kind("forms without end")
async def _forms(target: Target) -> None:
    path = random.choice(["/pages/login", "/user/api_credentials?redirect_url=http://localhost"])
    await send_raw(target, target.head(10_000, key="", path=path), then=lambda: b"a=b&")


@kind("what is no HTTP")
async def _no_http(target: Target) -> None:
    await send_raw(target, random.randbytes(5000) + b"\r\n\r\n")


@kind("requests that are not waited for")
async def _pipelined(target: Target) -> None:
    await send_raw(target, target.head(2, key="wrong").replace(b"\r\n\r\n", b"\r\n\r\n[]") * 2000)


@kind("WebSockets of no session")
async def _no_session(target: Target) -> None:
    with suppress(Exception):
        async with connect(f"ws://{target.host}:{target.port}/socket.io/1/websocket/{uuid4().hex}"):
            pass


@kind("(slow bodies)")
async def _slow_known(target: Target) -> None:
    await send_raw(target, target.head(30 * MIB), then=lambda: b" ")


@kind("(bodies without end)", 8)
async def _endless_known(target: Target) -> None:
    block = b"10000\r\n" + b" " * 65536 + b"\r\n"
    await send_raw(target, target.head(None), *[block] * 10_000)


@kind("(big bodies)", 8)
async def _big_bodies(target: Target) -> None:
    nested = b"[" * 100 + b"]" * 100
    body = b"[" + b",".join([nested] * 150_000) + b"]"
    await send_raw(target, target.head(len(body)) + body)


def filled(entry: bytes) -> bytes:
    """Return a list of *entry*, as long as a request may be."""
    return b"[" + b",".join([entry] * ((32 * MIB - 2) // (len(entry) + 1))) + b"]"


@kind("(long lists)", 8)
async def _long_lists(target: Target) -> None:
    body = filled(random.choice([b"1", b"1.5", b'""', b"null", b"9" * 30]))
    await send_raw(target, target.head(len(body)) + body)


@kind("(huge strings)", 8)
async def _huge_values(target: Target) -> None:
    await post(target, create("Job", data="x" * 20 * MIB))


@kind("(full batches)", 4)
async def _full_batches(target: Target) -> None:
    await post(target, *(query(f'Job where id is "{n}"') for n in range(FULL)))


@kind("(full batches of writes)", 8)
async def _full_writes(target: Target) -> None:
    await post(target, *(create("Job", data=str(n)) for n in range(FULL)))


@kind("(heavy queries)", 8)
async def _heavy(target: Target) -> None:
    relations = "children any (" * 6 + 'name like "%x%"' + ")" * 6
    await post(target, query(f"TypedContext where {relations} or ancestors any ({relations})"))


@kind("(huge queries)", 8)
async def _huge_queries(target: Target) -> None:
    names = ",".join(f'"{uuid4()}"' for _ in range(12_000))
    await post(target, query(f"TypedContext where name in ({names})"))


@kind("(many conditions)", 8)
async def _conditions(target: Target) -> None:
    conditions = " or ".join(f'name like "{uuid4()}%"' for _ in range(990))
    await post(target, query(f"TypedContext where {conditions}"))


@kind("(deep queries)", 8)
async def _deep(target: Target) -> None:
    await post(target, query("Task where " + "(" * 200_000 + "name is a" + ")" * 200_000))


@kind("(wide projections)", 8)
async def _projections(target: Target) -> None:
    paths = ",".join(".".join(["parent"] * (n % 30 + 1)) + ".name" for n in range(20_000))
    await post(target, query(f"select {paths} from Task"))


@kind("(composite keys)", 8)
async def _composite(target: Target) -> None:
    keys = " or ".join(f'(key is "{uuid4()}" and parent_id is "{n}")' for n in range(1999))
    await post(target, query(f"Metadata where {keys}"))


@kind("(schemas)", 8)
async def _schemas(target: Target) -> None:
    await post(target, *[{"action": "query_schemas"}] * 5)


@kind("(big responses that are not read)", 16)
async def _unread(target: Target) -> None:
    body = json.dumps([{"action": "query_schemas"}] * 20).encode()
    _, writer = await asyncio.open_connection(target.host, target.port)
    try:
        writer.write(target.head(len(body)) + body)
        await asyncio.sleep(60)
    finally:
        writer.close()


def announcement(component_id: str, size: int = 10**9, **fields: Any) -> dict[str, Any]:
    """Return the operation that announces an upload of *size* bytes."""
    known = {"action": "get_upload_metadata", "file_name": "x", "file_size": size}
    return known | {"component_id": component_id} | fields


async def announced(http: httpx.AsyncClient, target: Target, *upload: Any) -> str:
    """Announce an upload, and return its address."""
    (found,) = await Caller(http, target.user, target.key).call(announcement(*upload))
    return str(found["url"])


@kind("(uploads without end)")
async def _uploads(target: Target) -> None:
    async with httpx.AsyncClient(base_url=target.url) as http:
        path = (await announced(http, target, str(uuid4()))).removeprefix(target.url)
    head = target.head(10**9, path=path).replace(b"POST", b"PUT", 1)
    await send_raw(target, head, then=lambda: b"x")


@kind("(uploads at full speed)", 4)
async def _fast_uploads(target: Target) -> None:
    content = bytes(64 * MIB)
    async with httpx.AsyncClient(base_url=target.url, timeout=None) as http:
        url = await announced(http, target, f"file-{random.randrange(4)}", len(content))
        await http.put(url, content=content)


@kind("(many parts)", 4)
async def _parts(target: Target) -> None:
    await post(target, announcement(str(uuid4()), parts=10_000))


@asynccontextmanager
async def hub_of(target: Target) -> AsyncIterator[ClientConnection]:
    """Connect to the event hub."""
    async with httpx.AsyncClient(base_url=target.url, timeout=None) as http:
        credentials = {"ftrack-user": target.user, "ftrack-api-key": target.key}
        session = (await http.get("/socket.io/1/", headers=credentials)).text.partition(":")[0]
    url = f"ws://{target.host}:{target.port}/socket.io/1/websocket/{session}"
    async with connect(url, compression=None, open_timeout=None, max_size=None) as socket:
        yield socket


def event(topic: str, **fields: Any) -> str:
    """Return the frame of an event."""
    args = [{"topic": topic, "data": {}, "source": {"id": "x"}, "target": "", **fields}]
    return "5:1+::" + json.dumps({"name": "ftrack.event", "args": args})


def subscribe(expression: str) -> str:
    """Return the frame of a new subscription."""
    data = {"subscriber": {"id": uuid4().hex}, "subscription": expression}
    return event("ftrack.meta.subscribe", data=data)


@kind("(slow readers of events)")
async def _slow_readers(target: Target) -> None:
    with suppress(ConnectionClosed):
        async with hub_of(target) as socket:
            await socket.send(subscribe("topic=flood"))
            socket.transport.pause_reading()
            for _ in range(200):
                await socket.send(event("flood", data="x" * 100_000))
                await asyncio.sleep(0.01)


@kind("(malformed frames)", 8)
async def _malformed(target: Target) -> None:
    with suppress(ConnectionClosed):
        async with hub_of(target) as socket:
            while True:
                await socket.send(
                    random.choice(["5:::{", "9", "5:1+::[]", event(""), "5:::" * 999])
                )


@kind("(floods of pings)", 8)
async def _pings(target: Target) -> None:
    with suppress(ConnectionClosed):
        async with hub_of(target) as socket:
            for _ in range(1000):
                socket.transport.write(b"\x89\x80\0\0\0\0" * 2000)
                await asyncio.sleep(0.01)


@kind("(subscriptions of many conditions)", 4)
async def _subscriptions(target: Target) -> None:
    with suppress(ConnectionClosed):
        async with hub_of(target) as socket:
            for number in count():
                conditions = " or ".join(f"data.a{number}b{n}>x" for n in range(200))
                await socket.send(subscribe(f"topic=* and ({conditions})"))
                await socket.send(event("flood", data=dict.fromkeys("abc", "x")))
                await socket.recv()


@kind("(streams of the pages)", 120)
async def _streams(target: Target) -> None:
    async with httpx.AsyncClient(base_url=target.url, timeout=None) as http:
        await http.post("/pages/login", data={"user": target.user, "key": target.key, "next": "/"})
        path = random.choice(["/pages/stream", "/pages/requests/stream", "/pages/actions/stream"])
        async with http.stream("GET", path) as response:
            async for _ in response.aiter_raw():
                pass


@dataclass(slots=True)
class Found:
    """What the well-behaved client has seen."""

    seconds: list[float] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)

    @property
    def is_bad(self) -> bool:
        """Whether the aim is missed."""
        return bool(self.errors) or max(self.seconds, default=AIM) >= AIM


async def work(target: Target, seconds: float) -> Found:
    """Change and read a Job again and again, from time to time on a new connection."""
    found = Found()
    async with httpx.AsyncClient(base_url=target.url, timeout=30, verify=False) as http:
        job = await Caller(http, target.user, target.key).create("Job")
    await asyncio.sleep(START)
    number, end = 0, time.monotonic() + seconds
    while time.monotonic() < end:
        async with httpx.AsyncClient(base_url=target.url, timeout=30, verify=False) as http:
            api = Caller(http, target.user, target.key)
            for _ in range(20):
                number += 1
                data = json.dumps({"description": str(number)})
                change = update("Job", job["id"], data=data)
                read = query(f'select data from Job where id is "{job["id"]}"')
                for operation in (change, read):
                    began = time.monotonic()
                    try:
                        (result,) = await api.call(operation)
                    except (httpx.HTTPError, AssertionError, ValueError) as error:
                        found.errors.append(f"{error!r:.200}")
                    else:
                        if operation is read and result["data"][0]["data"] != data:
                            found.errors.append("the update is lost")
                    found.seconds.append(time.monotonic() - began)
                await asyncio.sleep(0.02)
                if time.monotonic() > end:
                    break
    return found


def attacked(name: str, target: Target, seconds: float) -> Found:
    """Return what the client sees during an attack."""
    command = [sys.executable, __file__, "--attack", name]
    with subprocess.Popen(command, stdin=subprocess.PIPE, text=True) as attackers:
        assert attackers.stdin is not None
        attackers.stdin.write(json.dumps(asdict(target)))
        attackers.stdin.close()
        try:
            return anyio.run(work, target, seconds)
        finally:
            attackers.kill()


def attack(name: str) -> None:
    """Attack the server whose address is on standard input, until the process is killed."""
    os.nice(10)
    asyncio.run(KINDS[name](Target(**json.load(sys.stdin))))  # type: ignore[arg-type]


def main() -> None:
    """Read the command line, and show what the client has seen of each attack."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=60.0, help="for each kind")
    parser.add_argument("--only", default="", help="kinds whose name contains this text")
    parser.add_argument("--list", action="store_true", help="print the kinds")
    parser.add_argument("--attack", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.attack:
        attack(options.attack)
        return
    names = [name for name in KINDS if options.only in name]
    if options.list:
        print(*names, sep="\n")
        return
    width, bad = max(map(len, KINDS)), list[str]()
    print(f"{'kind':{width}} requests   median  slowest  errors")
    for name in names:
        with tempfile.TemporaryDirectory() as folder, ServerProcess(folder) as server:
            url = httpx.URL(server.credentials.server_url)
            target = Target(url.host, url.port or 80, server.api_user, server.credentials.api_key)
            found = attacked(name, target, options.seconds)
        middle, slowest = median(found.seconds) * 1000, max(found.seconds) * 1000
        figures = f"{middle:6.0f} ms {slowest:5.0f} ms {len(found.errors):7}"
        print(f"{name:{width}} {len(found.seconds):8} {figures}", *found.errors[:1], flush=True)
        bad += [name] if found.is_bad else []
    if bad:
        sys.exit(f"{AIM:g} s or an error: {', '.join(bad)}")


if __name__ == "__main__":
    main()
