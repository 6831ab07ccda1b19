"""The three ends of a commit: applied, not applied, unknown."""

from __future__ import annotations

import json
import pickle
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import anyio
import anyio.lowlevel
import httpx
import pytest
import respx

from aioftrackjobs import (
    AsyncSession,
    CommitUncertainError,
    ConnectError,
    EntityError,
    Job,
    MalformedResponseError,
    ServerError,
    SessionStateError,
    TransportError,
    ValidationError,
)
from aioftrackjobs.config.retry import NO_RETRIES, RetryPolicy
from aioftrackjobs.session import connection_of

from ..tables import Tables, result_of, turns

URL = "http://ftrack.test"
API = f"{URL}/api"


@pytest.fixture
async def session() -> AsyncIterator[AsyncSession]:
    async with AsyncSession(URL, "SECRET-KEY", "maya", retry=NO_RETRIES) as opened:
        yield opened


def applied(request: httpx.Request) -> httpx.Response:
    """Respond as a server that applies everything."""
    return httpx.Response(200, json=[result_of(each) for each in json.loads(request.content)])


def refused(_: httpx.Request) -> httpx.Response:
    content = {"exception": "ValidationError", "content": "status {x} is not allowed"}
    return httpx.Response(200, json=content)


async def test_applied_operations_are_done(
    session: AsyncSession, respx_mock: respx.MockRouter
) -> None:
    route = respx_mock.post(API).mock(side_effect=applied)
    job = session.create(Job, {"status": "running"})

    await session.commit()
    await session.commit()

    assert route.call_count == 1
    assert session.recorded_operations == session.uncertain_operations == ()
    assert job.status == "running"


@pytest.mark.every_client
async def test_the_headers_are_those_of_the_protocol(
    session: AsyncSession, respx_mock: respx.MockRouter
) -> None:
    route = respx_mock.post(API).mock(side_effect=applied)
    session.create(Job, {})
    await session.commit()

    headers = route.calls.last.request.headers
    assert headers["ftrack-user"] == "maya"
    assert headers["ftrack-api-key"] == "SECRET-KEY"
    assert headers["ftrack-strict-api"] == "false"
    assert headers["content-type"] == headers["accept"] == "application/json"


async def test_refused_operations_are_pending_again(
    session: AsyncSession, respx_mock: respx.MockRouter
) -> None:
    route = respx_mock.post(API).mock(side_effect=refused)
    job = session.create(Job, {"status": "running"})
    before = session.recorded_operations

    with pytest.raises(ValidationError) as caught:
        await session.commit()

    assert caught.value.detail == "status {x} is not allowed"
    assert session.recorded_operations == before
    assert session.uncertain_operations == ()
    route.mock(side_effect=applied)
    await session.commit()
    assert session.recorded_operations == ()
    assert job.status == "running"


@pytest.mark.every_client
@pytest.mark.parametrize(
    "error",
    [httpx.ConnectError("refused"), httpx.ConnectTimeout("slow"), httpx.PoolTimeout("full")],
)
async def test_a_commit_that_was_never_sent_is_pending_again(
    session: AsyncSession, respx_mock: respx.MockRouter, error: Exception
) -> None:
    respx_mock.post(API).mock(side_effect=error)
    session.create(Job, {})
    before = session.recorded_operations

    with pytest.raises(ConnectError, match=r"http://ftrack\.test"):
        await session.commit()

    assert session.recorded_operations == before
    assert session.uncertain_operations == ()


@pytest.mark.every_client
@pytest.mark.parametrize(
    ("response", "cause"),
    [
        pytest.param(httpx.ReadTimeout("slow"), TransportError, id="read time-out"),
        pytest.param(httpx.RemoteProtocolError("gone"), TransportError, id="disconnected"),
        pytest.param(httpx.WriteError("broken"), TransportError, id="broken while sending"),
        pytest.param(
            httpx.Response(502, html="<h1>Bad Gateway</h1>"), MalformedResponseError, id="502"
        ),
        pytest.param(httpx.Response(200, html="<p>login</p>"), MalformedResponseError, id="html"),
        pytest.param(
            httpx.Response(200, content=b'[{"action": "cre'), MalformedResponseError, id="truncated"
        ),
        pytest.param(httpx.Response(200, json=[]), MalformedResponseError, id="wrong length"),
    ],
)
async def test_without_a_complete_response_a_commit_is_uncertain(
    session: AsyncSession,
    respx_mock: respx.MockRouter,
    response: Exception | httpx.Response,
    cause: type[Exception],
) -> None:
    route = respx_mock.post(API)
    if isinstance(response, httpx.Response):
        route.respond(response.status_code, content=response.content)
    else:
        route.mock(side_effect=response)
    session.create(Job, {"status": "running"})
    (operation,) = session.recorded_operations

    with pytest.raises(CommitUncertainError) as caught:
        await session.commit()

    assert isinstance(caught.value.__cause__, cause)
    assert caught.value.operations == (operation,)
    assert session.uncertain_operations == (operation,)
    assert session.recorded_operations == ()
    assert route.call_count == 1, "nothing is silently sent twice"
    with pytest.raises(CommitUncertainError):
        await session.commit()
    (sent,) = json.loads(route.calls.last.request.content)
    assert sent["action"] == "query", "the server is asked before anything is sent again"
    assert session.uncertain_operations == (operation,)


