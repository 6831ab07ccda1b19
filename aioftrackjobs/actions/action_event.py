"""What an event about actions says: user, selection, and what was entered into a form. Pure.

Events come from browsers and from other programs, so that any part of them may be missing, or be of
another kind (docs/protocol.md, sections 7.4 and 7.8).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

#: The table of each type that is no typed context; those share the table ``task``.
_TABLES = {
    "Asset": "asset",
    "AssetVersion": "assetversion",
    "AssetVersionList": "list",
    "Component": "component",
    "ContainerComponent": "component",
    "FileComponent": "component",
    "Job": "job",
    "List": "list",
    "Note": "note",
    "Project": "show",
    "ReviewSession": "reviewsession",
    "ReviewSessionObject": "reviewsessionobject",
    "SequenceComponent": "component",
    "Timelog": "timelog",
    "TypedContextList": "list",
    "User": "user",
}

#: The same by names in lower case; what is not in it is a typed context.
_KNOWN = {name.lower(): table for name, table in _TABLES.items()} | {
    table: table for table in _TABLES.values()
}

#: The table of all typed contexts: tasks, shots, sequences, folders.
CONTEXT = "task"

#: Characters of an id, or of a name: no server has longer ones.
_LONGEST_ID = 255

_NOTHING: Mapping[str, Any] = {}


@dataclass(frozen=True, slots=True)
class Selected:
    """An entity that the user has selected.

    Attributes:
        table: What the event calls its type: ``task`` for every typed context, ``show`` for a
            project, ``assetversion``.
        id: Its id.
    """

    table: str
    id: str


@dataclass(frozen=True, slots=True)
class ActionEvent:
    """A discovery or a launch.

    Attributes:
        identifier: Which action is launched; None in a discovery.
        selection: What the user has selected.
        user_id: Who it is; None if that is not said.
        username: The same.
        values: What the user has entered into the form; None if there was no form yet.
        data: All data of the event.
        source: Where it comes from.
    """

    identifier: str | None
    selection: tuple[Selected, ...]
    user_id: str | None
    username: str | None
    values: Mapping[str, Any] | None
    data: Mapping[str, Any]
    source: Mapping[str, Any]

    @property
    def ids(self) -> frozenset[str]:
        """The ids of the selection."""
        return frozenset(each.id for each in self.selection)


def read_event(event: object) -> ActionEvent:
    """Return what *event* says; parts that make no sense are missing.

    Args:
        event: A mapping, or an object with ``data`` and ``source``.
    """
    data, source = _mapping(_part(event, "data")), _mapping(_part(event, "source"))
    user, identifier, values = _mapping(source.get("user")), data.get("actionIdentifier"), None
    if isinstance(data.get("values"), Mapping):
        values = {str(name): value for name, value in data["values"].items()}
    selection = data.get("selection")
    if selection is None:
        selection = _mapping(data.get("context")).get("selection")
    return ActionEvent(
        identifier=_text(identifier),
        selection=tuple(dict.fromkeys(_selected(selection))),
        user_id=_text(user.get("id")),
        username=_text(user.get("username")),
        values=values,
        data=data,
        source=source,
    )


def table_of(entity_type: str) -> str:
    """Return what events call *entity_type*, a name of the API."""
    return _TABLES.get(entity_type, CONTEXT)


def is_of(selected: Selected, entity_type: str) -> bool:
    """Return whether *selected* may be of *entity_type*, a name of the API.

    Events do not say which typed context it is: a ``Shot`` and a ``Task`` look the same.
    """
    table, name = selected.table.lower(), entity_type.lower()
    if name == "context":
        return table in (CONTEXT, _TABLES["Project"], name)
    return table in (_KNOWN.get(name, CONTEXT), name)


def matches(selection: Iterable[Selected], types: Iterable[str], *, many: bool) -> bool:
    """Return whether an action about *types* is offered for *selection*.

    Args:
        selection: What the user has selected.
        types: Names of entity types; none for an action that is offered everywhere.
        many: Whether it takes several entities.
    """
    selected, names = tuple(selection), tuple(types)
    if len(selected) > 1 and not many:
        return False
    if not names:
        return True
    return bool(selected) and all(any(is_of(each, name) for name in names) for each in selected)


def _part(event: object, name: str) -> object:
    return event.get(name) if isinstance(event, Mapping) else getattr(event, name, None)


def _mapping(value: object) -> Mapping[str, Any]:
    if isinstance(value, Mapping):
        return value
    if hasattr(value, "model_dump"):  # a model of pydantic
        dumped = value.model_dump(by_alias=True)
        return dumped if isinstance(dumped, Mapping) else _NOTHING
    return _NOTHING


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and 0 < len(value) <= _LONGEST_ID else None


def _selected(selection: object) -> Iterable[Selected]:
    if not isinstance(selection, list | tuple):
        return
    for each in selection:
        match each:
            case {"entityType": str() as table, "entityId": str() as own_id} if _text(own_id):
                yield Selected(table, own_id)
