"""The pytest plugin, in runs of its own: as users have it, found by its entry point."""

from __future__ import annotations

import re
from typing import Any

import pytest

HOOK = """
    import httpx
    import pytest
    from aioftrackjobs import AsyncSession, Job, job_context
    from aioftrackjobs.testing import Drop

    async def hook(session):
        async with job_context(session, description="Publish") as job:
            await job.attach(b"bytes", name="report.txt")
"""
USES = """
    {mark}
    async def test_done_although_an_answer_is_lost(ftrack_server, ftrack_session):
        ftrack_server.faults.inject(Drop(applied=True), on="writes")
        await hook(ftrack_session)
        (job,) = ftrack_server.jobs()
        assert (job["status"], job["description"], job["user"]) == ("done", "Publish", "developer")
        assert ftrack_server.content(job["attachments"][0]["id"]) == b"bytes"
        assert [each.fault for each in ftrack_server.faults.injected] == [Drop(applied=True)]

    {mark}
    async def test_server_is_as_new(ftrack_server, ftrack_session):
        assert ftrack_server.jobs() == []
        assert await ftrack_session.query("Job").all() == []
        assert ftrack_server.find("FileComponent") == []
        assert ftrack_server.faults.injected == ftrack_server.faults.planned == ()
"""


@pytest.mark.parametrize(
    ("mark", "options", "passed"),
    [
        pytest.param("@pytest.mark.asyncio", ("-o", "asyncio_mode=strict"), 2, id="asyncio-strict"),
        pytest.param("", ("-o", "asyncio_mode=auto"), 2, id="asyncio-auto"),
        pytest.param(
            "",
            ("-o", "asyncio_mode=auto", "-o", "asyncio_default_test_loop_scope=session"),
            2,
            id="asyncio-one-loop",
        ),
        pytest.param("@pytest.mark.asyncio(loop_scope='module')", (), 2, id="asyncio-loop-scope"),
        pytest.param("@pytest.mark.anyio", ("-p", "no:asyncio"), 4, id="anyio-on-both-loops"),
        pytest.param("@pytest.mark.anyio", (), 4, id="anyio-beside-pytest-asyncio"),
        pytest.param("", ("-o", "anyio_mode=auto", "-p", "no:asyncio"), 4, id="anyio-auto"),
    ],
)
def test_fixtures_work_with(runs: Any, mark: str, options: tuple[str, ...], passed: int) -> None:
    result = runs.run(HOOK + USES.format(mark=mark), *options)

    result.assert_outcomes(passed=passed)


def test_other_clients_find_the_server_without_an_event_loop(runs: Any) -> None:
    tests = """
    import os
    import ftrack_api

    def test_by_arguments(ftrack_server, ftrack_credentials):
        with ftrack_api.Session(
            *ftrack_credentials, schema_cache_path=False, plugin_paths=[]
        ) as session:
            session.create("Job", {"user": session.query("User").first(), "status": "done"})
            session.commit()
        assert [job["status"] for job in ftrack_server.jobs()] == ["done"]
        assert ftrack_credentials.api_key not in repr(ftrack_credentials)

    def test_by_the_environment(ftrack_server, ftrack_environment):
        assert AsyncSession().server_url == os.environ["FTRACK_SERVER"] == ftrack_server.url
        assert os.environ["FTRACK_API_USER"] == "developer"

    def test_environment_is_as_before():
        assert "FTRACK_SERVER" not in os.environ
    """

    result = runs.run(HOOK + tests, "-W", "ignore::DeprecationWarning")

    result.assert_outcomes(passed=3)