async def test_rollback_forgets_uncertain_operations_too(
    session: AsyncSession, respx_mock: respx.MockRouter
) -> None:
    respx_mock.post(API).mock(side_effect=httpx.ReadTimeout("slow"))
    job = session.create(Job, {"status": "running"})
    with pytest.raises(CommitUncertainError):
        await session.commit()

    session.rollback()

    assert session.uncertain_operations == ()
    job["status"] = "done"
    assert session.recorded_operations == ()


@pytest.mark.parametrize("status", [401, 413, 429])
async def test_a_proxys_refusal_is_a_refusal(
    session: AsyncSession, respx_mock: respx.MockRouter, status: int
) -> None:
    respx_mock.post(API).respond(status, html="<h1>No</h1>")
    session.create(Job, {})

    with pytest.raises(ServerError, match=f"HTTP {status}"):
        await session.commit()

    assert len(session.recorded_operations) == 1


async def test_refused_operations_are_pending_before_those_recorded_meanwhile(
    session: AsyncSession, respx_mock: respx.MockRouter
) -> None:
    arrived, go_on = anyio.Event(), anyio.Event()

    async def slowly(request: httpx.Request) -> httpx.Response:
        arrived.set()
        await go_on.wait()
        return refused(request)

    respx_mock.post(API).mock(side_effect=slowly)
    job = session.create(Job, {})
    first = session.recorded_operations

    async def commit() -> None:
        with pytest.raises(ValidationError):
            await session.commit()

    async with anyio.create_task_group() as group:
        group.start_soon(commit)
        await arrived.wait()
        job.description = "meanwhile"
        go_on.set()

    assert session.recorded_operations[:1] == first
    assert len(session.recorded_operations) == 2


@pytest.mark.every_client
async def test_a_commit_cancelled_before_it_is_sent_is_pending_again(
    session: AsyncSession, respx_mock: respx.MockRouter
) -> None:
    route = respx_mock.post(API).mock(side_effect=applied)
    session.create(Job, {})

    with anyio.CancelScope() as scope:
        scope.cancel()
        await session.commit()

    assert len(session.recorded_operations) == 1
    assert route.call_count == 0
    await session.commit()
    assert route.call_count == 1


@pytest.mark.every_client
async def test_a_commit_cancelled_after_it_was_sent_is_settled(
    session: AsyncSession, respx_mock: respx.MockRouter
) -> None:
    arrived, go_on = anyio.Event(), anyio.Event()

    async def slowly(request: httpx.Request) -> httpx.Response:
        arrived.set()
        await go_on.wait()
        return applied(request)

    route = respx_mock.post(API).mock(side_effect=slowly)
    job = session.create(Job, {"status": "running"})
    async with anyio.create_task_group() as group:
        group.start_soon(session.commit)
        await arrived.wait()
        group.cancel_scope.cancel()

    job["status"] = "done"
    go_on.set()
    await session.commit()

    payloads = [json.loads(call.request.content) for call in route.calls]
    assert [[operation["action"] for operation in payload] for payload in payloads] == [
        ["create"],
        ["update"],
    ]
    assert session.uncertain_operations == ()


