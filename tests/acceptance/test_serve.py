"""``aioftrackjobs serve``: an embedded server for other programs."""

from __future__ import annotations

import errno
import inspect
import json
import re
import shlex
import signal
import socket
import sys
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from aioftrackjobs import AsyncSession, Job, ServerError, devserver, job_context
from aioftrackjobs.devserver import running
from aioftrackjobs.devserver.options import Options

SERVE = ("-m", "aioftrackjobs.cli", "serve")
POSIX = pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")

pytestmark = POSIX


async def _exported(program: Any) -> dict[str, str]:
    """Return the variables that the printed lines set in a shell."""
    await program.shows("Serving until Ctrl-C")
    lines = [shlex.split(line) for line in program.out.splitlines()]
    assert [words[0] for words in lines] == ["export"] * 3
    return dict(words[1].split("=", 1) for words in lines)


def _open(variables: dict[str, str]) -> AsyncSession:
    return AsyncSession(
        variables["FTRACK_SERVER"], variables["FTRACK_API_KEY"], variables["FTRACK_API_USER"]
    )


async def test_it_serves_clients_with_the_printed_variables_until_a_signal(
    launch: Callable[..., Any], tmp_path: Path
) -> None:
    """A second server on the same files has the same data."""
    kept = ("--database", str(tmp_path / "studio.db"), "--storage", str(tmp_path / "files"))
    user = ("--api-user", "farm", "--api-key", "it's a secret")
    faults = ("--fault", "refuse:1x:on=writes", "--seed", "42")
    first = launch(*SERVE, "--port", "0", *kept, *user, *faults)
    variables = await _exported(first)
    assert variables["FTRACK_API_USER"] == "farm"
    assert variables["FTRACK_API_KEY"] == "it's a secret"
    async with _open(variables) as session:
        assert (await session.current_user()).username == "farm"
        session.create(Job, {"user": await session.current_user(), "status": "done"})
        with pytest.raises(ServerError, match="Refused by an injected fault"):
            await session.commit()
        session.rollback()
        async with job_context(session, description="Kept") as job:
            await job.attach(b"bytes that stay", name="kept.bin")
    first.send(signal.SIGINT)
    assert await first.end() == 0
    assert first.err == (
        "Injecting refuse:1x:on=writes with --seed 42.\n"
        "Serving until Ctrl-C. Paste these lines into another shell.\n"
        f"A browser shows the Jobs at {variables['FTRACK_SERVER']}/\n"
        "It holds the demo project; its 116 entity types are built in.\n"
        f"Entities are in {kept[1]}, files in {kept[3]}.\n"
    )

    second = launch(*SERVE, "--port", "0", *kept, "--api-user", "farm")
    async with _open(await _exported(second)) as session:
        (found,) = await session.query("Job").of(Job).all()
        await session.populate(found, "job_components.component_id")
        (link,) = found["job_components"]
        copy = await session.download(link["component_id"], tmp_path / "copy.bin")
    assert (found.id, found.status) == (job.id, "done")
    assert copy.read_bytes() == b"bytes that stay"
    second.send(signal.SIGTERM)
    assert await second.end() == 0
    assert "It holds what its database has; " in second.err


