"""The event hub under load: no event may be lost or doubled.

1 000 clients with a subscription each; 500 events a second, each of which matches ten of them.

    python tests/benchmarks/events.py [--seconds 30] [--subscribers 1000] [--rate 500]

Server, publisher and subscribers are three processes. The program ends with status 1 if an event
was lost, doubled or out of order. It prints how long events took from publishing to delivery.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import subprocess
import sys
import time
from collections import defaultdict
from typing import Any
from urllib.parse import urlsplit
from urllib.request import Request, urlopen

from websockets.asyncio.client import ClientConnection, connect

MATCHES = 10
_SERVE = """
from aioftrackjobs.devserver import serve
serve(port=0, api_key="key", on_ready=lambda server: print(server.url, flush=True))
"""
#: Connections that are made at the same time.
_AT_ONCE = 20


def handshake(url: str) -> str:
    headers = {"ftrack-user": "developer", "ftrack-api-key": "key"}
    with urlopen(Request(f"{url}/socket.io/1/", headers=headers)) as response:
        session = response.read().decode().partition(":")[0]
    return f"ws://{urlsplit(url).netloc}/socket.io/1/websocket/{session}"


async def open_socket(url: str, places: asyncio.Semaphore) -> ClientConnection:
    async with places:
        address = await asyncio.to_thread(handshake, url)
        return await connect(address, compression=None, ping_interval=None, open_timeout=60)


def frame(topic: str, data: dict[str, Any], packet: str = "") -> str:
    event = {"topic": topic, "data": data, "source": {"id": "benchmark"}, "target": ""}
    return f"5:{packet}::{json.dumps({'name': 'ftrack.event', 'args': [event]})}"


async def subscribe(url: str, subscribers: int, events: int) -> dict[str, Any]:
    """Receive what is published, in a process of its own; return what came."""
    places = asyncio.Semaphore(_AT_ONCE)
    sockets = await asyncio.gather(*(open_socket(url, places) for _ in range(subscribers)))
    groups = max(1, subscribers // MATCHES)
    received: dict[int, list[int]] = defaultdict(list)
    delays: list[float] = []

    async def listen(number: int, socket: ClientConnection) -> None:
        expression = f"topic=load and data.group='{number % groups}'"
        data = {"subscriber": {"id": str(number)}, "subscription": expression}
        await socket.send(frame("ftrack.meta.subscribe", data, "1+"))
        async for text in socket:
            if text.startswith("2"):
                await socket.send("2::")
            elif text.startswith("6"):
                ready.release()
            elif text.startswith("5"):
                data = json.loads(text[4:])["args"][0]["data"]
                if data["n"] < 0:
                    return
                received[number].append(data["n"])
                delays.append(time.time() - data["at"])

    ready = asyncio.Semaphore(0)
    tasks = [asyncio.create_task(listen(*each)) for each in enumerate(sockets)]
    for _ in tasks:
        await ready.acquire()
    print("ready", flush=True)
    await asyncio.wait(tasks)
    delays.sort()
    wrong = [
        number
        for number in range(subscribers)
        if received[number] != list(range(number % groups, events, groups))
    ]
    count = sum(map(len, received.values()))
    half, most = delays[len(delays) // 2], delays[int(len(delays) * 0.99)]
    return {"received": count, "wrong": len(wrong), "median": half, "p99": most}


async def publish(url: str, rate: int, seconds: float, groups: int) -> float:
    """Publish events at a steady rate, and return how long that took."""
    socket = await open_socket(url, asyncio.Semaphore(1))
    reading = asyncio.create_task(_reply_to_heartbeats(socket))
    began, total = time.monotonic(), int(rate * seconds)
    for number in range(total):
        data = {"n": number, "group": str(number % groups), "at": time.time()}
        await socket.send(frame("load", data))
        wait = began + number / rate - time.monotonic()
        if wait > 0:
            await asyncio.sleep(wait)
    for group in range(groups):
        await socket.send(frame("load", {"n": -1, "group": str(group)}))
    took = time.monotonic() - began
    await asyncio.sleep(1)
    reading.cancel()
    return took


async def _reply_to_heartbeats(socket: ClientConnection) -> None:
    async for text in socket:
        if str(text).startswith("2"):
            await socket.send("2::")


def main() -> int:
    """Run the benchmark, or one of its processes."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=30)
    parser.add_argument("--subscribers", type=int, default=1000)
    parser.add_argument("--rate", type=int, default=500, help="events a second")
    parser.add_argument("--url", help=argparse.SUPPRESS)
    given = parser.parse_args()
    events = int(given.rate * given.seconds)
    if given.url:
        print(json.dumps(asyncio.run(subscribe(given.url, given.subscribers, events))))
        return 0
    pipe: dict[str, Any] = {"stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen([sys.executable, "-c", _SERVE], **pipe) as server:
        try:
            url = server.stdout.readline().strip()
            command = [sys.executable, __file__, "--url", url, *sys.argv[1:]]
            with subprocess.Popen(command, **pipe) as receiving:
                began = time.monotonic()
                assert receiving.stdout.readline() == "ready\n"
                connecting = time.monotonic() - began
                groups = max(1, given.subscribers // MATCHES)
                took = asyncio.run(publish(url, given.rate, given.seconds, groups))
                result = json.loads(receiving.stdout.readline())
        finally:
            server.terminate()
    expected = events * MATCHES
    print("| measure | value |\n| --- | --- |")
    print(f"| {given.subscribers} clients connected and subscribed in | {connecting:.1f} s |")
    print(f"| published, events/s | {events / took:.0f} |")
    print(f"| delivered, of {expected} | {result['received']} |")
    print(f"| subscribers with lost, doubled or misplaced events | {result['wrong']} |")
    print(
        f"| from publishing to delivery, median and 99 % | {result['median'] * 1000:.1f} ms, "
        f"{result['p99'] * 1000:.0f} ms |"
    )
    return int(bool(result["wrong"]) or result["received"] != expected)


if __name__ == "__main__":
    sys.exit(main())