async def test_commits_of_one_unit_keep_their_order(
    session: AsyncSession, respx_mock: respx.MockRouter
) -> None:
    order: list[str] = []

    async def note(request: httpx.Request) -> httpx.Response:
        (operation,) = json.loads(request.content)
        order.append(f"{operation['entity_data'].get('status')} sent")
        for _ in range(10):
            await anyio.lowlevel.checkpoint()
        order.append(f"{operation['entity_data'].get('status')} done")
        return applied(request)

    respx_mock.post(API).mock(side_effect=note)
    job = session.create(Job, {"status": "queued"})
    async with anyio.create_task_group() as group:
        group.start_soon(session.commit)
        while session.recorded_operations:
            await anyio.lowlevel.checkpoint()
        job["status"] = "running"
        group.start_soon(session.commit)

    assert order == ["queued sent", "queued done", "running sent", "running done"]


@pytest.mark.every_client
async def test_at_most_eight_requests_are_in_progress(
    session: AsyncSession, respx_mock: respx.MockRouter
) -> None:
    under_way, most = 0, 0

    async def note(request: httpx.Request) -> httpx.Response:
        nonlocal under_way, most
        under_way += 1
        most = max(most, under_way)
        for _ in range(20):
            await anyio.lowlevel.checkpoint()
        under_way -= 1
        return httpx.Response(200, json=[{"action": "query", "data": [], "metadata": {}}])

    route = respx_mock.post(API).mock(side_effect=note)
    async with anyio.create_task_group() as group:
        for _ in range(50):
            group.start_soon(session.query("select id from Job").all)

    assert route.call_count == 50
    assert most == 8


async def test_an_endless_paging_is_noticed(
    session: AsyncSession, respx_mock: respx.MockRouter
) -> None:
    row = {"__entity_type__": "Job", "id": "j"}
    respx_mock.post(API).respond(
        json=[{"action": "query", "data": [row], "metadata": {"next": {"offset": 0}}}]
    )

    with pytest.raises(MalformedResponseError, match="never end"):
        await session.query("select id from Job").all()


@pytest.mark.parametrize(
    "result",
    [
        pytest.param({"action": "query"}, id="no data"),
        pytest.param("text", id="no object"),
        pytest.param({"action": "query", "data": [{"__entity_type__": "Job"}]}, id="no key"),
    ],
)
async def test_a_query_result_of_the_wrong_shape_is_named(
    session: AsyncSession, respx_mock: respx.MockRouter, result: object
) -> None:
    respx_mock.post(API).respond(json=[result])

    with pytest.raises(MalformedResponseError):
        await session.query("select id from Job").all()


@pytest.mark.parametrize("metadata", [{}, {"next": {}}, {"next": None}, {"next": {"offset": None}}])
async def test_every_way_to_say_that_no_page_follows_is_understood(
    session: AsyncSession, respx_mock: respx.MockRouter, metadata: dict[str, object]
) -> None:
    row = {"__entity_type__": "Job", "id": "j", "status": "paused", "data": "{"}
    route = respx_mock.post(API).respond(
        json=[{"action": "query", "data": [row], "metadata": metadata}]
    )

    (job,) = await session.query("Job").of(Job).all()

    assert (job.status, job.description) == ("paused", None)
    assert route.call_count == 1


async def test_a_generic_row_whose_key_differs_is_read_by_the_schemas(
    session: AsyncSession, respx_mock: respx.MockRouter
) -> None:
    schema = {"id": "Odd", "primary_key": ["code"], "properties": {"code": {"type": "string"}}}

    def respond(request: httpx.Request) -> httpx.Response:
        (operation,) = json.loads(request.content)
        if operation["action"] == "query_schemas":
            return httpx.Response(200, json=[[schema]])
        rows = [{"__entity_type__": "Odd", "code": "c1"}]
        return httpx.Response(200, json=[{"action": "query", "data": rows, "metadata": {}}])

    respx_mock.post(API).mock(side_effect=respond)

    rows = await session.query("select code from Odd").all()

    assert [row["code"] for row in rows] == ["c1"]
    assert rows[0].primary_key_attributes == ("code",)


# After a lost response: on a transport without sockets


@pytest.fixture
def tables() -> Tables:
    return Tables()


