"""Checking the values of custom attributes against the type of their attribute."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from aioftrackjobs.devserver.api_errors import ValidationError
from aioftrackjobs.devserver.schema.model import Model
from aioftrackjobs.devserver.schema.values import is_date
from aioftrackjobs.devserver.store.database import Transaction


def _is_text(value: object) -> bool:
    return isinstance(value, str)


def _is_choice(value: object) -> bool:
    return all(map(_is_text, value if isinstance(value, list) else [value]))


#: By the name of a type, what its values are; other types take any.
_TESTS: Mapping[str, Callable[[Any], bool]] = {
    "text": _is_text,
    "url": _is_text,
    "expression": _is_text,
    "number": lambda value: isinstance(value, int | float) and not isinstance(value, bool),
    "boolean": lambda value: isinstance(value, bool),
    "date": is_date,
    "enumerator": _is_choice,
    "dynamic enumerator": _is_choice,
}


def check_custom_value(
    model: Model, transaction: Transaction, configuration_id: object, value: object
) -> None:
    """Check that *value* is one of the custom attribute with this configuration.

    Raises:
        ValidationError: If it is of another type.
    """
    configuration = _row(model, transaction, "CustomAttributeConfiguration", configuration_id)
    kind = _row(model, transaction, "CustomAttributeType", configuration.get("type_id")).get("name")
    test = _TESTS.get(str(kind).lower())
    if value is None or test is None or test(value):
        return
    raise ValidationError(
        f"The value of the custom attribute '{configuration.get('key')}' must be of type {kind}."
    )


def _row(
    model: Model, transaction: Transaction, entity_type: str, key: object
) -> Mapping[str, Any]:
    known = model.types.get(entity_type)
    if known is None or not isinstance(key, str):
        return {}
    return transaction.read(known.root, {known.primary_key[0]: key}) or {}
