"""``aioftrackjobs dump`` and ``schemas``: what a server holds, as files that ``serve`` takes.

A dump is a fixture: a list of entities as the wire has them, each with its stored values and
foreign keys. Relations are in the keys, and computed values, such as addresses that carry a
key, are left out. So are attributes and settings that are called after secrets.
"""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import IO, Any

from aioftrackjobs import AsyncSession, FtrackJobsError, ServerError
from aioftrackjobs.cli.paths import STDOUT, UnusablePathError
from aioftrackjobs.protocol.schemas import EntitySchema, decode_schema
from aioftrackjobs.protocol.values import JSONValue
from aioftrackjobs.session import context_of

Row = dict[str, JSONValue]

_PAGE = 500
#: What is never written, wherever it is a name: of an entity type, an attribute or a setting.
_SECRET = re.compile(r"api_?key|pass(word|wd|phrase)|secret|token|credential", re.IGNORECASE)
#: Attributes that name a setting, whose value is what the name says.
_NAMING = ("name", "key", "group")


class UnknownTypeError(FtrackJobsError):
    """The server has no entity type of this name.

    Attributes:
        entity_type: The name.
    """

    def __init__(self, entity_type: str) -> None:
        super().__init__(entity_type)
        self.entity_type = entity_type

    def __str__(self) -> str:
        return f"cannot dump {self.entity_type}: the server has no such entity type"


@dataclass(frozen=True, slots=True)
class Source:
    """The server to read; what is None comes from the environment."""

    server_url: str | None = None
    api_user: str | None = None
    api_key: str | None = None

    def open(self, *, journal: str | None = "") -> AsyncSession:
        """Return a session that is yet to be entered; who reads has no journal to deliver."""
        return AsyncSession(self.server_url, self.api_key, self.api_user, journal=journal)


async def write_schemas(source: Source) -> None:
    """Print the schema documents of a server, as it answers them."""
    async with source.open() as session:
        documents = await session.schemas()
    json.dump(documents, sys.stdout, indent=1)
    print(flush=True)


async def write_dump(source: Source, types: Sequence[str], target: Path) -> int:
    """Write the entities of a server to *target*, and return how many they are.

    Args:
        source: The server.
        types: Names of entity types; all that the server lets one read if there are none.
        target: A file, replaced when the dump is complete; ``-`` for stdout.

    Raises:
        UnknownTypeError: One of the types is none of the server's.
        UnusablePathError: The file cannot be written.
        FtrackJobsError: The server refused what was asked for, or did not answer.
    """
    with _opened(target) as stream:
        async with source.open() as session:
            return await _write(stream, read_entities(session, types))


async def _write(stream: IO[str], entities: AsyncIterator[Row]) -> int:
    """Write a list with an entity on each line."""
    count = 0
    async for entity in entities:
        stream.write(",\n" if count else "[\n")
        stream.write(json.dumps(entity))
        count += 1
    stream.write("\n]\n" if count else "[]\n")
    return count


async def read_entities(session: AsyncSession, types: Sequence[str] = ()) -> AsyncIterator[Row]:
    """Yield the entities of a server, by type.

    A server need not let everybody read everything: a type that it refuses is told on stderr,
    unless it was asked for by name.
    """
    documents = {document["id"]: document for document in await session.schemas()}
    for name in types:
        if name not in documents:
            raise UnknownTypeError(name)
    tables = _tables(documents)
    # Of types that show the same rows, the one that tells the most of them comes first.
    order = sorted(types or documents, key=lambda name: -len(documents[name]["properties"]))
    written = set[tuple[JSONValue, ...]]()
    for name in order:
        if _SECRET.search(name):
            continue
        keys = documents[name]["primary_key"]
        try:
            async for row in _read_type(session, documents[name]):
                identity = (tables[name], *(row[key] for key in keys))
                if identity not in written:
                    written.add(identity)
                    yield row
        except ServerError as error:
            if types:
                raise
            print(f"Left out {name}: {' '.join(str(error).split())}", file=sys.stderr)


