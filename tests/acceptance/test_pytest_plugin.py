"""The pytest plugin in separate runs of pytest, which find it by its entry point.

A run takes seconds. So tests that want the same options share one, and each looks at its own
part of what came out.
"""

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
    async def test_done_although_a_response_is_lost(ftrack_server, ftrack_session):
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
OTHER_CLIENTS = """
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
WITHOUT_SOCKETS = """
    import socket

    @pytest.mark.anyio
    async def test_without_sockets(ftrack_fake_server, monkeypatch):
        monkeypatch.setattr(socket.socket, "connect", None)
        ftrack_fake_server.faults.inject(Drop(applied=True), on="writes")
        async with ftrack_fake_server.session() as session:
            await hook(session)
        assert [job["status"] for job in ftrack_fake_server.jobs()] == ["done"]
"""
FAULTS = """
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
TWO_SERVERS = """
    def test_fails(ftrack_server, ftrack_fake_server):
        ftrack_server.faults.inject(Drop())
        with pytest.raises(httpx.TransportError):
            httpx.get(ftrack_server.url)
        assert ftrack_fake_server.faults.injected
"""
LOOP_SCOPES = ("function", "class", "module", "package", "session")


@pytest.fixture(scope="module")
def both(all_runs: Any) -> Any:
    """One run with both plugins for async tests installed, each test marked for one of them."""
    files = {
        f"asyncio_{scope}": HOOK + USES.format(mark=f"@pytest.mark.asyncio(loop_scope='{scope}')")
        for scope in LOOP_SCOPES
    }
    files |= {
        "asyncio": HOOK + USES.format(mark="@pytest.mark.asyncio"),
        "anyio": HOOK + USES.format(mark="@pytest.mark.anyio"),
        "clients": HOOK + OTHER_CLIENTS,
        "fake": HOOK + WITHOUT_SOCKETS,
        "two": HOOK + TWO_SERVERS,
        "faults": HOOK + FAULTS,
    }
    # The official client imports what is deprecated.
    options = ("-o", "asyncio_mode=strict", "-W", "ignore::DeprecationWarning")
    return all_runs.run(files, *options)


@pytest.mark.parametrize("scope", LOOP_SCOPES)
def test_fixtures_work_on_each_loop_of_pytest_asyncio(both: Any, scope: str) -> None:
    assert both.of(f"asyncio_{scope}") == ["passed"] * 2


def test_fixtures_work_with_pytest_asyncios_strict_mode(both: Any) -> None:
    assert both.of("asyncio") == ["passed"] * 2


def test_fixtures_work_with_anyio_beside_pytest_asyncio(both: Any) -> None:
    assert both.of("anyio") == ["passed"] * 4  # on two event loops


def test_other_clients_find_the_server_without_an_event_loop(both: Any) -> None:
    assert both.of("clients") == ["passed"] * 3


def test_fake_server_has_no_socket(both: Any) -> None:
    assert both.of("fake") == ["passed"] * 2


def test_failing_test_shows_the_faults_of_each_of_its_servers(both: Any) -> None:
    assert both.of("two") == ["failed"]
    both.shows("seed *", "1. Drop(*", "seed *; injected: nothing", "repeat with --ftrack-seed=*")


def test_fixtures_work_with_pytest_asyncios_auto_mode(all_runs: Any) -> None:
    """One event loop for the whole run; the runs of others have one for each test."""
    options = ("-o", "asyncio_mode=auto", "-o", "asyncio_default_test_loop_scope=session")
    run = all_runs.run({"auto": HOOK + USES.format(mark="")}, *options)

    assert run.of("auto") == ["passed"] * 2


def test_fixtures_work_with_anyio_alone(all_runs: Any) -> None:
    """With its auto mode and with marks. A test that no plugin runs fails with a hint."""
    sync = """
    def test_sync(ftrack_session):
        pass
    """
    files = {
        "auto": HOOK + USES.format(mark=""),
        "marked": HOOK + USES.format(mark="@pytest.mark.anyio"),
        "sync": HOOK + sync,
    }

    run = all_runs.run(files, "-o", "anyio_mode=auto", "-p", "no:asyncio")

    assert run.of("auto") == run.of("marked") == ["passed"] * 4
    assert run.of("sync") == ["error"]
    run.shows("*mark the test with pytest.mark.anyio, or install*")


def test_failing_test_shows_the_seed_that_repeats_its_faults(both: Any, all_runs: Any) -> None:
    (shown,) = re.findall(r"\n_+ test_seldom _+\n(.*?)\n_+ test_", both.out, re.DOTALL)
    (seed,) = re.findall(r"--ftrack-seed=(\d+)", shown)
    again = all_runs.run({"faults": HOOK + FAULTS}, f"--ftrack-seed={seed}", "-k", "seldom")

    assert sorted(both.of("faults")) == ["failed", "failed", "passed"]
    both.shows("*- ftrack faults -*", f"seed {seed}; injected:*", "1. Drop(*GET /")
    assert both.out.count("--ftrack-seed=") == 2, "also for a test without faults"
    ends = [re.findall(r"ends (\[.*?\])", text)[0] for text in (shown, again.out)]
    assert ends[0] == ends[1]


def test_a_run_imports_nothing_before_it_is_used_and_names_the_extra_that_is_missing(
    all_runs: Any,
) -> None:
    unused = """
    import sys

    def test_modules(pytestconfig):
        assert pytestconfig.pluginmanager.has_plugin("aioftrackjobs")
        ours = {name.split(".")[1] for name in sys.modules if name.startswith("aioftrackjobs.")}
        assert ours == {"_version", "pytest_plugin"}
        assert not {"httpx", "pydantic", "sqlalchemy", "starlette", "uvicorn"} & set(sys.modules)
    """
    missing = """
    import sys
    import pytest

    @pytest.mark.parametrize("name", ["ftrack_server", "ftrack_fake_server", "ftrack_credentials"])
    def test_needs_a_server(request, name):
        sys.modules["uvicorn"] = None
        request.getfixturevalue(name)
    """

    run = all_runs.run({"a_unused": unused, "b_missing": missing})

    assert run.of("a_unused") == ["passed"]
    assert run.of("b_missing") == ["failed"] * 3
    assert run.out.count('pip install "aioftrackjobs[server]"') >= 3
