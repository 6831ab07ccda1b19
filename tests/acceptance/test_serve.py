"""``aioftrackjobs serve``: an embedded server for other programs."""

from __future__ import annotations

import json
import shlex
import signal
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from aioftrackjobs import AsyncSession, Job, ServerError, job_context

SERVE = ("-m", "aioftrackjobs.cli", "serve")
POSIX = pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")

pytestmark = POSIX


async def _exported(program: Any) -> dict[str, str]:
    """Return the variables that a shell would have after the printed lines."""
    await program.shows("Serving until Ctrl-C")
    lines = [shlex.split(line) for line in program.out.splitlines()]
    assert [words[0] for words in lines] == ["export"] * 3
    return dict(words[1].split("=", 1) for words in lines)


def _open(variables: dict[str, str]) -> AsyncSession:
    return AsyncSession(
        variables["FTRACK_SERVER"], variables["FTRACK_API_KEY"], variables["FTRACK_API_USER"]
    )


async def test_printed_lines_are_all_that_a_session_needs(launch: Callable[..., Any]) -> None:
    variables = await _exported(launch(*SERVE, "--port", "0"))

    async with _open(variables) as session:
        user = await session.current_user()

    assert user.username == variables["FTRACK_API_USER"]


async def test_user_and_key_can_be_chosen(launch: Callable[..., Any]) -> None:
    program = launch(*SERVE, "--port", "0", "--api-user", "farm", "--api-key", "it's a secret")

    variables = await _exported(program)

    assert variables["FTRACK_API_USER"] == "farm"
    assert variables["FTRACK_API_KEY"] == "it's a secret"
    async with _open(variables) as session:
        assert (await session.current_user()).username == "farm"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_signal_ends_it_quietly(launch: Callable[..., Any], number: signal.Signals) -> None:
    program = launch(*SERVE, "--port", "0")
    await _exported(program)

    program.send(number)

    assert await program.end() == 0
    assert program.err == "Serving until Ctrl-C. Paste these lines into another shell.\n"


async def test_database_and_storage_are_there_next_time(
    launch: Callable[..., Any], tmp_path: Path
) -> None:
    kept = ("--database", str(tmp_path / "studio.db"), "--storage", str(tmp_path / "files"))
    first = launch(*SERVE, "--port", "0", *kept)
    async with (
        _open(await _exported(first)) as session,
        job_context(session, description="Kept") as job,
    ):
        await job.attach(b"bytes that stay", name="kept.bin")
    first.send(signal.SIGTERM)
    await first.end()

    second = launch(*SERVE, "--port", "0", *kept)
    async with _open(await _exported(second)) as session:
        found = await session.get(Job, job.id)
        assert found is not None
        await session.populate(found, "job_components.component_id")
        (link,) = found["job_components"]
        copy = await session.download(link["component_id"], tmp_path / "copy.bin")

    assert found.status == "done"
    assert copy.read_bytes() == b"bytes that stay"


async def test_schemas_of_a_studio_are_served(
    launch: Callable[..., Any], session: AsyncSession, tmp_path: Path
) -> None:
    rig = {"id": "Rig", "primary_key": ["id"], "properties": {"id": {"type": "string"}}}
    path = tmp_path / "schemas.json"
    path.write_text(json.dumps([*await session.schemas(), rig]))

    variables = await _exported(launch(*SERVE, "--port", "0", "--schemas", str(path)))

    async with _open(variables) as other:
        assert "Rig" in [schema["id"] for schema in await other.schemas()]


async def test_empty_server_with_a_fixture_holds_that_and_no_more(
    launch: Callable[..., Any], tmp_path: Path
) -> None:
    path = tmp_path / "fixture.json"
    path.write_text(json.dumps([{"__entity_type__": "Status", "id": "wip", "name": "Working"}]))

    variables = await _exported(launch(*SERVE, "--port", "0", "--empty", "--fixture", str(path)))

    async with _open(variables) as session:
        assert [status["name"] for status in await session.query("Status").all()] == ["Working"]
        assert [each["username"] for each in await session.query("User").all()] == ["developer"]
        assert len(await session.query("Location").all()) == 5


