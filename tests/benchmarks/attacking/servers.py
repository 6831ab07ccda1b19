"""The servers under attack, in processes of their own, and the truth about their entities.

The truth is read with requests made here, past the proxy and without the client that is tested.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit
from uuid import uuid4

import anyio

ROOT = Path(__file__).resolve().parents[3]

ServerName = Literal["embedded", "memory"]

_EMBEDDED = """
import json, sys
import anyio
from anyio.to_thread import run_sync
from aioftrackjobs.devserver import running

async def main():
    async with running() as server:
        endpoint = {"url": server.url, "key": server.api_key, "user": server.api_user}
        print(json.dumps(endpoint), flush=True)
        await run_sync(sys.stdin.read)

anyio.run(main)
"""

#: Statuses of a Job that has ended.
ENDED = ("done", "failed")


@dataclass(frozen=True, slots=True)
class Server:
    """A running server, and how to speak to it."""

    name: ServerName
    url: str
    key: str
    user: str

    @property
    def port(self) -> int:
        """The port that it listens on."""
        port = urlsplit(self.url).port
        assert port is not None
        return port

    async def ask(self, operations: Sequence[Mapping[str, Any]]) -> list[Any]:
        """Send operations, and return their results.

        Raises:
            ValueError: They were refused.
        """
        headers = {"content-type": "application/json", "ftrack-user": self.user}
        headers["ftrack-api-key"] = self.key
        body = json.dumps(list(operations)).encode()
        answer = await exchange(self.port, "POST", "/api", headers, body)
        result = json.loads(answer.body)
        if not isinstance(result, list):
            raise ValueError(f"refused: {result}")
        return result

    async def rows(self, entity_type: str, ids: Sequence[str]) -> dict[str, dict[str, Any]]:
        """Return the entities that exist, by id."""
        found: dict[str, dict[str, Any]] = {}
        for start in range(0, len(ids), 100):
            listed = ", ".join(f'"{each}"' for each in ids[start : start + 100])
            names = "id, status, data" if entity_type == "Job" else "id, name"
            text = f"select {names} from {entity_type} where id in ({listed})"
            (result,) = await self.ask([{"action": "query", "expression": text}])
            found |= {row["id"]: row for row in result["data"]}
        return found

    async def statuses(self, job_ids: Sequence[str]) -> dict[str, str]:
        """Return the status of each Job that exists."""
        rows = await self.rows("Job", job_ids)
        return {key: row["status"] for key, row in rows.items()}

    async def file(self, component_id: str) -> bytes | None:
        """Return the file of a component; None if there is none."""
        target = f"/component/get?id={component_id}&username={self.user}&apiKey={self.key}"
        answer = await exchange(self.port, "GET", target, {}, b"")
        while answer.status in (301, 302, 303, 307):
            url = urlsplit(answer.headers["location"])
            answer = await exchange(url.port or 80, "GET", f"{url.path}?{url.query}", {}, b"")
        return answer.body if answer.status == 200 else None

    async def create_jobs(self, count: int, status: str = "queued") -> list[str]:
        """Make Jobs, and return their ids."""
        ids = [str(uuid4()) for _ in range(count)]
        await self.ask(
            [
                {
                    "action": "create",
                    "entity_type": "Job",
                    "entity_key": [key],
                    "entity_data": {
                        "__entity_type__": "Job",
                        "id": key,
                        "status": status,
                        "type": "api_job",
                        "user_id": await self.user_id(),
                        "data": "{}",
                    },
                }
                for key in ids
            ]
        )
        return ids

    async def user_id(self) -> str:
        """Return the id of the user as whom the clients act."""
        text = f'select id from User where username is "{self.user}"'
        (result,) = await self.ask([{"action": "query", "expression": text}])
        return str(result["data"][0]["id"])

    def environment(self, url: str | None = None, **more: str) -> dict[str, str]:
        """Return the environment of a program that uses the server, or a proxy at *url*."""
        return {
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "FTRACK_SERVER": url or self.url,
            "FTRACK_API_KEY": self.key,
            "FTRACK_API_USER": self.user,
            **more,
        }


@contextmanager
def started(name: ServerName) -> Iterator[Server]:
    """Start a server in a process of its own; it ends with the block."""
    path = Path(__file__).with_name("memory_server.py")
    command = (
        [sys.executable, "-c", _EMBEDDED] if name == "embedded" else [sys.executable, str(path)]
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        yield Server(name, **json.loads(process.stdout.readline()))
    finally:
        process.stdin.close()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
        process.stdout.close()


@dataclass(frozen=True, slots=True)
class Answer:
    """A response as it was received, with the names of its headers in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes


async def exchange(
    port: int, method: str, target: str, headers: Mapping[str, str], body: bytes
) -> Answer:
    """Send one request over a connection of its own, and return the response."""
    lines = {
        "host": f"127.0.0.1:{port}",
        **headers,
        "content-length": str(len(body)),
        "connection": "close",
    }
    head = f"{method} {target} HTTP/1.1\r\n" + "".join(f"{n}: {v}\r\n" for n, v in lines.items())
    async with await anyio.connect_tcp("127.0.0.1", port) as stream:
        await stream.send(head.encode("latin-1") + b"\r\n" + body)
        data = b""
        while b"\r\n\r\n" not in data:
            data += await stream.receive()
        start, _, data = data.partition(b"\r\n\r\n")
        status, *found = start.decode("latin-1").split("\r\n")
        names = {
            name.lower(): value.strip() for name, _, value in (x.partition(":") for x in found)
        }
        length = int(names.get("content-length", -1))
        try:
            while length < 0 or len(data) < length:
                data += await stream.receive()
        except (anyio.EndOfStream, anyio.BrokenResourceError):
            if length >= 0 or "chunked" not in names.get("transfer-encoding", "chunked"):
                raise
        if "chunked" in names.get("transfer-encoding", ""):
            data = _joined(data)
    return Answer(int(status.split(" ")[1]), names, data)


def _joined(data: bytes) -> bytes:
    body = b""
    while data:
        size, _, data = data.partition(b"\r\n")
        count = int(size.split(b";")[0], 16)
        if not count:
            break
        body += data[:count]
        data = data[count + 2 :]
    return body
