"""Keys and field types that several models share."""

from __future__ import annotations

from contextlib import suppress
from datetime import UTC, date, datetime, time
from typing import Annotated, Any, TypeAlias
from uuid import uuid4

from pydantic import AfterValidator, BaseModel, BeforeValidator

from aioftrackjobs.protocol.values import stored_time


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
