"""``aioftrackjobs models``: a module for type checkers, which a session uses."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from anyio.to_thread import run_sync

from aioftrackjobs import ArgumentError, AsyncSession, Entity, EntityError, InvalidValueError
from aioftrackjobs.cli.models import models_module
from aioftrackjobs.protocol.custom_attributes import decode_configuration

SCHEMAS = Path(__file__).parents[3] / "shared" / "schemas" / "all.json"


def imported(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module  # where pydantic looks up the names of annotations
    spec.loader.exec_module(module)
    return module


async def test_a_session_uses_the_types_of_its_server(
    session: AsyncSession, ftrack: Mapping[str, str], tmp_path: Path
) -> None:
    number = await session.query('CustomAttributeType where name is "number"').one()
    shot = await session.query("select object_type_id from Shot").first()
    assert shot is not None
    values = {"key": "fstart", "label": "First", "entity_type": "task", "type": number}
    more = {"config": "{}", "default": 1001, "object_type_id": shot["object_type_id"]}
    session.create("CustomAttributeConfiguration", {**values, **more})
    await session.commit()

    command = [sys.executable, "-m", "aioftrackjobs", "models"]
    run = await run_sync(
        lambda: subprocess.run(command, env=dict(ftrack), capture_output=True, check=False)
    )
    assert run.returncode == 0, run.stderr.decode()
    path = tmp_path / "studio_of_a_test.py"
    path.write_bytes(run.stdout)
    studio: Any = imported(path)

    session.use_models(studio)
    found = await session.query(studio.Shot).where(studio.Shot.parent.name == "sq010").first()
    assert isinstance(found, studio.Shot)
    await session.populate(found, ["parent", "custom_attributes"])
    assert isinstance(found.parent, studio.Sequence)
    assert found.custom_attributes["fstart"] == 1001
    found.parent = found.parent
    with pytest.raises(InvalidValueError, match="bid"):
        found.bid = "long"
    made = session.create(studio.Shot, {"name": "sh999", "parent": found.parent})
    await session.commit()
    assert type(await session.get("Shot", made.id)) is studio.Shot
    assert issubclass(studio.Job, Entity)
    assert "api_key" not in run.stdout.decode().lower()


async def test_what_is_no_model_is_refused(session: AsyncSession) -> None:
    class Nameless(Entity):
        pass

    for wrong in (5, sys):
        with pytest.raises(ArgumentError, match="models"):
            session.use_models(wrong)  # type: ignore[arg-type]
    with pytest.raises(EntityError, match="entity_type"):
        session.use_models([Nameless])


def test_texts_of_the_server_stay_texts(tmp_path: Path) -> None:
    """No name, description or choice can put code into the module."""
    awkward = 'a"b\\c\nimport os'
    properties: dict[str, Any] = {
        "id": {"type": "string"},
        "from": {"type": "string"},
        "get": {"type": "string"},
        "not a name": {"type": "string"},
        "described": {"type": "string", "description": f"one\n{awkward}"},
        "chosen": {"type": "string", "enum": [awkward, "b"]},
        "custom_attributes": {"type": "mapped_array", "items": {"$ref": "CustomAttributeValue"}},
    }
    document = {"id": "Odd", "primary_key": ["id"], "properties": properties}
    choices = json.dumps({"data": [{"value": awkward}]})
    row = {"id": "1", "key": awkward, "type": {"name": "enumerator"}, "config": choices}
    attribute = decode_configuration({**row, "entity_type": "task"})
    assert attribute is not None

    text = models_module({"Odd": document}, [attribute], "https://studio.ftrackapp.com")
    path = tmp_path / "odd_of_a_test.py"
    path.write_text(text, encoding="utf-8")
    odd: Any = imported(path)

    assert not hasattr(odd, "os")
    assert set(odd.Odd.model_fields) == {"id", "described", "chosen", "custom_attributes"}
    assert '# Read as an item: entity["from"].' in text
    assert odd.OddCustomAttributes.__annotations__.keys() == {awkward}
    with pytest.raises(InvalidValueError, match="chosen"):
        odd.Odd(id="1", chosen="c")


def test_the_module_is_the_same_each_time_and_has_the_types_that_are_wanted() -> None:
    def document(name: str, *, task: bool = False) -> dict[str, Any]:
        properties = {"name": {"type": "string"}, "id": {"type": "string"}}
        alias: dict[str, Any] = {"alias_for": {"id": "Task"}} if task else {}
        return {"id": name, "primary_key": ["id"], "properties": properties, **alias}

    names = ("Context", "Shot", "Status", "Task", "TypedContext")
    documents = {name: document(name, task=name in ("Shot", "Task")) for name in names}

    text = models_module(documents, [], "https://x.test", ["Shot"])

    backwards = dict(reversed(documents.items()))
    assert text == models_module(backwards, [], "https://x.test", ["Shot"])
    classes = [line for line in text.splitlines() if line.startswith("class ")]
    assert classes == [
        "class Context(Entity):",
        "class TypedContext(Context):",
        "class Shot(TypedContext):",
    ]


@pytest.mark.skipif(not SCHEMAS.exists(), reason="the recorded schemas are not here")
def test_recorded_schemas_become_a_module(tmp_path: Path) -> None:
    documents = {each["id"]: each for each in json.loads(SCHEMAS.read_text(encoding="utf-8"))}
    path = tmp_path / "recorded_of_a_test.py"
    path.write_text(models_module(documents, [], "https://x.test"), encoding="utf-8")
    recorded: Any = imported(path)

    assert len(recorded.MODELS) == len(documents)
    assert recorded.Task(name="comp").name == "comp"
    assert str(recorded.Task.status.name == "done") == 'status.name is "done"'
