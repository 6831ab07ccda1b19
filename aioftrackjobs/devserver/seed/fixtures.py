"""Fixtures: entities that a server starts with, from a JSON file or from a list.

A fixture is a list of entities as the wire has them, and nothing else::

    [
      {"__entity_type__": "Project", "id": "9c1f...", "name": "film", "full_name": "The film"},
      {"__entity_type__": "Sequence", "id": "51aa...", "name": "sq010", "parent_id": "9c1f..."},
      {"__entity_type__": "Job", "type": "api_job", "status": "queued",
       "user": {"__entity_type__": "User", "id": "..."}}
    ]

Entries may name each other in any order, by foreign key or by reference. Each is checked like
the creation of an entity, and gets the same defaults. An entry with the key of an existing entity
updates that entity, immutable attributes too. Either all entries are loaded or none. Every user
among them gets an API key.

``aioftrackjobs dump`` writes such a file.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from pydantic_core import from_json

from aioftrackjobs.devserver.api_errors import ApiError, ValidationError
from aioftrackjobs.devserver.auth import owner_of
from aioftrackjobs.devserver.errors import ServerStartError
from aioftrackjobs.devserver.mutations.batch import Batch
from aioftrackjobs.devserver.mutations.hierarchy import Hierarchy
from aioftrackjobs.devserver.mutations.payload import read_payload
from aioftrackjobs.devserver.schema.model import EntityType, Model
from aioftrackjobs.devserver.store.database import Transaction

#: Name of a file, or the entities themselves.
FixtureSource: TypeAlias = str | os.PathLike[str] | Iterable[Mapping[str, Any]]
_TYPE = "__entity_type__"


@dataclass(frozen=True, slots=True)
class Fixture:
    """Entities to load.

    Attributes:
        name: Name of the file; None if there is none.
        entries: The content, not checked yet.
    """

    name: str | None
    entries: Sequence[Any]

    @property
    def usernames(self) -> frozenset[str]:
        """The names of its users."""
        users = (each for each in self.entries if _type_of(each) == "User")
        return frozenset(name for each in users if isinstance(name := each.get("username"), str))

    def error(self, number: int, reason: str) -> ServerStartError:
        """Return the error for the entry with this *number*, from 0."""
        entry = self.entries[number]
        entity = name = _type_of(entry)
        if name and _has_id(entry):
            entity = f"{name} {entry['id']}"
        place = f"entry {number + 1} ({entity})" if entity else f"entry {number + 1}"
        return ServerStartError("fixture", self.name, f"{place}: {reason}")


NO_FIXTURE = Fixture(None, ())


def read_fixture(source: FixtureSource | None) -> Fixture:
    """Return the fixture in a file or in a list; an empty one for None."""
    if source is None:
        return NO_FIXTURE
    if not isinstance(source, str | os.PathLike):
        return Fixture(None, list(source))
    name = os.fspath(source)
    try:
        entries = from_json(Path(name).read_bytes())
    except OSError as error:
        raise ServerStartError("fixture", name, error.strerror or str(error)) from error
    except ValueError as error:
        raise ServerStartError("fixture", name, f"not JSON: {error}") from error
    if not isinstance(entries, list):
        raise ServerStartError("fixture", name, "it does not hold a list of entities")
    return Fixture(name, entries)


def load_fixture(
    model: Model, transaction: Transaction, new_batch: Callable[[], Batch], fixture: Fixture
) -> None:
    """Create or update the entities of *fixture*."""
    loader, entries = _Loader(model, transaction, new_batch), fixture.entries
    placed = dict[int, tuple[EntityType, dict[str, Any]]]()
    number = 0
    try:
        for number in _in_order(entries):
            placed[number] = loader.place(entries[number])
        for number, (entity_type, key) in placed.items():
            loader.complete(entity_type, key, entries[number])
    except ApiError as error:
        raise fixture.error(number, error.content) from None
    for username in fixture.usernames:
        owner = owner_of(model, transaction, username)
        if owner not in transaction.api_keys():
            transaction.make_api_key(owner)


class _Loader:
    """Loads one entry after the other, each checked by itself."""

    def __init__(
        self, model: Model, transaction: Transaction, new_batch: Callable[[], Batch]
    ) -> None:
        self._model = model
        self._transaction = transaction
        self._new_batch = new_batch

    def place(self, entry: Any) -> tuple[EntityType, dict[str, Any]]:
        """Load an entry without its collections; return its type and key."""
        name = _type_of(entry)
        if name is None:
            raise ValidationError(f"It must be an object with an '{_TYPE}'.")
        entity_type = self._model.type(name)
        self._refuse_same_name(entity_type, entry)
        data = {name: value for name, value in entry.items() if not isinstance(value, list)}
        key = self._known_key(entity_type, entry)
        batch = self._new_batch()
        if key is None:
            made = batch.create({"entity_type": name, "entity_data": data})
            key = {part: made[part] for part in entity_type.primary_key}
        else:
            self._transaction.username = ""  # so that no change of status is recorded
            self._set_fixed(entity_type, key, data)
            batch.update(_change(entity_type, key, data))
        batch.finish()
        return entity_type, key

    def complete(self, entity_type: EntityType, key: dict[str, Any], entry: Any) -> None:
        """Fill the collections of a loaded entry, and check its foreign keys and its parents."""
        collections = {name: value for name, value in entry.items() if isinstance(value, list)}
        if collections:
            batch = self._new_batch()
            batch.update(_change(entity_type, key, collections))
            batch.finish()
        row = self._transaction.read(entity_type.root, key) or {}
        hierarchy = Hierarchy(self._model, self._transaction)
        hierarchy.move(entity_type, row.get("id", ""), row)
        hierarchy.check()
        for name, (table, column) in self._transaction.references[entity_type.root].items():
            value = row.get(name)
            if value is not None and not self._has(table, {column: value}):
                wanted = f"there is no {table} '{value}'"
                raise ValidationError(f"{name} leads nowhere: {wanted}.")

    def _set_fixed(
        self, entity_type: EntityType, key: Mapping[str, Any], data: Mapping[str, Any]
    ) -> None:
        """Set immutable attributes of an existing entity, such as when it was created.

        A fixture that was dumped from a server has the right values; the seed has created the
        entity just now.
        """
        values = read_payload(self._model, entity_type, data).values
        fixed = {name: value for name, value in values.items() if name in entity_type.immutable}
        self._transaction.update(entity_type.root, key, fixed)

    def _known_key(
        self, entity_type: EntityType, entry: Mapping[str, Any]
    ) -> dict[str, Any] | None:
        key = {part: entry.get(part) for part in entity_type.primary_key}
        if not all(isinstance(value, str) for value in key.values()):
            return None
        return key if self._has(entity_type.root, key) else None

    def _has(self, table: str, key: Mapping[str, Any]) -> bool:
        return self._transaction.read(table, key) is not None

    def _refuse_same_name(self, entity_type: EntityType, entry: Mapping[str, Any]) -> None:
        """Refuse a second user with the same name: a key could not be assigned to one of them."""
        username = entry.get("username")
        if entity_type.name != "User" or not isinstance(username, str):
            return
        other = self._transaction.read(entity_type.root, {"username": username})
        if other is not None and other["id"] != entry.get("id"):
            raise ValidationError(f"There is another user called '{username}': {other['id']}.")


def _change(entity_type: EntityType, key: Mapping[str, Any], data: Any) -> dict[str, Any]:
    return {
        "entity_type": entity_type.name,
        "entity_key": [str(value) for value in key.values()],
        "entity_data": data,
    }


def _in_order(entries: Sequence[Any]) -> Iterator[int]:
    """Yield the numbers of all *entries*: entities before those that name them, users first.

    So parents exist before their children are created. Entries that name each other in a cycle
    come in the order in which they are found; foreign keys are checked at the end anyway.
    """
    by_id = {each["id"]: number for number, each in enumerate(entries) if _has_id(each)}
    named = [[by_id[text] for text in _texts(each) if text in by_id] for each in entries]
    seen: set[int] = set()
    first = sorted(range(len(entries)), key=lambda number: _type_of(entries[number]) != "User")
    for root in first:
        path = [] if root in seen else [(root, iter(named[root]))]
        seen.add(root)
        while path:
            number, others = path[-1]
            other = next((each for each in others if each not in seen), None)
            if other is None:
                path.pop()
                yield number
            else:
                seen.add(other)
                path.append((other, iter(named[other])))


def _has_id(entry: Any) -> bool:
    return isinstance(entry, Mapping) and isinstance(entry.get("id"), str)


def _texts(entry: Any) -> Iterator[str]:
    """Yield the texts in *entry* that may be the id of another entity."""
    for value in entry.values() if isinstance(entry, Mapping) else ():
        named = value.get("id") if isinstance(value, Mapping) else value
        if isinstance(named, str):
            yield named


def _type_of(entry: Any) -> str | None:
    name = entry.get(_TYPE) if isinstance(entry, Mapping) else None
    return name if isinstance(name, str) else None