def test_failing_test_shows_the_seed_that_brings_its_faults_back(runs: Any) -> None:
    tests = """
    def test_seldom(ftrack_server):
        ftrack_server.faults.inject(Drop(), probability=0.5)
        ends = []
        for _ in range(40):
            try:
                ends.append(httpx.get(ftrack_server.url).status_code)
            except httpx.TransportError:
                ends.append(0)
        assert ends == [], f"ends {ends}"

    def test_passes(ftrack_server):
        ftrack_server.faults.inject(Drop())

    def test_fails_without_a_server():
        assert False
    """

    first = runs.run(HOOK + tests)
    (seed,) = re.findall(r"--ftrack-seed=(\d+)", first.stdout.str())  # of one test only
    second = runs.run(HOOK + tests, f"--ftrack-seed={seed}", "-k", "seldom")

    first.assert_outcomes(failed=2, passed=1)
    first.stdout.fnmatch_lines(
        ["*- ftrack faults -*", f"seed {seed}; injected:*", "1. Drop(*GET /"]
    )
    ends = [re.findall(r"ends (\[.*?\])", run.stdout.str())[0] for run in (first, second)]
    assert ends[0] == ends[1]


def test_failing_test_shows_the_faults_of_each_of_its_servers(runs: Any) -> None:
    tests = """
    def test_fails(ftrack_server, ftrack_fake_server):
        ftrack_server.faults.inject(Drop())
        with pytest.raises(httpx.TransportError):
            httpx.get(ftrack_server.url)
        assert ftrack_fake_server.faults.injected
    """
    result = runs.run(HOOK + tests)
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(
        ["seed *", "1. Drop(*", "seed *; injected: nothing", "repeat with --ftrack-seed=*"]
    )


def test_reset_between_tests_takes_less_than_20_ms(runs: Any) -> None:
    tests = """
    import time
    from statistics import median

    @pytest.mark.anyio
    async def test_times(ftrack_server):
        times = []
        for _ in range(15):
            async with ftrack_server.session() as session:
                await hook(session)
            assert len(ftrack_server.jobs()) == 1
            start = time.perf_counter()
            ftrack_server.reset()
            times.append(time.perf_counter() - start)
            assert ftrack_server.jobs() == []
        print(f"median {median(times) * 1000:.1f} ms, worst {max(times) * 1000:.1f} ms")
        assert median(times) < 0.020
    """

    result = runs.run(HOOK + tests, "-s", "-p", "no:asyncio")

    result.assert_outcomes(passed=2)


def test_a_run_that_does_not_use_it_imports_nothing_of_it(runs: Any) -> None:
    tests = """
    import sys

    def test_modules(pytestconfig):
        assert pytestconfig.pluginmanager.has_plugin("aioftrackjobs")
        ours = {name.split(".")[1] for name in sys.modules if name.startswith("aioftrackjobs.")}
        assert ours == {"_version", "pytest_plugin"}
        assert not {"httpx", "pydantic", "sqlalchemy", "starlette", "uvicorn"} & set(sys.modules)
    """

    result = runs.run(tests, "-p", "no:respx")

    result.assert_outcomes(passed=1)


def test_fake_server_has_no_socket(runs: Any) -> None:
    tests = """
    import socket

    @pytest.mark.anyio
    async def test_without_sockets(ftrack_fake_server, monkeypatch):
        monkeypatch.setattr(socket.socket, "connect", None)
        ftrack_fake_server.faults.inject(Drop(applied=True), on="writes")
        async with ftrack_fake_server.session() as session:
            await hook(session)
        assert [job["status"] for job in ftrack_fake_server.jobs()] == ["done"]
    """

    result = runs.run(HOOK + tests, "-p", "no:asyncio")

    result.assert_outcomes(passed=2)


def test_missing_extra_is_told_with_what_to_install(runs: Any) -> None:
    tests = """
    import sys
    import pytest

    sys.modules["uvicorn"] = None

    @pytest.mark.parametrize("name", ["ftrack_server", "ftrack_fake_server", "ftrack_credentials"])
    def test_needs_a_server(request, name):
        request.getfixturevalue(name)
    """

    result = runs.run(tests)

    result.assert_outcomes(failed=3)
    assert result.stdout.str().count('pip install "aioftrackjobs[server]"') >= 3


def test_session_without_a_plugin_for_async_tests_says_what_to_do(runs: Any) -> None:
    tests = """
    def test_sync(ftrack_session):
        pass
    """

    result = runs.run(HOOK + tests, "-p", "no:asyncio")

    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["*mark the test with pytest.mark.anyio, or install*"])
