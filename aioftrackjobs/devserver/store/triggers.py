"""What the database keeps in order by itself, where no constraint of SQL can say it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping

import sqlalchemy as sa

from aioftrackjobs.devserver.schema.model import EntityType, Model


def add_triggers(model: Model, tables: Mapping[str, sa.Table]) -> None:
    """Have the creation of *tables* make their triggers too."""
    for parent in tables.values():
        _remove_generic_children(parent, tables.values())
    for root, table in tables.items():
        family = model.family(root)
        for column, targets in targets_of(model, family).items():
            if not table.c[column].foreign_keys and column != "parent_id":
                required = any(column in member.required for member in family)
                for target in sorted(targets):
                    _let_go(table, column, tables[target], removes=required)
        copied = {name: way for member in family for name, way in member.copied.items()}
        for name, (key, target) in copied.items():
            _copy_values(table, name, key, tables[model.root(target).name])
    for joining, column, end in sorted(_bare_ends(model, tables)):
        _let_go(tables[joining], column, tables[end], removes=True)


def targets_of(model: Model, family: Iterable[EntityType]) -> dict[str, set[str]]:
    """Return the tables that each attribute of a *family* may name a row of, none for most."""
    targets = defaultdict[str, set[str]](set)
    for entity_type in family:
        own = entity_type.primary_key if len(entity_type.primary_key) == 1 else ()
        for attribute in entity_type.attributes.values():
            if attribute.references and attribute.name not in own:
                targets[attribute.name].add(model.root(attribute.references).name)
        for relation in entity_type.relations.values():
            if relation.key is not None:
                targets[relation.key].add(model.root(relation.target).name)
    return targets


def _bare_ends(model: Model, tables: Mapping[str, sa.Table]) -> set[tuple[str, str, str]]:
    """Return table, column and target of ends of links that no foreign key holds.

    The object of a list names what is in the list by a bare ``entity_id``.
    """
    ends = set()
    for entity_type in model.types.values():
        links = [(each.link, each.target) for each in entity_type.relations.values() if each.link]
        for link, target in links:
            joining = model.link_table(link)
            ends.add((joining, link.here, entity_type.root))
            ends.add((joining, link.there, model.root(target).name))
    return {end for end in ends if not tables[end[0]].c[end[1]].foreign_keys}


def _remove_generic_children(parent: sa.Table, tables: Iterable[sa.Table]) -> None:
    """Have *parent* take along what names it by a bare ``parent_id``, such as metadata."""
    if "id" not in parent.c:
        return
    for child in tables:
        if {"parent_id", "parent_type"} <= set(child.c.keys()):
            add_trigger(
                parent,
                f"{parent.name}_removes_{child.name}",
                f'AFTER DELETE ON "{parent.name}"',
                f'DELETE FROM "{child.name}" WHERE "parent_id" = OLD."id"',
            )


def _let_go(table: sa.Table, column: str, target: sa.Table, *, removes: bool) -> None:
    """Have rows that name a row of *target* go with it, or forget it."""
    if "id" not in target.c:
        return
    change = (
        f'DELETE FROM "{table.name}"' if removes else f'UPDATE "{table.name}" SET "{column}" = NULL'
    )
    add_trigger(
        target,
        f"{target.name}_leaves_{table.name}_{column}",
        f'AFTER DELETE ON "{target.name}"',
        f'{change} WHERE "{column}" = OLD."id"',
    )


def _copy_values(table: sa.Table, name: str, key: str, target: sa.Table) -> None:
    """Have *name* repeat that of the row of *target* which *key* leads to, whichever is first."""
    add_trigger(
        table,
        f"{table.name}_borrows_{name}",
        f'AFTER INSERT ON "{table.name}"',
        f'UPDATE "{table.name}" SET "{name}" = (SELECT "{name}" FROM "{target.name}" '
        f'WHERE "id" = NEW."{key}") WHERE "_row" = NEW."_row"',
    )
    for event in ("INSERT", f'UPDATE OF "{name}"'):
        add_trigger(
            target,
            f"{target.name}_lends_{name}_to_{table.name}_on_{event[:6].lower()}",
            f'AFTER {event} ON "{target.name}"',
            f'UPDATE "{table.name}" SET "{name}" = NEW."{name}" WHERE "{key}" = NEW."id"',
        )


def add_trigger(table: sa.Table, name: str, when: str, statement: str) -> None:
    """Have the creation of all tables make a trigger of *table*; ``%`` is not for its text."""
    ddl = sa.DDL(f'CREATE TRIGGER "{name}" {when} BEGIN {statement}; END')  # type: ignore[no-untyped-call]
    sa.event.listen(table.metadata, "after_create", ddl)
