"""Triggers for rules that no constraint of SQL can express.

These are cascades, copied values, sums, and the flag of the latest version.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Set
from typing import TypeAlias

from aioftrackjobs.devserver.schema.model import EntityType, Model, Series
from aioftrackjobs.devserver.schema.quirks import OUTLIVING

#: The names of the columns of each table.
Columns: TypeAlias = Mapping[str, Set[str]]

_STATUS_CHANGE = ("id", "parent_id", "parent_type", "status_id", "from_status_id")
#: SQL for a new id in the form of a UUID.
_NEW_ID = "lower({}||'-'||{}||'-4'||substr({},2)||'-a'||substr({},2)||'-'||{})".format(
    *(f"hex(randomblob({size}))" for size in (4, 2, 2, 2, 6))
)


def trigger(table: str, name: str, event: str, statement: str) -> str:
    """Return SQL that creates a trigger, whose name ends with that of its *event*."""
    return (
        f'CREATE TRIGGER "{table}_{name}_on_{event[:6].lower()}" AFTER {event} ON "{table}" '
        f"BEGIN {statement}; END"
    )


def index(table: str, *columns: str) -> str:
    """Return SQL that creates an index, which is called after the last of its columns."""
    listed = ", ".join(f'"{column}"' for column in columns)
    return f'CREATE INDEX "ix_{table}_{"_".join(columns)}" ON "{table}" ({listed})'


def triggers_of(
    model: Model, columns: Columns, references: Mapping[str, Mapping[str, object]]
) -> Iterator[str]:
    """Yield SQL that creates the triggers of a model's tables, and the indexes that they need."""
    for parent in columns:
        yield from _generic_children(parent, columns)
    for root in columns:
        family = model.family(root)
        for key, targets in sorted(targets_of(model, family).items()):
            if key not in references[root] and key != "parent_id":
                required = any(key in member.required for member in family)
                for target in sorted(targets):
                    yield from _cascade(root, key, target, columns, removes=required)
        copied = {name: source for member in family for name, source in member.copied.items()}
        for name, (key, target) in copied.items():
            yield from _copy_values(root, name, key, model.types[target].root)
    for joining, key, end in sorted({*_link_ends(model)}):
        if key not in references[joining]:
            yield from _cascade(joining, key, end, columns, removes=True)
    yield from _derived_values(model, columns)
    yield from _status_changes(model, columns)
    yield from _note_categories(columns)


def targets_of(model: Model, family: Iterable[EntityType]) -> dict[str, set[str]]:
    """Return the tables whose rows each attribute of a *family* may name; none for most."""
    targets = defaultdict[str, set[str]](set)
    for entity_type in family:
        own = entity_type.primary_key if len(entity_type.primary_key) == 1 else ()
        for attribute in entity_type.attributes.values():
            if attribute.references and attribute.name not in own:
                targets[attribute.name].add(model.types[attribute.references].root)
        for relation in entity_type.relations.values():
            if relation.key is not None:
                targets[relation.key].add(model.types[relation.target].root)
    return targets


def _link_ends(model: Model) -> Iterator[tuple[str, str, str]]:
    """Yield table, column and target of the ends of links.

    Some are no foreign keys: the object of a list names the entity in it by a bare ``entity_id``.
    """
    for owner, relation in model.relations():
        if relation.link is not None:
            joining = model.link_table(relation.link)
            yield joining, relation.link.here, owner.root
            yield joining, relation.link.there, model.types[relation.target].root


def _generic_children(parent: str, columns: Columns) -> Iterator[str]:
    """Delete with rows of *parent* those that name them by a bare ``parent_id``, as metadata."""
    for child, names in columns.items():
        if child not in OUTLIVING and {"parent_id", "parent_type"} <= names:
            statement = f'DELETE FROM "{child}" WHERE "parent_id" = OLD."id"'
            if "id" in columns[parent]:
                yield trigger(parent, f"deletes_children_in_{child}", "DELETE", statement)


def _cascade(
    table: str, key: str, target: str, columns: Columns, *, removes: bool
) -> Iterator[str]:
    """Delete rows with the row of *target* that they name, or clear the key."""
    change = f'DELETE FROM "{table}"' if removes else f'UPDATE "{table}" SET "{key}" = NULL'
    if "id" in columns[target]:
        statement = f'{change} WHERE "{key}" = OLD."id"'
        yield trigger(target, f"cascades_to_{table}_{key}", "DELETE", statement)


def _copy_values(table: str, name: str, key: str, target: str) -> Iterator[str]:
    yield trigger(
        table,
        f"copies_{name}",
        "INSERT",
        f'UPDATE "{table}" SET "{name}" = (SELECT "{name}" FROM "{target}" '
        f'WHERE "id" = NEW."{key}") WHERE "_row" = NEW."_row"',
    )
    copy = f'UPDATE "{table}" SET "{name}" = NEW."{name}" WHERE "{key}" = NEW."id"'
    for event in ("INSERT", f'UPDATE OF "{name}"'):
        yield trigger(target, f"copies_{name}_to_{table}", event, copy)


