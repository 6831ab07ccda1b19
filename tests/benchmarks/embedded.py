"""The embedded server as the server of the benchmarks, filled with the entities that they read.

``run.py --server embedded`` runs it. It prints its address, and serves until its standard input is
closed. Most of the measured time is then that of the server.
"""

from __future__ import annotations

import json
import sys
import urllib.request
from collections.abc import Iterator
from typing import Any
from uuid import NAMESPACE_URL, uuid4, uuid5

import anyio
from anyio.to_thread import run_sync
from measuring import JOBS, PAGE, USERS

from aioftrackjobs.devserver import ServerHandle, running


def _create(entity_type: str, entity_id: str, **values: str) -> dict[str, Any]:
    data = {"__entity_type__": entity_type, "id": entity_id, **values}
    return {"action": "create", "entity_type": entity_type, "entity_data": data}


def _user_id(number: int) -> str:
    return str(uuid5(NAMESPACE_URL, f"benchmark/{number}"))


def _batches() -> Iterator[list[dict[str, Any]]]:
    yield [
        _create("User", _user_id(number), username=f"user{number:02}") for number in range(USERS)
    ]
    for start in range(0, JOBS, PAGE):
        yield [
            _create(
                "Job",
                str(uuid4()),
                user_id=_user_id(number * 7 % USERS),
                status=("done", "failed", "running")[number % 3],
            )
            for number in range(start, start + PAGE)
        ]


def _fill(server: ServerHandle) -> None:
    headers = {
        "content-type": "application/json",
        "ftrack-user": server.api_user,
        "ftrack-api-key": server.api_key,
    }
    for batch in _batches():
        body = json.dumps(batch).encode()
        request = urllib.request.Request(f"{server.url}/api", body, headers)
        with urllib.request.urlopen(request) as response:
            result = json.load(response)
        if not isinstance(result, list):
            raise TypeError(f"the server refused to be filled: {result}")


async def main() -> None:
    """Serve until standard input is closed."""
    async with running() as server:
        await run_sync(_fill, server)
        endpoint = {"url": server.url, "user": server.api_user, "key": server.api_key}
        print(json.dumps(endpoint), flush=True)
        await run_sync(sys.stdin.read)


if __name__ == "__main__":
    anyio.run(main)
