"""Single values travel there and back."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta, timezone
from enum import StrEnum
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aioftrackjobs.errors import UnserialisableValueError
from aioftrackjobs.models import User
from aioftrackjobs.protocol.values import Reference, decode_tagged, encode_reference, encode_value

#: In UTC it was in the year before the first.
EARLIEST = datetime(1, 1, 1, tzinfo=timezone(timedelta(hours=5)))


class Colour(StrEnum):
    RED = "red"


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


@given(json_values)
def test_plain_json_travels_unchanged(value: object) -> None:
    assert encode_value(value, "value") == value


@given(st.datetimes(timezones=st.just(UTC)))
def test_a_time_comes_back_as_it_went(moment: datetime) -> None:
    encoded = encode_value(moment, "value")

    assert isinstance(encoded, dict)
    assert decode_tagged(encoded) == moment


def test_a_time_of_another_zone_travels_in_utc() -> None:
    moment = datetime(2026, 1, 1, 12, tzinfo=timezone(timedelta(hours=-5)))

    encoded = encode_value(moment, "value")

    assert encoded == {"__type__": "datetime", "value": "2026-01-01T17:00:00+00:00"}


def test_a_time_without_a_zone_counts_as_utc() -> None:
    encoded = encode_value(datetime(2026, 1, 1, 12), "value")

    assert encoded == {"__type__": "datetime", "value": "2026-01-01T12:00:00+00:00"}


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        pytest.param(date(2026, 1, 2), {"__type__": "datetime", "value": "2026-01-02"}, id="date"),
        pytest.param(Colour.RED, "red", id="enum"),
        pytest.param(UUID(int=7), "00000000-0000-0000-0000-000000000007", id="uuid"),
        pytest.param((1, 2), [1, 2], id="tuple"),
        pytest.param(
            User(id="u1"), {"__entity_type__": "User", "id": "u1"}, id="entity becomes reference"
        ),
        pytest.param(
            [User(id="u1")],
            [{"__entity_type__": "User", "id": "u1"}],
            id="collection becomes references",
        ),
    ],
)
def test_rich_values_have_a_wire_form(value: object, expected: object) -> None:
    assert encode_value(value, "value") == expected


def _endless() -> list[object]:
    inner: list[object] = []
    inner.append(inner)
    return inner


@pytest.mark.parametrize(
    ("value", "path"),
    [
        pytest.param({"frames": [1, {2}]}, "Job.x.frames[1]", id="set in a list in a mapping"),
        pytest.param(b"bytes", "Job.x", id="bytes"),
        pytest.param(float("nan"), "Job.x", id="not a number"),
        pytest.param({1: "a"}, "Job.x", id="key that is no text"),
        pytest.param({"a": "\ud800"}, "Job.x.a", id="lone surrogate"),
        pytest.param(object(), "Job.x", id="any object"),
        pytest.param([EARLIEST], "Job.x[0]", id="time before the first of UTC"),
    ],
)
def test_a_value_that_cannot_be_sent_is_named_by_its_path(value: object, path: str) -> None:
    with pytest.raises(UnserialisableValueError) as caught:
        encode_value(value, "Job.x")

    assert caught.value.path == path
    assert path in str(caught.value)


def test_a_container_that_holds_itself_is_refused() -> None:
    with pytest.raises(UnserialisableValueError, match="nested too deep"):
        encode_value(_endless(), "Job.x")


@pytest.mark.parametrize(
    ("tagged", "expected"),
    [
        pytest.param(
            {"__type__": "datetime", "value": "2022-10-10T10:12:09"},
            datetime(2022, 10, 10, 10, 12, 9, tzinfo=UTC),
            id="naive is utc",
        ),
        pytest.param(
            {"__type__": "datetime", "value": "2022-10-10T10:12:09+02:00"},
            datetime(2022, 10, 10, 8, 12, 9, tzinfo=UTC),
            id="offset",
        ),
        pytest.param(
            {"__type__": "datetime", "value": "2022-10-10T10:12:09.123Z"},
            datetime(2022, 10, 10, 10, 12, 9, 123000, tzinfo=UTC),
            id="Z with milliseconds",
        ),
        pytest.param({"__type__": "date", "value": "2023-10-10"}, date(2023, 10, 10), id="date"),
        pytest.param({"__type__": "datetime", "value": None}, None, id="null"),
        pytest.param(
            {"__type__": "datetime", "value": "yesterday"},
            {"__type__": "datetime", "value": "yesterday"},
            id="unreadable stays",
        ),
        pytest.param(
            {"__type__": "datetime", "value": "0001-01-01T00:00:00+05:00"},
            {"__type__": "datetime", "value": "0001-01-01T00:00:00+05:00"},
            id="no time in UTC stays",
        ),
        pytest.param(
            {"__type__": "colour", "value": "red"},
            {"__type__": "colour", "value": "red"},
            id="unknown kind stays",
        ),
    ],
)
def test_tagged_values_are_read(tagged: dict[str, object], expected: object) -> None:
    assert decode_tagged(tagged) == expected


def test_a_reference_carries_its_type_and_its_whole_key() -> None:
    reference = Reference("Metadata", (("parent_id", "p"), ("key", "k")))

    assert encode_reference(reference) == {
        "__entity_type__": "Metadata",
        "parent_id": "p",
        "key": "k",
    }
    assert str(reference) == "Metadata(p, k)"