def _derived_values(model: Model, columns: Columns) -> Iterator[str]:
    summed = {
        (entity_type.root, name, source)
        for entity_type in model.types.values()
        for name, source in entity_type.sums.items()
    }
    for root, name, source in sorted(summed):
        yield from _sum(root, name, *source)
    for entity_type in model.types.values():
        if entity_type.series is not None:
            yield from _flag(entity_type.root, entity_type.series, columns)


def _sum(table: str, name: str, members: str, owner: str, attribute: str) -> Iterator[str]:
    total = (
        f'(SELECT coalesce(sum("{attribute}"), 0) FROM "{members}" '
        f'WHERE "{owner}" = {{key}}) WHERE "id" = {{key}}'
    )
    update = f'UPDATE "{table}" SET "{name}" = '
    old, new = (update + total.format(key=f'{which}."{owner}"') for which in ("OLD", "NEW"))
    more = f'"{name}" + coalesce(NEW."{attribute}", 0) WHERE "id" = NEW."{owner}"'
    for event, statement in (
        ("INSERT", update + more),  # adding costs the same for any number of members
        (f'UPDATE OF "{owner}", "{attribute}"', f"{old}; {new}"),
        ("DELETE", old),
    ):
        yield trigger(members, f"sums_{name}", event, statement)


def _flag(table: str, series: Series, columns: Columns) -> Iterator[str]:
    """Update ``is_latest_version`` whenever ``latest_version`` changes."""
    number, owner, flag = series.number, series.owner, series.flag
    # The look-up of the highest and the flagged one must not cost more with more versions.
    yield index(table, owner, number)
    if flag not in columns[table]:
        return
    yield index(table, owner, flag)
    statements = [
        f'UPDATE "{table}" SET "{flag}" = 0 WHERE "{owner}" = {{key}} AND "{flag}" = 1',
        f'UPDATE "{table}" SET "{flag}" = 1 WHERE "_row" = (SELECT "_row" FROM '
        f'"{table}" WHERE "{owner}" = {{key}} ORDER BY "{number}" DESC, "_row" DESC LIMIT 1)',
    ]
    old, new = ("; ".join(statements).format(key=f'{which}."{owner}"') for which in ("OLD", "NEW"))
    lost = f'UPDATE "{table}" SET "{flag}" = 0 WHERE "_row" = NEW."_row"'
    for event, statement in (
        ("INSERT", new),
        (f'UPDATE OF "{owner}", "{number}"', f"{lost}; {old}; {new}"),
        ("DELETE", old),
    ):
        yield trigger(table, f"flags_{flag}", event, statement)


def _status_changes(model: Model, columns: Columns) -> Iterator[str]:
    """Keep a StatusChange whenever an entity gets another status, or loses a deleted one.

    Not without an acting user: a fixture has a history of its own.
    """
    user, added = model.types.get("User"), (*_STATUS_CHANGE, "user_id", "date")
    if user is None or not _has(columns, user.root, "id", "username"):
        return
    if not _has(columns, "StatusChange", *added) or not _has(columns, "Status", "id"):
        return
    owners = {
        owner.root: owner.table_name
        for owner, relation in model.relations()
        if relation.many and model.types[relation.target].root == "StatusChange"
        if _has(columns, owner.root, "id", "status_id")
    }
    former = '(SELECT "id" FROM "Status" WHERE "id" = OLD."status_id")'
    author = f'(SELECT "id" FROM "{user.root}" WHERE "username" = acting_user())'
    names = ", ".join(f'"{name}"' for name in added)
    for root, name in owners.items():
        statement = (
            f'INSERT INTO "StatusChange" ("_type", {names}) SELECT \'StatusChange\', {_NEW_ID}, '
            f'NEW."id", \'{name}\', NEW."status_id", {former}, {author}, '
            "replace(datetime('now'), ' ', 'T') WHERE OLD.\"status_id\" IS NOT NEW.\"status_id\" "
            "AND acting_user() <> ''"
        )
        yield trigger(root, "keeps_status", 'UPDATE OF "status_id"', statement)


def _note_categories(columns: Columns) -> Iterator[str]:
    """Make the first label of a note its category, which older clients read."""
    link = "NoteLabelLink"
    has_category = _has(columns, "Note", "id", "category_id")
    if not (has_category and _has(columns, link, "note_id", "label_id")):
        return
    first = (
        f'(SELECT "label_id" FROM "{link}" WHERE "note_id" = "Note"."id" ORDER BY "_row" LIMIT 1)'
    )
    for event, row, former in (("INSERT", "NEW", "NULL"), ("DELETE", "OLD", 'OLD."label_id"')):
        statement = (
            f'UPDATE "Note" SET "category_id" = {first} '
            f'WHERE "id" = {row}."note_id" AND "category_id" IS {former}'
        )
        yield trigger(link, "changes_category", event, statement)


def _has(columns: Columns, table: str, *names: str) -> bool:
    return set(names) <= columns.get(table, set())
