"""What configurations of custom attributes say, and which values they take."""

from __future__ import annotations

import json
import math
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import pytest

from aioftrackjobs.protocol.custom_attributes import (
    CustomAttribute,
    decode_configuration,
    read_value,
    written_value,
)

#: As AYON and ftrack's interface write it: a text within a text.
CHOICES = json.dumps({"multiSelect": True, "data": json.dumps([{"menu": "A", "value": "a"}, "b"])})


def attribute(kind: str, config: object = "{}", **more: Any) -> CustomAttribute:
    row = {"id": "1", "key": "k", "type": {"name": kind}, "config": config, **more}
    decoded = decode_configuration(row)
    assert decoded is not None
    return decoded


@pytest.mark.parametrize("config", ["", "no JSON", "[]", "5", None, "[" * 5000, '{"data": "x"}'])
def test_a_broken_configuration_takes_any_choice(config: object) -> None:
    assert written_value(attribute("enumerator", config), "z") == ["z"]


@pytest.mark.parametrize("row", [{}, {"id": "1"}, {"id": 5, "key": "k"}, {"id": "1", "key": None}])
def test_a_configuration_without_id_or_key_is_left_out(row: dict[str, Any]) -> None:
    assert decode_configuration(row) is None


@pytest.mark.parametrize(
    ("kind", "value", "stored"),
    [
        ("text", "", ""),
        ("number", 5, 5),
        ("number", Decimal("1.5"), 1.5),
        ("boolean", False, False),
        ("date", date(2026, 1, 31), datetime(2026, 1, 31, tzinfo=UTC)),
        ("date", "2026-01-31", datetime(2026, 1, 31, tzinfo=UTC)),
        ("date", datetime(2026, 1, 31, 8, 0, 0, 5, UTC), datetime(2026, 1, 31, 8, tzinfo=UTC)),
        ("dynamic enumerator", "x", ["x"]),
        ("dynamic enumerator", ("x", "y"), ["x", "y"]),
        ("notificationtype", {"any": 1}, {"any": 1}),
        ("number", None, None),
    ],
)
def test_values_are_stored_in_the_type_of_the_attribute(
    kind: str, value: object, stored: object
) -> None:
    got = written_value(attribute(kind), value)
    assert got == stored
    assert type(got) is type(stored)


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        ("text", 5),
        ("url", b"x"),
        ("number", True),
        ("number", "5"),
        ("number", math.nan),
        ("number", math.inf),
        ("boolean", "true"),
        ("date", 5),
        ("date", "31.1.2026"),
        ("enumerator", {"a": 1}),
        ("enumerator", [["a"]]),
        ("expression", "1 + 1"),
    ],
)
def test_values_of_another_type_are_refused(kind: str, value: object) -> None:
    with pytest.raises(ValueError, match=r"it must be|computes"):
        written_value(attribute(kind), value)


def test_choices() -> None:
    several = attribute("enumerator", CHOICES)
    assert several.choices == ("a", "b")
    assert written_value(several, ["a", "b"]) == ["a", "b"]
    with pytest.raises(ValueError, match="one of 'a', 'b'"):
        written_value(several, "c")


@pytest.mark.parametrize(
    ("kind", "value", "read"),
    [
        ("number", "1001", 1001),
        ("number", "1.5", 1.5),
        ("number", "many", "many"),
        ("boolean", "true", True),
        ("boolean", "perhaps", "perhaps"),
        ("date", "2026-01-31T00:00:00", datetime(2026, 1, 31, tzinfo=UTC)),
        ("date", "soon", "soon"),
        ("enumerator", "a", ["a"]),
        ("enumerator", "", []),
        ("text", "5", "5"),
    ],
)
def test_values_are_read_in_the_type_of_the_attribute(
    kind: str, value: object, read: object
) -> None:
    assert read_value(attribute(kind), value) == read


@pytest.mark.parametrize(
    ("configuration", "entity", "expected"),
    [
        ({"entity_type": "task"}, ("Shot", None, None), True),
        ({"entity_type": "task"}, ("Project", None, None), False),
        ({"entity_type": "show"}, ("Project", None, "p"), True),
        ({"entity_type": "user", "is_hierarchical": False}, ("User", None, None), True),
        ({"entity_type": "show", "is_hierarchical": True}, ("User", None, None), False),
        ({"entity_type": "show", "is_hierarchical": True}, ("AssetVersion", None, None), True),
        ({"entity_type": "list"}, ("AssetVersionList", None, None), True),
        ({"entity_type": "task", "object_type_id": "o"}, ("Shot", "o", None), True),
        ({"entity_type": "task", "object_type_id": "o"}, ("Shot", "x", None), False),
        (
            {"entity_type": "task", "object_type_id": "o", "object_type": {"name": "Asset Build"}},
            ("AssetBuild", None, None),
            True,
        ),
        ({"entity_type": "task", "project_id": "p"}, ("Shot", None, "p"), True),
        ({"entity_type": "task", "project_id": "p"}, ("Shot", None, None), False),
        ({"entity_type": "task", "project_id": "p"}, ("Shot", None, "q"), False),
    ],
)
def test_to_which_entities_a_configuration_applies(
    configuration: dict[str, Any], entity: tuple[str, Any, Any], expected: bool
) -> None:
    assert attribute("text", **configuration).is_of(*entity) is expected
