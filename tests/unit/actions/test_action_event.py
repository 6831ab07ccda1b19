"""Events about actions: which types a selection has."""

from __future__ import annotations

import pytest

from aioftrackjobs.actions.action_event import Selected, is_of, matches, read_event

TABLES = ("task", "show", "assetversion", "asset", "component", "list", "user", "job", "note")


@pytest.mark.parametrize(
    ("entity_type", "tables"),
    [
        ("Task", {"task"}),
        ("Shot", {"task"}),
        ("TypedContext", {"task"}),
        ("Episode", {"task"}),
        ("Context", {"task", "show"}),
        ("Project", {"show"}),
        ("AssetVersion", {"assetversion"}),
        ("assetversion", {"assetversion"}),
        ("show", {"show"}),
        ("Asset", {"asset"}),
        ("FileComponent", {"component"}),
        ("AssetVersionList", {"list"}),
        ("User", {"user"}),
        ("Job", {"job"}),
        ("Note", {"note"}),
    ],
)
def test_a_type_of_the_api_is_found_in_its_table(entity_type: str, tables: set[str]) -> None:
    assert {each for each in TABLES if is_of(Selected(each, "1"), entity_type)} == tables
    assert is_of(Selected(entity_type, "1"), entity_type)  # some clients send names of the API


@pytest.mark.parametrize(
    ("selection", "types", "many", "expected"),
    [
        ((), (), True, True),
        ((), ("Task",), True, False),
        (("task",), ("Task",), True, True),
        (("task", "task"), ("Task",), False, False),
        (("task", "show"), ("Task",), True, False),
        (("task", "show"), ("Task", "Project"), True, True),
        (("task", "show"), (), False, False),
    ],
)
def test_all_of_a_selection_must_fit(
    selection: tuple[str, ...], types: tuple[str, ...], many: bool, expected: bool
) -> None:
    selected = [Selected(table, str(number)) for number, table in enumerate(selection)]
    assert matches(selected, types, many=many) is expected


def test_a_selection_may_stand_in_the_context_and_counts_once() -> None:
    selection = [{"entityType": "task", "entityId": "a"}] * 2
    event = read_event({"data": {"context": {"selection": selection}}, "source": {}})
    assert event.selection == (Selected("task", "a"),)
    assert event.ids == {"a"}