async def test_verbose_logs_each_request_without_secrets(
    launch: Callable[..., Any], tmp_path: Path
) -> None:
    """Operations are named by kind and type; keys and signed addresses are not in the log."""
    fixture = tmp_path / "users.json"
    fixture.write_text(
        '[{"__entity_type__": "User", "username": "ann", "email": "a@b.c", "is_active": true}]'
    )
    program = launch(*SERVE, "--port", "0", "-v", "--empty", "--fixture", str(fixture))
    variables = await _exported(program)
    async with _open(variables) as session:
        async with session.events.subscribe("topic=x"):
            for _ in range(3):
                user = await session.current_user()
                session.create(Job, {"user": user, "status": "done", "data": "y" * 9000})
            await session.commit()
        async with job_context(session, description="With a file") as job:
            await job.attach(b"bytes", name="secret.bin")
            await session.query("select id from Job where data is 'hidden'").all()
        with pytest.raises(ServerError):
            await session.query("select wrong from Job").all()
    await program.shows("developer  event hub disconnected  ")
    program.send(signal.SIGTERM)
    assert await program.end() == 0

    log = program.err
    assert f"It holds 1 entity of {fixture}; " in log
    assert "Entities are in memory, files in a temporary folder, which is gone at the end." in log
    ending = r"  200  \d+ ms$"
    for line in (r"create Job x3" + ending, r"query Job  200  refused: .+  \d+ ms$"):
        assert re.search(rf"^\d\d:\d\d:\d\d  developer  {line}", log, re.MULTILINE)
    assert re.search(r"^\S+  -  PUT /upload" + ending, log, re.MULTILINE)
    assert re.search(r"^\S+  developer  event hub connected$", log, re.MULTILINE)
    for secret in (variables["FTRACK_API_KEY"], "hidden", "/upload/", "websocket/", "yyy"):
        assert secret not in log


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The options with which a command would run the server."""
    options: dict[str, Any] = {}
    signature = inspect.signature(devserver.serve)

    def serve(**given: Any) -> None:
        bound = signature.bind(**given)
        bound.apply_defaults()
        options.update(bound.arguments)
        options.update(options.pop("options", {}))

    monkeypatch.setattr(devserver, "serve", serve)
    return options


def test_without_options_the_server_is_as_in_python(
    command: Callable[..., Any], served: dict[str, Any]
) -> None:
    assert command("serve").code == 0

    defaults = {
        name: parameter.default
        for name, parameter in inspect.signature(running).parameters.items()
        if name not in {"port", "faults", "options"}
    }
    defaults |= {each.name: each.default for each in fields(Options)}
    assert {name: served[name] for name in defaults} == defaults
    assert served["port"] == 8090
    assert served["faults"].planned == ()


def test_options_are_those_of_the_server(
    command: Callable[..., Any], served: dict[str, Any], tmp_path: Path
) -> None:
    rig = {"id": "Rig", "primary_key": ["id"], "properties": {"id": {"type": "string"}}}
    schemas, fixture = tmp_path / "schemas.json", tmp_path / "fixture.json"
    schemas.write_text(json.dumps([rig]))

    ended = command(
        *("serve", "--host", "0.0.0.0", "--port", "0", "--public", "--empty"),
        *("--database", str(tmp_path / "studio.db"), "--storage", str(tmp_path / "files")),
        *("--api-user", "farm", "--api-key", "it's a secret", "--global-api-key", "for all"),
        *("--schemas", str(schemas), "--fixture", str(fixture), "--max-upload", "1"),
        *("--fault", "refuse:1x:on=writes", "--fault", "delay:0.5", "--seed", "42"),
        *("--trusted-host", "ftrack.studio.example"),
    )

    assert (ended.code, ended.out) == (0, "")
    assert ended.err == "Injecting refuse:1x:on=writes, delay:0.5 with --seed 42.\n"
    faults, limits, on_ready = (served.pop(name) for name in ("faults", "limits", "on_ready"))
    assert (len(faults.planned), faults.seed, limits.upload) == (2, 42, 1024 * 1024)
    assert callable(on_ready)
    assert served == {
        "host": "0.0.0.0",
        "port": 0,
        "trusted_hosts": ["ftrack.studio.example"],
        "public": True,
        "empty": True,
        "database": tmp_path / "studio.db",
        "storage": tmp_path / "files",
        "api_user": "farm",
        "api_key": "it's a secret",
        "global_api_key": "for all",
        "schemas": [rig],
        "fixture": fixture,
        "ignore_unknown": False,
    }


def test_public_address_needs_a_flag_and_a_key(command: Callable[..., Any]) -> None:
    ended = command("serve", "--port", "0", "--host", "0.0.0.0", "--public")

    assert (ended.code, ended.out) == (2, "")
    assert ended.err.startswith("aioftrackjobs: cannot serve on 0.0.0.0:0: other machines")
    assert "--api-key" in ended.err
    assert ended.err.count("\n") == 1


def test_unknown_fault_is_one_line_with_a_hint(command: Callable[..., Any]) -> None:
    ended = command("serve", "--port", "0", "--fault", "drop-afer:0.1")

    assert (ended.code, ended.out) == (2, "")
    assert ended.err == (
        "aioftrackjobs: cannot inject the fault 'drop-afer:0.1': there is no fault 'drop-afer';"
        " did you mean drop-after?\n"
    )


def test_port_in_use_is_one_line(command: Callable[..., Any]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        ended = command("serve", "--port", str(port))

    assert (ended.code, ended.out) == (1, "")
    assert ended.err == (
        f"aioftrackjobs: cannot serve on 127.0.0.1:{port}: another program uses this port;"
        " choose another port (--port), or 0 for any free one\n"
    )


@pytest.mark.parametrize(
    ("error", "code", "reason"),
    [
        pytest.param(
            PermissionError(errno.EACCES, "x"), 1, "choose a port from 1024 on", id="port"
        ),
        pytest.param(OSError(errno.EADDRNOTAVAIL, "x"), 1, "does not have this address", id="host"),
        pytest.param(socket.gaierror(-2, "unknown"), 1, "no address here: unknown", id="name"),
        pytest.param(UnicodeError("label too long"), 2, "label too long", id="no-name"),
    ],
)
def test_refused_address_is_one_line(
    command: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
    error: Exception,
    code: int,
    reason: str,
) -> None:
    class Refusing(socket.socket):
        def bind(self, address: Any) -> None:
            raise error

    monkeypatch.setattr("aioftrackjobs.devserver.serving.address.socket.socket", Refusing)
    ended = command("serve", "--port", "80")

    assert (ended.code, ended.out) == (code, "")
    assert ended.err.startswith("aioftrackjobs: cannot serve on 127.0.0.1:80: ")
    assert reason in ended.err
    assert ended.err.count("\n") == 1


@pytest.mark.parametrize(
    ("option", "content", "reason"),
    [
        pytest.param("--database", "this is a poem", "file is not a database", id="database"),
        pytest.param("--database", None, "No such file or directory", id="no-folder"),
        pytest.param("--storage", "a file", "File exists", id="storage-is-a-file"),
        pytest.param("--schemas", None, "No such file or directory", id="no-schemas"),
        pytest.param("--schemas", "[{", "not JSON", id="schemas-cut-off"),
        pytest.param("--schemas", '{"id": "Job"}', "not a list of schemas", id="one-schema"),
        pytest.param(
            "--schemas", '[{"id": "Job"}]', "not a list of schemas", id="schema-without-key"
        ),
        pytest.param("--fixture", None, "No such file or directory", id="no-fixture"),
        pytest.param("--fixture", '[{"id": "Job"}]', "entry 1: It must be", id="no-entity"),
    ],
)
def test_unusable_file_is_one_line(
    command: Callable[..., Any], tmp_path: Path, option: str, content: str | None, reason: str
) -> None:
    path = tmp_path / "missing" / "file" if content is None else tmp_path / "file"
    if content is not None:
        path.write_text(content)

    ended = command("serve", "--port", "0", option, str(path))

    assert (ended.code, ended.out) == (2, "")
    assert ended.err.startswith(("aioftrackjobs: cannot use ", "aioftrackjobs: cannot load "))
    assert str(path) in ended.err
    assert reason in ended.err
    assert ended.err.count("\n") == 1