async def test_address_that_others_reach_takes_a_flag_and_a_key(
    launch: Callable[..., Any],
) -> None:
    program = launch(*SERVE, "--port", "0", "--host", "0.0.0.0", "--public")

    assert await program.end() == 1
    assert program.out == ""
    assert program.err.startswith("aioftrackjobs: cannot serve on 0.0.0.0:0: other machines")
    assert "--api-key" in program.err
    assert program.err.count("\n") == 1


async def test_with_both_it_is_served(launch: Callable[..., Any]) -> None:
    options = ("--host", "0.0.0.0", "--public", "--api-key", "chosen")

    variables = await _exported(launch(*SERVE, "--port", "0", *options))

    assert variables["FTRACK_SERVER"].startswith("http://127.0.0.1:")
    async with _open(variables) as session:
        assert (await session.current_user()).username == "developer"


async def test_bigger_files_than_allowed_are_refused(
    launch: Callable[..., Any], tmp_path: Path
) -> None:
    variables = await _exported(launch(*SERVE, "--port", "0", "--max-upload", "1"))
    path = tmp_path / "film.mov"
    path.write_bytes(bytes(1024 * 1024 + 1))

    async with _open(variables) as session:
        with pytest.raises(ServerError, match="A file takes 1048576 bytes at most"):
            await session.create_component(path)


async def test_faults_happen_and_their_seed_is_told(launch: Callable[..., Any]) -> None:
    program = launch(*SERVE, "--port", "0", "--fault", "refuse:1x:on=writes", "--seed", "42")
    variables = await _exported(program)

    async with _open(variables) as session:
        for _ in range(2):
            session.create(Job, {"user": await session.current_user(), "status": "done"})
        with pytest.raises(ServerError, match="Refused by an injected fault"):
            await session.commit()
        await session.commit()
        assert len(await session.query("Job").all()) == 2

    assert program.err.startswith("Injecting faults with --seed 42.\n")


async def test_unknown_fault_is_one_line_with_a_hint(launch: Callable[..., Any]) -> None:
    program = launch(*SERVE, "--port", "0", "--fault", "drop-afer:0.1")

    assert await program.end() == 1
    assert program.out == ""
    assert program.err == (
        "aioftrackjobs: cannot inject the fault 'drop-afer:0.1': there is no fault 'drop-afer';"
        " did you mean drop-after?\n"
    )


async def test_port_in_use_is_one_line(launch: Callable[..., Any]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        program = launch(*SERVE, "--port", str(port))

        assert await program.end() == 1

    assert program.out == ""
    assert program.err.startswith(f"aioftrackjobs: cannot serve on 127.0.0.1:{port}: ")
    assert program.err.count("\n") == 1


@pytest.mark.parametrize(
    ("option", "content", "reason"),
    [
        pytest.param("--database", "this is a poem", "file is not a database", id="database"),
        pytest.param("--database", None, "unable to open database file", id="no-folder"),
        pytest.param("--storage", "a file", "File exists", id="storage-is-a-file"),
        pytest.param("--schemas", None, "No such file or directory", id="no-schemas"),
        pytest.param("--schemas", "[{", "no JSON", id="schemas-cut-off"),
        pytest.param("--schemas", '{"id": "Job"}', "no list of schemas", id="one-schema"),
        pytest.param("--schemas", '[{"id": "Job"}]', "no list of schemas", id="schema-without-key"),
        pytest.param("--fixture", None, "No such file or directory", id="no-fixture"),
        pytest.param("--fixture", '[{"id": "Job"}]', "entry 1: It must be", id="no-entity"),
    ],
)
async def test_unusable_file_is_one_line(
    launch: Callable[..., Any], tmp_path: Path, option: str, content: str | None, reason: str
) -> None:
    path = tmp_path / "missing" / "file" if content is None else tmp_path / "file"
    if content is not None:
        path.write_text(content)

    program = launch(*SERVE, "--port", "0", option, str(path))

    assert await program.end() == 1
    assert program.out == ""
    assert program.err.startswith(("aioftrackjobs: cannot use ", "aioftrackjobs: cannot load "))
    assert str(path) in program.err
    assert reason in program.err
    assert program.err.count("\n") == 1
