"""The built-in schema documents."""

from __future__ import annotations

import pytest

from aioftrackjobs.devserver.schema.builtin import BUILTIN_SCHEMAS
from aioftrackjobs.devserver.schema.loader import load_model
from aioftrackjobs.protocol.schemas import schema_hash

from .caller import Caller

DOCUMENTS = {document["id"]: document for document in BUILTIN_SCHEMAS}
MODEL = load_model(BUILTIN_SCHEMAS)


def test_job_is_declared_as_the_recorded_server_has_it() -> None:
    """docs/protocol.md, section 5.2."""
    job = DOCUMENTS["Job"]

    assert job["required"] == ["id", "status", "type"]
    assert job["properties"]["status"] == {
        "type": "string",
        "default": "queued",
        "enum": ["queued", "running", "done", "failed"],
    }
    assert job["properties"]["user_id"] == {
        "type": "string",
        "format": "foreign_key",
        "description": "Foreign key(s): User.user_id",
        "alias_for": "userid",
    }


def test_all_types_are_declared_as_the_recorded_server_has_them() -> None:
    """Its hash is in protocol.md, section 8.3."""
    assert schema_hash(list(BUILTIN_SCHEMAS)) == "23a1157b8b1730fd91c76f63dcd67a8f"


@pytest.mark.parametrize("name", sorted(MODEL.types))
def test_every_declared_relation_can_be_followed(name: str) -> None:
    unbacked = [each.name for each in MODEL.types[name].relations.values() if not each.resolved]

    assert unbacked == []


@pytest.mark.parametrize(
    ("entity_type", "relation", "pairs"),
    [
        ("Job", "user", (("user_id", "id"),)),
        ("Job", "job_components", (("id", "job_id"),)),
        ("SequenceComponent", "members", (("id", "container_id"),)),
        ("Component", "metadata", (("id", "parent_id"),)),
        ("Asset", "parent", (("context_id", "id"),)),
        ("Note", "author", (("user_id", "id"),)),
        ("Status", "state", (("state_id", "id"),)),
        ("User", "timelogs", (("id", "user_id"),)),
        ("Task", "children", (("id", "parent_id"),)),
    ],
)
def test_relations_are_resolved_to_the_keys_that_store_them(
    entity_type: str, relation: str, pairs: tuple[tuple[str, str], ...]
) -> None:
    assert MODEL.types[entity_type].relations[relation].pairs == pairs


def test_system_projections_are_translated_from_columns_to_attributes() -> None:
    """``showid`` is ``project_id``, and the classifier goes too (docs/protocol.md, section 3.5)."""
    assert MODEL.types["Task"].system_projections == (
        "project_id",
        "context_type",
        "object_type_id",
    )
    assert MODEL.types["AssetVersion"].system_projections == ("asset_id",)


def test_subtypes_are_found_without_mixins() -> None:
    """Recorded documents have none: keys, classifiers and discriminators replace them."""
    bare = [{k: v for k, v in document.items() if k != "$mixin"} for document in BUILTIN_SCHEMAS]
    model = load_model(bare)

    assert {name: each.lineage for name, each in model.types.items()} == {
        name: each.lineage for name, each in MODEL.types.items()
    }


async def test_the_hash_is_that_of_the_schemas_as_they_are_sent(api: Caller) -> None:
    information, schemas = await api.call(
        {"action": "query_server_information"}, {"action": "query_schemas"}
    )

    assert information["schema_hash"] == schema_hash(schemas)
    assert schemas == list(BUILTIN_SCHEMAS)


async def test_server_information_has_the_requested_values_only(api: Caller) -> None:
    values = ["schema_hash", "is_timezone_support_enabled", "nonsense"]

    (information,) = await api.call({"action": "query_server_information", "values": values})

    assert information.keys() == {"schema_hash", "is_timezone_support_enabled"}
