"""The envelope of events, in both directions."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from ftrack_api.event.base import Event as OfficialEvent

from aioftrackjobs.errors import UnserialisableValueError
from aioftrackjobs.protocol.events import address_of, encode_event, quoted, read_event
from aioftrackjobs.protocol.subscription import parse


@pytest.mark.parametrize(
    ("data", "topic"),
    [
        ('{"name":"ftrack.event","args":[{"topic":"a"}]}', "a"),
        ('{"name":"other","args":[{"topic":"a"}, 1]}', "a"),
        ('{"name":"ftrack.event","args":[{"topic":""}]}', None),
        ('{"name":"ftrack.event","args":[{"topic":1}]}', None),
        ('{"name":"ftrack.event","args":[]}', None),
        ('{"name":"ftrack.event","args":["a"]}', None),
        ('{"name":"ftrack.event"}', None),
        ("[1]", None),
        ("null", None),
        ("", None),
        ('{"args":[{"topic"', None),
    ],
)
def test_an_event_is_what_has_a_topic(data: str, topic: str | None) -> None:
    found = read_event(data)
    assert (found and found["topic"]) == topic


def encoded(data: Any) -> Any:
    text = encode_event("a", data, event_id="1", source={"id": "hub"}, in_reply_to="2")
    return json.loads(text)


def test_an_event_has_the_keys_that_the_official_client_knows() -> None:
    payload = encoded({"é": [1, None]})
    (event,) = payload["args"]

    assert payload["name"] == "ftrack.event"
    assert event["data"] == {"é": [1, None]}
    event["in_reply_to_event"] = event.pop("inReplyToEvent")  # as the official client does
    assert OfficialEvent(**event)["topic"] == "a"


def test_numbers_that_json_lacks_are_null() -> None:
    assert encoded([math.nan, math.inf])["args"][0]["data"] == [None, None]


@pytest.mark.parametrize("data", [object(), {"a": [1, object()]}, {"a": {"b": object()}}])
def test_what_json_cannot_hold_is_named(data: Any) -> None:
    with pytest.raises(UnserialisableValueError, match="type object"):
        encoded(data)


def test_a_value_that_contains_itself_is_refused() -> None:
    data: list[Any] = []
    data.append(data)
    with pytest.raises(UnserialisableValueError):
        encoded(data)


@pytest.mark.parametrize("own_id", ["abc", "a-b", "a:b c", "it's", 'a"b'])
def test_a_reply_reaches_its_publisher(own_id: str) -> None:
    target = address_of({"source": {"id": own_id}})
    assert target is not None
    assert parse(target).matches({"id": own_id})


@pytest.mark.parametrize("source", [None, [], {}, {"id": None}, {"id": ""}, {"id": 1}])
def test_an_event_without_a_source_has_no_address(source: Any) -> None:
    assert address_of({"source": source}) is None
    assert address_of({}) is None


def test_no_expression_holds_both_quotes() -> None:
    with pytest.raises(ValueError, match="both kinds"):
        quoted("\"'")
