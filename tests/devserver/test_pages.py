"""The pages for browsers: who may see them, what they show, and what can be done there."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from html import escape, unescape
from typing import Any

import anyio
import httpx
import pytest

from aioftrackjobs import AsyncSession, job_context
from aioftrackjobs.devserver import Limits, ServerHandle, running
from aioftrackjobs.devserver.faults.kinds import Drop
from aioftrackjobs.devserver.pages import jobs, streams
from aioftrackjobs.devserver.serving import uvicorn_server
from aioftrackjobs.errors import JobStoppedError

from .browsing import HTML, Visitor, add_job, lease, visiting
from .caller import Caller, delete, update
from .test_start_errors import ALL
from .waiting import until


@pytest.fixture
async def visitor(server: ServerHandle) -> AsyncIterator[Visitor]:
    async with visiting(server) as visitor:
        yield visitor


async def test_programs_are_told_what_the_server_is(server: ServerHandle) -> None:
    async with httpx.AsyncClient(base_url=server.url) as http:
        response = await http.get("/")

    assert response.json().keys() == {"server", "next", "url", "api"}
    assert response.json()["url"] == server.url


async def test_no_page_is_shown_and_nothing_is_done_without_a_log_in(
    remote: Caller, server: ServerHandle
) -> None:
    job = await add_job(remote, description="Secret")
    async with httpx.AsyncClient(base_url=server.url, headers=HTML) as http:
        visitor = Visitor(http)
        pages = [
            await visitor.get(path)
            for path in ("/", f"/pages/jobs/{job}", "/pages/stream", "/pages/status")
        ]
        done = [
            await visitor.submit(path, reason="no", job=job)
            for path in (f"/pages/jobs/{job}/stop", "/pages/lost", "/pages/logout")
        ]
        static = await visitor.get("/pages/static/pages.css")

    assert [page.status_code for page in pages] == [200, 401, 401, 401]
    assert [response.status_code for response in done] == [401, 401, 401]
    assert not any("Secret" in response.text for response in (*pages, *done))
    assert all("API key" in response.text for response in (*pages, *done))
    assert "stop" not in server.inspector.job(job)["data"]
    assert static.status_code == 200


@pytest.mark.parametrize(
    ("user", "key"),
    [("maya", "wrong"), ("maya", "{own}"), ("nobody", "{own}"), ("", ""), ("ma\0ya", "{own}")],
)
async def test_a_log_in_needs_the_key_of_the_user(
    server: ServerHandle, user: str, key: str
) -> None:
    async with httpx.AsyncClient(base_url=server.url) as http:
        key = key.replace("{own}", server.api_key)
        response = await Visitor(http).submit("/pages/login", user=user, key=key)

    assert response.status_code == 401
    assert "set-cookie" not in response.headers
    assert f'name="user" value="{escape(user or server.api_user)}"' in response.text
    assert not key or key not in response.text


async def test_the_cookie_is_for_no_script_and_no_other_page(server: ServerHandle) -> None:
    async with httpx.AsyncClient(base_url=server.url) as http:
        visitor = Visitor(http)
        fields = {"user": server.api_user, "key": server.api_key}
        targets = ("/pages/requests", "//evil.test", "https://evil.test", "/\\evil.test", "")
        responses = [await visitor.submit("/pages/login", next=each, **fields) for each in targets]

    cookie = responses[0].headers["set-cookie"]
    assert {"HttpOnly", "SameSite=strict", "Path=/"} <= set(cookie.split("; "))
    assert cookie.startswith(f"aioftrackjobs-{http.base_url.port}=")
    assert server.api_key not in cookie
    assert [each.headers["location"] for each in responses] == ["/pages/requests", *4 * ["/"]]


async def test_a_log_in_ends_with_the_key_the_user_or_a_change(
    server: ServerHandle, remote: Caller, visitor: Visitor
) -> None:
    name = f"aioftrackjobs-{visitor.http.base_url.port}"
    cookie = visitor.http.cookies[name]
    until, user, signature = cookie.split(".")
    odd = (
        f"{int(until) + 1}.{user}.{signature}",
        f"{until}.bWF5YQ==.{signature}",
        f"{until}.{user}.{signature[:-1]}{int(signature[-1] == '0')}",
        f"1.{user}.{signature}",
        "", "..", "a.b.c", "1.%.é", f"{'9' * 5000}.{user}.{signature}",
    )  # fmt: skip
    async with httpx.AsyncClient(base_url=server.url) as http:
        for each in odd:
            headers = [("accept", "text/html"), ("cookie", f"{name}={each}".encode())]
            assert "API key" in (await http.get("/", headers=headers)).text, each  # type: ignore[arg-type]
    async with visiting(server, "maya") as maya:
        (found,) = await remote.query('User where username is "maya"')
        await remote.update("User", found["id"], is_active=False)
        assert "API key" in (await maya.get("/")).text
    (found,) = await remote.query(f'User where username is "{remote.user}"')
    assert "API key" not in (await visitor.get("/")).text
    await remote.call(
        {
            "action": "reset_remote",
            "reset_type": "api_key",
            "entity_type": "User",
            "entity_key": found["id"],
        }
    )
    assert "API key" in (await visitor.get("/")).text


async def test_a_log_in_outlives_the_server_if_the_key_does() -> None:
    async with running(api_key="kept") as first, visiting(first) as visitor:
        cookies, port = visitor.http.cookies, visitor.http.base_url.port
    async with (
        running(api_key="kept", port=port or 0) as second,
        httpx.AsyncClient(base_url=second.url, cookies=cookies) as http,
    ):
        assert "API key" not in (await Visitor(http).get("/")).text


async def test_other_pages_cannot_use_the_cookie(server: ServerHandle, visitor: Visitor) -> None:
    """Not those of another port of this machine either, to which browsers send it."""
    reading = [
        {"origin": "http://localhost:3000"},
        {"origin": "null"},
        {"sec-fetch-site": "same-site", "sec-fetch-mode": "cors"},
        {"sec-fetch-site": "cross-site", "sec-fetch-mode": "no-cors"},
    ]
    for headers in reading:
        assert (await visitor.get("/", **headers)).status_code == 403, headers
    link = {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate"}
    assert (await visitor.get("/", **link)).status_code == 200
    own = {"origin": server.url, "sec-fetch-site": "same-origin"}
    assert (await visitor.get("/", **own)).status_code == 200

    fields = {"token": visitor.token}
    for headers in (*reading, link):
        response = await visitor.http.post("/pages/lost", data=fields, headers=HTML | headers)
        assert response.status_code == 403, headers
    for token in ("", "wrong", visitor.token[:-1]):
        response = await visitor.submit("/pages/lost", token=token)
        assert response.status_code == 403, token
        assert "reload the page" in response.text
    assert (await visitor.submit("/pages/lost")).status_code == 303


async def test_no_page_may_run_what_is_no_file_of_the_server(
    remote: Caller, visitor: Visitor
) -> None:
    job = await add_job(remote, description="x")
    for path in ("/", f"/pages/jobs/{job}", "/pages/jobs/none", "/pages/status"):
        headers = (await visitor.get(path)).headers
        policy = headers["content-security-policy"]
        assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self'")
        assert "frame-ancestors 'none'" in policy
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["cache-control"] == "no-store"


ODD = "<script>alert(1)</script>\"'&{{7*7}}<img src=x onerror=alert(2)>"


async def test_what_a_job_holds_is_text(
    server: ServerHandle, remote: Caller, visitor: Visitor
) -> None:
    data: Any = {
        "description": f"{ODD} (5 %, {ODD})",
        "base_description": ODD,
        "progress": 0.05,
        "lease": lease(60, host=ODD),
        "stop": {"by": ODD, "reason": ODD, "at": ODD},
        ODD: ODD,
    }
    job = await add_job(remote, **data)
    async with AsyncSession(server.url, server.api_key, server.api_user) as session:
        component = await session.create_component(ODD.encode(), name=f"{ODD.replace('/', '')}.txt")
        session.create("JobComponent", {"job_id": job, "component_id": component.id})
        await session.commit()
    async with visitor.stream("/pages/stream") as updates:
        update = await anext(updates)
    pages = [(await visitor.get(path)).text for path in ("/", f"/pages/jobs/{job}", f"/?q={ODD}")]

    for page in (*pages, *update["rows"], *update["parts"]):
        assert "<script>alert" not in page
        assert "<img src=x" not in page
    assert all("&lt;script&gt;alert(1)" in page for page in pages)


async def test_files_of_jobs_cannot_run_in_the_page(server: ServerHandle, visitor: Visitor) -> None:
    content = b"<script>alert(document.cookie)</script>"
    async with AsyncSession(server.url, server.api_key, server.api_user) as session:
        async with job_context(session, description="x") as job:
            file = await job.attach(content, name='évil".html')
    response = await visitor.get(f"/pages/files/{file.id}")

    assert response.content == content
    assert response.headers["content-type"] == "application/octet-stream"
    assert response.headers["content-disposition"].startswith("attachment; ")
    assert response.headers["content-security-policy"] == "default-src 'none'; sandbox"
    assert response.headers["x-content-type-options"] == "nosniff"
    for path in ("none", "..%2f..%2fetc%2fpasswd", "%00"):
        assert (await visitor.get(f"/pages/files/{path}")).status_code == 404


async def test_jobs_are_filtered_and_searched(remote: Caller, visitor: Visitor) -> None:
    await add_job(remote, "done", user="maya", ago=50, description='Render élan 100% "a\\b" c_d')
    await add_job(remote, "queued", user="noor", ago=40, description="Publish sq010")
    await add_job(remote, "running", ago=30, description="Copy", lease=lease(60, host="farm11"))
    lost = await add_job(remote, "running", ago=20, description="Simulate", lease=lease(-5))
    await add_job(remote, "failed", ago=10)

    expected = {
        "": ["Api job", "Simulate", "Copy", "Publish sq010", 'Render élan 100% "a\\b" c_d'],
        "?status=queued": ["Publish sq010"],
        "?status=lost": ["Simulate"],
        "?status=nonsense&user=noor": ["Publish sq010"],
        "?user=nobody": [],
        "?user=maya&status=failed": [],
        "?q=É": ['Render élan 100% "a\\b" c_d'],
        "?q=100%25": ['Render élan 100% "a\\b" c_d'],
        '?q="a\\b" c_d': ['Render élan 100% "a\\b" c_d'],
        "?q=c%25d": [],
        "?q=FARM11": ["Copy"],
        "?q=noor": ["Publish sq010"],
        f"?q={lost}": ["Simulate"],
        "?q=lease": [],
        "?q=') or 1=1": [],
    }
    assert {query: await visitor.titles(f"/{query}") for query in expected} == expected


async def test_what_changes_is_sent_and_nothing_else(remote: Caller, visitor: Visitor) -> None:
    first = await add_job(remote, "queued", description="First")
    await add_job(remote, "queued", user="maya", description="Of another")
    since = (await visitor.get("/?user=developer&status=queued")).text
    stream = since.split('data-stream="')[1].split('"')[0].replace("&amp;", "&")
    async with visitor.stream(stream) as updates:
        second = await add_job(remote, "queued", description="Second")
        update_ = await anext(updates)
        assert (len(update_["rows"]), update_["gone"], update_["is_all"]) == (1, [], False)
        assert "Second" in update_["rows"][0]
        await remote.call(update("Job", first, status="running"))
        assert (await anext(updates))["gone"] == [f"job-{first}"]
        await remote.call(delete("Job", second))
        assert (await anext(updates))["gone"] == [f"job-{second}"]
        (user,) = await remote.query('User where username is "maya"')
        await remote.call(update("User", user["id"], first_name="M"))  # no Job: nothing is sent
        await add_job(remote, "queued", description="Third")
        assert "Third" in (await anext(updates))["rows"][0]


async def test_a_stream_begins_with_what_was_missed(
    server: ServerHandle, remote: Caller, visitor: Visitor
) -> None:
    await add_job(remote, description="First")
    page = (await visitor.get("/")).text
    since = page.split("since=")[1].split('"')[0]
    await add_job(remote, description="Second")
    async with visitor.stream(f"/pages/stream?since={since}") as updates:
        missed = await anext(updates)
    everything = []
    for position in ("", "x", "0-0", f"{since}9", f"{since[:-1]}-1", "é"):
        async with visitor.stream(f"/pages/stream?since={position}") as updates:
            everything.append(await anext(updates))

    assert (len(missed["rows"]), missed["is_all"]) == (1, False)
    assert [(len(each["rows"]), each["is_all"]) for each in everything] == 6 * [(2, True)]


async def test_a_lease_that_ends_is_sent(
    remote: Caller, visitor: Visitor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streams, "_BEAT", 0.05)
    async with visitor.stream("/pages/stream") as updates:
        await anext(updates)
        await add_job(remote, description="Dying", lease=lease(0.3))
        while True:
            update_ = await anext(updates)
            if any("is-lost" in row for row in update_["rows"]):
                break

    assert "Fail 1 lost" in update_["parts"][0]


async def test_streams_are_bounded() -> None:
    async with (
        running(limits=Limits(page_streams=3)) as server,
        visiting(server) as visitor,
        AsyncExitStack() as stack,
    ):
        for _ in range(3):
            await stack.enter_async_context(visitor.stream("/pages/stream"))
        for path in ("/pages/stream", "/pages/status"):
            refused = await visitor.get(path)
            assert (refused.status_code, refused.headers["retry-after"]) == (503, "5")
            assert "3 pages are kept up to date already" in refused.text
        assert (await visitor.get("/")).status_code == 200
        await stack.aclose()
        with anyio.fail_after(10):
            while (await visitor.get("/pages/status")).status_code != 204:  # noqa: ASYNC110
                await anyio.sleep(0.01)


async def test_an_open_stream_does_not_hold_up_a_reset(
    remote: Caller, server: ServerHandle, visitor: Visitor
) -> None:
    saved = server.inspector.save()
    await add_job(remote, description="Gone")
    async with visitor.stream("/pages/stream") as updates:
        assert len((await anext(updates))["rows"]) == 1
        await anyio.to_thread.run_sync(server.inspector.restore, saved)
        update_ = await anext(updates)
        assert (update_["rows"], update_["is_all"]) == ([], True)


async def test_an_open_stream_does_not_hold_up_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uvicorn_server, "_STOP_GRACE", 1000)
    async with AsyncExitStack() as looking:
        async with running() as server:
            visitor = await looking.enter_async_context(visiting(server))
            updates = await looking.enter_async_context(visitor.stream("/pages/stream"))
            await anext(updates)
        assert [update async for update in updates] == [], "the stream has ended, too"


async def test_no_fault_is_injected_into_pages(server: ServerHandle, visitor: Visitor) -> None:
    server.faults.inject(Drop(), on="any", probability=1)
    assert (await visitor.get("/")).status_code == 200
    assert (await visitor.submit("/pages/lost")).status_code == 303
    assert server.faults.injected == ()


async def test_a_running_job_is_stopped(server: ServerHandle, visitor: Visitor) -> None:
    async with AsyncSession(server.url, server.api_key, server.api_user) as session:
        with pytest.raises(JobStoppedError, match="stopped by developer: wrong shot"):
            async with job_context(session, description="Render", interval=0.05) as job:
                path = f"/pages/jobs/{job.id}"
                too_long = await visitor.submit(f"{path}/stop", reason="x" * 201)
                assert too_long.status_code == 422
                assert f'value="{"x" * 201}"' in too_long.text
                assert "A reason takes 200 characters, not 201." in too_long.text
                done = await visitor.submit(f"{path}/stop", reason=" wrong\n shot ")
                assert (done.status_code, done.headers["location"]) == (303, path)
                assert "requested by developer: wrong shot" in (await visitor.get(path)).text
                while True:
                    job.advance()
                    await anyio.sleep(0.02)

    again = await visitor.submit(f"/pages/jobs/{job.id}/stop")
    assert again.status_code == 409
    assert "This Job has ended already: it is failed." in again.text


@pytest.mark.parametrize(
    ("data", "kept"),
    [
        ({"description": "Render", "mine": [1]}, {"description": "Render", "mine": [1]}),
        ("no JSON", {"previous_data": "no JSON"}),
        ("[1]", {"previous_data": "[1]"}),
        (None, {}),
    ],
)
async def test_a_stop_keeps_what_others_have_written(
    remote: Caller, server: ServerHandle, visitor: Visitor, data: object, kept: object
) -> None:
    job = await add_job(remote, "running")
    text = json.dumps(data) if isinstance(data, dict) else data
    await remote.update("Job", job, data=text)
    assert (await visitor.submit(f"/pages/jobs/{job}/stop")).status_code == 303

    found = server.inspector.job(job)["data"]
    stop = found.pop("stop")
    assert (stop.keys(), stop["by"], found) == ({"by", "at"}, "developer", kept)


async def test_a_stop_stays_until_the_owner_has_seen_it(
    remote: Caller, server: ServerHandle, visitor: Visitor
) -> None:
    """An owner writes all data of its Job, as it read them before the stop."""

    def data() -> dict[str, Any]:
        found: dict[str, Any] = server.inspector.job(job)["data"]
        return found

    async def overwrite(**changes: Any) -> None:
        await remote.update("Job", job, data=json.dumps({**read_before, **changes}))

    job = await add_job(remote, "running", description="Render", lease=lease(30))
    read_before = data()
    assert (await visitor.submit(f"/pages/jobs/{job}/stop", reason="no")).status_code == 303
    for number in range(3):
        await overwrite(description=f"Render ({number} %)", lease=lease(31 + number))
        await until(lambda: "stop" in data())
    assert (data()["stop"]["reason"], data()["description"]) == ("no", "Render (2 %)")

    await overwrite(stop=data()["stop"], lease=lease(40))  # read after the stop
    await overwrite(description="the next run of the Job", lease=lease(41))
    await visitor.get("/")
    assert "stop" not in data()
    assert (await visitor.submit(f"/pages/jobs/{job}/stop")).status_code == 303
    await remote.update("Job", job, status="queued")
    await remote.update("Job", job, status="running", data=json.dumps(read_before))
    await visitor.get("/")
    assert "stop" not in data()


@pytest.mark.parametrize("status", ["queued", "running"])
async def test_a_job_that_nobody_runs_and_that_is_stopped_fails_at_once(
    remote: Caller, server: ServerHandle, visitor: Visitor, status: str
) -> None:
    job = await add_job(remote, status, description="Render", lease=lease(-30))
    await visitor.submit(f"/pages/jobs/{job}/stop", reason="not now")

    found = server.inspector.job(job)
    assert found["status"] == "failed"
    assert found["description"] == "Render - failed: stopped by developer: not now"
    assert "lease" not in found["data"]


async def test_there_is_a_page_with_older_jobs(
    remote: Caller, visitor: Visitor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jobs, "MOST_ROWS", 2)
    for number in range(5):
        await add_job(remote, "done", description=f"Job {number}")
    pages, path = list[list[str]](), "/?status=done"
    while path:
        pages.append(await visitor.titles(path))
        found = re.search(r'href="(/\?[^"]*start=[^"]*)"', (await visitor.get(path)).text)
        path = unescape(found[1]) if found else ""
    assert [len(page) for page in pages] == [2, 2, 1]
    assert sorted(title for page in pages for title in page) == [
        f"Job {number}" for number in range(5)
    ]
    assert "data-stream" not in (await visitor.get("/?start=4")).text
    for odd in ("-1", "x", "9" * 30, "٣"):
        assert (await visitor.get(f"/?start={odd}")).status_code == 200


async def test_a_job_that_was_deleted_meanwhile_is_not_there(
    remote: Caller, visitor: Visitor
) -> None:
    job = await add_job(remote)
    await visitor.get(f"/pages/jobs/{job}")
    await remote.call(delete("Job", job))
    responses = [
        await visitor.get(f"/pages/jobs/{job}"),
        await visitor.submit(f"/pages/jobs/{job}/stop"),
    ]
    assert [each.status_code for each in responses] == [404, 404]
    assert all("There is no such Job" in each.text for each in responses)
    assert (await visitor.submit("/pages/lost", job=job)).status_code == 303


async def test_lost_jobs_are_failed_and_no_others(
    remote: Caller, server: ServerHandle, visitor: Visitor
) -> None:
    data: Any = {"description": "Render (5 %)", "base_description": "Render", "progress": 0.05}
    lost = await add_job(remote, lease=lease(-30), **data)
    of_maya = await add_job(remote, user="maya", lease=lease(-30))
    alive = await add_job(remote, lease=lease(30), **data)
    without = await add_job(remote, **data)
    done = await add_job(remote, "done", lease=lease(-30))
    response = await visitor.submit("/pages/lost", user="developer")

    assert response.headers["location"] == "/?user=developer&lost=1"
    page = (await visitor.get(response.headers["location"])).text
    assert "1 lost Job was failed." in page
    known = {job["id"]: job for job in server.inspector.jobs()}
    statuses = [known[each]["status"] for each in (lost, of_maya, alive, without, done)]
    assert statuses == ["failed", "running", "running", "running", "done"]
    found = known[lost]
    assert found["description"].startswith(
        "Render (5 %) - failed: worker process ended unexpectedly on farm07 at "
    )
    assert found["data"]["base_description"] == "Render"
    assert found["data"]["recovered"].keys() == {"holder", "at", "by"}
    assert "lease" not in found["data"]
    assert found["finished_at"] is not None
    await visitor.submit("/pages/lost", job=alive)
    await visitor.submit("/pages/lost", job=of_maya)
    assert server.inspector.job(alive)["status"] == "running"
    assert server.inspector.job(of_maya)["status"] == "failed"


async def test_odd_forms_are_refused(server: ServerHandle, visitor: Visitor) -> None:
    too_big = await visitor.submit("/pages/lost", x="x" * 300_000)
    too_many = await visitor.submit("/pages/lost", **{f"x{n}": "" for n in range(3001)})
    odd = await visitor.http.post("/pages/lost", content=b"token=\xff", headers=HTML)
    assert [each.status_code for each in (too_big, too_many, odd)] == [413, 400, 400]
    assert (await visitor.get("/pages/lost")).status_code == 405
    async with await anyio.connect_tcp("127.0.0.1", visitor.http.base_url.port or 0) as stream:
        await stream.send(b"POST /pages/login HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nu")
    assert (await visitor.get("/")).status_code == 200


async def test_odd_data_of_jobs_end_no_page(remote: Caller, visitor: Visitor) -> None:
    """Whatever other programs keep in a Job."""
    odd = (
        None, "", "x" * 5000, "[]", "null", "{", '{"description": 5}', '{"description": ["a"]}',
        '{"progress": "half", "lease": 3, "stop": "now"}', '{"progress": NaN}',
        '{"progress": 1e999}', '{"progress": -4}', '{"progress": true}',
        '{"lease": {"until": "yesterday"}}', '{"lease": {"until": "0001-01-01T00:00:00+14:00"}}',
        '{"lease": {"until": "2026-01-01T00:00:00"}}', '{"stop": {"by": ["x"], "reason": 1}}',
        '{"lease": {"host": {"a": 1}, "pid": null, "until": 5}}', '{"base_description": 1}',
        '{"description": "a", "base_description": "a", "lease": {"until": "2999-01-01T00:00:00Z"}}',
    )  # fmt: skip
    ids = []
    for each in odd:
        job = await add_job(remote)
        await remote.update("Job", job, data=each)
        ids.append(job)
    async with visitor.stream("/pages/stream") as updates:
        assert len((await anext(updates))["rows"]) == len(odd)
        for job in ids:
            await remote.call(update("Job", job, data='{"progress": 0.5}'))
        assert await anext(updates)
    assert len(await visitor.titles()) == len(odd)
    for job in ids:
        await remote.update("Job", job, data=odd[ids.index(job)])
        assert (await visitor.get(f"/pages/jobs/{job}")).status_code == 200


@pytest.mark.skipif(not ALL.exists(), reason="the recorded schemas are not beside the checkout")
async def test_pages_show_what_the_schemas_of_a_real_server_have() -> None:
    async with (
        running(schemas=ALL) as server,
        visiting(server) as visitor,
        httpx.AsyncClient(base_url=server.url) as http,
    ):
        api = Caller(http, server.api_user, server.api_key)
        job = await add_job(api, description="Render", lease=lease(60))
        assert await visitor.titles() == ["Render"]
        assert await visitor.titles("/?q=render&user=developer&status=running") == ["Render"]
        assert (await visitor.submit(f"/pages/jobs/{job}/stop")).status_code == 303
        assert "stop" in server.inspector.job(job)["data"]
        for path in ("/pages/requests", "/pages/actions"):
            assert (await visitor.get(path)).status_code == 200


async def test_pages_of_a_server_without_jobs_say_so() -> None:
    rig = {"id": "Rig", "primary_key": ["id"], "properties": {"id": {"type": "string"}}}
    async with running(schemas=[rig], empty=True) as server, visiting(server) as visitor:
        codes = [(await visitor.get(path)).status_code for path in ("/", "/pages/actions")]
        assert codes == [422, 422]
        assert "Job" in (await visitor.get("/")).text
        assert (await visitor.get("/pages/requests")).status_code == 200
