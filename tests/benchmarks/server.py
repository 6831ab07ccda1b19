"""The throughput of the embedded server, compared with a bare Starlette app that does nothing.

    python tests/benchmarks/server.py [--seconds N]

Both servers run in processes of their own, on one core. Plain sockets on another core send prepared
requests, so that the client side does not limit the rate. The bare app parses the request and
responds with JSON of the same size; the difference to ours is the cost of a real store.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any
from uuid import uuid4

from aioftrackjobs.testing._server import serving as serving_for_tests

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
CONNECTIONS = 16
ROUNDS = 3
MANY = 100_000
BATCH = 500

#: The response of the embedded server to one update is about as long.
_RESPONSE = [{"action": "update", "data": {"__entity_type__": "Job", "id": "x" * 36}}]

BARE = f"""
import json, socket, sys, uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

async def api(request: Request) -> JSONResponse:
    operations = await request.json()
    return JSONResponse({json.dumps(_RESPONSE)} * len(operations))

# With TCP named, asyncio turns Nagle's algorithm off, which would delay each response by 40 ms.
listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
listener.bind(("127.0.0.1", 0))
listener.listen(128)
print(json.dumps({{"port": listener.getsockname()[1], "user": "u", "key": "k"}}), flush=True)
app = Starlette(routes=[Route("/api", api, methods=["POST"])])
uvicorn.Server(uvicorn.Config(app, log_level="error")).run(sockets=[listener])
"""

OURS = """
import json, sys, time
started = time.perf_counter()
from aioftrackjobs.devserver import serve

def ready(server):
    endpoint = {"port": int(server.url.rpartition(":")[2]), "user": server.api_user,
                "key": server.api_key, "start": time.perf_counter() - started}
    print(json.dumps(endpoint), flush=True)

serve(port=0, empty=True, on_ready=ready)
"""


@contextmanager
def serving(code: str) -> Iterator[tuple[dict[str, Any], int]]:
    """Run a server on the first core; yield the endpoint that it prints, and its process id."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, env=environment, text=True
    )
    try:
        if hasattr(os, "sched_setaffinity"):
            os.sched_setaffinity(process.pid, {min(os.sched_getaffinity(0))})
        assert process.stdout is not None
        yield json.loads(process.stdout.readline()), process.pid
    finally:
        process.terminate()
        process.wait()


