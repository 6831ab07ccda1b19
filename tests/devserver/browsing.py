"""A browser without a screen or scripts, for the tests of the pages."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from html import unescape
from typing import Any

import httpx

from aioftrackjobs.devserver import ServerHandle

from .caller import Caller, create

HTML = {"accept": "text/html"}


class Visitor:
    """Someone who looks at pages, and keeps cookies."""

    def __init__(self, http: httpx.AsyncClient) -> None:
        self.http = http
        self.token = ""

    async def log_in(self, user: str, key: str) -> None:
        response = await self.submit("/pages/login", user=user, key=key)
        assert response.status_code == 303, response.text
        await self.get("/")

    async def get(self, path: str, **headers: str) -> httpx.Response:
        response = await self.http.get(path, headers=HTML | headers)
        found = re.search(r'name="token" value="(\w+)"', response.text)
        self.token = found[1] if found else self.token
        return response

    async def submit(self, path: str, **fields: Any) -> httpx.Response:
        fields = {"token": self.token, **fields}
        return await self.http.post(path, data=fields, headers=HTML)

    async def titles(self, path: str = "/") -> list[str]:
        """Return the titles of the Jobs that a page shows."""
        page = (await self.get(path)).text
        return [unescape(each) for each in re.findall(r'class="title">(.*?)</span>', page)]

    @asynccontextmanager
    async def stream(self, path: str) -> AsyncIterator[AsyncIterator[dict[str, Any]]]:
        """Enter with the updates that a stream sends."""
        async with self.http.stream("GET", path) as response:
            assert response.status_code == 200, response

            async def updates() -> AsyncIterator[dict[str, Any]]:
                async for line in response.aiter_lines():
                    if line.startswith("data: "):
                        yield json.loads(line.removeprefix("data: "))

            yield updates()


@asynccontextmanager
async def visiting(server: ServerHandle, user: str = "") -> AsyncIterator[Visitor]:
    """Enter with someone who has logged in, as the server's own user if none is named."""
    name = user or server.api_user
    async with httpx.AsyncClient(base_url=server.url, timeout=20) as http:
        visitor = Visitor(http)
        await visitor.log_in(name, server.api_keys[name])
        yield visitor


def lease(seconds: float, host: str = "farm07") -> dict[str, Any]:
    """Return a lease that ends in some seconds, or has ended."""
    until = datetime.now(UTC) + timedelta(seconds=seconds)
    process = {"host": host, "boot": "b", "pid": 4312, "started": 1}
    return {"holder": "h", **process, "until": until.isoformat()}


async def add_job(
    api: Caller, status: str = "running", *, user: str = "", ago: float = 0.0, **data: Any
) -> str:
    """Create a Job with *data*, and return its id."""
    (found,) = await api.query(f'User where username is "{user or api.user}"')
    at = (datetime.now(UTC) - timedelta(seconds=ago)).isoformat(timespec="seconds")[:19]
    created = {"__type__": "datetime", "value": at}
    values = {"status": status, "user_id": found["id"], "created_at": created}
    (result,) = await api.call(create("Job", **values, data=json.dumps(data)))
    return str(result["data"]["id"])
