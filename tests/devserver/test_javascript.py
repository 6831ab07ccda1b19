"""The official JavaScript client, unmodified, does its work against the server under Node.

It is installed from npm once in a test session; where that cannot be done the tests are skipped.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeAlias

import pytest
from anyio.to_thread import run_sync

from aioftrackjobs.devserver import ServerHandle, running
from aioftrackjobs.testing import ServerProcess

from .caller import names_in, stored

PROGRAMS = Path(__file__).parent / "javascript"
#: A server in this process or in one of its own.
Served: TypeAlias = ServerHandle | ServerProcess

_INSTALL_SECONDS = 120
_RUN_SECONDS = 60


@pytest.fixture(scope="session")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the programs and their packages."""
    node, npm = shutil.which("node"), shutil.which("npm")
    if node is None or npm is None:
        pytest.skip("node and npm are needed")
    folder = tmp_path_factory.mktemp("javascript") / "programs"
    shutil.copytree(PROGRAMS, folder, ignore=shutil.ignore_patterns("node_modules"))
    command = [npm, "ci", "--no-audit", "--no-fund", "--ignore-scripts", "--prefer-offline"]
    try:
        installed = subprocess.run(
            command, cwd=folder, capture_output=True, text=True, timeout=_INSTALL_SECONDS
        )
    except subprocess.TimeoutExpired:
        pytest.skip(f"npm did not install the client within {_INSTALL_SECONDS} s")
    if installed.returncode != 0:
        pytest.skip(f"npm could not install the client: {installed.stderr[-300:]}")
    return folder


async def node(server: Served, programs: Path, name: str, *arguments: str) -> Any:
    """Run a program against *server*, and return what it reports."""
    environment = {
        "PATH": os.environ["PATH"],
        "SERVER_URL": server.url,
        "API_USER": server.api_user,
        "API_KEY": server.api_key,
    }

    def run() -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["node", name, *arguments],
            cwd=programs,
            env=environment,
            capture_output=True,
            text=True,
            timeout=_RUN_SECONDS,
        )

    ended = await run_sync(run)
    assert ended.returncode == 0, ended.stderr
    return json.loads(ended.stdout.splitlines()[-1])


@pytest.fixture
async def server() -> AsyncIterator[ServerHandle]:
    async with running() as handle:
        yield handle


@pytest.mark.parametrize("program", ["entities.mjs", "errors.mjs", "options.mjs"])
async def test_sessions_do_their_work(server: ServerHandle, programs: Path, program: str) -> None:
    assert await node(server, programs, program) is None, "it checks by itself, and ends with 0"


async def test_files_are_uploaded_to_a_server_like_a_real_one(
    server: ServerHandle, programs: Path
) -> None:
    assert await node(server, programs, "uploads.mjs", "9000", "1000") == {"inParts": True}


@pytest.mark.parametrize(
    ("size", "chunk", "in_parts"),
    [
        (0, 100, False),
        (1000, 1000, False),
        (2000, 1000, False),
        (100_000, 9_000, True),
        (20 * 2**20, 2**23, True),
    ],
    ids=["empty", "single", "two-chunks", "many-parts", "real-chunks"],
)
async def test_files_are_uploaded_in_one_part_or_many(
    programs: Path, tmp_path: Path, size: int, chunk: int, in_parts: bool
) -> None:
    async with running(storage=tmp_path) as server:
        report = await node(server, programs, "uploads.mjs", str(size), str(chunk))

    assert report == {"inParts": in_parts}
    assert len(names_in(stored(tmp_path))) == 1


async def test_a_wrong_key_rejects_every_call(server: ServerHandle, programs: Path) -> None:
    program = """
        import { open, report } from "./peer.mjs";
        await report(async () => {
          try { await open().query("select id from User"); }
          catch (error) { return error.message; }
        });
    """
    (programs / "wrong_key.mjs").write_text(program)
    handle = replace(server, api_key="wrong")

    assert "not valid" in await node(handle, programs, "wrong_key.mjs")