def request(endpoint: dict[str, Any], operations: list[dict[str, Any]]) -> bytes:
    """Return the bytes of a whole request."""
    body = json.dumps(operations).encode()
    head = (
        "POST /api HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
        f"ftrack-user: {endpoint['user']}\r\nftrack-api-key: {endpoint['key']}\r\n"
        f"content-length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


async def exchange(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, message: bytes
) -> bytes:
    """Send a request, and return the body of its response."""
    writer.write(message)
    head = await reader.readuntil(b"\r\n\r\n")
    (length,) = [
        int(line.partition(b":")[2])
        for line in head.split(b"\r\n")
        if line.lower().startswith(b"content-length:")
    ]
    return await reader.readexactly(length)


async def send(endpoint: dict[str, Any], operations: list[dict[str, Any]]) -> Any:
    """Return the decoded response to one request; a refusal ends the benchmark."""
    reader, writer = await asyncio.open_connection("127.0.0.1", endpoint["port"])
    response = json.loads(await exchange(reader, writer, request(endpoint, operations)))
    writer.close()
    if isinstance(response, dict) and "exception" in response:
        raise RuntimeError(response["content"])
    return response


async def rate(endpoint: dict[str, Any], message: bytes, seconds: float) -> float:
    """Return how many requests a second the server completes on many connections at once."""
    done = 0
    until = time.monotonic() + seconds

    async def send_repeatedly() -> None:
        nonlocal done
        reader, writer = await asyncio.open_connection("127.0.0.1", endpoint["port"])
        while time.monotonic() < until:
            body = await exchange(reader, writer, message)
            assert body.startswith(b"["), body[:200]
            done += 1
        writer.close()

    await asyncio.gather(*(send_repeatedly() for _ in range(CONNECTIONS)))
    return done / seconds


def create(job_id: str, **values: Any) -> dict[str, Any]:
    """Return the operation that creates a Job."""
    data = {"__entity_type__": "Job", "id": job_id, **values}
    return {"action": "create", "entity_type": "Job", "entity_key": [job_id], "entity_data": data}


def update(job_id: str) -> dict[str, Any]:
    """Return the operation that changes a Job."""
    data = {"__entity_type__": "Job", "status": "running", "data": '{"description": "x"}'}
    return {"action": "update", "entity_type": "Job", "entity_key": [job_id], "entity_data": data}


async def throughput(
    endpoint: dict[str, Any], seconds: float, *, real: bool
) -> tuple[float, float]:
    """Return requests a second of one update, and operations a second in batches of 100."""
    jobs = [str(uuid4()) for _ in range(100)]
    if real:
        await send(endpoint, [create(job) for job in jobs])
    single = await rate(endpoint, request(endpoint, [update(jobs[0])]), seconds)
    batch = await rate(endpoint, request(endpoint, [update(job) for job in jobs]), seconds)
    return single, batch * 100


async def fill_and_query(endpoint: dict[str, Any]) -> list[tuple[str, float]]:
    """Store 100 000 Jobs; return the durations of queries over them, in milliseconds."""
    user = (await send(endpoint, [{"action": "query", "expression": "select id from User"}]))[0]
    user_id = user["data"][0]["id"]
    states = ("done", "failed", "running", "queued")
    for start in range(0, MANY, BATCH):
        jobs = range(start, start + BATCH)
        await send(
            endpoint,
            [create(str(uuid4()), user_id=user_id, status=states[n % 4], data="{}") for n in jobs],
        )
    by_user = f'user_id is "{user_id}" and status is "failed"'
    queries = {
        "first page of 500": "select id, status, data from Job limit 500",
        "a page of user and status": f"select id, data from Job where {by_user} limit 500",
        "with the user's name": "select id, user.username from Job limit 500",
    }
    figures = []
    for title, text in queries.items():
        times = []
        for _ in range(9):
            started = time.perf_counter()
            await send(endpoint, [{"action": "query", "expression": text}])
            times.append(1e3 * (time.perf_counter() - started))
        figures.append((title, median(times)))
    return figures


def reset_and_start() -> tuple[float, float]:
    """Return the seconds of a reset between two tests, and those of a start and stop instead."""
    starts, resets = [], []
    for _ in range(ROUNDS):
        started = time.perf_counter()
        with serving_for_tests():
            pass
        starts.append(time.perf_counter() - started)
    with serving_for_tests() as server:
        endpoint = {
            "port": int(server.url.rpartition(":")[2]),
            "user": server.api_user,
            "key": server.api_key,
        }
        for _ in range(15):
            asyncio.run(send(endpoint, [create(str(uuid4()), status="running")]))
            started = time.perf_counter()
            server.reset()
            resets.append(time.perf_counter() - started)
            assert server.jobs() == []
    return median(resets), median(starts)


def memory(process: int) -> float:
    """Return the memory in use of a process, in MiB (Linux)."""
    lines = Path(f"/proc/{process}/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmRSS"))


def main() -> None:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seconds", type=float, default=3.0, help="length of each measurement")
    options = parser.parse_args()
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    bare, ours, starts = [], [], []
    for _ in range(ROUNDS):
        with serving(BARE) as (endpoint, _pid):
            bare.append(asyncio.run(throughput(endpoint, options.seconds, real=False)))
        with serving(OURS) as (endpoint, _pid):
            starts.append(endpoint["start"])
            ours.append(asyncio.run(throughput(endpoint, options.seconds, real=True)))
    print("| measure | bare Starlette | ours | ratio | aim |")
    print("| --- | --- | --- | --- | --- |")
    for place, title, aim in (
        (0, "one update a request, requests/s", ">= 0.25"),
        (1, "batches of 100 updates, operations/s", ">= 10 000"),
    ):
        theirs, own = (median(each[place] for each in results) for results in (bare, ours))
        print(f"| {title} | {theirs:,.0f} | {own:,.0f} | {own / theirs:.2f} | {aim} |")
    print(f"| import and start | | {median(starts):.2f} s | | < 0.7 s |")
    reset, start = reset_and_start()
    print(
        f"| reset between two tests, against a start ({start * 1e3:.0f} ms) | "
        f"| {reset * 1e3:.1f} ms | {reset / start:.3f} | < 20 ms |"
    )
    with serving(OURS) as (endpoint, process):
        before = memory(process)
        figures = asyncio.run(fill_and_query(endpoint))
        print(f"| memory for {MANY:,} Jobs | | {memory(process) - before:.0f} MiB | | |")
        for title, milliseconds in figures:
            print(f"| {title}, of {MANY:,} | | {milliseconds:.1f} ms | | |")


if __name__ == "__main__":
    main()
