"""An option that a server cannot use is one clear error, and leaves nothing behind."""

from __future__ import annotations

import asyncio
import copy
import json
import logging
import pickle
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest

from aioftrackjobs import FtrackJobsError
from aioftrackjobs.devserver import (
    ServerStartError,
    create_app,
    running,
    serve,
)
from aioftrackjobs.devserver.api.request import Caller as Requester
from aioftrackjobs.devserver.engine import Engine
from aioftrackjobs.devserver.options import Options
from aioftrackjobs.devserver.schema.builtin import BUILTIN_SCHEMAS
from aioftrackjobs.devserver.seed import demo_project
from aioftrackjobs.devserver.store.database import Database
from aioftrackjobs.protocol.schemas import schema_hash

from ..amounts import amount
from .caller import Caller, names_in, query

ALL = Path(__file__).parents[3] / "shared" / "schemas" / "all.json"


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where temporary folders are made."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(folder))
    return folder


def started(**options: Any) -> None:
    """Start and stop a server."""

    async def start() -> None:
        async with running(**options):
            pytest.fail("it started")

    asyncio.run(start())


@pytest.mark.parametrize("subject", ["a", None])
@pytest.mark.parametrize(
    "option", ["host", "database", "storage", "schemas", "fixture", "faults", "credentials"]
)
def test_errors_survive_pickling(option: str, subject: str | None) -> None:
    error = ServerStartError(option, subject, "b")

    assert isinstance(error, FtrackJobsError)
    assert str(error).startswith("cannot ")
    assert str(pickle.loads(pickle.dumps(error))) == str(error)


@pytest.mark.parametrize("name", ["taken", "taken/below", "nul\0", "x" * 300])
def test_an_unusable_storage_folder_is_named(tmp_path: Path, name: str) -> None:
    (tmp_path / "taken").write_text("a file")

    with pytest.raises(ServerStartError) as caught:
        started(storage=tmp_path / name)

    assert (caught.value.option, caught.value.subject) == ("storage", str(tmp_path / name))
    assert str(caught.value).startswith(f"cannot store files in {tmp_path}")


def test_an_unusable_folder_for_temporary_files_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "gone"))

    with pytest.raises(ServerStartError, match="cannot make a temporary folder for files: No such"):
        started()


