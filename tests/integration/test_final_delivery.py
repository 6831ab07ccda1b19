"""Final statuses get through, whatever happens to some of the requests that carry them.

In all of these tests the server is well, at the latest, a few seconds before the grace is over.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from typing import Any

import anyio
import pytest

from aioftrackjobs import job_context
from aioftrackjobs.devserver import ServerHandle

from .settings import connected
from .unruly import Act, respond, unruly
from .wires import Received, response

PAGE = b"<html><body>Sign in</body></html>"


def error(kind: str, status: str = "200 OK") -> bytes:
    return response(status, json.dumps({"exception": kind, "content": "not now"}).encode())


def page(status: str, **headers: str) -> bytes:
    return response(status, PAGE, content_type="text/html", **headers)


REFUSALS = {
    **{
        f"{kind} {status}": error(kind, status)
        for kind in (
            "OperationalError",
            "InternalError",
            "ValidationError",
            "PermissionError",
            "InvalidCredentialsError",
            "DuplicateEntryError",
            "ParseError",
            "EntityNotFoundError",
        )
        for status in ("200 OK", "400 Bad Request", "500 Internal Server Error")
    },
    **{
        f"page {status}": page(f"{status} X")
        for status in (
            *(200, 201, 203, 400, 401, 402, 403, 404, 405, 406, 407, 408, 409, 410, 411, 412, 413),
            *(414, 415, 418, 421, 422, 423, 425, 426, 428, 429, 431, 451, 499, 500, 501, 502, 503),
            *(504, 505, 507, 508, 511, 520, 522, 524, 526, 530, 599),
        )
    },
    **{f"redirect {status}": page(f"{status} X", location="/login") for status in range(300, 309)},
    "redirect to itself": page("307 X", location="/api"),
    "redirect to nowhere": page("302 X"),
    "redirect to another host": page("308 X", location="https://elsewhere.test/api"),
    "no content": b"HTTP/1.1 204 No Content\r\n\r\n",
    "reset content": b"HTTP/1.1 205 X\r\ncontent-length: 0\r\n\r\n",
    "null": response("200 OK", b"null"),
    "no results": response("200 OK", b"[]"),
    "too many results": response("200 OK", b"[{}, {}, {}]"),
    "an object": response("200 OK", b"{}"),
    "a text": response("200 OK", b'"done"'),
    "a number": response("200 OK", b"1"),
    "no JSON": response("200 OK", b'[{"action": "upd'),
    "other encodings": response("200 OK", '[{"action": "é"}]'.encode("utf-16")),
    "nested too deeply": response("200 OK", b"[" * 100_000),
    "not compressed": response("200 OK", b"[]", content_encoding="gzip"),
    "less than announced": b"HTTP/1.1 200 OK\r\ncontent-length: 500\r\n\r\n[{}]",
    "headers alone": b"HTTP/1.1 200 OK\r\ncontent-length: 500\r\n\r\n",
    "an interim response alone": b"HTTP/1.1 100 Continue\r\n\r\n",
    "half a status line": b"HTTP/1.1 20",
    "no HTTP": b"220 mail.studio.test ESMTP\r\n",
    "an alert of TLS": b"\x15\x03\x01\x00\x02\x02\x46",
    "an unknown version": b"HTTP/9.9 200 OK\r\n\r\n",
    "chunks that are none": b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nxyz\r\n",
    "nothing": b"",
}

BUSY = {
    f"{status}, retry after {asked!r}": page(f"{status} X", retry_after=asked)
    for status in (413, 429, 503)
    for asked in (
        *("86400", "9" * 400, "-1", "nan", "inf", "soon", "1.5", ""),
        *("Fri, 31 Dec 9999 23:59:59 GMT", "Mon, 01 Jan 2001 00:00:00 GMT", "Mon, 99 X"),
    )
}


def is_final(request: Received) -> bool:
    return b'"status":"done"' in request.body or b'"status":"failed"' in request.body


def first(count: int, act: Act, *, when: Callable[[Received], bool] = is_final) -> Any:
    """Return a function that does something with the first *count* requests of a kind."""
    left = count

    def choose(request: Received) -> Act | None:
        nonlocal left
        if left and when(request):
            left -= 1
            return act
        return None

    return choose


async def run_jobs(
    server: ServerHandle, choices: dict[str, Callable[[Received], Act | None]], **options: Any
) -> dict[str, str]:
    """Run a Job for each choice, on a session and a proxy of its own; return how they ended."""
    ends: dict[str, str] = {}

    async def run(name: str) -> None:
        async with unruly(server.url) as proxy, connected(server, proxy.url) as session:
            async with job_context(session, description=name, **options) as job:
                proxy.choose = choices[name]
            found = server.inspector.job(job.id)
            ends[name] = f"{found['status']}: {found['description']}"

    names = list(choices)
    for start in range(0, len(names), 20):
        async with anyio.create_task_group() as group:
            for name in names[start : start + 20]:
                group.start_soon(run, name)
    return ends


def all_done(names: Iterable[str]) -> dict[str, str]:
    return {name: f"done: {name}" for name in names}


@pytest.mark.every_client
@pytest.mark.parametrize("times", [1, 3])
async def test_a_final_status_gets_through_after_refusals(server: ServerHandle, times: int) -> None:
    kinds = REFUSALS | BUSY
    ends = await run_jobs(server, {name: first(times, respond(kinds[name])) for name in kinds})
    assert ends == all_done(kinds)