def _tables(documents: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    """Return for each type the one that shows the same rows and is known by the shortest name.

    A ``ContextCustomAttributeValue`` is a ``CustomAttributeValue`` seen from its context, a
    ``CustomAttributeLinkFrom`` a ``CustomAttributeLink`` seen from its start, and a ``NoteLabel``
    is what was called ``NoteCategory``. Nothing but names, keys and properties says so.
    """
    tables: dict[str, str] = {}
    for name in sorted(documents, key=len):
        own = documents[name]
        tables[name] = next(
            (tables[other] for other in tables if _shows_rows_of(own, documents[other])),
            name,
        )
    return tables


def _shows_rows_of(own: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    if own["primary_key"] != other["primary_key"]:
        return False
    more = own["properties"].keys() - other["properties"].keys()
    less = other["properties"].keys() - own["properties"].keys()
    if isinstance(table := own.get("alias_for"), str) and table == other.get("alias_for"):
        return not more and not less
    return not less and (own["id"].endswith(other["id"]) or own["id"] == f"{other['id']}From")


async def _read_type(session: AsyncSession, document: Mapping[str, Any]) -> AsyncIterator[Row]:
    schema = decode_schema(document)
    scalars = [*dict.fromkeys([*schema.primary_key, *schema.scalars])]
    names = [name for name in scalars if not _SECRET.search(name)]
    references = _keyless(document, schema)
    wanted = ", ".join([*names, *(f"{name}.id" for name in references)])
    order = ", ".join(schema.primary_key)
    offset = 0
    while True:
        expression = (
            f"select {wanted} from {schema.entity_type} order by {order}"
            f" offset {offset} limit {_PAGE}"
        )
        rows = await _query(session, expression)
        for row in rows:
            # Subtypes come under their own names, with more attributes.
            if row.get("__entity_type__") == schema.entity_type and not _is_secret(row):
                yield dict(_stored(row, names)) | dict(_references(row, references))
        if len(rows) < _PAGE:
            return
        offset += _PAGE


def _keyless(document: Mapping[str, Any], schema: EntitySchema) -> list[str]:
    """Return the relations to one entity whose foreign key is no attribute: a Status's state."""
    properties = document["properties"]
    left_out = {*schema.scalars, *document.get("computed", ())}
    keys = [each.get("description") or "" for each in properties.values()]
    return [
        name
        for name in schema.attributes
        if (target := properties[name].get("$ref"))
        and "type" not in properties[name]  # else it is a key that says to what
        and not left_out & {name, f"{name}_id", "from_id"}
        and not any(key.startswith(f"Foreign key(s): {target}.") for key in keys)
        and not _SECRET.search(name)
    ]


async def _query(session: AsyncSession, expression: str) -> list[Row]:
    """Return the rows as they are on the wire."""
    connection = context_of(session).connection
    (answer,) = await connection.call([{"action": "query", "expression": expression}])
    rows: list[Row] = answer["data"]
    return rows


def _stored(row: Row, names: Iterable[str]) -> Iterator[tuple[str, JSONValue]]:
    """Yield what a creation takes: plain values and times."""
    yield "__entity_type__", row["__entity_type__"]
    for name in names:
        value = row.get(name)
        is_time = isinstance(value, dict) and "__type__" in value
        if name in row and (is_time or not isinstance(value, dict | list)):
            yield name, value


def _references(row: Row, names: Iterable[str]) -> Iterator[tuple[str, JSONValue]]:
    for name in names:
        match row.get(name):
            case {"__entity_type__": entity_type, "id": key}:
                yield name, {"__entity_type__": entity_type, "id": key}
            case _:  # there is none
                pass


def _is_secret(row: Row) -> bool:
    named = [row[name] for name in _NAMING if name in row] if "value" in row else []
    return any(_SECRET.search(name) for name in named if isinstance(name, str))


@contextmanager
def _opened(target: Path) -> Iterator[IO[str]]:
    """Open a file that is there when all of it is written, and not before."""
    if target == STDOUT:
        yield sys.stdout
        sys.stdout.flush()
        return
    try:
        stream: Any = NamedTemporaryFile(  # noqa: SIM115 - closed below, before it is moved
            "w", dir=target.parent, prefix=f".{target.name}-", delete=False, encoding="utf-8"
        )
    except OSError as error:
        raise UnusablePathError("FILE", target, error.strerror or str(error)) from error
    try:
        with stream:
            yield stream
        os.replace(stream.name, target)  # noqa: PTH105
    except OSError as error:
        Path(stream.name).unlink(missing_ok=True)
        raise UnusablePathError("FILE", target, error.strerror or str(error)) from error
    except BaseException:
        Path(stream.name).unlink(missing_ok=True)
        raise
