"""Single values: Python to JSON and back.

Source:
    docs/protocol.md, section 3.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime
from decimal import Decimal
from enum import Enum
from typing import Any, NamedTuple, TypeAlias
from uuid import UUID

from aioftrackjobs.errors import UnserialisableValueError

JSONValue: TypeAlias = (
    "bool | int | float | str | Sequence[JSONValue] | Mapping[str, JSONValue] | None"
)

ENTITY_TYPE = "__entity_type__"
VALUE_TYPE = "__type__"

#: Deeper than any value of ftrack; encoding a container that contains itself ends here.
_MAX_DEPTH = 64


#: Kinds of numpy's scalars that are truth values and numbers. Those of times are not among them:
#: they have no zone.
_NUMPY_NUMBERS = frozenset("biuf")


class Reference(NamedTuple):
    """An entity on the wire: its type, and its key as (attribute, value) pairs."""

    entity_type: str
    key: tuple[tuple[str, str], ...]

    def __str__(self) -> str:
        return f"{self.entity_type}({', '.join(value for _, value in self.key)})"


class Referable(ABC):
    """What can stand in a payload as a reference to an entity: any class with the method.

    It is no Protocol, because an ABC caches the result of isinstance checks.
    """

    @abstractmethod
    def __ftrack_reference__(self) -> Reference:
        """Return the reference that travels in place of the entity."""

    @classmethod
    def __subclasshook__(cls, subclass: type) -> bool:
        return hasattr(subclass, "__ftrack_reference__")


def in_utc(moment: datetime) -> datetime:
    """Return *moment* from a response in UTC; one without a zone is in UTC on the wire.

    Raises:
        ValueError: In UTC it would be before the year 1, or after the year 9999.
    """
    if moment.tzinfo is UTC:  # as most are
        return moment
    if moment.utcoffset() is None:
        return datetime.combine(moment, moment.time(), UTC)  # a third of the time of replace()
    try:
        return moment.astimezone(UTC)
    except OverflowError as exc:
        raise ValueError(f"{moment.isoformat()} is no time in UTC") from exc


def aware_in_utc(moment: datetime) -> datetime:
    """Return *moment*, which a caller has given, in UTC and as a plain ``datetime``.

    Raises:
        ValueError: It has no time zone, so that it could be any of several moments; or in UTC it
            would be before the year 1, or after the year 9999.
    """
    if moment.utcoffset() is None:
        raise ValueError(
            f"{moment} has no time zone; use datetime.now(UTC), or .astimezone() of a local time"
        )
    utc = in_utc(moment)
    if type(utc) is datetime:
        return utc
    # The subclasses of other libraries have an isoformat() of their own.
    return datetime.combine(utc.date(), utc.time(), UTC)


def stored_time(moment: datetime) -> datetime:
    """Return *moment* as the server stores it: in UTC, and in whole seconds.

    Raises:
        ValueError: As :func:`aware_in_utc`.

    Source:
        docs/protocol.md, sections 3.1 and 3.2.
    """
    return aware_in_utc(moment).replace(microsecond=0)


def stored_value(value: object) -> object:
    """Return *value* as entities keep it: plain, and a time as the server stores it.

    What cannot be sent stays as it is: :func:`encode_value` refuses it.
    """
    plain = standard_value(value)
    try:
        return stored_time(plain) if isinstance(plain, datetime) else plain
    except ValueError:
        return plain


def standard_value(value: object) -> object:
    """Return *value* as one of the standard library's plain types, where it is of another kind.

    That is: the value of a member of an enumeration, the ``datetime`` of an arrow, the number of a
    decimal or of a scalar of numpy, and the text of a UUID. Every other value stays as it is.
    """
    match value:
        case None | str() | int() | float() | date():
            return value
        case Enum():
            return standard_value(value.value)
        case UUID():
            return str(value)
        case Decimal():
            return _number_of(value)
        case Referable() | Mapping() | Sequence():
            return value
        case _:
            return _foreign_value(value)


def key_part(value: object) -> str | None:
    """Return *value* as the text that it is in a key; None if no key can have it."""
    plain = value.value if isinstance(value, Enum) else value
    if isinstance(plain, UUID):
        return str(plain)
    is_text = isinstance(plain, str) and bool(plain.strip()) and is_unicode(plain)
    return plain if isinstance(plain, str) and is_text else None


def is_unicode(text: str) -> bool:
    """Return whether *text* can be sent: it has no half of a surrogate pair."""
    if text.isascii():
        return True
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _number_of(value: Decimal) -> int | float:
    number = float(value) if value.is_finite() else math.nan
    return int(number) if number.is_integer() and number == value else number


def _foreign_value(value: Any) -> object:
    """Return the plain value in an object of arrow or numpy, which need not be installed."""
    if isinstance(getattr(type(value), "datetime", None), property):
        return value.datetime
    dtype = getattr(value, "dtype", None)
    if getattr(value, "shape", None) == () and getattr(dtype, "kind", None) in _NUMPY_NUMBERS:
        return value.item()
    return value


def encode_reference(reference: Reference) -> dict[str, JSONValue]:
    """Return the wire form of *reference* (docs/protocol.md, section 3.3)."""
    return {ENTITY_TYPE: reference.entity_type, **dict(reference.key)}


def encode_value(value: object, path: str, *, depth: int = 0) -> JSONValue:
    """Return the wire form of *value*.

    Args:
        value: A scalar, a time, an entity, or lists and mappings of these.
        path: Where the value is, for the error.
        depth: Number of containers around it.

    Raises:
        UnserialisableValueError: The value, or one inside it, has no wire form.
    """
    if type(value) is str and value.isascii():  # as most are
        return value
    match value:
        case Enum():
            return encode_value(value.value, path, depth=depth)
        case str():
            return _encode_text(value, path)
        case None | int():
            return value
        case float():
            if not math.isfinite(value):
                raise UnserialisableValueError(path, f"float ({value})")
            return value
        case datetime():
            return _encode_time(value, path)
        case date():
            # Both official clients send dates as datetimes without a time (section 3.1).
            return {VALUE_TYPE: "datetime", "value": value.isoformat()}
        case Referable():
            return encode_reference(value.__ftrack_reference__())
        case Mapping() | list() | tuple():
            return _encode_container(value, path, depth)
        case _:
            plain = standard_value(value)
            if plain is value:
                raise UnserialisableValueError(path, type(value).__name__)
            return encode_value(plain, path, depth=depth)


def _encode_time(value: datetime, path: str) -> JSONValue:
    try:
        return {VALUE_TYPE: "datetime", "value": aware_in_utc(value).isoformat()}
    except ValueError as exc:
        raise UnserialisableValueError(path, f"datetime ({exc})") from exc


def _encode_text(value: str, path: str) -> str:
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError as exc:
            raise UnserialisableValueError(path, "str (not valid Unicode)") from exc
    return str(value)


def _encode_container(
    value: Mapping[Any, object] | Sequence[object], path: str, depth: int
) -> JSONValue:
    if depth >= _MAX_DEPTH:
        raise UnserialisableValueError(path, f"{type(value).__name__} (nested too deep)")
    if not isinstance(value, Mapping):
        return [
            encode_value(item, f"{path}[{index}]", depth=depth + 1)
            for index, item in enumerate(value)
        ]
    encoded: dict[str, JSONValue] = {}
    for name, item in value.items():
        if not isinstance(name, str):
            raise UnserialisableValueError(path, f"mapping with a {type(name).__name__} key")
        encoded[_encode_text(name, path)] = encode_value(item, f"{path}.{name}", depth=depth + 1)
    return encoded


def decode_tagged(tagged: Mapping[str, Any]) -> object:
    """Return the value of a ``{"__type__": ..., "value": ...}`` object.

    Times are aware, in UTC. What cannot be decoded, or is of a kind this version does not know, is
    returned as it is: one odd value must not make a whole response unreadable.
    """
    value = tagged.get("value")
    if not isinstance(value, str):
        return value if value is None else tagged
    try:
        match tagged[VALUE_TYPE]:
            case "datetime":
                return in_utc(datetime.fromisoformat(value))
            case "date":
                return date.fromisoformat(value)
            case _:
                return tagged
    except ValueError:
        return tagged