def test_an_unusable_storage_folder_costs_no_database(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("a file")

    with pytest.raises(ServerStartError, match="cannot store files in"):
        started(storage=tmp_path / "taken", database=tmp_path / "ftrack.db")

    assert names_in(tmp_path) == ["taken", "temporary"]


@pytest.mark.parametrize("name", ["gone/ftrack.db", "nul\0", "temporary"])
def test_an_unusable_database_leaves_no_folder(tmp_path: Path, temporary: Path, name: str) -> None:
    with pytest.raises(ServerStartError, match="cannot use the database"):
        started(database=tmp_path / name)

    assert names_in(temporary) == []


def test_a_failure_while_a_store_is_filled_closes_all(
    temporary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> None:
        raise OSError("disk full")

    closed: list[Database] = []
    close = Database.close

    def recorded(store: Database) -> None:
        closed.append(store)
        close(store)

    monkeypatch.setattr("aioftrackjobs.devserver.seed.demo_project.SeedContents.fill", fail)
    monkeypatch.setattr(Database, "close", recorded)

    with pytest.raises(OSError, match="disk full"):
        create_app()

    assert len(closed) == 1
    assert names_in(temporary) == []


@pytest.mark.parametrize("argument", ["api_key", "api_user"])
@pytest.mark.parametrize(
    "value", ["", " ", "kéy", "k\n", "k\0", "\x7f", " key", "key ", "a\tb", 5], ids=repr
)
def test_what_no_header_can_carry_is_refused(argument: str, value: object) -> None:
    ways: tuple[Callable[..., object], ...] = (started, partial(serve, port=0), create_app)
    for start in ways:
        with pytest.raises(ServerStartError) as caught:
            start(**{argument: value})
        assert (caught.value.option, caught.value.subject) == ("credentials", argument)
        assert "key" not in str(caught.value).replace("api_key", "")


def test_a_blank_inside_a_key_is_none_of_the_servers_business() -> None:
    assert create_app(api_key="two words", api_user="ada l").state.engine.api_key == "two words"


def with_changes(**changes: Any) -> list[dict[str, Any]]:
    """Return documents of which the second, B, has *changes*."""
    plain = {"type": "string"}
    properties = {"id": plain, "a_id": {**plain, "default": "x"}, "a": {"$ref": "A"}}
    return [
        {"id": "A", "properties": {"id": plain}, "primary_key": ["id"]},
        {"id": "B", "properties": properties, "primary_key": ["id"], **changes},
    ]


@pytest.mark.parametrize(
    ("schemas", "document", "reason"),
    [
        (5, None, "a list of documents is needed, not a int"),
        ({"id": "A"}, None, "a list of documents is needed, not a dict"),
        ([5], "document 1", "it is not an object but of type int"),
        ([None], "document 1", "it is not an object but of type NoneType"),
        ([{}], "document 1", "id: Field required; properties: Field required; primary_key: "),
        ([{"id": "A"}], "A", "properties: Field required; primary_key: Field required"),
        (with_changes(properties=[]), "B", "properties: Input should be a valid dict"),
        (with_changes(properties={"id": None}), "B", "properties.id: Input should be"),
        (with_changes(properties={"id": {"type": 5}}), "B", "properties.id.type: Input should be"),
        (with_changes(properties={"id": {"$ref": []}}), "B", "properties.id.$ref: Input should be"),
        (with_changes(primary_key="id"), "B", "primary_key: Input should be a valid list"),
        (with_changes(primary_key=[]), "B", "primary_key: List should have at least 1 item"),
        (with_changes(primary_key=[["id"]]), "B", "primary_key.0: Input should be a valid string"),
        (with_changes(primary_key=["key"]), "B", "primary_key: there is no property 'key'"),
        (with_changes(primary_key=["a"]), "B", "primary_key: 'a' is not a plain value"),
        (with_changes(primary_key=["id", "id"]), "B", "it names an attribute twice"),
        (with_changes(required="id"), "B", "required: Input should be a valid list"),
        (with_changes(computed=None), "B", "computed: Input should be a valid list"),
        (with_changes(alias_for={"classifiers": {}}), "B", "alias_for._Alias.id: Field required"),
        (with_changes(note=float("nan")), "B", "it is not JSON"),
        (with_changes(note={1, 2}), "B", "it is not JSON"),
        (with_changes(note="\ud800"), "B", "it is not JSON"),
        (with_changes(id="A"), "A", "there are two of this name"),
        (with_changes(id="a"), "a", "names that differ by case"),
        (with_changes(id="B C"), "B C", "'B C' cannot be a name"),
        (with_changes(id="sqlite_B"), "sqlite_B", "cannot be the name of a type"),
        (with_changes(**{"$mixin": {"$ref": 5}}), "B", "$mixin.$ref: Input should be"),
    ],
)
def test_a_malformed_document_is_named(schemas: Any, document: str | None, reason: str) -> None:
    with pytest.raises(ServerStartError) as caught:
        started(schemas=schemas)

    assert (caught.value.option, caught.value.subject) == ("schemas", document)
    assert reason in caught.value.reason


@pytest.mark.parametrize(
    ("fragment", "reason"),
    [
        ({"type": "integer", "default": "x"}, "B.x takes a whole number, not text"),
        ({"type": "boolean", "default": 5}, "B.x takes true or false"),
        ({"type": "integer", "default": 2**70}, "B.x takes a whole number"),
        ({"type": "string", "default": "z", "enum": ["y"]}, "'z' is not a value of B.x"),
    ],
)
def test_a_default_must_be_a_value(fragment: dict[str, Any], reason: str) -> None:
    schemas = with_changes()
    schemas[1]["properties"]["x"] = fragment

    with pytest.raises(ServerStartError, match=f"the schema of B: a default is wrong: {reason}"):
        started(schemas=schemas)


def test_types_that_extend_each_other_are_refused() -> None:
    schemas = with_changes(**{"$mixin": {"$ref": "A"}})
    schemas[0]["$mixin"] = {"$ref": "B"}

    with pytest.raises(ServerStartError, match="form a cycle: A > B"):
        started(schemas=schemas)


def changed(value: Any) -> Iterator[Any]:
    """Return copies of a JSON *value*, each with another thing in one place, or without it."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield {name: each for name, each in value.items() if name != key}
            yield from ({**value, key: each} for each in changed(inner))
    elif isinstance(value, list):
        for place, inner in enumerate(value):
            yield from ([*value[:place], each, *value[place + 1 :]] for each in changed(inner))
    yield from (None, 5, "B", "id", [], {}, [None], {"$ref": "Nope"}, {"$ref": 5})


@pytest.mark.long
def test_any_other_document_is_served_or_refused() -> None:
    """Each damaged document is served, or refused with a ServerStartError."""
    names = {"Resource", "User", "UserType"}
    documents = [each for each in BUILTIN_SCHEMAS if each["id"] in names]
    ends = {"served": 0, "refused": 0}
    for damaged in list(changed(copy.deepcopy(documents[1])))[:: amount(14, 1)]:
        try:
            engine = Engine(Options(schemas=[documents[0], damaged, documents[2]]))
        except ServerStartError:
            ends["refused"] += 1
            continue
        ends["served"] += 1
        caller = Requester(engine.credentials.check(engine.api_user, engine.api_key), "http://x")
        body = json.dumps([query(name) for name in engine.model.types]).encode()
        call = engine.parse(body, caller)
        assert engine.respond_beside(call, engine.limits.response).startswith(b"[")
        engine.close()

    assert min(ends.values()) > 20


@pytest.mark.long
@pytest.mark.parametrize("name", [document["id"] for document in BUILTIN_SCHEMAS[:: amount(9, 1)]])
def test_any_part_of_the_types_can_be_served(name: str) -> None:
    """The seed leaves out what needs the missing types."""
    others = [document for document in BUILTIN_SCHEMAS if document["id"] != name]
    for schemas in (others, [document for document in BUILTIN_SCHEMAS if document not in others]):
        engine = Engine(Options(schemas=schemas))
        assert engine.model.types.keys() >= {document["id"] for document in schemas}
        engine.close()


def test_what_is_not_seeded_is_logged(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Other schemas need not have room for the seed; the built-in ones must."""
    caplog.set_level(logging.INFO, logger="aioftrackjobs.devserver")
    others = [each for each in BUILTIN_SCHEMAS if each["id"] != "Project"]

    Engine(Options()).close()
    assert caplog.records == []
    Engine(Options(schemas=others)).close()
    broken = [{"__entity_type__": "Priority", "id": 5}]
    monkeypatch.setitem(demo_project.demo_data(), "vocabulary", broken)
    Engine(Options()).close()

    (foreign, own), last = caplog.records[:2], caplog.records[-1]
    assert (foreign.levelname, own.levelname) == ("INFO", "WARNING")
    assert foreign.getMessage().startswith("the seed leaves out its project: parent_id of a")
    assert last.getMessage().startswith("the seed leaves out its vocabulary: Priority.id takes")


@pytest.mark.skipif(not ALL.exists(), reason="the recorded schemas are not beside the checkout")
async def test_the_types_of_a_real_server_can_be_served() -> None:
    documents = json.loads(ALL.read_bytes())
    async with (
        running(schemas=documents) as server,
        httpx.AsyncClient(base_url=server.url) as http,
    ):
        api = Caller(http, server.api_user, server.api_key)
        information, served = await api.call(
            {"action": "query_server_information"}, {"action": "query_schemas"}
        )
        results = {each["id"]: (await api.post(query(each["id"]))).json() for each in documents}

    assert information["schema_hash"] == schema_hash(served) == schema_hash(documents)
    assert len(results) == 116
    assert {name for name, result in results.items() if not isinstance(result, list)} == set()


BLOCKED = """
import sys

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name == {package!r}:
            raise {error}(f"no {{name}}", name=name)

sys.meta_path.insert(0, Blocker())
try:
    import aioftrackjobs.devserver
except Exception as error:
    print(type(error).__name__, error.extra, error.package)
"""


@pytest.mark.parametrize(
    ("package", "error"),
    [
        ("lark", "ModuleNotFoundError"),
        ("sqlalchemy", "ModuleNotFoundError"),
        ("starlette", "ModuleNotFoundError"),
        ("uvicorn", "ImportError"),
    ],
)
def test_a_package_that_cannot_be_imported_is_named_with_its_extra(
    package: str, error: str
) -> None:
    program = BLOCKED.format(package=package, error=error)

    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)

    assert result.stdout == f"MissingExtraError server {package}\n", result.stderr