class Time:
    """A clock that advances only by sleeping."""

    def __init__(self) -> None:
        self.now = 0.0
        self.pauses: list[float] = []

    def __call__(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.pauses.append(seconds)
        self.now += seconds
        await anyio.lowlevel.checkpoint()

    def policy(self, budget: float = 60) -> RetryPolicy:
        return RetryPolicy(budget=budget, jitter=0, clock=self, sleep=self.sleep)


@pytest.mark.parametrize(
    "faults",
    [["lost request"], ["lost response"], ["lost response", "lost query", "lost query"]],
    ids=", ".join,
)
async def test_each_operation_is_applied_once_although_a_request_or_response_is_lost(
    tables: Tables, faults: list[str]
) -> None:
    time = Time()
    async with tables.session(retry=time.policy()) as session:
        old, deleted = session.create(Job, {}), session.create(Job, {})
        await session.commit()
        tables.faults.extend(faults)
        tables.applied.clear()

        created = session.create(Job, {"status": "running"})
        old["data"] = "changed"
        session.delete(deleted)
        await session.commit()

        assert session.recorded_operations == session.uncertain_operations == ()
    assert tables.rows.keys() == {old.id, created.id}
    assert tables.data_of(old) == "changed"
    actions = [each["action"] for each in tables.applied]
    assert sorted(set(actions)) == ["create", "delete", "update"]
    assert actions.count("create") == actions.count("delete") == 1, "only updates may be repeated"
    assert tables.refused == []
    assert len(time.pauses) == len(faults)


async def test_reads_are_tried_again(tables: Tables) -> None:
    time = Time()
    async with tables.session(retry=time.policy()) as session:
        tables.faults.extend(["lost query", "lost query"])
        assert await session.query("select id from Job").all() == []
    assert time.pauses == [0.1, 0.2]


async def test_retry_after_is_respected(tables: Tables) -> None:
    time = Time()
    async with tables.session(retry=time.policy()) as session:
        tables.faults.append("busy for 7 s")
        assert await session.query("select id from Job").all() == []
    assert time.pauses == [7]


@pytest.mark.parametrize("status", [429, 502, 503])
@pytest.mark.parametrize("form", ["7", "date"])
async def test_a_commit_respects_retry_after(
    respx_mock: respx.MockRouter, status: int, form: str
) -> None:
    date = format_datetime(datetime.now(UTC) + timedelta(seconds=20), usegmt=True)
    headers = {"retry-after": date if form == "date" else form}
    refusals = [httpx.Response(status, headers=headers, text="later")]
    respx_mock.post(API, content__contains="create").mock(
        side_effect=lambda request: refusals.pop() if refusals else applied(request)
    )
    respx_mock.post(API).respond(json=[{"action": "query", "data": []}])  # is it applied?
    time = Time()
    async with AsyncSession(URL, "SECRET-KEY", "maya", retry=time.policy()) as session:
        session.create(Job, {})
        await session.commit()
    (pause,) = time.pauses
    assert pause == 7 if form == "7" else 10 < pause <= 20


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (400, {}),
        (401, {}),
        (403, {}),
        (404, {}),
        (200, {"exception": "ValidationError", "content": "no"}),
        (500, {"exception": "ServerError", "content": "no"}),
    ],
)
async def test_a_refusal_is_raised_without_a_retry(
    respx_mock: respx.MockRouter, status: int, body: dict[str, str]
) -> None:
    route = respx_mock.post(API, content__contains="create").respond(status, json=body)
    respx_mock.post(API).respond(json=[{"action": "query", "data": []}])
    time = Time()
    async with AsyncSession(URL, "SECRET-KEY", "maya", retry=time.policy()) as session:
        session.create(Job, {})
        with pytest.raises(ServerError):
            await session.commit()
    assert time.pauses == []
    assert route.call_count == 1


async def test_a_retry_after_beyond_the_budget_is_raised_with_its_length(tables: Tables) -> None:
    time = Time()
    async with tables.session(retry=time.policy(budget=5)) as session:
        tables.faults.append("busy for 7 s")
        with pytest.raises(ServerError) as caught:
            await session.query("select id from Job").all()
    assert caught.value.retry_after == 7
    assert time.pauses == []


async def test_a_call_that_must_not_be_repeated_is_not(tables: Tables) -> None:
    time = Time()
    async with tables.session(retry=time.policy()) as session:
        tables.faults.append("lost response")
        with pytest.raises(TransportError):
            await session.call(
                [{"action": "create", "entity_type": "Job", "entity_key": ["x"], "entity_data": {}}]
            )
    assert time.pauses == []
    assert len(tables.applied) == 1


