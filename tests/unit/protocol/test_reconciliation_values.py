"""Comparing values as they were sent with values as a server may return them."""

from __future__ import annotations

import pytest

from aioftrackjobs.protocol.reconciliation import agrees, discriminating_attributes


def time(text: str) -> dict[str, str]:
    return {"__type__": "datetime", "value": text}


USER = {"__entity_type__": "User", "id": "u"}


@pytest.mark.parametrize(
    ("sent", "returned"),
    [
        ("text", "text"),
        (1, 1.0),
        (True, 1),
        (0.1, 0.10000000149011612),
        (time("2026-01-02T03:04:05.678901+00:00"), time("2026-01-02T03:04:05")),
        (time("2026-01-02"), {"__type__": "date", "value": "2026-01-02"}),
        ("2026-01-02T03:04:05", time("2026-01-02T03:04:05")),
        (USER, {**USER, "username": "maya"}),
        ({**USER, "__entity_type__": "BaseUser"}, USER),
    ],
)
def test_the_same_in_another_form_agrees(sent: object, returned: object) -> None:
    assert agrees({"x": sent}, {"x": returned})  # type: ignore[dict-item]


@pytest.mark.parametrize(
    ("sent", "returned"),
    [
        ("text", "Text"),
        ("", None),
        (1, 2),
        (1.5, "1.5"),
        (time("2026-01-02T03:04:05"), time("2026-01-02T03:04:07")),
        (time("2026-01-02T03:04:05"), None),
        ("no time", time("2026-01-02T03:04:05")),
        (USER, {**USER, "id": "v"}),
        (USER, None),
    ],
)
def test_other_values_do_not_agree(sent: object, returned: object) -> None:
    assert not agrees({"x": sent}, {"x": returned})  # type: ignore[dict-item]


def test_a_missing_value_does_not_agree() -> None:
    assert not agrees({"x": "text"}, {})


def test_defaults_and_containers_do_not_discriminate() -> None:
    values = {"b": 1, "a": "x", "none": None, "members": [USER], "metadata": {"key": "value"}}

    assert discriminating_attributes(values) == ("a", "b")  # type: ignore[arg-type]
    assert agrees(values, {"a": "x", "b": 1})  # type: ignore[arg-type]
