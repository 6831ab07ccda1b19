"""Creates, updates and deletes of one batch.

Operations are done in order. What can only be judged when all are done, whether required
attributes have values, waits for :meth:`Batch.finish`; foreign keys wait for the end of the
transaction (protocol reference, section 2.2).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from aioftrackjobs.devserver.api_errors import EntityNotFoundError, ValidationError
from aioftrackjobs.devserver.entities.serializer import Encoder, Entity
from aioftrackjobs.devserver.mutations.collections import Members
from aioftrackjobs.devserver.mutations.defaults import Rules
from aioftrackjobs.devserver.mutations.embedding import Embedding
from aioftrackjobs.devserver.mutations.hierarchy import Trees
from aioftrackjobs.devserver.mutations.payload import Changes, Key, read_changes, read_key
from aioftrackjobs.devserver.schema.model import EntityType, Model
from aioftrackjobs.devserver.store.custom_attributes import are_always_there
from aioftrackjobs.devserver.store.database import Transaction
from aioftrackjobs.devserver.store.tables import TYPE

Operation = Mapping[str, Any]


class Batch:
    """The changes of one request, within one transaction."""

    def __init__(
        self, model: Model, transaction: Transaction, rules: Rules, encoder: Encoder
    ) -> None:
        self._model = model
        self._transaction = transaction
        self._rules = rules
        self._encoder = encoder
        #: Entities created or changed, with their rows as far as they are certain.
        self._touched: dict[tuple[str, ...], dict[str, Any] | None] = {}
        self._removed_along = False
        self._trees = Trees(model, transaction)
        self._embedding = Embedding(model)
        self._members = Members(model, transaction, rules, self._touch)

    def create(self, operation: Operation) -> Entity:
        """Create an entity and return its wire form."""
        declared = self._entity_type(operation)
        changes = read_changes(self._model, declared, operation.get("entity_data", {}))
        if operation.get("entity_key") is not None:
            self._merge_key(declared, changes.values, operation["entity_key"])
        key = {name: changes.values.get(name) for name in declared.primary_key}
        if are_always_there(declared) and self._exists(declared, key):
            return self._change(declared, self._row(declared, key), changes)
        return self._make(declared, changes)

    def update(self, operation: Operation) -> Entity:
        """Change an entity and return the wire form of what changed."""
        declared = self._entity_type(operation)
        key = read_key(declared, operation.get("entity_key"))
        data = operation.get("entity_data", {})
        if are_always_there(declared) and not self._exists(declared, key):
            changes = read_changes(self._model, declared, data)
            self._merge_key(declared, changes.values, operation["entity_key"])
            return self._make(declared, changes)
        row = self._row(declared, key)
        entity_type = declared if declared.shared else self._model.types[row[TYPE]]
        return self._change(entity_type, row, read_changes(self._model, entity_type, data))

    def delete(self, operation: Operation) -> bool:
        """Delete an entity and what goes with it.

        The official client also deletes what an earlier operation of its batch took along:
        metadata that has dropped out of its parent's collection.
        """
        entity_type = self._entity_type(operation)
        key = read_key(entity_type, operation.get("entity_key"))
        try:
            self._row(entity_type, key)
        except EntityNotFoundError:
            if self._removed_along:
                return True
            raise
        self._transaction.delete(entity_type.root, key)
        self._embedding.forget(next(iter(key.values())))
        self._forget_rows()
        return True

    def finish(self) -> None:
        """Check what may be wrong only when the whole batch is done, and complete the answers.

        Raises:
            ValidationError: If a required attribute of what was written has no value, or
                something is above itself.
        """
        for (root, *key), known in self._touched.items():
            names = self._model.types[root].primary_key
            row = known or self._transaction.read(root, dict(zip(names, key, strict=True)))
            if row is None:
                continue
            entity_type = self._model.types[row[TYPE]]
            for name in entity_type.required:
                if name in entity_type.attributes and row.get(name) is None:
                    raise ValidationError(f"{entity_type.name}.{name} is required.")
        self._trees.check()
        self._embedding.place(repeats=self._encoder.denormalize)

    def _entity_type(self, operation: Operation) -> EntityType:
        name = operation.get("entity_type")
        if not isinstance(name, str):
            raise ValidationError("The operation has no 'entity_type'.")
        return self._model.type(name)

    def _merge_key(self, entity_type: EntityType, values: dict[str, Any], key: Any) -> None:
        for name, value in read_key(entity_type, key).items():
            if values.get(name) is None:
                values[name] = value
            elif str(values[name]) != value:
                raise ValidationError(f"'entity_key' and 'entity_data' differ in {name}.")

    def _concrete(self, entity_type: EntityType, values: Mapping[str, Any]) -> EntityType:
        """Return the subtype that *values* mark, such as a TypedContext's object type."""
        for name in sorted(entity_type.concrete - {entity_type.name}):
            marks = self._model.types[name].marks
            told = {mark for mark in marks if values.get(mark) is not None}
            untold = marks.keys() - told - entity_type.marks.keys()
            if told and not untold and all(values[mark] == marks[mark] for mark in told):
                return self._model.types[name]
        return entity_type

    def _row(self, entity_type: EntityType, key: Key) -> dict[str, Any]:
        """Return the entity with the given *key* as it is now.

        Raises:
            EntityNotFoundError: If there is none, or it is of another type.
        """
        row = self._touched.get((entity_type.root, *key.values()))
        row = row or self._transaction.read(entity_type.root, key)
        if row is None or row[TYPE] not in entity_type.concrete:
            raise EntityNotFoundError(f"There is no {entity_type.name} {', '.join(key.values())}.")
        return row

    def _exists(self, entity_type: EntityType, key: Key) -> bool:
        row = self._touched.get((entity_type.root, *key.values()))
        return (row or self._transaction.read(entity_type.root, key)) is not None

    def _make(self, declared: EntityType, changes: Changes) -> Entity:
        """Create an entity with what *changes* say and what the rules add to it."""
        values = changes.values
        entity_type = self._concrete(declared, values)
        asked = set(values)
        self._rules.complete(entity_type, values)
        missing = [name for name in entity_type.primary_key if values.get(name) is None]
        if missing:
            raise ValidationError(f"A {entity_type.name} needs a {' and a '.join(missing)}.")
        self._rules.check_unique(entity_type, values)
        row = {TYPE: entity_type.name, **values}
        self._transaction.insert(entity_type.root, row)
        self._touch(entity_type, row)
        self._trees.create(entity_type, row)
        self._replace_collections(entity_type, row, changes)
        names = asked | {name for name, value in values.items() if value is not None}
        answer = self._answer(entity_type, row, names, changes)
        self._embedding.add(entity_type, row, answer)
        return answer

    def _change(self, entity_type: EntityType, row: dict[str, Any], changes: Changes) -> Entity:
        """Do what *changes* say to the entity that is in *row* so far."""
        key = {name: row[name] for name in entity_type.primary_key}
        self._refuse_immutable(entity_type, row, changes.values)
        values = {name: value for name, value in changes.values.items() if name not in key}
        self._rules.follow(entity_type, row, values)
        self._rules.check_unique(entity_type, {**values, **key})
        self._transaction.update(entity_type.root, key, values)
        row.update(values)
        self._touch(entity_type, row)
        self._trees.move(entity_type, next(iter(key.values())), values)
        self._replace_collections(entity_type, row, changes)
        return self._answer(entity_type, row, values, changes)

    def _touch(self, entity_type: EntityType, row: dict[str, Any]) -> None:
        key = tuple(row[name] for name in entity_type.primary_key)
        self._touched[entity_type.root, *key] = row

    def _forget_rows(self) -> None:
        """Have rows read again that other changes may have changed or removed along."""
        self._removed_along = True
        self._touched = dict.fromkeys(self._touched)

    def _refuse_immutable(
        self, entity_type: EntityType, row: Mapping[str, Any], values: Mapping[str, Any]
    ) -> None:
        fixed = entity_type.immutable | set(entity_type.primary_key)
        for name, value in values.items():
            if name in fixed and row.get(name) is not None and row[name] != value:
                raise ValidationError(f"{entity_type.name}.{name} cannot be changed.")

    def _answer(
        self,
        entity_type: EntityType,
        row: Mapping[str, Any],
        names: Any,
        changes: Changes,
    ) -> Entity:
        shown = [name for name in names if entity_type.has(name)]
        complete = {name: row.get(name) for name in entity_type.attributes} | dict(row)
        entity = self._encoder.changed(entity_type, complete, shown)
        entity.update(changes.references)
        return entity

    def _replace_collections(
        self, entity_type: EntityType, row: Mapping[str, Any], changes: Changes
    ) -> None:
        for relation, members in changes.collections:
            self._members.replace(entity_type, relation, row, members)
            target = self._model.types[relation.target]
            for here, there in relation.pairs:
                for member in members:
                    self._trees.move(target, next(iter(member.values())), {there: row[here]})
        if changes.collections:
            self._forget_rows()
