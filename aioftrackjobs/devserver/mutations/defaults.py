"""Values that the server fills in when entities are created and changed.

They are derived from the schema documents, so they work for any schemas. Few are known for
certain; :mod:`aioftrackjobs.devserver.assumptions` lists the rest.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any
from uuid import uuid4

from aioftrackjobs.devserver.api_errors import DuplicateEntryError
from aioftrackjobs.devserver.schema.model import Attribute, EntityType, Model
from aioftrackjobs.devserver.schema.quirks import BY_ACTING_USER, MADE_UP, SERVER_DEFAULTS, UNIQUE
from aioftrackjobs.devserver.schema.values import LARGEST_INTEGER, now_text, untyped
from aioftrackjobs.devserver.store.database import Transaction
from aioftrackjobs.devserver.store.tables import TYPE

_UID = "{uid}"
_SET_AT_CREATION = frozenset({"created_at", "date", "thread_activity"})
_FINISHED = frozenset({"done", "failed"})


class Defaults:
    """Fills in values for one batch of one user."""

    def __init__(self, model: Model, transaction: Transaction, username: str) -> None:
        self._model = model
        self._transaction = transaction
        self._username = username
        #: The moment of all changes of the batch.
        self._now = now_text()
        #: By entity type: attributes with initial values, whether these replace a null that was
        #: sent, and what makes them. A batch may create thousands of entities of one type.
        self._initials: dict[str, list[tuple[str, bool, Callable[[], Any]]]] = {}
        #: What was looked up, by the root of the entity type.
        self._known = defaultdict[str, dict[tuple[str, ...], Any]](dict)

    def forget(self, *roots: str) -> None:
        """Look up entities of these families again, of all if none is given: some have changed."""
        for root in roots or list(self._known):
            self._known.pop(root, None)

    def complete(self, entity_type: EntityType, values: dict[str, Any]) -> None:
        """Add defaults to the *values* of a new entity."""
        if entity_type.name not in self._initials:
            self._initials[entity_type.name] = [
                (name, attribute.default == _UID, initial)
                for name, attribute in entity_type.attributes.items()
                if (initial := self._initial(entity_type, attribute)) is not None
            ]
        for name, replaces_null, initial in self._initials[entity_type.name]:
            if values.get(name) is None and (replaces_null or name not in values):
                value = initial()
                if value is not None:
                    values[name] = value
        self._place_in_project(entity_type, values)
        self.complete_change(entity_type, {}, values)

    def complete_change(
        self, entity_type: EntityType, row: Mapping[str, Any], values: dict[str, Any]
    ) -> None:
        """Add to a change of an entity the values that depend on it."""
        stamp_finished_at(entity_type, row, values)
        self._continue_series(entity_type, row, values)

    def check_unique(self, entity_type: EntityType, values: Mapping[str, Any]) -> None:
        """Check that no other entity has the same value of a unique attribute."""
        name = UNIQUE.get(entity_type.name)
        if name is None or values.get(name) is None or name not in entity_type.attributes:
            return
        row = self._transaction.read(entity_type.root, {name: values[name]})
        if row is not None and any(row[key] != values[key] for key in entity_type.primary_key):
            raise DuplicateEntryError(f"There is a {entity_type.name} with this {name} already.")

    def _initial(self, entity_type: EntityType, attribute: Attribute) -> Callable[[], Any] | None:
        """Return what makes the value of *attribute* of a new entity; None if it has none."""
        name, new_id = attribute.name, lambda: str(uuid4())
        if name in entity_type.discriminators:
            return _always(entity_type.discriminators[name])
        if attribute.derived:
            return None
        if attribute.default is not None:
            return new_id if attribute.default == _UID else _always(_stored(attribute))
        if attribute.is_datetime:
            set_here = name in _SET_AT_CREATION or name in entity_type.required
            return _always(self._now) if set_here else None
        if name == "created_by_id" or (entity_type.name, name) in BY_ACTING_USER:
            return self.acting_user
        if attribute.type == "boolean":
            return _always(0)
        if (entity_type.name, name) in MADE_UP:
            return new_id
        known = SERVER_DEFAULTS.get((entity_type.name, name))
        if known is not None:
            if attribute.references is None:
                return _always(known)
            return partial(self._existing, attribute.references, known)
        return self._required(attribute) if name in entity_type.required else None

    def acting_user(self) -> Any:
        """Return the id of the user for whom the batch acts, None if there is none."""
        user = self._model.types.get("User")
        if user is None or not {"id", "username"} <= user.attributes.keys():
            return None
        return self._found(self._transaction.value, user.root, "username", self._username, "id")

    def _existing(self, type_name: str, own_id: str) -> Any:
        target, read = self._model.types[type_name], self._transaction.value
        return self._found(read, target.root, target.primary_key[0], own_id, target.primary_key[0])

    def _found(self, look_up: Callable[..., Any], root: str, *wanted: str) -> Any:
        """Return what *look_up* finds; it is kept until an entity of the family is changed."""
        known = self._known[root]
        if wanted not in known:
            known[wanted] = look_up(root, *wanted)
        return known[wanted]

    def _required(self, attribute: Attribute) -> Callable[[], Any] | None:
        """Return what makes the value of a required attribute that clients do not send."""
        if attribute.type in {"integer", "number"}:
            return _always(0)
        target = self._model.types.get(attribute.references or "")
        if target is None or not {"name", "sort"} <= target.attributes.keys():
            return None
        if target.relations.get("parent"):  # a tree, and no vocabulary such as statuses
            return None
        lowest, key = self._transaction.lowest, target.primary_key[0]
        return partial(self._found, lowest, target.root, "sort", key)

    def _continue_series(
        self, entity_type: EntityType, row: Mapping[str, Any], values: dict[str, Any]
    ) -> None:
        """Give the next number to an entity of a series without one, such as a new version."""
        series = entity_type.series
        if series is None or values.get(series.owner) is None:
            return
        if values.get(series.number) is not None or row.get(series.number) is not None:
            return
        owner = {series.owner: values[series.owner]}
        highest = self._transaction.highest(entity_type.root, owner, series.number)
        values[series.number] = min((highest or 0) + 1, LARGEST_INTEGER)

    def _place_in_project(self, entity_type: EntityType, values: dict[str, Any]) -> None:
        parent = entity_type.relations.get("parent")
        missing = "project_id" in entity_type.attributes and values.get("project_id") is None
        if parent is None or not missing or values.get("parent_id") is None:
            return
        target = self._model.types[parent.target]
        key = (target.primary_key[0], values["parent_id"])
        kind = self._transaction.value(target.root, *key, TYPE)
        project = entity_type.attributes["project_id"].references
        if project and kind in self._model.types[project].concrete:
            values["project_id"] = values["parent_id"]
        elif kind is not None and "project_id" in self._model.types[kind].attributes:
            values["project_id"] = self._transaction.value(target.root, *key, "project_id")


def stamp_finished_at(
    entity_type: EntityType, row: Mapping[str, Any], values: dict[str, Any]
) -> None:
    """Set ``finished_at`` when the status becomes final, and clear it when it is not."""
    if "status" not in values or "finished_at" in values:
        return
    status, finished_at = (entity_type.attributes.get(n) for n in ("status", "finished_at"))
    if not finished_at or not status or not _FINISHED.issubset(status.enum or ()):
        return
    if values["status"] not in _FINISHED:
        if row.get("finished_at") is not None:
            values["finished_at"] = None
    elif row.get("finished_at") is None:
        values["finished_at"] = now_text()


def _always(value: Any) -> Callable[[], Any]:
    return lambda: value


def _stored(attribute: Attribute) -> Any:
    if attribute.type == "variable" and isinstance(attribute.default, bool | list):
        return untyped(attribute.default)
    return int(attribute.default) if attribute.type == "boolean" else attribute.default
