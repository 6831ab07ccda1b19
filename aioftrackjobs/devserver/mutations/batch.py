"""Creates, updates and deletes of one batch.

Operations are done in order. Checks that need all of them to be done, such as that required
attributes have values, wait for :meth:`Batch.finish`; foreign keys wait for the end of the
transaction (docs/protocol.md, section 2.2).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import sqlalchemy as sa

from aioftrackjobs.devserver.api_errors import (
    EntityNotFoundError,
    IntegrityError,
    PermissionDeniedError,
    ValidationError,
)
from aioftrackjobs.devserver.entities.serializer import Entity, Serializer
from aioftrackjobs.devserver.mutations.defaults import Defaults
from aioftrackjobs.devserver.mutations.embedding import Created, embed
from aioftrackjobs.devserver.mutations.hierarchy import Hierarchy
from aioftrackjobs.devserver.mutations.payload import (
    Key,
    Payload,
    check_custom_value,
    read_key,
    read_payload,
)
from aioftrackjobs.devserver.schema.model import EntityType, Link, Model, Relation
from aioftrackjobs.devserver.schema.quirks import ADMINISTERED, JOINED_TO_CALLER
from aioftrackjobs.devserver.store.custom_attributes import always_exist
from aioftrackjobs.devserver.store.database import Transaction
from aioftrackjobs.devserver.store.tables import TYPE

Operation = Mapping[str, Any]


class Batch:
    """The changes that one batch of the user *username* makes, within one transaction."""

    def __init__(
        self,
        model: Model,
        transaction: Transaction,
        username: str,
        serializer: Serializer,
        may_administer: Callable[[], bool] = lambda: True,
    ) -> None:
        self._model = model
        self._transaction = transaction
        transaction.username = username
        self._defaults = Defaults(model, transaction, username)
        self._serializer = serializer
        self._may_administer = may_administer
        #: Entities created or changed, in order, and the rows of those that need not be read again.
        self._touched: dict[tuple[str, ...], None] = {}
        self._rows: dict[tuple[str, ...], dict[str, Any]] = {}
        self._has_cascaded = False
        #: New entities, by their key.
        self._created: dict[tuple[str, ...], Created] = {}
        self._hierarchy = Hierarchy(model, transaction)

    def add(self, entity_type: str, values: Mapping[str, Any]) -> Entity:
        """Create an entity for the server itself."""
        return self.create({"entity_type": entity_type, "entity_data": values})

    def set(self, entity_type: str, key: str, values: Mapping[str, Any]) -> Entity:
        """Change an entity for the server itself."""
        target = {"entity_type": entity_type, "entity_key": [key]}
        return self.update({**target, "entity_data": values})

    def create(self, operation: Operation) -> Entity:
        """Create an entity and return its wire form."""
        declared = self._entity_type(operation)
        data = operation.get("entity_data", {})
        payload = read_payload(self._model, declared, data)
        if operation.get("entity_key") is not None:
            self._merge_key(declared, payload.values, operation["entity_key"])
        if always_exist(declared):
            key = {name: payload.values.get(name) for name in declared.primary_key}
            check_custom_value(self._model, self._transaction, key["configuration_id"], data)
            return self._write_custom_value(declared, key, payload)
        return self._make(declared, payload)

    def update(self, operation: Operation) -> Entity:
        """Change an entity and return the wire form of what changed."""
        declared = self._entity_type(operation)
        key = read_key(declared, operation.get("entity_key"))
        data = operation.get("entity_data", {})
        if always_exist(declared):
            check_custom_value(self._model, self._transaction, key["configuration_id"], data)
            payload = read_payload(self._model, declared, data)
            self._merge_key(declared, payload.values, operation["entity_key"])
            return self._write_custom_value(declared, key, payload)
        row = self._row(declared, key)
        entity_type = declared if declared.shared else self._model.types[row[TYPE]]
        return self._change(entity_type, row, read_payload(self._model, entity_type, data))

    def _write_custom_value(self, declared: EntityType, key: Key, payload: Payload) -> Entity:
        """Write the value of a custom attribute, which may be created by an update."""
        if self._exists(declared, key):
            return self._change(declared, self._row(declared, key), payload)
        return self._make(declared, payload)

    def delete(self, operation: Operation) -> bool:
        """Delete an entity, and by cascade what depends on it.

        The official client also deletes what an earlier operation of its batch has deleted by
        cascade: metadata that was removed from its parent's collection.
        """
        entity_type = self._entity_type(operation)
        key = read_key(entity_type, operation.get("entity_key"))
        try:
            self._row(entity_type, key)
        except EntityNotFoundError:
            if self._has_cascaded:
                return True
            raise
        self._transaction.delete(entity_type.root, key)
        self._created.pop(tuple(key.values()), None)
        self._invalidate_rows()
        return True

    def join_caller(self) -> None:
        """Join the acting user to new entities: the caller is a recipient of a new note."""
        acting = self._defaults.acting_user()
        created = list(self._created.items()) if acting is not None else ()
        for (own_id, *_), (entity_type, *_) in created:
            if entity_type.name not in JOINED_TO_CALLER:
                continue
            joining, owner, member = JOINED_TO_CALLER[entity_type.name]
            known, key = self._model.types.get(joining), {owner: own_id, member: acting}
            if known is None or known.primary_key != (owner, member):
                continue
            exists = self._transaction.read(entity_type.root, {"id": own_id}) is not None
            if exists and not self._exists(known, key):
                self._make(known, Payload(values=key))

    def finish(self) -> None:
        """Check what can only be checked when the whole batch is done, and complete the results."""
        for place in self._touched:
            row = self._rows.get(place)
            if row is None:
                root, *key = place
                names = self._model.types[root].primary_key
                row = self._transaction.read(root, dict(zip(names, key, strict=True)))
                if row is None:
                    continue
            entity_type = self._model.types[row[TYPE]]
            for name in entity_type.required:
                if name in entity_type.attributes and row.get(name) is None:
                    raise ValidationError(f"{entity_type.name}.{name} is required.")
        self._hierarchy.check()
        embed(self._model, self._created, repeats=self._serializer.denormalize)

    def _entity_type(self, operation: Operation) -> EntityType:
        name = operation.get("entity_type")
        if not isinstance(name, str):
            raise ValidationError("The operation has no 'entity_type'.")
        entity_type = self._model.type(name)
        self._check_permission(entity_type)
        return entity_type

    def _check_permission(self, entity_type: EntityType) -> None:
        if entity_type.root in ADMINISTERED and not self._may_administer():
            raise PermissionDeniedError(f"A {entity_type.name} is changed by administrators.")

    def _merge_key(self, entity_type: EntityType, values: dict[str, Any], key: Any) -> None:
        for name, value in read_key(entity_type, key).items():
            if values.get(name) is None:
                values[name] = value
            elif str(values[name]) != value:
                raise ValidationError(f"'entity_key' and 'entity_data' differ in {name}.")

    def _subtype(self, entity_type: EntityType, values: Mapping[str, Any]) -> EntityType:
        """Return the subtype that *values* name, as the object type of a TypedContext does."""
        for name in sorted(entity_type.concrete - {entity_type.name}):
            wanted = self._model.types[name].discriminators
            given = {each for each in wanted if values.get(each) is not None}
            missing = wanted.keys() - given - entity_type.discriminators.keys()
            if given and not missing and all(values[each] == wanted[each] for each in given):
                return self._model.types[name]
        return entity_type

    def _row(self, entity_type: EntityType, key: Key) -> dict[str, Any]:
        row = self._rows.get((entity_type.root, *key.values()))
        row = row or self._transaction.read(entity_type.root, key)
        if row is None or row[TYPE] not in entity_type.concrete:
            raise EntityNotFoundError(f"There is no {entity_type.name} {', '.join(key.values())}.")
        return row

    def _exists(self, entity_type: EntityType, key: Key) -> bool:
        row = self._rows.get((entity_type.root, *key.values()))
        return (row or self._transaction.read(entity_type.root, key)) is not None

    def _make(self, declared: EntityType, payload: Payload) -> Entity:
        """Create an entity with the values of *payload* and the defaults."""
        values = payload.values
        entity_type = self._subtype(declared, values)
        sent = set(values)
        row = self._insert(entity_type, values)
        self._replace_collections(entity_type, row, payload)
        names = sent | {name for name, value in values.items() if value is not None}
        result = self._result(entity_type, row, names, payload)
        key = tuple(row[name] for name in entity_type.primary_key)
        self._created[key] = Created(entity_type, row, result)
        return result

    def _insert(self, entity_type: EntityType, values: dict[str, Any]) -> dict[str, Any]:
        """Add the defaults to *values*, and the row that they are for."""
        self._defaults.complete(entity_type, values)
        missing = [name for name in entity_type.primary_key if values.get(name) is None]
        if missing:
            raise ValidationError(f"A {entity_type.name} needs a {' and a '.join(missing)}.")
        self._defaults.check_unique(entity_type, values)
        row = {TYPE: entity_type.name, **values}
        self._transaction.insert(entity_type.root, row)
        self._touch(entity_type, row)
        self._hierarchy.move(entity_type, str(values[entity_type.primary_key[0]]), row)
        return row

    def _change(self, entity_type: EntityType, row: dict[str, Any], payload: Payload) -> Entity:
        key = {name: row[name] for name in entity_type.primary_key}
        self._refuse_immutable(entity_type, row, payload.values)
        values = {name: value for name, value in payload.values.items() if name not in key}
        self._defaults.complete_change(entity_type, row, values)
        self._defaults.check_unique(entity_type, {**values, **key})
        self._transaction.update(entity_type.root, key, values)
        row.update(values)
        self._touch(entity_type, row)
        self._hierarchy.move(entity_type, next(iter(key.values())), values)
        self._replace_collections(entity_type, row, payload)
        return self._result(entity_type, row, values, payload)

    def _touch(self, entity_type: EntityType, row: dict[str, Any]) -> None:
        place = (entity_type.root, *(row[name] for name in entity_type.primary_key))
        self._touched[place] = None
        self._rows[place] = row
        self._defaults.forget(entity_type.root)

    def _invalidate_rows(self) -> None:
        self._has_cascaded = True
        self._rows.clear()
        self._defaults.forget()

    def _refuse_immutable(
        self, entity_type: EntityType, row: Mapping[str, Any], values: Mapping[str, Any]
    ) -> None:
        fixed = entity_type.immutable | set(entity_type.primary_key)
        for name, value in values.items():
            if name in fixed and row.get(name) is not None and row[name] != value:
                raise ValidationError(f"{entity_type.name}.{name} cannot be changed.")

    def _result(
        self, entity_type: EntityType, row: dict[str, Any], names: Any, payload: Payload
    ) -> Entity:
        entity = self._serializer.changed(entity_type, row, names)
        entity.update(payload.references)
        entity.update(payload.moments)
        return entity

    def _replace_collections(
        self, entity_type: EntityType, row: Mapping[str, Any], payload: Payload
    ) -> None:
        """Replace the members of relations to many (docs/protocol.md, section 3.4)."""
        for relation, members in payload.collections:
            target = self._model.types[relation.target]
            self._check_permission(target)
            where = f"{entity_type.name}.{relation.name}"
            if relation.link is not None:
                self._join(
                    relation.link, where, row["id"], target, [each["id"] for each in members]
                )
            else:
                self._own(relation, where, row, target, members)
        if payload.collections:
            self._invalidate_rows()

    def _join(
        self, link: Link, where: str, owner: str, target: EntityType, members: list[str]
    ) -> None:
        name = self._model.link_table(link)
        table = self._transaction.tables[name]
        of_owner = table.c[link.here] == sa.bindparam("owner")
        statement = sa.select(table.c[link.there]).where(of_owner)
        known = {each[0] for each in self._transaction.fetch(statement, owner=owner)}
        for member in known.difference(members):
            self._transaction.delete(name, {link.here: owner, link.there: member})
        for member in dict.fromkeys(members):
            if member in known:
                continue
            row = self._transaction.read(target.root, {"id": member})
            if row is None:
                raise _no_member(where, target, member)
            if row[TYPE] not in target.concrete:
                raise IntegrityError(
                    f"{where} takes entities of type {target.name}, and {member} is a {row[TYPE]}."
                )
            ends = {link.here: owner, link.there: member}
            if link.hidden:
                self._transaction.insert(name, ends)
            else:
                self._insert(self._model.types[link.entity_type], ends)

    def _own(
        self,
        relation: Relation,
        where: str,
        row: Mapping[str, Any],
        target: EntityType,
        members: list[Key],
    ) -> None:
        """Make *members*, and no others, name the entity in *row* as their owner.

        Entities that are no longer members are deleted if they need an owner, as metadata does.
        """
        ((here, there),) = relation.pairs
        table = self._transaction.tables[target.root]
        statement = sa.select(*(table.c[name] for name in target.primary_key))
        statement = statement.where(table.c[there] == sa.bindparam("owner"))
        if relation.only:
            statement = statement.where(table.c[relation.only[0]] == relation.only[1])
        wanted = {tuple(member[name] for name in target.primary_key) for member in members}
        for found in self._transaction.fetch(statement, owner=row[here]):
            if tuple(found) in wanted:
                continue
            key = dict(zip(target.primary_key, found, strict=True))
            if there in target.required or there in target.primary_key:
                self._transaction.delete(target.root, key)
            else:
                self._transaction.update(target.root, key, {there: None})
        for member in members:
            if self._transaction.update(target.root, member, {there: row[here]}) == 0:
                raise _no_member(where, target, ", ".join(member.values()))
            self._hierarchy.move(target, next(iter(member.values())), {there: row[here]})


def _no_member(where: str, target: EntityType, key: str) -> IntegrityError:
    return IntegrityError(f"{where} names {target.name} {key}, which does not exist.")
