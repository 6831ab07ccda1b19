"""The ``entity_data`` of an operation, checked and turned into columns.

Values of custom attributes are also checked against the type of their attribute.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from aioftrackjobs.devserver.api_errors import ValidationError
from aioftrackjobs.devserver.schema.model import EntityType, Model, Relation
from aioftrackjobs.devserver.schema.values import decode, is_date
from aioftrackjobs.devserver.store.database import Transaction

Key = dict[str, Any]


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


@dataclass(slots=True)
class Payload:
    """New values of one entity.

    Attributes:
        values: By attribute, as they are stored.
        references: New targets of relations in wire form, for the result.
        collections: Complete new members of relations to many, by key.
        moments: Dates as they were sent, for the result.
    """

    values: dict[str, Any] = field(default_factory=dict)
    references: dict[str, Any] = field(default_factory=dict)
    collections: list[tuple[Relation, list[Key]]] = field(default_factory=list)
    moments: dict[str, Any] = field(default_factory=dict)


def read_payload(model: Model, entity_type: EntityType, data: Any) -> Payload:
    """Return the values in *data* for an entity."""
    if not isinstance(data, Mapping):
        raise ValidationError("'entity_data' must be an object.")
    payload = Payload()
    for name, value in data.items():
        if name == "__entity_type__":
            continue
        attribute = entity_type.attributes.get(name)
        if name in entity_type.computed:
            raise ValidationError(f"{entity_type.name}.{name} is computed by the server.")
        if attribute is not None and attribute.derived:
            continue  # the database computes it; the value in a dump may be out of date
        if attribute is not None and not attribute.hidden:
            _set(payload, name, decode(entity_type.name, attribute, value), entity_type)
            if attribute.is_datetime and isinstance(value, Mapping):
                payload.moments[name] = value
        elif name in entity_type.relations:
            _relate(model, entity_type, payload, entity_type.relations[name], value)
        elif not model.ignores_unknown:
            raise entity_type.unknown(str(name))
    return payload


def read_key(entity_type: EntityType, key: Any) -> Key:
    """Return the key of an entity from an operation, which has a list or one bare value."""
    values = key if isinstance(key, list) else [key]
    names = entity_type.primary_key
    if len(values) != len(names) or not all(isinstance(value, str | int) for value in values):
        raise ValidationError(
            f"'entity_key' of a {entity_type.name} must be a list with its {' and '.join(names)}."
        )
    return {name: str(value) for name, value in zip(names, values, strict=True)}


def _set(payload: Payload, name: str, value: Any, entity_type: EntityType) -> None:
    if name in payload.values and payload.values[name] != value:
        raise ValidationError(
            f"{entity_type.name}.{name} is given twice, and not the same both times."
        )
    payload.values[name] = value
    for alias in entity_type.attributes[name].aliases:
        payload.values[alias] = value


def _relate(
    model: Model, entity_type: EntityType, payload: Payload, relation: Relation, value: Any
) -> None:
    where = f"{entity_type.name}.{relation.name}"
    if relation.tree is not None:
        raise ValidationError(f"{where} follows from the parents of entities; write 'parent'.")
    if not relation.writable:
        raise ValidationError(f"{where} cannot be written.")
    if relation.many:
        if not isinstance(value, list):
            raise ValidationError(f"{where} takes a list of references.")
        members = [_read_reference(model, relation, each, where) for each in value]
        payload.references[relation.name] = [_wire_form(*member) for member in members]
        payload.collections.append((relation, [key for _, key in members]))
        return
    found = None if value is None else _read_reference(model, relation, value, where)
    payload.references[relation.name] = found and _wire_form(*found)
    for here, there in relation.pairs:
        _set(payload, here, found and found[1].get(there), entity_type)


def _wire_form(entity_type: EntityType, key: Key) -> dict[str, Any]:
    return {"__entity_type__": entity_type.name, **key}


def _read_reference(
    model: Model, relation: Relation, value: Any, where: str
) -> tuple[EntityType, Key]:
    """Return type and key of a reference (docs/protocol.md, section 3.3)."""
    if not isinstance(value, Mapping):
        raise ValidationError(
            f"{where} takes a reference to a {relation.target}, an object with its type and key."
        )
    name = value.get("__entity_type__", relation.target)
    target = model.type(name)
    if target.root != model.types[relation.target].root:
        raise ValidationError(f"{where} takes a {relation.target}, not a {name}.")
    key = {part: value.get(part) for part in target.primary_key}
    if not all(isinstance(part, str) for part in key.values()):
        raise ValidationError(f"{where}: the reference lacks {' and '.join(key)}, as text.")
    return target, key


def check_custom_value(
    model: Model, transaction: Transaction, configuration_id: object, data: Any
) -> None:
    """Check that the value in *data* is one of the custom attribute with this configuration."""
    value = data.get("value") if isinstance(data, Mapping) else None
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
