"""Replacing the members of relations to many (docs/protocol.md, section 3.4)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import sqlalchemy as sa

from aioftrackjobs.devserver.api_errors import IntegrityError
from aioftrackjobs.devserver.mutations.defaults import Defaults
from aioftrackjobs.devserver.mutations.payload import Key
from aioftrackjobs.devserver.schema.model import EntityType, Link, Model, Relation
from aioftrackjobs.devserver.store.database import Transaction
from aioftrackjobs.devserver.store.tables import TYPE


class Collections:
    """Replaces collections within one batch.

    Args:
        on_create: Is called with each joining entity that is created, and its row.
    """

    def __init__(
        self,
        model: Model,
        transaction: Transaction,
        defaults: Defaults,
        on_create: Callable[[EntityType, dict[str, Any]], None],
    ) -> None:
        self._model = model
        self._transaction = transaction
        self._defaults = defaults
        self._on_create = on_create

    def replace(
        self,
        entity_type: EntityType,
        relation: Relation,
        row: Mapping[str, Any],
        members: list[Key],
    ) -> None:
        """Make *members* the entities that *relation* leads to from the one in *row*.

        Raises:
            IntegrityError: If one of them does not exist, or cannot be a member.
        """
        where = f"{entity_type.name}.{relation.name}"
        target = self._model.types[relation.target]
        if relation.link is not None:
            self._join(relation.link, where, row["id"], target, [each["id"] for each in members])
        else:
            self._own(relation, where, row, target, members)

    def _join(
        self, link: Link, where: str, owner: str, target: EntityType, members: list[str]
    ) -> None:
        """Create and delete the entities that join *owner* and its *members*."""
        name = self._model.link_table(link)
        table = self._transaction.tables[name]
        statement = sa.select(table.c[link.there]).where(
            table.c[link.here] == sa.bindparam("owner")
        )
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
            self._insert(link, {link.here: owner, link.there: member})

    def _insert(self, link: Link, values: dict[str, Any]) -> None:
        if link.hidden:
            self._transaction.insert(link.entity_type, values)
            return
        joining = self._model.types[link.entity_type]
        self._defaults.complete(joining, values)
        row = {TYPE: joining.name, **values}
        self._transaction.insert(joining.root, row)
        self._on_create(joining, row)

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
        wanted = [tuple(member[name] for name in target.primary_key) for member in members]
        for key in self._owned(target, there, row[here], relation):
            if tuple(key.values()) in wanted:
                continue
            if there in target.required or there in target.primary_key:
                self._transaction.delete(target.root, key)
            else:
                self._transaction.update(target.root, key, {there: None})
        for member in members:
            if self._transaction.update(target.root, member, {there: row[here]}) == 0:
                raise _no_member(where, target, ", ".join(member.values()))

    def _owned(self, target: EntityType, there: str, owner: Any, relation: Relation) -> list[Key]:
        table = self._transaction.tables[target.root]
        columns = [table.c[name] for name in target.primary_key]
        statement = sa.select(*columns).where(table.c[there] == sa.bindparam("owner"))
        if relation.only:
            statement = statement.where(table.c[relation.only[0]] == relation.only[1])
        rows = self._transaction.fetch(statement, owner=owner)
        return [dict(zip(target.primary_key, each, strict=True)) for each in rows]


def _no_member(where: str, target: EntityType, key: str) -> IntegrityError:
    return IntegrityError(f"{where} names {target.name} {key}, which does not exist.")
