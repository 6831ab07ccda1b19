"""What ``ftrack.update`` says of entities: names of tables and columns, and what they stand for.

An event names columns of the database (``statusid``), a program attributes of the API
(``status_id``). The schemas of the server say which belong together: ``alias_for``. Without them,
and for columns that they do not know, such as custom attributes, the name of the column stays.

Source:
    docs/protocol.md, section 7.7.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple


class EntityNames:
    """The names of entity types and attributes, by those of tables and columns.

    Args:
        documents: The schema documents of a server.
    """

    def __init__(self, documents: Sequence[Mapping[str, Any]] = ()) -> None:
        self._types: dict[str, str] = {}
        self._columns: dict[str, dict[str, str]] = {}
        for document in documents:
            if isinstance(document, dict) and isinstance(document.get("id"), str):
                self._add(document["id"], document)

    def _add(self, entity_type: str, document: Mapping[str, Any]) -> None:
        alias = document.get("alias_for")
        if not isinstance(alias, dict):  # typed contexts and lists share the table of their base
            self._types.setdefault(str(alias or entity_type).lower(), entity_type)
        properties = document.get("properties")
        columns: dict[str, str] = {}
        for name, fragment in properties.items() if isinstance(properties, dict) else ():
            column = fragment.get("alias_for") if isinstance(fragment, dict) else None
            if not isinstance(column, str) or name.startswith("_"):
                continue
            is_plain = "$ref" not in fragment and fragment.get("type") not in _COLLECTIONS
            if is_plain or column not in columns:
                columns[column] = name
        self._columns[entity_type] = columns

    def entity_type(self, table: str, name: object = None) -> str:
        """Return the name of an entity type.

        Args:
            table: As events have it: ``assetversion``, ``task`` for every typed context.
            name: The name of the type, if the event has it, too.
        """
        if isinstance(name, str) and name:
            return name
        return self._types.get(table.lower(), table)

    def attribute(self, entity_type: str, table: str, column: str) -> str:
        """Return the name of the attribute that is kept in *column*."""
        columns = self._columns.get(entity_type)
        if columns is None:
            columns = self._columns.get(self.entity_type(table), {})
        return columns.get(column, column)


_COLLECTIONS = ("array", "mapped_array")

NO_NAMES = EntityNames()


class Described(NamedTuple):
    """An entity as events describe it.

    Attributes:
        entity_type: Its type, as far as the schemas or the event name it.
        id: Its id; empty if there is none.
        table: The name of its table.
    """

    entity_type: str
    id: str
    table: str


def read_entity(payload: object, names: EntityNames) -> Described | None:
    """Return the entity that *payload* describes; None if it describes none."""
    if not isinstance(payload, Mapping):
        return None
    own_id, table = payload.get("entityId"), payload.get("entityType")
    table = table if isinstance(table, str) else ""
    entity_type = names.entity_type(table, payload.get("entity_type"))
    if not entity_type and not own_id:
        return None
    return Described(entity_type, "" if own_id is None else str(own_id), table)


def read_entities(payload: object, names: EntityNames) -> Iterator[Described]:
    """Yield the entities that the entries of *payload* describe; what is no entity is left out."""
    for entry in payload if isinstance(payload, list) else ():
        if (entity := read_entity(entry, names)) is not None:
            yield entity


def read_changes(
    payload: Mapping[str, Any], entity: Described, names: EntityNames
) -> Iterator[tuple[str, str, Any, Any]]:
    """Yield attribute, column, old and new value of each change in a description of *entity*."""
    changes = payload.get("changes")
    found: Mapping[Any, Any] = changes if isinstance(changes, Mapping) else {}
    for column, values in found.items():
        name = names.attribute(entity.entity_type, entity.table, str(column))
        if isinstance(values, Mapping):
            yield name, str(column), values.get("old"), values.get("new")
        else:
            yield name, str(column), None, values
    keys = payload.get("keys")
    for column in keys if isinstance(keys, list) else ():
        if isinstance(column, str) and column not in found:
            name = names.attribute(entity.entity_type, entity.table, column)
            yield name, column, None, None
