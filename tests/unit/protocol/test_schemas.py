"""Facts from schema documents."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from aioftrackjobs.protocol.schemas import COMPOSITE_KEYS, decode_schema, schema_hash

RECORDED = Path(__file__).parents[4] / "shared" / "schemas" / "all.json"

needs_recording = pytest.mark.skipif(
    not RECORDED.exists(), reason="the recorded schemas are not beside the checkout"
)


def test_scalars_leave_out_relations_collections_and_computed_values() -> None:
    schema = decode_schema(
        {
            "id": "Thing",
            "primary_key": ["id"],
            "computed": ["url"],
            "properties": {
                "id": {"type": "string"},
                "user": {"$ref": "User"},
                "user_id": {},
                "tags": {"type": "array", "items": {"$ref": "Tag"}},
                "url": {"type": "object"},
                "secret": {"type": "string", "restricted_projection": True},
                "_link": {"type": "string"},
            },
        }
    )

    assert schema.scalars == ("id", "user_id")
    assert schema.attributes == ("id", "user", "user_id", "tags", "url", "_link")


def test_the_hash_is_that_of_the_protocol() -> None:
    documents = [{"b": [2, 1], "a": "ü"}]

    assert schema_hash(documents) == schema_hash(json.loads(json.dumps(documents)))
    assert len(schema_hash(documents)) == 32


@needs_recording
def test_a_real_servers_schemas_give_its_hash() -> None:
    documents = json.loads(RECORDED.read_text())

    assert schema_hash(documents) == "23a1157b8b1730fd91c76f63dcd67a8f"


@needs_recording
def test_the_known_composite_keys_are_all_there_are() -> None:
    documents = json.loads(RECORDED.read_text())

    found = {
        document["id"]: tuple(document["primary_key"])
        for document in documents
        if document["primary_key"] != ["id"]
    }
    assert found == dict(COMPOSITE_KEYS)
