"""Final statuses get through, whatever happens to some of the requests that carry them.

In all of these tests the server is well, at the latest, a few seconds before the grace is over.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import anyio
import pytest

from aioftrackjobs import AsyncSession, Job, JobDeletedError, ServerError, job_context, recover
from aioftrackjobs.config.timings import DEFAULT_TIMINGS
from aioftrackjobs.devserver import ServerHandle
from aioftrackjobs.devserver.faults.kinds import Delay, SeenRequest

from ..amounts import amount
from .settings import Setting, connected
from .unruly import Act, Unruly, respond, swallow, unruly
from .waiting import until
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


#: What the names of kinds begin with of which there are many.
ALIKE = ("page ", "redirect 3", *(name.partition(" ")[0] for name in REFUSALS if "Error " in name))


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
            status = server.inspector.job(job.id)["status"]
            await until(lambda: shown(server, job.id))  # it may follow
            ends[name] = f"{status}: {shown(server, job.id)}"

    names = list(choices)
    for start in range(0, len(names), 10):  # more need longer than the grace on a busy machine
        async with anyio.create_task_group() as group:
            for name in names[start : start + 10]:
                group.start_soon(run, name)
    return ends


def some(kinds: dict[str, bytes]) -> dict[str, bytes]:
    """Leave out most of those that differ in a number or a name alone; none in ``nox -s long``."""
    alike = [name for name in kinds if name.startswith(ALIKE) or "retry after" in name]
    return {name: kinds[name] for name in kinds if name not in alike} | {
        name: kinds[name] for name in alike[:: amount(9, 1)]
    }


def all_done(names: Iterable[str]) -> dict[str, str]:
    return {name: f"done: {name}" for name in names}


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.other_client
async def test_a_final_status_gets_through_after_one_refusal(
    server: ServerHandle, setting: Setting
) -> None:
    kinds = some(REFUSALS | BUSY)
    if str(setting) != "asyncio-own":
        kinds = {name: kinds[name] for name in list(kinds)[:: amount(3, 1)]}
    choices = {name: first(1, respond(kinds[name])) for name in kinds}
    ends = await run_jobs(server, choices, grace=30.0)
    assert ends == all_done(kinds)


@pytest.mark.slow
@pytest.mark.long
async def test_a_final_status_gets_through_after_some_refusals(server: ServerHandle) -> None:
    kinds = some(REFUSALS)
    choices = {name: first(3, respond(kinds[name])) for name in kinds}
    ends = await run_jobs(server, choices, grace=30.0)
    assert ends == all_done(kinds)


async def test_a_failure_gets_through_after_refusals_of_all_requests(server: ServerHandle) -> None:
    """Also of the query before it."""
    async with unruly(server.url) as proxy, connected(server, proxy.url) as session:
        with pytest.raises(ZeroDivisionError):
            async with job_context(session, description="x", attach_traceback=False) as job:
                proxy.choose = first(8, respond(page("403 X")), when=lambda _: True)
                raise ZeroDivisionError("by nothing")
        found = server.inspector.job(job.id)
        assert found["status"] == "failed"
        await until(lambda: shown(server, job.id) == "x - failed: ZeroDivisionError: by nothing")


def shown(server: ServerHandle, job_id: str) -> object:
    return server.inspector.job(job_id)["description"]


# What others decide


@pytest.mark.every_loop
async def test_a_job_that_was_deleted_is_an_error_at_once(
    server: ServerHandle, other: AsyncSession
) -> None:
    async with connected(server) as session:
        with anyio.fail_after(30), pytest.raises(JobDeletedError):
            async with job_context(session, description="x", grace=1000.0) as job:
                mine = await other.get(Job, job.id)
                assert mine is not None
                other.delete(mine)
                await other.commit()
        assert session.health.is_good
        assert session.health.final_reports_pending == 0


async def test_a_refusal_until_the_end_is_raised(server: ServerHandle) -> None:
    async with unruly(server.url) as proxy, connected(server, proxy.url) as session:
        with pytest.raises(ServerError, match="not now"):
            async with job_context(session, description="x", grace=1.0):
                proxy.choose = first(10_000, respond(error("ValidationError")))
        assert session.health.is_good  # it responds


# Texts that the server cannot keep


def texts(request: Received) -> str:
    """Return all that the server would keep of a request."""
    try:
        operations = json.loads(request.body or b"[]")
    except ValueError:
        return ""
    data = [each.get("entity_data", {}).get("data") or "{}" for each in operations]
    return "".join(data) + "".join(str(json.loads(each)) for each in data)


CANNOT_KEEP: dict[str, Callable[[str], bool]] = {
    "characters of four bytes": lambda text: any(each > "\uffff" for each in text),
    "what is not ASCII": lambda text: not text.isascii(),
    "control characters": lambda text: any(each < " " for each in text),
    "long texts": lambda text: len(text) > 1000,
    "any text": lambda text: "failed" in text,
}
RESULTS = {
    "a film": "\N{CLAPPER BOARD} sh010",
    "NUL": "a\0b",
    "a name that is no UTF-8": "render_\udcff.exr",
    "64 KiB": "x" * 65536,
    "80 MB": "y" * 80_000_000,
    "many lines": "one\ntwo\r\n\x1b[31mthree\x07",
    "right to left": "\u202egnorw\u2069 \u0644\u0627",
}


@pytest.mark.every_loop
@pytest.mark.parametrize("kind", CANNOT_KEEP)
async def test_a_status_is_recorded_whatever_its_text_is(server: ServerHandle, kind: str) -> None:
    found: dict[str, str] = {}
    refusal = respond(error("OperationalError", "500 X"))

    def choose(request: Received) -> Act | None:
        return refusal if is_final(request) and CANNOT_KEEP[kind](texts(request)) else None

    async def run(session: AsyncSession, name: str) -> None:
        with suppress(RuntimeError):
            async with job_context(session, description="x", attach_traceback=False) as job:
                job.progress(0.5, RESULTS[name])
                raise RuntimeError(RESULTS[name])
        found[name] = server.inspector.job(job.id)["status"]

    async with unruly(server.url) as proxy, connected(server, proxy.url) as session:
        proxy.choose = choose
        async with anyio.create_task_group() as group:
            for name in RESULTS:
                group.start_soon(run, session, name)
    assert found == dict.fromkeys(RESULTS, "failed")
    for job in server.inspector.jobs():
        assert len(job["description"] or "") <= 2100
        if kind == "what is not ASCII":
            assert job["description"].startswith("x (50 %, ")
            assert "failed: RuntimeError" in job["description"]


async def test_what_others_keep_and_cannot_be_sent_does_not_keep_a_status_back(
    server: ServerHandle,
) -> None:
    async with connected(server) as session:
        async with job_context(session, description="x", data={"a": 1}) as job:
            job.entity["data"] = '{"name": "\\udcff", "deep": ' + "[" * 900 + "]" * 900 + "}"
    assert server.inspector.job(job.id)["status"] == "done"


# Requests that are swallowed


@pytest.mark.slow
@pytest.mark.every_loop
async def test_a_final_status_gets_through_although_requests_are_swallowed(
    server: ServerHandle,
) -> None:
    choices = {
        "the status": first(1, swallow),
        "the status, twice": first(2, swallow),
        "the query before it": first(1, swallow, when=lambda _: True),
        "both": first(2, swallow, when=lambda _: True),
    }
    ends = await run_jobs(server, choices, grace=6.0)  # an attempt takes a third of it at most
    await until(lambda: all(job["description"] for job in server.inspector.jobs()))
    assert ends == all_done(choices)


@pytest.mark.other_client
async def test_a_final_status_takes_a_new_connection(server: ServerHandle) -> None:
    """All that were used before are dead, and nothing says so."""
    async with unruly(server.url) as proxy, connected(server, proxy.url) as session:
        async with job_context(session, description="x") as job:
            await session.query("User limit 1").all()
            proxy.kill_connections()
        assert server.inspector.job(job.id)["status"] == "done"


@pytest.mark.slow
@pytest.mark.every_loop
async def test_many_jobs_get_through_after_all_requests_were_swallowed_for_a_while(
    server: ServerHandle,
) -> None:
    """Those that were given up must not take all workers."""
    ends: list[str] = []

    async def run(session: AsyncSession, proxy: Unruly) -> None:
        with suppress(ZeroDivisionError):
            # An attempt takes a third of the grace at most.
            async with job_context(
                session, description="x", attach_traceback=False, grace=6.0
            ) as job:
                running.append(job.id)
                await until(lambda: len(running) == 20)
                proxy.choose = swallow_until(over_at)
                raise ZeroDivisionError
        ends.append(server.inspector.job(job.id)["status"])

    running: list[str] = []
    over_at = anyio.current_time() + 4
    async with unruly(server.url) as proxy, connected(server, proxy.url) as session:
        async with anyio.create_task_group() as group:
            for _ in range(20):
                group.start_soon(run, session, proxy)
    assert ends == ["failed"] * 20


def swallow_until(time: float) -> Callable[[Received], Act | None]:
    return lambda _: swallow if anyio.current_time() < time else None


@pytest.mark.every_loop
async def test_a_slow_server_gets_its_time(server: ServerHandle) -> None:
    """A second attempt does not end the first one."""

    server.faults.inject(Delay(2.5), on=is_final_write, probability=1.0)
    async with connected(server) as session:
        async with job_context(session, description="x", grace=6.0) as job:  # attempts of 2 s
            pass
        assert server.inspector.job(job.id)["status"] == "done"


def is_final_write(request: SeenRequest) -> bool:
    return any(each.get("entity_data", {}).get("status") == "done" for each in request.operations)


# Requests that hold the session up


def is_slow(request: Received) -> bool:
    return any(each in request.body for each in (b"from User", b'"Note"', b"get_upload_metadata"))


@pytest.mark.other_client
async def test_nothing_of_the_session_holds_up_leases_and_final_statuses(
    server: ServerHandle,
) -> None:
    async def read(session: AsyncSession) -> None:
        await session.query("select username from User limit 1").all()

    async def write(session: AsyncSession) -> None:
        async with session.unit_of_work():
            session.create("Note", {"content": "x"})

    async def upload(session: AsyncSession) -> None:
        await session.create_component(b"x", name="x.txt")

    async with unruly(server.url) as proxy:
        async with connected(server, proxy.url, lease=0.9) as session:
            async with anyio.create_task_group() as group:
                async with job_context(session, description="x") as job:
                    await session.current_user()
                    before = sum(map(is_slow, proxy.requests))
                    proxy.choose = first(100, swallow, when=is_slow)
                    for work in (write, upload, read) * 8:
                        group.start_soon(work, session)
                    await until(lambda: sum(map(is_slow, proxy.requests)) >= before + 8)
                    lease = lease_of(server, job.id)
                    await until(lambda: lease_of(server, job.id) != lease)
                assert server.inspector.job(job.id)["status"] == "done"
                group.cancel_scope.cancel()


def lease_of(server: ServerHandle, job_id: str) -> Any:
    return server.inspector.job(job_id)["data"]["lease"]["until"]


# With a journal


async def test_what_waits_in_the_journal_is_sent_when_the_server_is_seen_to_be_well(
    server: ServerHandle, tmp_path: Path
) -> None:
    async with unruly(server.url) as proxy:
        path = tmp_path / "jobs.journal"
        async with connected(server, proxy.url, journal=path, timings=DEFAULT_TIMINGS) as session:
            async with job_context(session, description="x", grace=0.3) as job:
                proxy.choose = first(10_000, respond(error("OperationalError", "500 X")))
            assert session.health.final_reports_pending == 1
            proxy.choose = lambda _: None
            with anyio.fail_after(20):
                while session.health.final_reports_pending:
                    await session.query("User limit 1").all()
        assert server.inspector.job(job.id)["status"] == "done"


async def test_recover_leaves_alone_what_a_live_process_holds(
    server: ServerHandle, other: AsyncSession, tmp_path: Path
) -> None:
    """It has ended, so that its lease is not renewed any more."""
    async with unruly(server.url) as proxy:
        path = tmp_path / "jobs.journal"
        async with connected(server, proxy.url, journal=path, lease=0.5) as session:
            async with job_context(session, description="x", grace=0.3) as job:
                proxy.choose = first(10_000, respond(error("OperationalError", "500 X")))

            async def is_over() -> bool:
                return bool(lease_of(server, job.id) < datetime.now(UTC).isoformat())

            await until(is_over)
            for each in (other, session):
                assert not (await recover(each, grace=0.0)).failed
            proxy.choose = lambda _: None
            await session.query("User limit 1").all()
            await until(lambda: not session.health.final_reports_pending)
    found = server.inspector.job(job.id)
    assert (found["status"], found["description"]) == ("done", "x")


@pytest.mark.every_loop
async def test_a_text_that_the_server_cannot_keep_does_not_stay_in_the_journal(
    server: ServerHandle, tmp_path: Path
) -> None:
    timings = replace(DEFAULT_TIMINGS, replay_interval=0.01)
    async with unruly(server.url) as proxy:
        path = tmp_path / "jobs.journal"
        async with connected(server, proxy.url, journal=path, timings=timings) as session:
            async with job_context(session, description="x", grace=0.1) as job:
                proxy.choose = first(10_000, respond(b""), when=lambda _: True)
                job.finish("\N{CLAPPER BOARD}")
            refusal = respond(error("OperationalError", "500 X"))
            proxy.choose = lambda each: None if texts(each).isascii() else refusal
            await until(lambda: not session.health.final_reports_pending)
    found = server.inspector.job(job.id)
    assert (found["status"], found["description"]) == ("done", "x - ?")


# While a Job runs


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["what is not ASCII", "any new text"])
async def test_a_text_that_the_server_cannot_keep_does_not_end_the_lease(
    server: ServerHandle, kind: str
) -> None:
    """It travels with the renewals of the lease."""

    def is_new(text: str) -> bool:
        return "frame" in text

    cannot_keep = CANNOT_KEEP.get(kind, is_new)
    refusal = respond(error("OperationalError", "500 X"))
    async with unruly(server.url) as proxy, connected(server, proxy.url, lease=0.9) as session:
        async with job_context(session, description="x", interval=0.01) as job:
            proxy.choose = lambda request: refusal if cannot_keep(texts(request)) else None
            job.progress(0.5, "frame \N{CLAPPER BOARD}")
            for _ in range(2):
                lease = lease_of(server, job.id)
                await until(lambda: lease_of(server, job.id) > lease)  # noqa: B023
            proxy.choose = lambda _: None
            job.progress(0.6, "frame \N{CLAPPER BOARD}")
            await until(lambda: shown(server, job.id) == "x (60 %, frame \N{CLAPPER BOARD})")
    assert server.inspector.job(job.id)["status"] == "done"
