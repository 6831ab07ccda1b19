"""Single values travel there and back."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta, timezone, tzinfo
from decimal import Decimal
from enum import StrEnum
from pathlib import PurePath
from types import SimpleNamespace
from uuid import UUID
from zoneinfo import ZoneInfo

import arrow
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


class OtherDatetime(datetime):
    """A time as pendulum and pandas have it."""

    def isoformat(self, *_: object, **__: object) -> str:
        return "a time"


class ArrayScalar:
    """A scalar as numpy has it, whose kind is a letter."""

    shape = ()

    def __init__(self, value: float, kind: str) -> None:
        self._value = value
        self.dtype = SimpleNamespace(kind=kind)

    def item(self) -> float:
        return self._value


class Zoneless(tzinfo):
    """A time zone that does not know its offset."""

    def utcoffset(self, _: datetime | None) -> None:
        return None

    dst = utcoffset

    def tzname(self, _: datetime | None) -> str:
        return "?"


@pytest.mark.parametrize(
    "moment",
    [
        pytest.param(datetime(2026, 1, 1, 12), id="naive"),
        pytest.param(datetime(2026, 1, 1, 12, tzinfo=Zoneless()), id="zone without an offset"),
        pytest.param(OtherDatetime(2026, 1, 1), id="naive, of another library"),
    ],
)
def test_a_time_without_a_zone_is_refused(moment: datetime) -> None:
    with pytest.raises(UnserialisableValueError, match=r"no time zone; use datetime.now\(UTC\)"):
        encode_value(moment, "value")


@pytest.mark.parametrize(
    "moment",
    [
        pytest.param(datetime(2026, 7, 1, 12, tzinfo=ZoneInfo("Europe/Berlin")), id="zoneinfo"),
        pytest.param(arrow.get(2026, 7, 1, 12, tzinfo="Europe/Berlin"), id="arrow"),
        pytest.param(
            OtherDatetime(2026, 7, 1, 12, tzinfo=ZoneInfo("Europe/Berlin")), id="a subclass"
        ),
    ],
)
def test_times_of_other_libraries_travel_in_utc(moment: object) -> None:
    encoded = encode_value(moment, "value")

    assert encoded == {"__type__": "datetime", "value": "2026-07-01T10:00:00+00:00"}


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        pytest.param(Decimal("1.5"), 1.5, id="decimal"),
        pytest.param(Decimal("24.00"), 24, id="whole decimal"),
        pytest.param(ArrayScalar(7, "i"), 7, id="numpy integer"),
        pytest.param(ArrayScalar(0.5, "f"), 0.5, id="numpy float"),
        pytest.param(ArrayScalar(True, "b"), True, id="numpy truth"),
    ],
)
def test_numbers_of_other_kinds_travel_as_numbers(value: object, expected: object) -> None:
    encoded = encode_value(value, "value")

    assert encoded == expected
    assert type(encoded) is type(expected)


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
        pytest.param(PurePath("a"), "Job.x", id="path"),
        pytest.param(Decimal("NaN"), "Job.x", id="decimal that is no number"),
        pytest.param(Decimal("sNaN"), "Job.x", id="signalling decimal"),
        pytest.param(Decimal("1e400"), "Job.x", id="decimal beyond floats"),
        pytest.param(timedelta(1), "Job.x", id="duration"),
        pytest.param(ArrayScalar(1767225600, "M"), "Job.x", id="numpy time, which has no zone"),
        pytest.param([datetime(2026, 1, 1)], "Job.x[0]", id="naive time in a list"),
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
