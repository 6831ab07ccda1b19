"""Events as programs see them, whatever other clients have sent."""

from __future__ import annotations

import pickle
import subprocess
import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aioftrackjobs.errors import EventQueueFullError, EventTimeoutError
from aioftrackjobs.events import ActionDiscover, ActionLaunch, EntityReference, Event, UpdateEvent
from aioftrackjobs.events.models import KINDS, make_event
from aioftrackjobs.protocol.changes import EntityNames

#: As a real server has them (docs/protocol.md, section 7.7).
NAMES = EntityNames(
    [
        {"id": "Project", "alias_for": "Show", "properties": {}},
        {"id": "TypedContext", "alias_for": "Task", "properties": {}},
        {
            "id": "Shot",
            "alias_for": {"id": "Task", "classifiers": {"object_typeid": "1"}},
            "properties": {
                "created_by": {"$ref": "User", "alias_for": "createdBy"},
                "created_by_id": {"type": "string", "alias_for": "created_by"},
                "_link": {"type": "string", "alias_for": "_api_link"},
                "link": {"type": "string", "alias_for": "_api_link"},
                "status_id": {"type": "string", "alias_for": "statusid"},
                "assignments": {"type": "array", "alias_for": "statusid"},
                "name": {"type": "string"},
            },
        },
        {"id": "AssetVersion", "properties": {"asset_id": {"alias_for": "assetid"}}},
        None,  # type: ignore[list-item]
        {"id": 5},
        {"id": "Odd", "properties": ["x"]},
    ]
)


def update(*entities: Any, **fields: Any) -> UpdateEvent:
    payload = {"topic": "ftrack.update", "data": {"entities": list(entities)}, **fields}
    return make_event(payload, UpdateEvent, NAMES)


def test_columns_have_the_names_of_attributes() -> None:
    (change,) = update(
        {
            "entityId": "1",
            "entityType": "task",
            "entity_type": "Shot",
            "action": "update",
            "keys": ["statusid", "thumbid"],
            "changes": {
                "statusid": {"old": "a", "new": "b"},
                "created_by": {"old": None, "new": "u"},
                "fps": {"old": 24, "new": 25},
                "odd": 5,
            },
            "parents": [
                {"entityId": "1", "entityType": "task", "entity_type": "Shot"},
                {"entityId": "2", "entityType": "show"},
                None,
            ],
        }
    ).changes

    assert (change.entity_type, change.id, change.table) == ("Shot", "1", "task")
    assert list(change.attributes) == ["status_id", "created_by_id", "fps", "odd", "thumbid"]
    assert (change.attributes["statusid"].old, change.attributes["status_id"].new) == ("a", "b")
    assert change.attributes["odd"].new == 5
    assert "thumbid" in change.attributes  # it has changed, and the event does not say to what
    assert "name" not in change.attributes
    assert change.parents == (EntityReference("Project", "2", "show"),)


@pytest.mark.parametrize(
    ("entity", "entity_type"),
    [
        ({"entityId": "1", "entityType": "assetversion"}, "AssetVersion"),
        ({"entityId": "1", "entityType": "show"}, "Project"),
        ({"entityId": "1", "entityType": "task"}, "TypedContext"),
        ({"entityId": "1", "entityType": "unknown"}, "unknown"),
        ({"entityId": "1", "entity_type": "New"}, "New"),
        ({"entityId": 5, "entityType": []}, ""),
    ],
)
def test_entity_types_are_named_as_far_as_is_known(entity: Any, entity_type: str) -> None:
    (change,) = update(entity).changes
    assert change.entity_type == entity_type
    assert change.id == str(entity["entityId"])


def test_what_is_no_entity_is_left_out() -> None:
    assert update(None, 5, {}, [], {"action": "add"}).changes == []
    data: Any
    for data in (None, 5, [], {"entities": None}, {"entities": {}}):
        assert make_event({"topic": "ftrack.update", "data": data}, UpdateEvent).changes == []


def test_actions_have_a_selection_and_values() -> None:
    selection = [{"entityId": "1", "entityType": "show"}, {"x": 1}]
    nested = {"topic": "x", "data": {"context": {"selection": selection}}}
    plain = {"topic": "x", "data": {"selection": selection, "values": {"a": 1}}}

    assert make_event(nested, ActionDiscover, NAMES).selection == [
        EntityReference("Project", "1", "show")
    ]
    launch = make_event(plain, ActionLaunch)
    assert (launch.selection[0].entity_type, launch.identifier) == ("show", "")
    assert (launch.values, launch.has_values) == ({"a": 1}, True)
    data: Any
    for data in (None, 5, {"selection": 3, "values": [], "actionIdentifier": 1}):
        odd = make_event({"topic": "x", "data": data}, ActionLaunch)
        assert (odd.selection, odd.values, odd.has_values, odd.identifier) == ([], {}, False, "")


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=8,
)
FIELDS = ["data", "id", "target", "source", "sent", "inReplyToEvent", "new", "user", "_x", "topic_"]


@given(st.dictionaries(st.sampled_from(FIELDS), json_values), st.sampled_from([*KINDS.values()]))
def test_no_payload_is_refused(payload: dict[str, Any], kind: type[Event]) -> None:
    event = make_event({"topic": "a", **payload}, kind, NAMES)

    assert isinstance(event.source, dict)
    assert event.user is not None
    for name in ("changes", "selection", "values"):
        getattr(event, name, None)
    assert event.model_dump()["topic"] == "a"
    assert repr(event)


def test_unknown_keys_are_kept() -> None:
    event: Any = make_event({"topic": "a", "clientToken": "x", "inReplyToEvent": "1"}, Event)
    assert (event.clientToken, event.in_reply_to) == ("x", "1")
    assert Event(topic="a", in_reply_to="2").in_reply_to == "2"


def test_the_errors_survive_pickle() -> None:
    for error in (
        EventTimeoutError("a", 5, was_sent=True, problem="why"),
        EventQueueFullError("topic=a", 10, 3),
    ):
        copy = pickle.loads(pickle.dumps(error))
        assert (str(copy), copy.__dict__) == (str(error), error.__dict__)


def run(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_nothing_of_it_is_imported_before_it_is_used() -> None:
    code = (
        "import sys\n"
        "from aioftrackjobs import AsyncSession\n"
        "session = AsyncSession('https://a.test', 'key', 'maya')\n"
        "session.health\n"
        "ours = ('aioftrackjobs.events', 'websockets')\n"
        "print(sum(name.startswith(ours) for name in sys.modules))"
    )
    assert run(code).strip() == "0"


def test_a_missing_extra_is_named_when_it_is_used() -> None:
    code = (
        "import sys\n"
        "sys.modules['websockets'] = None\n"
        "from aioftrackjobs import AsyncSession, MissingExtraError\n"
        "from aioftrackjobs.events import Event\n"
        "session = AsyncSession('https://a.test', 'key', 'maya')\n"
        "try:\n"
        "    session.events\n"
        "except MissingExtraError as error:\n"
        "    print(error)\n"
    )
    assert 'pip install "aioftrackjobs[events]"' in run(code)
