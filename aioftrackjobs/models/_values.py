"""Values of attributes: their types, how they are converted and validated, and what is refused.

pydantic validates the values of declared fields. Its errors become :class:`InvalidValueError`,
which names the entity type and the attribute.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import suppress
from datetime import UTC, date, datetime, time
from typing import Annotated, Any, TypeAlias, TypeVar
from uuid import uuid4

from pydantic import AfterValidator, BaseModel, BeforeValidator, ValidationError
from pydantic_core import CoreSchema, ErrorDetails
from pydantic_core.core_schema import any_schema

from aioftrackjobs.errors import InvalidValueError, UnserialisableValueError
from aioftrackjobs.models._collection import Collection
from aioftrackjobs.models._state import Owner
from aioftrackjobs.protocol.values import (
    ENTITY_TYPE,
    VALUE_TYPE,
    Referable,
    stored_time,
    stored_value,
)

T = TypeVar("T")

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


# Types of fields


class Before(BeforeValidator):
    """A validator before pydantic's own; it shows no address of its function in ``help()``."""

    def __repr__(self) -> str:
        return f"{type(self).__name__}({getattr(self.func, '__name__', self.func)})"


class After(AfterValidator):
    """The same after pydantic's own validation."""

    def __repr__(self) -> str:
        return f"{type(self).__name__}({getattr(self.func, '__name__', self.func)})"


def _date_as_time(value: object) -> object:
    """Return a date as the server stores it in a time; it does not depend on a time zone."""
    if isinstance(value, str) and len(value) == len("2026-01-02"):
        with suppress(ValueError):
            value = date.fromisoformat(value)
    if isinstance(value, date) and not isinstance(value, datetime):
        return datetime.combine(value, time(), UTC)
    if isinstance(value, int | float):  # pydantic would take it for seconds since 1970
        raise ValueError("it must be a valid datetime")  # noqa: TRY004 - pydantic's
    return value


#: A time in UTC and in whole seconds, as the server stores it. One without a zone is refused.
UtcDatetime: TypeAlias = Annotated[datetime, Before(_date_as_time), After(stored_time)]


class Unvalidated:
    """Marks a field whose values the session checks, by the schemas of the server."""

    def __get_pydantic_core_schema__(self, source: object, handler: object) -> CoreSchema:
        """Return the schema for any value."""
        return any_schema()


#: The type of a relation, for type checkers: ``Related[Status | None]``.
Related: TypeAlias = Annotated[T, Unvalidated()]

#: A value that the server computes, such as ``{"url": ...}``. Its keys are not documented.
Computed: TypeAlias = dict[str, Any] | None


def new_id() -> str:
    """Return a random key for a new entity: clients make the keys, the server takes them.

    Source:
        docs/protocol.md, section 5.1, ``{uid}``.
    """
    return str(uuid4())


#: Validators of the base class of all entities. They check whole entities, no fields.
BASE_VALIDATORS = frozenset({"_refuse_other_types"})


class NonTextValidator(Before):
    """A validator that converts other values and returns every text unchanged."""


def verbatim_fields(model: type[BaseModel]) -> frozenset[str]:
    """Return the fields of *model* that accept any text unchanged: it needs no validation."""
    decorators = model.__pydantic_decorators__
    own = decorators.model_validators.keys() - BASE_VALIDATORS
    if own or decorators.field_validators or decorators.validators or decorators.root_validators:
        return frozenset()
    if any(option.startswith("str_") for option in model.model_config):
        return frozenset()
    return frozenset(
        name
        for name, field in model.__pydantic_fields__.items()
        if field.annotation in (str, str | None)
        and not field.frozen
        and all(isinstance(each, NonTextValidator) for each in field.metadata)
    )


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


# Conversion


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


def validated(
    model: type[BaseModel], entity_type: str, name: str, value: Any, owner: Owner | None
) -> Any:
    """Return *value* validated and converted, as entities of *model* store it under *name*.

    Raises:
        InvalidValueError: The attribute cannot have this value.
        UnserialisableValueError: JSON cannot hold it.
    """
    given = value = prepare(entity_type, name, value)
    if name in model.__pydantic_fields__:
        scratch = model.__new__(model)
        object.__setattr__(scratch, "__pydantic_fields_set__", set())
        object.__setattr__(scratch, "__pydantic_extra__", {})
        error: InvalidValueError | None = None
        try:
            model.__pydantic_validator__.validate_assignment(scratch, name, value)
        except ValidationError as exc:
            error = invalid_value(entity_type, exc)
        if error is not None:
            raise error  # outside the handler: pydantic's error says the same with less
        value = scratch.__dict__[name]
    if type(value) is not str or name in MAPS:
        require_flat(model, entity_type, name, given, value)
    if owner is not None and name in owner.relations_of(entity_type):
        require_relation(entity_type, name, value)
    return store(value)


def store(value: Any) -> Any:
    """Return *value* as entities store it: a list of entities becomes a tuple.

    A tuple cannot be changed without the entity recording it. A read returns a
    :class:`Collection`, which records changes.
    """
    if isinstance(value, (list, tuple, Collection)) and all(map(_is_entity, value)):
        return tuple(value)
    return value


# Refusals


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