@pytest.mark.parametrize("how", ["resolve", "commit"])
@pytest.mark.parametrize("fault", ["lost request", "lost response"])
async def test_what_stays_unknown_is_settled_when_the_server_is_back(
    tables: Tables, fault: str, how: str
) -> None:
    async with tables.session(retry=Time().policy(budget=0)) as session:
        tables.faults.append(fault)
        job = session.create(Job, {"status": "running"})
        with pytest.raises(CommitUncertainError) as caught:
            await session.commit()
        job["data"] = "later"

        if how == "resolve":
            await caught.value.resolve()
            assert len(session.recorded_operations) == 1
        await session.commit()

        assert session.recorded_operations == session.uncertain_operations == ()
    assert tables.data_of(job) == "later"
    assert tables.rows[job.id]["status"] == "running"
    assert tables.refused == []


@pytest.mark.parametrize("fault", ["lost request", "lost response"])
async def test_what_a_unit_of_work_leaves_uncertain_can_be_resolved(
    tables: Tables, fault: str
) -> None:
    async with tables.session(retry=Time().policy(budget=0)) as session:
        tables.faults.append(fault)
        with pytest.raises(CommitUncertainError) as caught:
            async with session.unit_of_work():
                job = session.create(Job, {"status": "running"})
        await caught.value.resolve()
    assert tables.rows[job.id]["status"] == "running"
    assert tables.refused == []


async def test_a_commit_settles_what_became_uncertain_while_it_waited(tables: Tables) -> None:
    uncertain: list[CommitUncertainError] = []

    async def commit(session: AsyncSession) -> None:
        try:
            await session.commit()
        except CommitUncertainError as error:
            uncertain.append(error)

    async with tables.session(retry=Time().policy(budget=0)) as session:
        for number in range(1, 9):  # on trio, the two are woken in a random order
            tables.faults.append("lost response")
            job = session.create(Job, {})
            with pytest.raises(CommitUncertainError):
                await session.commit()
            job["data"] = "later"
            tables.faults.append("lost request")  # the commit of the first of the two

            async with anyio.create_task_group() as group:
                group.start_soon(commit, session)
                group.start_soon(commit, session)

            assert len(uncertain) == number
            assert session.recorded_operations == session.uncertain_operations == ()
            assert tables.data_of(job) == "later"
            assert tables.refused == []


async def test_an_entity_that_may_be_deleted_cannot_be_changed(tables: Tables) -> None:
    async with tables.session(retry=Time().policy(budget=0)) as session:
        job = session.create(Job, {})
        await session.commit()
        session.delete(job)
        tables.faults.append("lost request")
        with pytest.raises(CommitUncertainError):
            await session.commit()

        with pytest.raises(EntityError, match="to be deleted"):
            job["data"] = "later"
        await session.commit()

    assert not tables.rows


async def test_an_unpickled_error_cannot_be_resolved() -> None:
    error = pickle.loads(pickle.dumps(CommitUncertainError(["x"])))
    assert error.operations == ("x",)
    with pytest.raises(SessionStateError):
        await error.resolve()


async def test_a_commit_that_was_never_sent_can_be_withdrawn_between_two_attempts(
    respx_mock: respx.MockRouter,
) -> None:
    respx_mock.post(API).mock(side_effect=httpx.ConnectError("away"))
    waiting, back = anyio.Event(), anyio.Event()

    async def sleep(_: float) -> None:
        waiting.set()
        await back.wait()

    policy = RetryPolicy(sleep=sleep)
    async with AsyncSession(URL, "SECRET-KEY", "maya", retry=policy) as session:
        session.create(Job, {})
        with anyio.CancelScope() as scope:
            async with anyio.create_task_group() as group:
                group.start_soon(session.commit)
                await waiting.wait()
                scope.cancel()
        assert len(session.recorded_operations) == 1, "pending again"
        session.rollback()
        calls = respx_mock.calls.call_count
        back.set()
        for _ in range(20):
            await anyio.lowlevel.checkpoint()
        assert respx_mock.calls.call_count == calls


@pytest.mark.every_client
async def test_a_query_whose_response_was_lost_is_withdrawn_between_two_attempts(
    tables: Tables,
) -> None:
    waiting = anyio.Event()

    async def sleep(_: float) -> None:
        waiting.set()
        await anyio.sleep_forever()

    tables.faults.append("lost query")
    async with tables.session(retry=RetryPolicy(sleep=sleep)) as session:
        dispatcher = connection_of(session).dispatcher
        async with anyio.create_task_group() as group:
            group.start_soon(session.query("Job").all)
            await waiting.wait()
            assert not dispatcher.is_idle
            group.cancel_scope.cancel()
        await turns()
        assert dispatcher.is_idle, "no worker waits for the next attempt"
        assert not dispatcher._ordinary._workers
