"""Triggers for rules that no constraint of SQL can express.

These are cascades, copied values, sums, and the flag of the latest version.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping

import sqlalchemy as sa

from aioftrackjobs.devserver.schema.model import EntityType, Model, Series
from aioftrackjobs.devserver.schema.quirks import OUTLIVING, SUMS
from aioftrackjobs.devserver.schema.relations import summed_by

_STATUS_CHANGE = (
    "id",
    "parent_id",
    "parent_type",
    "status_id",
    "from_status_id",
    "user_id",
    "date",
)
_HEX = "hex(randomblob({}))"
#: SQL for a new id in the form of a UUID, and for the present time.
_NEW_ID = "lower({}||'-'||{}||'-4'||substr({},2)||'-a'||substr({},2)||'-'||{})".format(
    *map(_HEX.format, (4, 2, 2, 2, 6))
)
_NOW = "replace(datetime('now'), ' ', 'T')"


def add_triggers(model: Model, tables: Mapping[str, sa.Table]) -> None:
    """Add the triggers of *tables* to their creation."""
    for parent in tables.values():
        _remove_generic_children(parent, tables.values())
    for root, table in tables.items():
        family = model.family(root)
        for column, targets in targets_of(model, family).items():
            if not table.c[column].foreign_keys and column != "parent_id":
                required = any(column in member.required for member in family)
                for target in sorted(targets):
                    _cascade(table, column, tables[target], removes=required)
        copied = {name: source for member in family for name, source in member.copied.items()}
        for name, (key, target) in copied.items():
            _copy_values(table, name, key, tables[model.root(target).name])
    for joining, column, end in sorted(_unconstrained_ends(model, tables)):
        _cascade(tables[joining], column, tables[end], removes=True)
    _add_derived_values(model, tables)
    _add_status_changes(model, tables)
    _add_note_categories(tables)


def targets_of(model: Model, family: Iterable[EntityType]) -> dict[str, set[str]]:
    """Return the tables whose rows each attribute of a *family* may name; none for most."""
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


def _unconstrained_ends(model: Model, tables: Mapping[str, sa.Table]) -> set[tuple[str, str, str]]:
    """Return table, column and target of the ends of links that are no foreign keys.

    The object of a list names the entity in the list by a bare ``entity_id``.
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
    """Delete with rows of *parent* those that name them by a bare ``parent_id``, as metadata."""
    if "id" not in parent.c:
        return
    for child in tables:
        if child.name not in OUTLIVING and {"parent_id", "parent_type"} <= set(child.c.keys()):
            add_trigger(
                parent,
                f"{parent.name}_deletes_children_in_{child.name}",
                f'AFTER DELETE ON "{parent.name}"',
                f'DELETE FROM "{child.name}" WHERE "parent_id" = OLD."id"',
            )


def _cascade(table: sa.Table, column: str, target: sa.Table, *, removes: bool) -> None:
    """Delete rows with the row of *target* that they name, or clear the key."""
    if "id" not in target.c:
        return
    change = (
        f'DELETE FROM "{table.name}"' if removes else f'UPDATE "{table.name}" SET "{column}" = NULL'
    )
    add_trigger(
        target,
        f"{target.name}_cascades_to_{table.name}_{column}",
        f'AFTER DELETE ON "{target.name}"',
        f'{change} WHERE "{column}" = OLD."id"',
    )


def _copy_values(table: sa.Table, name: str, key: str, target: sa.Table) -> None:
    """Copy *name* from the row of *target* that *key* names, whichever row is created first."""
    add_trigger(
        table,
        f"{table.name}_copies_{name}_on_insert",
        f'AFTER INSERT ON "{table.name}"',
        f'UPDATE "{table.name}" SET "{name}" = (SELECT "{name}" FROM "{target.name}" '
        f'WHERE "id" = NEW."{key}") WHERE "_row" = NEW."_row"',
    )
    for event in ("INSERT", f'UPDATE OF "{name}"'):
        add_trigger(
            target,
            f"{target.name}_copies_{name}_to_{table.name}_on_{event[:6].lower()}",
            f'AFTER {event} ON "{target.name}"',
            f'UPDATE "{table.name}" SET "{name}" = NEW."{name}" WHERE "{key}" = NEW."id"',
        )


def _add_derived_values(model: Model, tables: Mapping[str, sa.Table]) -> None:
    """Add the triggers that update sums and flags."""
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


def _add_status_changes(model: Model, tables: Mapping[str, sa.Table]) -> None:
    """Keep a StatusChange whenever an entity gets another status, or loses a deleted one."""
    user = model.types.get("User")
    if not _has(tables, "StatusChange", _STATUS_CHANGE) or user is None:
        return
    if not _has(tables, user.root, ("id", "username")) or not _has(tables, "Status", ("id",)):
        return
    owners = {
        entity_type.root: entity_type.table_name
        for entity_type in model.types.values()
        for relation in entity_type.relations.values()
        if model.types[relation.target].root == "StatusChange" and relation.many
        if _has(tables, entity_type.root, ("id", "status_id"))
    }
    former = '(SELECT "id" FROM "Status" WHERE "id" = OLD."status_id")'
    author = f'(SELECT "id" FROM "{user.root}" WHERE "username" = acting_user())'
    columns = ", ".join(f'"{name}"' for name in _STATUS_CHANGE)
    for root, name in owners.items():
        add_trigger(
            tables[root],
            f"{root}_keeps_status_changes",
            f'AFTER UPDATE OF "status_id" ON "{root}" WHEN OLD."status_id" IS NOT NEW."status_id"',
            f'INSERT INTO "StatusChange" ("_type", {columns}) VALUES (\'StatusChange\', {_NEW_ID}, '
            f'NEW."id", \'{name}\', NEW."status_id", {former}, {author}, {_NOW})',
        )


def _add_note_categories(tables: Mapping[str, sa.Table]) -> None:
    """Make the first label of a note its category, which older clients read."""
    ends = ("note_id", "label_id")
    if not _has(tables, "Note", ("id", "category_id")) or not _has(tables, "NoteLabelLink", ends):
        return
    first = (
        '(SELECT "label_id" FROM "NoteLabelLink" WHERE "note_id" = "Note"."id" '
        'ORDER BY "_row" LIMIT 1)'
    )
    for event, row, former in (("INSERT", "NEW", "NULL"), ("DELETE", "OLD", 'OLD."label_id"')):
        add_trigger(
            tables["NoteLabelLink"],
            f"Note_follows_labels_on_{event.lower()}",
            f'AFTER {event} ON "NoteLabelLink"',
            f'UPDATE "Note" SET "category_id" = {first} '
            f'WHERE "id" = {row}."note_id" AND "category_id" IS {former}',
        )


def _has(tables: Mapping[str, sa.Table], name: str, columns: Iterable[str]) -> bool:
    return name in tables and set(columns) <= set(tables[name].c.keys())


def add_trigger(table: sa.Table, name: str, when: str, statement: str) -> None:
    """Add a trigger of *table* to the creation of all tables; its text must have no ``%``."""
    ddl = sa.DDL(f'CREATE TRIGGER "{name}" {when} BEGIN {statement}; END')  # type: ignore[no-untyped-call]
    sa.event.listen(table.metadata, "after_create", ddl)
