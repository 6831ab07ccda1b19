"""Loading the rows of a selection, and those that its relations lead to.

Related rows are loaded with one statement for each relation, never one for each row.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa
from pydantic_core import to_json

from aioftrackjobs.devserver.entities.computed import link_names, read_links
from aioftrackjobs.devserver.entities.projections import Selection
from aioftrackjobs.devserver.query.joins import membership_conditions, reached, start_columns
from aioftrackjobs.devserver.schema.model import Model, Relation
from aioftrackjobs.devserver.store.database import Transaction
from aioftrackjobs.devserver.store.tables import ROW, TYPE

#: Values by column; and by the number of a selection the related rows that it selects.
Row = dict[Any, Any]
Key = tuple[Any, ...]


class Loader:
    """Loads selections, within one transaction."""

    def __init__(self, model: Model, transaction: Transaction) -> None:
        self._model = model
        self._transaction = transaction

    def load(self, selection: Selection, rows: Sequence[Row]) -> None:
        """Add to *rows* of *selection* the rows that its relations lead to."""
        self._add_links(selection, rows)
        for below in selection.related.values():
            relation = below.relation
            if relation is None or not relation.resolved:
                continue
            starts = start_columns(relation)
            keys = [tuple(row[start] for start in starts) for row in rows]
            found = self._fetch(below, relation, [key for key in {*keys} if None not in key])
            self.load(below, [row for _, row in found])
            by_key = defaultdict[Key, list[Row]](list)
            for key, row in found:
                by_key[key].append(row)
            for key, row in zip(keys, rows, strict=True):
                row[below.number] = by_key[key]

    def _add_links(self, selection: Selection, rows: Sequence[Row]) -> None:
        names = link_names(self._model, selection.entity_type, selection.names)
        if names and rows:
            ids = [row["id"] for row in rows]
            links = read_links(self._model, self._transaction, selection.entity_type, ids)
            for row in rows:
                row |= dict.fromkeys(names, links.get(row["id"]))

    def _fetch(
        self, selection: Selection, relation: Relation, keys: list[Key]
    ) -> list[tuple[Key, Row]]:
        if not keys:
            return []
        tables, entity_type = self._transaction.tables, selection.entity_type
        table = tables[entity_type.root]
        columns = selection.columns(self._model)
        starts, source, condition = reached(relation, self._model, tables, table)
        statement = (
            sa.select(*starts, *(table.c[name] for name in columns))
            .select_from(source)
            .where(condition, *membership_conditions(relation, table, table))
            .order_by(table.c[ROW])
        )
        if not entity_type.shared and entity_type.name != entity_type.root:
            statement = statement.where(table.c[TYPE].in_(sorted(entity_type.concrete)))
        wanted = [key[0] if len(key) == 1 else key for key in keys]
        rows = self._transaction.fetch(statement, keys=to_json(wanted).decode())
        size = len(starts)
        return [(tuple(row[:size]), dict(zip(columns, row[size:], strict=True))) for row in rows]
