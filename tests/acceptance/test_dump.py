"""``aioftrackjobs dump`` and ``schemas``: the content of a server in files for ``serve``."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from anyio.to_thread import run_sync

from aioftrackjobs import AsyncSession, job_context
from aioftrackjobs.cli.arguments import UnusablePathError
from aioftrackjobs.cli.dump import read_entities, write_dump
from aioftrackjobs.devserver import ServerHandle, running
from aioftrackjobs.protocol.schemas import schema_hash

CLI = ("-m", "aioftrackjobs.cli")
ALL = Path(__file__).parents[3] / "shared" / "schemas" / "all.json"

Entity = dict[str, Any]


async def _entities(server: ServerHandle, *types: str) -> list[Entity]:
    async with AsyncSession(server.url, server.api_key, server.api_user) as session:
        return [entity async for entity in read_entities(session, types)]


def _sorted(entities: list[Entity]) -> list[str]:
    return sorted(json.dumps(entity, sort_keys=True) for entity in entities)


async def _work(session: AsyncSession) -> None:
    """Create a Job with an attachment, a custom attribute and a secret."""
    async with job_context(session, description="Transcode") as job:
        await job.attach(b"some bytes", name="log.txt")
    rows: dict[str, dict[str, Any]] = {
        "Metadata": {"parent_id": job.id, "parent_type": "Job", "key": "colour", "value": "é"},
        "Setting": {"group": "render", "name": "threads", "value": "4"},
        "CustomAttributeConfiguration": {
            "key": "due",
            "entity_type": "task",
            "config": "{}",
            "default": datetime(2026, 2, 3, tzinfo=UTC),
        },
    }
    for kind, data in rows.items():
        session.create(kind, data)
    session.create("Setting", {"group": "render", "name": "license_token", "value": "hidden"})
    await session.commit()


@pytest.fixture(params=["built-in", "recorded"])
def schemas(request: pytest.FixtureRequest) -> list[Entity] | None:
    if request.param == "built-in":
        return None
    if not ALL.exists():
        pytest.skip("the recorded schemas are not here")
    documents: list[Entity] = json.loads(ALL.read_text())
    return documents


async def test_what_is_dumped_is_served_again(
    schemas: list[Entity] | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "dump.json"
    with monkeypatch.context() as long_ago:
        long_ago.setattr(
            "aioftrackjobs.devserver.mutations.defaults.now_text", lambda: "2020-01-01T00:00:00"
        )
        before, count = await _dumped(schemas, path)
    assert count == len(before)
    assert _sorted(before) == _sorted(json.loads(path.read_text()))

    empty = schemas is None  # with both schemas, neither of the two is different
    async with running(schemas=schemas, empty=empty, fixture=path) as server:
        after = await _entities(server)
        async with AsyncSession(server.url, server.api_key, server.api_user) as session:
            statuses = await session.query("select state.name from Status").all()

    assert _sorted(after) == _sorted(before)
    assert statuses
    assert all(status["state"]["name"] for status in statuses)


async def test_rows_of_several_types_are_dumped_once(schemas: list[Entity] | None) -> None:
    """Two entity types contain the values of a custom attribute, and two contain the links."""
    async with running(schemas=schemas) as server:
        async with AsyncSession(server.url, server.api_key, server.api_user) as session:
            shot, task = [
                (await session.query(f"select id from {kind}").all())[0]["id"]
                for kind in ("Shot", "Task")
            ]
            data = {"key": "fps", "entity_type": "task", "config": "{}", "default": 24}
            session.create("CustomAttributeConfiguration", data)
            link = {"key": "cast", "entity_type": "task", "entity_type_to": "task", "config": "{}"}
            made = session.create("CustomAttributeLinkConfiguration", link)
            ends = {"from_id": shot, "from_entity_type": "Shot"}
            ends |= {"to_id": task, "to_entity_type": "Task"}
            link_id = session.create(
                "CustomAttributeLinkFrom", {"configuration_id": made["id"], **ends}
            )["id"]
            session.create("NoteCategory", {"name": "of the test"})
            await session.commit()
        entities = await _entities(server)

    assert len([each for each in entities if each.get("name") == "of the test"]) == 1
    values = [
        (each["configuration_id"], each["entity_id"])
        for each in entities
        if "value" in each and "entity_id" in each
    ]
    assert len(values) == len(set(values)) > 1
    (linked,) = [each for each in entities if each.get("id") == link_id]
    assert linked.items() >= ends.items()


async def _dumped(schemas: list[Entity] | None, path: Path) -> tuple[list[Entity], int]:
    """Dump a server with content; return the entities, and the number that the dump reports."""
    async with running(schemas=schemas) as server:
        async with AsyncSession(server.url, server.api_key, server.api_user) as session:
            await _work(session)
        before = await _entities(server)
        source = AsyncSession(server.url, server.api_key, server.api_user, journal="")
        return before, await write_dump(source, [], path)


async def test_api_keys_and_other_secrets_are_not_dumped(
    session: AsyncSession, server: ServerHandle
) -> None:
    await _work(session)

    text = json.dumps(await _entities(server))

    assert "threads" in text
    assert "license_token" not in text
    assert "hidden" not in text
    assert not [key for key in server.api_keys.values() if key in text]


async def test_times_and_more_than_a_page_are_dumped(
    session: AsyncSession, server: ServerHandle
) -> None:
    for _ in range(1203):
        session.create("Job", {"type": "api_job", "status": "queued"})
    await session.commit()

    jobs = await _entities(server, "Job")

    assert len({job["id"] for job in jobs}) == 1203
    assert jobs[0]["created_at"].keys() == {"__type__", "value"}


async def test_rows_that_are_deleted_during_a_dump_hide_no_others(
    session: AsyncSession, server: ServerHandle
) -> None:
    for _ in range(1203):
        session.create("Job", {"type": "api_job", "status": "queued"})
    await session.commit()
    found: list[Any] = []

    async with AsyncSession(server.url, server.api_key, server.api_user) as reading:
        async for row in read_entities(reading, ["Job"]):
            found.append(row["id"])
            if len(found) == 400:
                for job in await session.query(f"Job where id <= '{found[-1]}'").all():
                    session.delete(job)
                await session.commit()

    assert len(found) == len(set(found)) == 1203


async def test_dump_of_some_types_goes_to_a_file_or_to_stdout(
    launch: Callable[..., Any], command: Callable[..., Any], ftrack: dict[str, str], tmp_path: Path
) -> None:
    path = tmp_path / "dump.json"
    options = ("--type", "UserType", "--type", "State")
    to_file = launch(*CLI, "dump", *options, str(path), env=ftrack)
    to_stdout = await run_sync(partial(command, "dump", *options, "-", env=ftrack))

    assert await to_file.end() == 0, to_file.err
    assert to_stdout.code == 0, to_stdout.err

    entities = json.loads(path.read_text())
    assert {entity["__entity_type__"] for entity in entities} == {"UserType", "State"}
    assert to_stdout.out == path.read_text()
    assert to_file.err == f"Wrote {len(entities)} entities.\n"
    assert to_file.out == ""


async def test_a_dump_replaces_only_regular_files_and_keeps_their_mode(
    server: ServerHandle, tmp_path: Path
) -> None:
    remote = AsyncSession(server.url, server.api_key, server.api_user, journal="")
    link, real, pipe = tmp_path / "link", tmp_path / ("x" * 250), tmp_path / "pipe"
    real.touch(mode=0o640)
    real.chmod(0o640)
    link.symlink_to(real)
    os.mkfifo(pipe)

    with pytest.raises(UnusablePathError, match="no regular file"):
        await write_dump(remote, ["User"], pipe)
    await write_dump(remote, ["User"], link)

    assert link.is_symlink()
    assert json.loads(real.read_text())
    assert stat.S_IMODE(real.stat().st_mode) == 0o640
    assert pipe.is_fifo()
    assert len(list(tmp_path.iterdir())) == 3


async def test_failed_dump_leaves_the_file_as_it_was(
    command: Callable[..., Any], ftrack: dict[str, str], tmp_path: Path
) -> None:
    async def dump(*options: str, code: int, env: dict[str, str] | None = None) -> Any:
        ended = await run_sync(partial(command, "dump", *options, env=env))
        assert ended.code == code
        assert ended.err.startswith("aioftrackjobs: ")
        assert ended.err.count("\n") == 1
        return ended

    folder = tmp_path / "dumps"
    folder.mkdir()
    path = folder / "dump.json"
    path.write_text("earlier")

    unknown = await dump("--type", "Jobb", str(path), code=1, env=ftrack)
    await dump("--api-key", "wrong", str(path), code=1, env=ftrack)
    nowhere = await dump(str(folder / "missing" / "dump.json"), code=2, env=ftrack)
    unset = await dump(str(path), code=2)

    assert "Jobb" in unknown.err
    assert "FILE" in nowhere.err
    assert "FTRACK_SERVER" in unset.err
    assert [each.name for each in folder.iterdir()] == ["dump.json"]
    assert path.read_text() == "earlier"


async def test_schemas_of_a_server_can_be_served(
    launch: Callable[..., Any], server: ServerHandle
) -> None:
    program = launch(
        *(*CLI, "schemas", "--server", server.url, "--api-user", server.api_user),
        *("--api-key", server.api_key),
    )
    assert await program.end() == 0, program.err

    documents = json.loads(program.out)
    async with (
        running(schemas=documents) as other,
        AsyncSession(other.url, other.api_key, other.api_user) as session,
    ):
        information = await session.server_information()
    assert information["schema_hash"] == schema_hash(documents)
