"""The schemas of a real server, which are the built-in ones: all their types work."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

import pytest

from aioftrackjobs.devserver.schema.builtin import BUILTIN_SCHEMAS
from aioftrackjobs.devserver.schema.loader import builtin_model
from aioftrackjobs.devserver.schema.model import Model
from aioftrackjobs.protocol.values import ENTITY_TYPE

from .caller import Caller, query


@pytest.fixture(scope="module")
def model() -> Model:
    return builtin_model()


async def test_all_types_and_all_their_attributes_can_be_queried(api: Caller) -> None:
    for document in BUILTIN_SCHEMAS:
        names = [
            name
            for name, fragment in document["properties"].items()
            if not fragment.get("restricted_projection")
        ]
        plain, selected = await api.call(
            query(document["id"]), query(f"select {', '.join(names)} from {document['id']}")
        )
        assert len(selected["data"]) == len(plain["data"])
        assert all(row.keys() <= {ENTITY_TYPE, *names} for row in selected["data"])


def minimal(document: dict[str, Any], known: dict[str, str]) -> dict[str, Any] | None:
    """Return values for what is required, None while entities to refer to are missing."""
    data: dict[str, Any] = {}
    for name in document["required"]:
        fragment = document["properties"].get(name, {})
        if "default" in fragment:
            continue
        if fragment.get("format") == "foreign_key":
            target = fragment["description"].split(": ")[1].partition(".")[0]
            if target not in known:
                return None
            data[name] = "default" if target == "Setting" else known[target]
        elif fragment.get("format") == "date-time":
            data[name] = "2026-01-01"
        elif name in document.get("system_projections", ()):
            continue
        elif fragment.get("type") == "string":
            data[name] = uuid4().hex
        elif fragment.get("type") == "integer":
            data[name] = uuid4().int % 10**9
    return data


async def test_every_type_can_be_created_with_what_it_requires(api: Caller) -> None:
    known: dict[str, str] = {}
    left = list(BUILTIN_SCHEMAS)
    for _ in range(5):
        waiting, left = left, []
        for document in waiting:
            data = minimal(document, known)
            if data is None:
                left.append(document)
                continue
            name = document["id"]
            operation = {"action": "create", "entity_type": name, "entity_data": data}
            (result,) = await api.call(operation)
            known.setdefault(name, result["data"].get("id", ""))

    assert [document["id"] for document in left] == []


def test_every_relation_leads_somewhere(model: Model) -> None:
    relations = [each for known in model.types.values() for each in known.relations.values()]

    assert len(relations) > 500
    assert [relation for relation in relations if not relation.resolved] == []


@pytest.mark.parametrize(
    ("entity_type", "relation", "way"),
    [
        ("Task", "lists", ("ListObject", "entity_id", "list_id")),
        ("TypedContextList", "items", ("ListObject", "list_id", "entity_id")),
        (
            "ProjectSchema",
            "object_types",
            ("ProjectSchemaObjectType", "project_schema_id", "object_type_id"),
        ),
        ("AssetVersion", "uses_versions", ("AssetVersionLink", "to_id", "from_id")),
        ("Shot", "scopes", ("_Context_scopes", "owner_id", "member_id")),
    ],
)
def test_linking_types_join_what_they_link(
    model: Model, entity_type: str, relation: str, way: tuple[str, str, str]
) -> None:
    link = model.types[entity_type].relations[relation].link

    assert link is not None
    assert (link.entity_type, link.here, link.there) == way


async def test_objects_of_a_list_are_its_items(api: Caller) -> None:
    (task,) = await api.query("select name from Task limit 1")
    (project,) = await api.query("Project limit 1")
    key = {"action": "create"}
    await api.call(
        key | {"entity_type": "ListCategory", "entity_data": {"id": "c", "name": "c"}},
        key
        | {
            "entity_type": "TypedContextList",
            "entity_data": {
                "id": "l",
                "name": "today",
                "category_id": "c",
                "project_id": project["id"],
            },
        },
        key
        | {"entity_type": "ListObject", "entity_data": {"list_id": "l", "entity_id": task["id"]}},
    )

    (found,) = await api.query("select lists.items.name from Task where lists.name is today")

    assert found["lists"][0]["__entity_type__"] == "TypedContextList"
    assert found["lists"][0]["items"] == [
        {"__entity_type__": "Task", "id": task["id"], "name": task["name"]}
    ]
