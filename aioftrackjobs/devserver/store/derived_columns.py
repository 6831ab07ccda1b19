"""Triggers that update derived columns: sums, and the flag of the latest version."""

from __future__ import annotations

from collections.abc import Mapping

import sqlalchemy as sa

from aioftrackjobs.devserver.schema.derived import summed_by
from aioftrackjobs.devserver.schema.model import Model, Series
from aioftrackjobs.devserver.schema.quirks import SUMS
from aioftrackjobs.devserver.store.triggers import add_trigger


def add_derived_values(model: Model, tables: Mapping[str, sa.Table]) -> None:
    """Add the triggers that update such values to the creation of *tables*."""
    summed = {
        (entity_type.root, name, found)
        for entity_type in model.types.values()
        for name in SUMS.keys() & entity_type.computed
        if (found := summed_by(model, entity_type, name))
    }
    for root, name, (members, owner, attribute) in sorted(summed):
        _add_sum(tables[root], name, tables[members], owner, attribute)
    for entity_type in model.types.values():
        if entity_type.series is not None:
            _add_flag(tables[entity_type.root], entity_type.series)


def _add_sum(table: sa.Table, name: str, members: sa.Table, owner: str, attribute: str) -> None:
    total = (
        f'(SELECT coalesce(sum("{attribute}"), 0) FROM "{members.name}" '
        f'WHERE "{owner}" = {{key}}) WHERE "id" = {{key}}'
    )
    update = f'UPDATE "{table.name}" SET "{name}" = '
    old, new = (update + total.format(key=f'{which}."{owner}"') for which in ("OLD", "NEW"))
    more = f'"{name}" + coalesce(NEW."{attribute}", 0) WHERE "id" = NEW."{owner}"'
    for event, statement in (
        ("INSERT", update + more),  # adding costs the same for any number of members
        (f'UPDATE OF "{owner}", "{attribute}"', f"{old}; {new}"),
        ("DELETE", old),
    ):
        when = f'AFTER {event} ON "{members.name}"'
        add_trigger(members, f"{members.name}_sums_{name}_on_{event[:6].lower()}", when, statement)


def _add_flag(table: sa.Table, series: Series) -> None:
    """Update ``is_latest_version`` whenever ``latest_version`` changes."""
    number, owner, flag = series.number, series.owner, series.flag
    # The look-up of the highest and the flagged one must not cost more with more versions.
    sa.Index(f"ix_{table.name}_{number}", table.c[owner], table.c[number])
    if flag not in table.c:
        return
    sa.Index(f"ix_{table.name}_{flag}", table.c[owner], table.c[flag])
    statements = [
        f'UPDATE "{table.name}" SET "{flag}" = 0 WHERE "{owner}" = {{key}} AND "{flag}" = 1',
        f'UPDATE "{table.name}" SET "{flag}" = 1 WHERE "_row" = (SELECT "_row" FROM '
        f'"{table.name}" WHERE "{owner}" = {{key}} ORDER BY "{number}" DESC, "_row" DESC LIMIT 1)',
    ]
    old, new = ("; ".join(statements).format(key=f'{which}."{owner}"') for which in ("OLD", "NEW"))
    lost = f'UPDATE "{table.name}" SET "{flag}" = 0 WHERE "_row" = NEW."_row"'
    for event, statement in (
        ("INSERT", new),
        (f'UPDATE OF "{owner}", "{number}"', f"{lost}; {old}; {new}"),
        ("DELETE", old),
    ):
        name = f"{table.name}_flags_{flag}_on_{event[:6].lower()}"
        add_trigger(table, name, f'AFTER {event} ON "{table.name}"', statement)
