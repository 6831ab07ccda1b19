"""Injected faults, as a client on a real socket sees them."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from functools import partial
from itertools import pairwise
from typing import Any

import anyio
import httpx
import pytest
from anyio.to_thread import run_sync

from aioftrackjobs.devserver import Faults, ServerHandle, create_app
from aioftrackjobs.devserver.api import dispatcher
from aioftrackjobs.devserver.faults import kinds
from aioftrackjobs.devserver.faults.kinds import (
    FAULTS,
    WRITING,
    BadGateway,
    Corrupt,
    Delay,
    Drop,
    Fault,
    Hang,
    HtmlPage,
    LosePower,
    NotAtomic,
    Refuse,
    Restart,
    SeenRequest,
    Throttle,
    TooManyRequests,
    Truncate,
)
from aioftrackjobs.devserver.faults.middleware import FaultMiddleware
from aioftrackjobs.devserver.serving import handle

from .caller import Caller, create, new_id, query, ref, update
from .waiting import until

CALL = SeenRequest("POST", "/api", "call", ({"action": "query"},))
COMMIT = SeenRequest("POST", "/api", "call", ({"action": "create", "entity_type": "Job"},))


@pytest.fixture
async def remote(server: ServerHandle) -> AsyncIterator[Caller]:
    """A caller with a short time-out and a new connection for each request."""
    limits = httpx.Limits(max_keepalive_connections=0)
    async with httpx.AsyncClient(base_url=server.url, timeout=10, limits=limits) as http:
        yield Caller(http, server.api_user, server.api_key)


def _jobs(server: ServerHandle) -> int:
    return len(server.inspector.jobs())


class TestAnswers:
    async def test_refused_batch_does_nothing(self, server: ServerHandle, remote: Caller) -> None:
        server.faults.inject(Refuse("PermissionError", "No."))

        assert (await remote.refused(create("Job")))["exception"] == "PermissionError"
        assert _jobs(server) == 0
        await remote.call(create("Job"))
        assert _jobs(server) == 1

    @pytest.mark.parametrize("applied", [False, True])
    @pytest.mark.parametrize("fault", [BadGateway, HtmlPage])
    async def test_proxies_respond_instead(
        self, server: ServerHandle, remote: Caller, fault: Any, *, applied: bool
    ) -> None:
        server.faults.inject(fault(applied=applied))

        response = await remote.post(create("Job"))

        assert response.status_code == (502 if fault is BadGateway else 200)
        assert response.headers["content-type"].startswith("text/")
        assert _jobs(server) == int(applied)

    async def test_too_many_requests_has_retry_after(
        self, server: ServerHandle, remote: Caller
    ) -> None:
        server.faults.inject(TooManyRequests(retry_after=3))

        response = await remote.post(create("Job"))

        assert (response.status_code, response.headers["retry-after"]) == (429, "3")
        assert _jobs(server) == 0

    async def test_early_response_reaches_a_client_that_is_still_uploading(
        self, server: ServerHandle, remote: Caller
    ) -> None:
        url = await _upload_url(remote, bytes(3_000_000))
        server.faults.inject(BadGateway(503), on="uploads")

        assert (await remote.http.put(url, content=bytes(3_000_000))).status_code == 503
        assert (await remote.http.put(url, content=bytes(3_000_000))).status_code == 200


class TestConnections:
    @pytest.mark.parametrize("applied", [False, True])
    async def test_dropped(self, server: ServerHandle, remote: Caller, *, applied: bool) -> None:
        server.faults.inject(Drop(applied=applied))

        with pytest.raises(httpx.TransportError):
            await remote.call(create("Job"))

        assert _jobs(server) == int(applied)

    @pytest.mark.parametrize("applied", [False, True])
    async def test_hanging_until_the_client_gives_up(
        self, server: ServerHandle, remote: Caller, *, applied: bool
    ) -> None:
        remote.http.timeout = httpx.Timeout(20, read=0.3)
        server.faults.inject(Hang(applied=applied))

        with pytest.raises(httpx.ReadTimeout):
            await remote.call(create("Job"))

        await until(lambda: server.faults.injected)
        await until(lambda: _jobs(server) == int(applied))
        await remote.call()

    async def test_truncated_in_the_body(self, server: ServerHandle, remote: Caller) -> None:
        server.faults.inject(Truncate(kept=0.25))

        with pytest.raises(httpx.RemoteProtocolError, match="without sending complete"):
            await remote.call(create("Job"))

        assert _jobs(server) == 1

    async def test_response_without_a_body_is_lost_not_truncated(
        self, server: ServerHandle, remote: Caller
    ) -> None:
        url = await _upload_url(remote, b"content")
        server.faults.inject(Truncate(), on="uploads")

        with pytest.raises(httpx.TransportError):
            await remote.http.put(url, content=b"content")

    async def test_restart_cuts_off_everybody_for_a_while(
        self, server: ServerHandle, remote: Caller
    ) -> None:
        server.faults.inject(Hang(), on="reads")
        ends: list[object] = []

        async def wait_for_a_response() -> None:
            with pytest.raises(httpx.TransportError):
                await remote.query("Job")
            ends.append("cut off")

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(wait_for_a_response)
            with anyio.fail_after(20):
                while not server.faults.injected:  # noqa: ASYNC110 - in another thread
                    await anyio.sleep(0.005)
            server.faults.inject(Restart(1.0), on="writes")
            for _ in range(2):
                with pytest.raises(httpx.TransportError):
                    await remote.call(create("Job"))

        with anyio.fail_after(20):
            while True:
                try:
                    await remote.call(create("Job"))
                    break
                except httpx.TransportError:
                    await anyio.sleep(0.02)
        assert ends == ["cut off"]
        assert _jobs(server) == 1

    def test_power_is_lost_only_by_a_process_of_its_own(self) -> None:
        with pytest.raises(ValueError, match="ServerProcess"):
            Faults().inject(LosePower())

    async def test_a_server_that_cannot_drop_connections_raises(self) -> None:
        app = create_app()
        planned = Faults()
        planned.inject(Drop())
        transport = httpx.ASGITransport(FaultMiddleware(app, planned))
        async with httpx.AsyncClient(transport=transport, base_url="http://ftrack.test") as http:
            with pytest.raises(RuntimeError, match="cannot drop connections"):
                await http.get("/")
        app.state.engine.close()


class TestSpeed:
    @pytest.mark.parametrize("applied", [False, True])
    async def test_delayed(self, server: ServerHandle, remote: Caller, *, applied: bool) -> None:
        server.faults.inject(Delay(0.2, applied=applied))
        start = time.perf_counter()

        await remote.call(create("Job"))

        assert time.perf_counter() - start >= 0.2
        assert _jobs(server) == 1

    async def test_delayed_request_is_done_after_its_client_has_disconnected(
        self, server: ServerHandle, remote: Caller
    ) -> None:
        remote.http.timeout = httpx.Timeout(20, read=0.1)
        server.faults.inject(Delay(1.0))

        with pytest.raises(httpx.ReadTimeout):
            await remote.call(create("Job"))

        assert _jobs(server) == 0
        with anyio.fail_after(20):
            while _jobs(server) == 0:  # noqa: ASYNC110 - in another thread
                await anyio.sleep(0.02)

    async def test_throttled_in_both_directions(self, server: ServerHandle, remote: Caller) -> None:
        content = bytes(100_000)
        url = await _upload_url(remote, content)
        for on in ("uploads", "downloads"):
            server.faults.inject(Throttle(400_000), on=on)
        times = [time.perf_counter()]

        await remote.http.put(url, content=content)
        times.append(time.perf_counter())
        assert (await _download(server, remote)) == content
        times.append(time.perf_counter())

        assert [end - start > 0.2 for start, end in pairwise(times)] == [True, True]


class TestContent:
    async def test_corrupted_part_is_noticed_by_the_digest(
        self, server: ServerHandle, remote: Caller
    ) -> None:
        content = b"bytes of a part " * 10_000
        url = await _upload_url(remote, content, checksum="x6mNiHOuuhs3nHWkPhrDwQ==")
        server.faults.inject(Corrupt())

        response = await remote.http.put(url, content=content)

        assert response.status_code == 400
        assert "MD5" in response.json()["content"]

    async def test_one_byte_is_changed(self, server: ServerHandle, remote: Caller) -> None:
        content = b"bytes of a part " * 10_000
        url = await _upload_url(remote, content)
        server.faults.inject(Corrupt())

        await remote.http.put(url, content=content)

        kept = await _download(server, remote)
        assert sum(one != other for one, other in zip(kept, content, strict=True)) == 1


class TestNotAtomic:
    async def test_refused_batch_keeps_what_was_before(
        self, server: ServerHandle, remote: Caller
    ) -> None:
        ids = [new_id() for _ in range(9)]
        wrong = update("Job", new_id(), status="done")
        operations = [create("Job", id=each) for each in ids]
        server.faults.inject(NotAtomic())

        refusal = await remote.refused(*operations[:7], wrong, *operations[7:])

        assert refusal["exception"] == "EntityNotFoundError"
        assert {job["id"] for job in server.inspector.jobs()} == set(ids[:7])
        assert [each.fault for each in server.faults.injected] == [NotAtomic()]

    async def test_it_waits_for_a_batch_that_is_refused(
        self, server: ServerHandle, remote: Caller
    ) -> None:
        server.faults.inject(NotAtomic())

        await remote.call(create("Job"), create("Job"))
        with anyio.fail_after(20):
            while server.faults.injected:  # noqa: ASYNC110 - given back in another thread
                await anyio.sleep(0.005)
        assert len(server.faults.planned) == 1
        await remote.refused(create("Job"), create("Job", user=ref("User", new_id())))

        assert _jobs(server) == 3
        with anyio.fail_after(20):
            while server.faults.planned:  # noqa: ASYNC110 - in another thread
                await anyio.sleep(0.005)


class TestPlan:
    async def test_kinds_of_requests_are_distinguished(
        self, server: ServerHandle, remote: Caller
    ) -> None:
        seen: list[SeenRequest] = []
        server.faults.inject(Drop(), on=lambda request: bool(seen.append(request)))  # type: ignore[func-returns-value]

        await remote.call(query("Job"))
        await remote.call(create("Job"), query("Job"))
        url = await _upload_url(remote, b"content")
        await remote.http.put(url, content=b"content")
        await _download(server, remote)
        await remote.http.get("/elsewhere")

        assert [(each.kind, each.writes) for each in seen] == [
            ("call", False),
            ("call", True),
            ("call", True),
            ("call", False),
            ("upload", False),
            ("download", False),
            ("other", False),
        ]
        assert str(seen[1]) == "POST /api (create Job, query)"
        shown = "".join(f"{each} {each!r}" for each in seen)
        assert server.api_key not in shown
        assert url.rpartition("/")[2] not in shown

    @pytest.mark.parametrize(
        ("on", "times"),
        [("any", 4), ("calls", 2), ("reads", 1), ("writes", 1), ("uploads", 1), ("downloads", 1)],
    )
    def test_matchers_by_name(self, on: Any, times: int) -> None:
        planned = Faults()
        planned.inject(Drop(), times=9, on=on)
        upload = SeenRequest("PUT", "/upload", "upload")
        download = SeenRequest("GET", "/component/get", "download")

        due = [planned.due(request) for request in (CALL, COMMIT, upload, download)]

        assert sum(each is not None for each in due) == times

    async def test_matcher_that_fails_is_an_error_at_once(
        self, server: ServerHandle, remote: Caller
    ) -> None:
        server.faults.inject(Drop(), on=lambda request: request.operations[7]["action"] == "x")

        response = await remote.post(query("User"))

        assert response.status_code == 400
        assert response.json()["exception"] == "MatcherError"
        assert "Drop(applied=False)" in response.json()["content"]
        assert "IndexError" in response.json()["content"]

    def test_the_first_that_is_due_happens_and_the_next_one_later(self) -> None:
        planned = Faults()
        planned.inject(Drop(), times=2, on="writes")
        planned.inject(Hang())

        happened = [planned.due(request) for request in (CALL, COMMIT, COMMIT, COMMIT)]

        assert [each and each.fault for each in happened] == [Hang(), Drop(), Drop(), None]
        assert [str(each) for each in planned.injected][1:] == [
            "Drop(applied=False) at POST /api (create Job)"
        ] * 2

    def test_same_seed_same_faults_for_any_other_requests(self) -> None:
        def happened(seed: int, others: int) -> list[bool]:
            planned = Faults(seed)
            planned.inject(Drop(), probability=0.3, on="writes")
            ends = []
            for _ in range(50):
                ends.append(planned.due(COMMIT) is not None)
                for _ in range(others):
                    planned.due(CALL)
            return ends

        assert happened(42, others=0) == happened(42, others=3) != happened(43, others=0)
        assert 5 < sum(happened(42, others=0)) < 25

    def test_reset_begins_anew_and_clear_keeps_what_happened(self) -> None:
        planned = Faults(7)
        ends = []
        for _ in range(2):
            planned.inject(Drop(), probability=0.5)
            ends.append([planned.due(CALL) is None for _ in range(20)])
            planned.clear()
            assert planned.due(CALL) is None
            assert len(planned.injected) == ends[-1].count(False)
            planned.reset()

        assert ends[0] == ends[1]
        assert planned.injected == ()
        assert "seed 7; injected: nothing" in planned.report()

    @pytest.mark.parametrize(
        ("plan", "problem"),
        [
            pytest.param({"times": 0}, "times must be", id="never"),
            pytest.param({"probability": 0.0}, "probability must be", id="improbable"),
            pytest.param({"probability": 1.1}, "probability must be", id="more-than-certain"),
            pytest.param({"on": "commits"}, "no requests are called 'commits'", id="unknown"),
        ],
    )
    def test_impossible_plans_are_refused(self, plan: Any, problem: str) -> None:
        with pytest.raises(ValueError, match=problem):
            Faults().inject(Drop(), **plan)

    @pytest.mark.parametrize(
        "make",
        [
            lambda: BadGateway(404),
            lambda: HtmlPage(100),
            lambda: TooManyRequests(-1),
            lambda: Truncate(1.0),
            lambda: Delay(-1),
            lambda: Throttle(0),
            lambda: Restart(-1),
        ],
    )
    def test_impossible_faults_are_refused(self, make: Any) -> None:
        with pytest.raises(ValueError, match="must"):
            make()

    def test_every_fault_is_listed(self) -> None:
        known = [each for each in vars(kinds).values() if isinstance(each, type)]

        assert set(FAULTS) == {each for each in known if issubclass(each, Fault)} - {Fault}
        assert len({fault.name for fault in FAULTS}) == len(FAULTS)

    def test_writing_operations_are_those_that_the_server_knows(self) -> None:
        assert dispatcher._WRITING.keys() == WRITING


class TestInspector:
    async def test_running_requests_do_not_reach_what_is_restored(
        self, server: ServerHandle, remote: Caller
    ) -> None:
        saved = server.inspector.save()
        remote.http.timeout = httpx.Timeout(20, read=0.1)
        server.faults.inject(Delay(0.3), on="writes")
        with pytest.raises(httpx.ReadTimeout):
            await remote.call(create("Job"))

        await run_sync(server.inspector.restore, saved)
        await anyio.sleep(0.4)  # longer than the delay: what must not happen has no sign

        assert _jobs(server) == 0

    @pytest.mark.parametrize("fault", [Delay(0.3, applied=True), Throttle(100)], ids=str)
    async def test_slow_responses_to_earlier_clients_are_dropped(
        self, server: ServerHandle, remote: Caller, fault: Fault
    ) -> None:
        saved = server.inspector.save()
        server.faults.inject(fault)
        ends = []

        async def ask() -> None:
            with pytest.raises(httpx.TransportError):
                await remote.query("User")
            ends.append("lost")

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(ask)
            with anyio.fail_after(20):
                while not server.faults.injected:  # noqa: ASYNC110 - in another thread
                    await anyio.sleep(0.005)
            await run_sync(server.inspector.restore, saved)

        assert ends == ["lost"]

    async def test_upload_that_does_not_end_is_an_error_with_a_hint(
        self, server: ServerHandle, remote: Caller, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(handle, "_SETTLE_TIMEOUT", 0.1)
        url = await _upload_url(remote, bytes(100))
        server.faults.inject(Corrupt())  # its record says that the upload has begun
        over = anyio.Event()

        async def content() -> AsyncIterator[bytes]:
            yield bytes(50)
            await over.wait()
            yield bytes(50)

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(partial(remote.http.put, url, content=content()))
            with anyio.fail_after(20):
                while not server.faults.injected:  # noqa: ASYNC110 - in another thread
                    await anyio.sleep(0.005)
            saved = server.inspector.save()
            with pytest.raises(TimeoutError, match="a client that was not closed"):
                await run_sync(server.inspector.restore, saved)
            over.set()

    async def test_restored_are_entities_keys_and_no_files(
        self, server: ServerHandle, remote: Caller
    ) -> None:
        saved = server.inspector.save()
        url = await _upload_url(remote, b"content")
        await remote.http.put(url, content=b"content")
        (component,) = server.inspector.find("FileComponent")
        assert server.inspector.content(component["id"]) == b"content"
        maya = Caller(remote.http, "maya", server.api_keys["maya"])
        (user,) = await maya.query('User where username is "maya"')
        reset = {"action": "reset_remote", "reset_type": "api_key", "entity_type": "User"}
        await maya.call({**reset, "entity_key": user["id"]})
        assert (await maya.refused(query("User")))["exception"] == "InvalidCredentialsError"

        await run_sync(server.inspector.restore, saved)

        assert server.inspector.find("FileComponent") == []
        assert await maya.query("Job") == []
        assert (await remote.http.put(url, content=b"content")).status_code == 200

    async def test_a_job_by_id_or_entity_and_a_helpful_error(
        self, server: ServerHandle, remote: Caller
    ) -> None:
        job = await remote.create("Job", data='{"description": "Publish"}')

        assert server.inspector.job(job["id"])["description"] == "Publish"
        with pytest.raises(LookupError, match=rf"it holds: {job['id']} \(Publish\)"):
            server.inspector.job("another")


async def _upload_url(remote: Caller, content: bytes, **announced: Any) -> str:
    component = await remote.create("FileComponent", name="file", size=len(content))
    (result,) = await remote.call(
        {"action": "get_upload_metadata", "component_id": component["id"], **announced}
    )
    url: str = result["url"]
    return url


async def _download(server: ServerHandle, remote: Caller) -> bytes:
    (component,) = server.inspector.find("FileComponent")
    query = {"id": component["id"], "username": remote.user, "apiKey": remote.key}
    return (await remote.http.get("/component/get", params=query)).content
