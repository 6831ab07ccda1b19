"""Scopes: tables in a query, and the SQL that leads from one to a related one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from aioftrackjobs.devserver.api_errors import ValidationError
from aioftrackjobs.devserver.query.binder import Hop
from aioftrackjobs.devserver.query.joins import membership_conditions, starting_keys
from aioftrackjobs.devserver.schema.model import EntityType, Model
from aioftrackjobs.devserver.store.tables import TYPE

Condition = sa.ColumnElement[Any]


@dataclass(frozen=True, slots=True)
class Scope:
    """The entities that a part of a query is about.

    Attributes:
        source: Table of the type's family, with an alias of its own in the statement.
    """

    model: Model
    tables: Mapping[str, sa.TableClause]
    entity_type: EntityType
    source: sa.FromClause

    @classmethod
    def of(
        cls, model: Model, tables: Mapping[str, sa.TableClause], entity_type: EntityType
    ) -> Scope:
        """Return a new scope for all entities of a type."""
        return cls(model, tables, entity_type, tables[entity_type.root].alias())

    def is_of_type(self) -> Condition:
        """Return the condition that a row of the family's table is of the scope's type."""
        if self.entity_type.shared:
            return self._belongs()
        if self.entity_type.name == self.entity_type.root:
            return sa.true()
        return self.source.c[TYPE].in_(sorted(self.entity_type.concrete))

    def _belongs(self) -> Condition:
        if self.entity_type.member_key is None:
            return sa.true()
        key, target = self.entity_type.member_key
        other = Scope.of(self.model, self.tables, self.model.type(target))
        named = other.source.c[other.entity_type.primary_key[0]]
        return self.source.c[key].in_(sa.select(named).where(other.is_of_type()))

    def enter(self, hop: Hop) -> Scope:
        """Return a scope for the entities that *hop* leads to."""
        return Scope.of(self.model, self.tables, hop.target)

    def _narrowing(self, hop: Hop, inner: Scope) -> list[Condition]:
        """Return the conditions on *inner* that do not depend on where the relation starts."""
        relation, member_key = hop.relation, inner.entity_type.member_key
        belongs = member_key is not None and [there for _, there in relation.pairs] == [
            member_key[0]
        ]
        typed = hop.is_cast or (relation.many and not belongs)
        conditions = [inner.is_of_type()] if typed else []
        table = self.tables[inner.entity_type.root]
        return [*conditions, *membership_conditions(relation, inner.source, table)]

    def leads_to(self, hop: Hop, build: Callable[[Scope], Condition] | None) -> Condition:
        """Return the condition that some entity at the end of *hop* meets what *build* returns.

        It is true or false, never unknown, so that ``not`` negates it. For a relation with one
        key it is a list of keys, which SQLite can compute first and look up by an index.
        """
        relation, inner = hop.relation, self.enter(hop)
        if not relation.resolved:
            return sa.false()
        # Nested conditions come first: SQLite's parser keeps all that stands before them.
        conditions = [build(inner)] if build is not None else []
        conditions += self._narrowing(hop, inner)
        if len(relation.pairs) > 1:
            joined = [
                self.source.c[here] == inner.source.c[there] for here, there in relation.pairs
            ]
            statement = sa.select(sa.literal(1)).select_from(inner.source)
            return statement.where(*joined, *conditions).correlate(self.source).exists()
        here, keys = starting_keys(relation, self.model, self.tables, inner.source, conditions)
        column = self.source.c[here]
        return sa.and_(column.in_(keys), column.is_not(None))

    def value_beyond(self, hop: Hop, build: Callable[[Scope], Condition]) -> Condition:
        """Return what *build* returns for the one entity that *hop* leads to, as a value."""
        relation, inner = hop.relation, self.enter(hop)
        if relation.many or not relation.pairs:
            raise ValidationError(f"'{relation.name}' does not lead to one single value.")
        joined = [self.source.c[here] == inner.source.c[there] for here, there in relation.pairs]
        statement = sa.select(build(inner)).where(*joined, *self._narrowing(hop, inner))
        return statement.correlate(self.source).scalar_subquery()
