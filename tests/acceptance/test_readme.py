"""The README's examples: the first one runs, all of them are Python, its commands are CI's."""

from __future__ import annotations

import os
import re
import ssl
import subprocess
import sys
from pathlib import Path
from typing import Any

import anyio
import pytest

import aioftrackjobs.pytest_plugin
from aioftrackjobs import AsyncSession, Job
from aioftrackjobs.devserver import running
from aioftrackjobs.devserver.faults import FAULTS

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


async def test_the_first_example_runs_as_it_stands() -> None:
    async with running() as server:
        environment = {
            **os.environ,
            "FTRACK_SERVER": server.url,
            "FTRACK_API_KEY": server.api_key,
            "FTRACK_API_USER": server.api_user,
        }
        done = await anyio.run_process(
            [sys.executable, "-W", "error", "-c", EXAMPLES[0]], env=environment, check=False
        )
        assert done.returncode == 0, done.stderr.decode()

        async with AsyncSession(server.url, server.api_key, server.api_user) as session:
            job = await session.query("Job").of(Job).one()
            await session.populate(job, "job_components.component.name")
    assert (job.status, job.description) == ("done", "Transcode sh010 (100 %, encoding)")
    assert [link["component"]["name"] for link in job["job_components"]] == ["report"]


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda text: text.splitlines()[0])
def test_every_example_is_python(example: str) -> None:
    inside = "".join(f"    {line}\n" for line in example.splitlines())

    code = compile(f"async def example():\n{inside}", "README.md", "exec")

    assert code.co_names == ("example",)


def test_every_proof_that_is_named_is_a_test() -> None:
    table = README.partition("## What happens when")[2].partition("\n## ")[0]
    tests = "".join(path.read_text(encoding="utf-8") for path in ROOT.glob("tests/**/test_*.py"))
    names = re.findall(r"`(test_\w+)(\.\.\.|\.py)?`", table)

    assert len(names) > 10
    for name, more in names:
        if more == ".py":
            assert list(ROOT.glob(f"tests/**/{name}.py")), name
        else:
            assert f"def {name}" + ("" if more else "(") in tests, name


CLIENTS = README.partition("## Bring your own HTTP client")[2].partition("\n## ")[0]


@pytest.mark.parametrize("example", re.findall(r"```python\n(.*?)```", CLIENTS, re.DOTALL))
async def test_the_examples_with_clients_run(example: str, monkeypatch: pytest.MonkeyPatch) -> None:
    names = {
        "AsyncSession": AsyncSession,
        "ssl_context": ssl.create_default_context(),
        "token": "abc",
    }
    inside = "".join(f"    {line}\n" for line in example.splitlines())
    exec(f"async def run():\n{inside}    return client, users", names)
    async with running() as server:
        monkeypatch.setenv("FTRACK_SERVER", server.url)
        monkeypatch.setenv("FTRACK_API_KEY", server.api_key)
        monkeypatch.setenv("FTRACK_API_USER", server.api_user)
        client, users = await names["run"]()  # type: ignore[operator]

    assert users
    assert client.is_closed, "by its own block"


HOOKS = README.partition("## Test your own hooks and daemons")[2].partition("\n## ")[0]


def test_the_example_of_a_test_is_one_that_passes(all_runs: Any) -> None:
    (example,) = re.findall(r"```python\n(.*?)```", HOOKS, re.DOTALL)
    files = {
        plugin: example.replace("mark.anyio", f"mark.{plugin}") for plugin in ("anyio", "asyncio")
    }

    run = all_runs.run(files)

    assert run.of("anyio") == ["passed"] * 2  # it has two event loops
    assert run.of("asyncio") == ["passed"]


def test_every_fault_and_fixture_is_named() -> None:
    faults = {fault.__name__ for fault in FAULTS} - {"LosePower"}  # the business of processes
    fixtures = set(re.findall(r"^\| `(\w+)` \|", HOOKS, re.MULTILINE))

    assert faults <= set(re.findall(r"`(\w+)`", HOOKS))
    assert fixtures == {
        name for name in vars(aioftrackjobs.pytest_plugin) if name.startswith("ftrack_")
    }


def test_ci_calls_the_very_test_command_of_the_readme() -> None:
    commands = re.findall(r"```sh\n(python3 .*?)\n```", README)

    assert len(commands) == 2
    script = ROOT / ".ci" / "run"
    assert commands[1] in script.read_text().splitlines()
    assert subprocess.run(["bash", "-n", script], check=False).returncode == 0
