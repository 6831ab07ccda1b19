"""Conversion of values between wire and database (docs/protocol.md, section 3.1).

Stored dates are naive UTC text in whole seconds, so that text order is time order.
"""

from __future__ import annotations

import json
import math
from datetime import UTC, datetime
from typing import Any

from aioftrackjobs.devserver.api_errors import ValidationError
from aioftrackjobs.devserver.schema.model import Attribute

#: The largest whole number that SQLite can store.
LARGEST_INTEGER = 2**63 - 1
_KINDS = {
    "string": "text",
    "boolean": "true or false",
    "integer": "a whole number",
    "number": "a number",
}


def now_text() -> str:
    """Return the present time in its stored form."""
    return datetime.now(UTC).replace(tzinfo=None).isoformat(timespec="seconds")


def datetime_text(text: str, *, precise: bool = False) -> str:
    """Return an ISO date in its stored form, with its fraction of a second if *precise*."""
    moment = datetime.fromisoformat(text.strip())
    if moment.tzinfo is not None:
        moment = moment.astimezone(UTC).replace(tzinfo=None)
    return moment.isoformat(timespec="auto" if precise else "seconds")


def encode(attribute: Attribute, value: Any) -> Any:
    """Return the wire form of a stored *value*."""
    if value is None:
        return None
    if attribute.format == "date-time":
        return {"__type__": "datetime", "value": value}
    if isinstance(value, bytes):
        return json.loads(value)
    return bool(value) if attribute.type == "boolean" else value


def decode(owner: str, attribute: Attribute, value: Any) -> Any:
    """Return the stored form of a *value* that a client sent."""
    if value is None:
        return None
    name = f"{owner}.{attribute.name}"
    if attribute.is_datetime:
        return _decode_datetime(name, value)
    if attribute.type == "variable":
        value = _with_dates(name, value)
    if not _fits(attribute.type, value):
        wanted = _KINDS.get(attribute.type, attribute.type)
        raise ValidationError(f"{name} takes {wanted}, not {_kind_of(value)}.")
    if attribute.enum is not None and value not in attribute.enum:
        words = ", ".join(f"'{word}'" for word in attribute.enum)
        raise ValidationError(f"'{value}' is not a value of {name}, which are {words}.")
    if attribute.type == "variable" and isinstance(value, bool | list | dict):
        return untyped(value)
    return int(value) if attribute.type == "boolean" else value


def untyped(value: bool | list[Any] | dict[str, Any]) -> bytes:  # noqa: FBT001
    """Return the stored form of values that SQLite has no type for: JSON as bytes."""
    return json.dumps(value, ensure_ascii=False).encode()


def untyped_date(text: str) -> bytes:
    """Return the stored form of a date in an attribute of any type; *text* is its plain form.

    Such dates sort by time, and after all other values that are stored as JSON.
    """
    return untyped(_date(text))


def _date(text: str) -> dict[str, Any]:
    return {"__type__": "datetime", "value": text}


def _with_dates(name: str, value: Any) -> Any:
    """Return *value*, a date or a list with dates, with these in their stored form."""
    if isinstance(value, list):
        return [_date(_decode_datetime(name, each)) if _is_date(each) else each for each in value]
    return _date(_decode_datetime(name, value)) if _is_date(value) else value


def is_date(value: Any) -> bool:
    """Return whether *value* is a date in wire form, or a text in ISO form."""
    try:
        datetime_text(value["value"] if _is_date(value) else value)
    except (AttributeError, KeyError, TypeError, ValueError, OverflowError):
        return False
    return True


def _is_date(value: Any) -> bool:
    return isinstance(value, dict) and value.get("__type__") in ("datetime", "date")


def _decode_datetime(name: str, value: Any) -> str:
    try:
        if _is_date(value):
            value = value.get("value")
        return datetime_text(value)
    except (AttributeError, TypeError, ValueError, OverflowError):
        raise ValidationError(f"{name} takes a date in ISO form.") from None


def _fits(kind: str, value: Any) -> bool:
    match kind:
        case "string":
            return isinstance(value, str)
        case "boolean":
            return isinstance(value, bool)
        case "integer":
            return isinstance(value, int) and _storable(value)
        case "number":
            return _storable(value)
        case _:
            values = value if isinstance(value, list) else [value]
            return all(
                isinstance(each, bool | str) or _is_date(each) or _storable(each) for each in values
            )


def _storable(value: Any) -> bool:
    """Return whether it is a number that SQLite can store; it can store any text."""
    if isinstance(value, float):
        return math.isfinite(value)
    is_whole = isinstance(value, int) and not isinstance(value, bool)
    return is_whole and -LARGEST_INTEGER <= value <= LARGEST_INTEGER


def _kind_of(value: Any) -> str:
    kinds = {bool: "true or false", str: "text", dict: "an object", list: "a list"}
    return kinds.get(type(value), "such a number")
