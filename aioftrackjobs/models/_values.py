"""Values of attributes: converted where they enter, and refused where no attribute can have them.

pydantic validates the values of declared fields. Its errors become :class:`InvalidValueError`,
which names the entity type and the attribute.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from aioftrackjobs.errors import InvalidValueError, UnserialisableValueError
from aioftrackjobs.models._collection import Collection
from aioftrackjobs.protocol.values import ENTITY_TYPE, VALUE_TYPE, Referable, stored_value

#: Relations that all entity types have under these names, if they have them at all.
MAPS = ("metadata", "custom_attributes")

#: Types of most values, which are validated as they are.
PLAIN = frozenset({str, int, float, bool, type(None), dict})


_RELATION = (
    "it must be an entity, a list of entities or None; an id goes into the attribute with _id"
)

#: What pydantic's kinds of errors mean, for those that are frequent.
_REASONS = {
    "bool_parsing": "it must be True or False",
    "bool_type": "it must be True or False",
    "float_parsing": "it must be a number",
    "float_type": "it must be a number",
    "int_from_float": "it must be a whole number",
    "int_parsing": "it must be a whole number",
    "int_type": "it must be a whole number",
    "missing": "its class has no default, so that it must be given",
    "string_too_short": "it must not be empty",
}


class NotAllowedError(ValueError):
    """A value is none of those that an attribute can have; for validators of fields.

    Args:
        kind: What the allowed values are.
        allowed: These values.
    """

    def __init__(self, kind: str, allowed: Iterable[str]) -> None:
        self.allowed = tuple(allowed)
        *most, last = [repr(each) for each in self.allowed]
        listed = f"{', '.join(most)} or {last}" if most else last
        super().__init__(f"it must be {kind}: {listed}")


def prepare(entity_type: str, name: str, value: Any) -> Any:
    """Return *value* as it is validated: plain, a time as the server stores it, a list for many.

    Raises:
        UnserialisableValueError: JSON cannot hold the value, but pydantic would convert it.
        InvalidValueError: It is an entity, and the attribute is the id of one.
    """
    if type(value) in PLAIN:
        return value
    if _is_entity(value):
        if name.endswith("_id"):
            relation = name.removesuffix("_id")
            reason = f"it must be an id; an entity goes into the attribute {relation!r}"
            raise InvalidValueError(entity_type, name, value, reason)
        return value
    if isinstance(value, Collection):
        return list(value)
    if isinstance(value, (bytes, bytearray, memoryview)):
        raise UnserialisableValueError(f"{entity_type}.{name}", type(value).__name__)
    return stored_value(value)


def store(value: Any) -> Any:
    """Return *value* as entities store it: a list of entities becomes a tuple.

    A tuple cannot be changed without the entity recording it. A read returns a
    :class:`Collection`, which records changes.
    """
    if isinstance(value, (list, tuple, Collection)) and all(map(_is_entity, value)):
        return tuple(value)
    return value


def require_relation(entity_type: str, name: str, value: object) -> None:
    """Check that the *value* of a relation is an entity, several, or None.

    Raises:
        InvalidValueError: It is something else.
    """
    if not _is_relation(value):
        hint = _nested_reason(name) if _is_nested(value) else _RELATION
        raise InvalidValueError(entity_type, name, value, hint)


def _is_relation(value: object) -> bool:
    if isinstance(value, (list, tuple)):
        return all(map(_is_referable, value))
    return value is None or _is_referable(value)


def require_flat(model: type[BaseModel], entity_type: str, name: str, value: Any, got: Any) -> None:
    """Check that *value* is no mapping or list that no attribute of an entity can hold.

    Args:
        model: Class of the entity.
        entity_type: Type of the entity.
        name: Name of the attribute.
        value: The value before its validation.
        got: The value after it: text, if the attribute is a text that holds JSON.

    Raises:
        InvalidValueError: It is one.
    """
    field = model.__pydantic_fields__.get(name)
    if field is not None and field.annotation is not Any:
        if not _is_nested(value) or not _has_entity(got):
            return
    elif name in MAPS:
        if got is None or (isinstance(got, (list, tuple)) and _is_relation(got)):
            return
    elif not _is_nested(value):
        return
    raise InvalidValueError(entity_type, name, value, _nested_reason(name))


def _nested_reason(name: str) -> str:
    if name == "metadata":
        return (
            "make each value an entity of its own: session.create("
            '"Metadata", {"parent_id": ..., "key": ..., "value": ...})'
        )
    return "make what it holds an entity of its own, and assign that; or make a text of it"


def _is_nested(value: object) -> bool:
    """Return whether *value* is a mapping, or a list with one, other than a time or an entity."""
    if isinstance(value, (list, tuple)):
        return any(isinstance(each, (list, tuple)) or _is_nested(each) for each in value)
    if not isinstance(value, Mapping) or _is_entity(value):
        return False
    return not (ENTITY_TYPE in value or VALUE_TYPE in value)


def _is_entity(value: object) -> bool:
    return isinstance(value, Referable)


def _is_referable(value: object) -> bool:
    return _is_entity(value) or (isinstance(value, Mapping) and ENTITY_TYPE in value)


def _has_entity(value: object) -> bool:
    return _is_entity(value) or (isinstance(value, (list, tuple)) and any(map(_is_entity, value)))


def invalid_value(entity_type: str, refused: ValidationError) -> InvalidValueError:
    """Return our error for the first value that pydantic has *refused*."""
    details = refused.errors(include_url=False)
    first = details[0]
    place = first["loc"]
    name = str(place[0]) if place else ""
    allowed: tuple[str, ...] = ()
    reasons: list[str] = []
    for each in details:
        if each["loc"][:1] == place[:1]:
            reasons.append(_reason(each))
            allowed = getattr(_cause(each), "allowed", allowed)
    # The input of an error inside a list is the item, not the list; that of a missing value is all.
    value = None if first["type"] == "missing" else first["input"]
    reason = " or ".join(dict.fromkeys(reasons))
    return InvalidValueError(entity_type, name, value, reason, allowed)


def _cause(details: ErrorDetails) -> Exception | None:
    """Return the error that a validator has raised, if one has."""
    cause = details.get("ctx", {}).get("error")
    return cause if isinstance(cause, Exception) else None


def _reason(details: ErrorDetails) -> str:
    kind, context = details["type"], details.get("ctx", {})
    if (cause := _cause(details)) is not None:
        return str(cause)
    if kind in ("is_instance_of", "model_type") and (name := _class_name(context)):
        return f"it must be an entity of the type {name}, or None"
    if kind.startswith("datetime_"):
        return "it must be a valid datetime"
    return _REASONS.get(kind) or details["msg"].replace("Input should be", "it must be")


def _class_name(context: Mapping[str, Any]) -> str | None:
    name = context.get("class") or context.get("class_name")
    return None if name is None else str(name)
