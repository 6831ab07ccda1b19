"""Schemas of studios that nobody has seen: they are refused at the start, or they work.

Documents of a real server are changed at random: parts are missing; names, types and bases are odd.
"""

from __future__ import annotations

import copy
from random import Random
from typing import Any

import httpx
import pytest

from aioftrackjobs.devserver import ServerStartError, create_app
from aioftrackjobs.devserver.schema.builtin import BUILTIN_SCHEMAS, Document

from ..amounts import amount
from .caller import Caller, create, delete, query, update

COUNT = amount(6, 600)
_NAMES = ("select", "order", "Ünï", "group", "rowid", "_row", "Key", "100%", "a'b", 'a"b', "")
_TYPES = ("string", "boolean", "integer", "number", "variable", "array", "object", "new", None)
_DEFAULTS: tuple[Any, ...] = (5, "x", True, None, 1.5, "{uid}", [])
_VALUES = {"boolean": True, "integer": 3, "number": 1.5, "variable": ["a", 1], "string": "i"}
_DATE = {"__type__": "datetime", "value": "2026-01-01T00:00:00"}


def strange_schemas(chance: Random) -> list[Document]:
    documents = copy.deepcopy(chance.sample(BUILTIN_SCHEMAS, chance.randint(1, 25)))
    for _ in range(chance.choice((0, 1, 3, 8))):
        document = chance.choice(documents)
        _change(chance, document, [str(each.get("id")) for each in documents])
    return documents


def _change(chance: Random, document: Document, types: list[str]) -> None:
    """Change one thing of *document*; *types* are the names of all."""
    properties: dict[str, Any] = document.setdefault("properties", {})
    name, target = chance.choice([*properties, "id"]), chance.choice([*types, "Missing"])
    fragment = properties.setdefault(name, {"type": "string"})
    some = [each for each in properties if chance.random() < 0.3]
    key = f"Foreign key(s): {target}.{chance.choice(('id', 'name', ''))}"
    classified = {"id": target, "classifiers": {name: "x"}}
    changes: list[tuple[dict[str, Any], dict[str, Any]]] = [
        (document, {"id": chance.choice(_NAMES)}),
        (document, {"primary_key": chance.choice(([], [name], ["id", name], ["none"]))}),
        (document, {"$mixin": {"$ref": target}}),
        (document, {"alias_for": chance.choice((target, classified, None))}),
        (document, {"required": some}),
        (document, {"computed": some}),
        (document, {"immutable": some, "default_projections": ["none", *some]}),
        (document, {"system_projections": [*some, "entity_type", "none"]}),
        (document, {"properties": {each: properties[each] for each in some}}),
        (fragment, {"type": chance.choice(_TYPES)}),
        (fragment, {"format": chance.choice(("date-time", "json", "uuid", None, 7))}),
        (fragment, {"default": chance.choice(_DEFAULTS)}),
        (fragment, {"enum": chance.choice(([], ["a"], None))}),
        (fragment, {"alias_for": chance.choice(("x", "_api_link", "casted_value", 5))}),
        (fragment, {"format": "foreign_key", "description": key}),
        (properties, {chance.choice(_NAMES): {"type": "string"}}),
        (properties, {name: {"$ref": target}}),
        (properties, {name: {"type": "array", "items": {"$ref": target}}}),
    ]
    where, values = chance.choice(changes)
    where.update(values)


@pytest.mark.parametrize("seed", range(COUNT))
async def test_what_can_be_served_ends_in_no_failure(seed: int) -> None:
    chance = Random(seed)
    documents = strange_schemas(chance)
    try:
        app = create_app(schemas=documents)
    except ServerStartError:
        return  # it names the document and the problem
    engine = app.state.engine
    engine.hub.has_listeners = lambda _: True  # an event is made for each change
    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(app), base_url="http://ftrack.test"
    ) as http:
        api = Caller(http, engine.api_user, engine.api_key)
        for document in documents:
            await _use(api, document, chance)
        assert (await api.post(query("User"))).status_code < 500
    engine.close()


async def _use(api: Caller, document: Document, chance: Random) -> None:
    """Read all of a type, as a dump does, and write what can be written: no response is a 5xx."""
    name, properties = document["id"], document["properties"]
    every = query(f"select {', '.join(properties) or 'id'} from {name}")
    values = {
        each: _DATE if fragment.get("format") == "date-time" else _VALUES[fragment["type"]]
        for each, fragment in properties.items()
        if fragment.get("type") in _VALUES and chance.random() < 0.4
    }
    made = await _done(api, {**create(name), "entity_data": values})
    await _done(api, query(name))
    await _done(api, every)
    if isinstance(made, list):
        key = [str(made[0]["data"][part]) for part in document["primary_key"]]
        for each, value in values.items():
            await _done(api, {**update(name, *key), "entity_data": {each: value}})
        await _done(api, delete(name, *key))


async def _done(api: Caller, operation: dict[str, Any]) -> Any:
    response = await api.post(operation)  # a failure of the server is raised here
    assert response.status_code == 200, (operation, response.text)
    return response.json()
