"""``aioftrackjobs dump`` and ``schemas``: the content of a server, in files that ``serve`` loads.

A dump is a list of entities in wire format, each with its stored values and foreign keys. It leaves
out relations, because the foreign keys have them, and computed values, such as URLs that contain an
API key. It also leaves out attributes and settings whose names say that they are secret, and the
events, which repeat the values of all that has ever changed.
"""

from __future__ import annotations

import json
import os
import re
import stat
import sys
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import IO, Any

from aioftrackjobs import AsyncSession, FtrackJobsError, ServerError
from aioftrackjobs.cli.arguments import STDOUT, UnusablePathError
from aioftrackjobs.protocol.query import quote
from aioftrackjobs.protocol.schemas import EntitySchema, decode_schema
from aioftrackjobs.protocol.values import JSONValue
from aioftrackjobs.session import context_of

Row = dict[str, JSONValue]

_PAGE = 500
#: Names of entity types, attributes and settings that are never written.
_SECRET = re.compile(r"api_?key|pass(word|wd|phrase)|secret|token|credential", re.IGNORECASE)
#: The type whose rows hold values of other entities, secret ones too.
_HISTORY = "Event"
#: Attributes that hold the name of a setting.
_NAMING = ("name", "key", "group")


class UnknownTypeError(FtrackJobsError):
    """The server has no entity type of this name.

    Attributes:
        entity_type: The name that was given.
    """

    def __init__(self, entity_type: str) -> None:
        super().__init__(entity_type)
        self.entity_type = entity_type

    def __str__(self) -> str:
        return f"the server has no entity type {self.entity_type}"


async def write_schemas(session: AsyncSession) -> None:
    """Print the schema documents of a server unchanged."""
    async with session:
        documents = await session.schemas()
    json.dump(documents, sys.stdout, indent=1)
    print(flush=True)


async def write_dump(session: AsyncSession, types: Sequence[str], target: Path) -> int:
    """Write the entities of a server to *target*, and return their number.

    Args:
        session: A session of the server, which is opened here.
        types: Names of entity types; empty for all that the user may read.
        target: A file, which is replaced when the dump is complete; ``-`` for the standard output.

    Raises:
        UnknownTypeError: The server does not have one of the types.
        UnusablePathError: The file cannot be written.
        FtrackJobsError: The server refused a query, or no response arrived.
    """
    with _opened(target) as stream:
        async with session:
            return await _write(stream, read_entities(session, types))


async def _write(stream: IO[str], entities: AsyncIterator[Row]) -> int:
    """Write a JSON list with one entity on each line."""
    count = 0
    async for entity in entities:
        stream.write(",\n" if count else "[\n")
        stream.write(json.dumps(entity))
        count += 1
    stream.write("\n]\n" if count else "[]\n")
    return count


async def read_entities(session: AsyncSession, types: Sequence[str] = ()) -> AsyncIterator[Row]:
    """Yield the entities of a server, by type.

    A user may not be allowed to read every type. If no types are given, one that the server refuses
    is left out with a message on the standard error.
    """
    documents = {document["id"]: document for document in await session.schemas()}
    for name in types:
        if name not in documents:
            raise UnknownTypeError(name)
    tables = _tables(documents)
    # If several types contain the same rows, the one with the most attributes comes first.
    order = sorted(types or documents, key=lambda name: -len(documents[name]["properties"]))
    written = set[tuple[JSONValue, ...]]()
    for name in order:
        if _SECRET.search(name) or name == _HISTORY:
            if types:
                print(f"Left out {name}: its rows may hold secrets.", file=sys.stderr)
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
    """Return for each type the type with the shortest name that contains the same rows.

    A ``ContextCustomAttributeValue`` is a ``CustomAttributeValue`` seen from its context, a
    ``CustomAttributeLinkFrom`` a ``CustomAttributeLink`` seen from its start, and ``NoteLabel`` is
    the new name of ``NoteCategory``. Only the names, keys and properties of the schemas show this.
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
    offset, after = 0, ""
    while True:
        expression = f"select {wanted} from {schema.entity_type}{after} order by {order}"
        rows = await _query(session, f"{expression} offset {offset} limit {_PAGE}")
        for row in rows:
            # Subtypes are dumped under their own names, with more attributes.
            if row.get("__entity_type__") == schema.entity_type and not _is_secret(row):
                yield dict(_stored(row, names)) | dict(_references(row, references))
        if len(rows) < _PAGE:
            return
        if len(schema.primary_key) == 1:  # rows may come and go meanwhile
            after = f" where {order} > {quote(rows[-1][order])}"
        else:
            offset += _PAGE


def _keyless(document: Mapping[str, Any], schema: EntitySchema) -> list[str]:
    """Return the relations to one entity without an attribute for the foreign key: Status.state."""
    properties = document["properties"]
    left_out = {*schema.scalars, *document.get("computed", ())}
    keys = [each.get("description") or "" for each in properties.values()]
    return [
        name
        for name in schema.attributes
        if (target := properties[name].get("$ref"))
        and "type" not in properties[name]  # else it is a foreign key that names its target
        and not left_out & {name, f"{name}_id", "from_id"}
        and not any(key.startswith(f"Foreign key(s): {target}.") for key in keys)
        and not _SECRET.search(name)
    ]


async def _query(session: AsyncSession, expression: str) -> list[Row]:
    """Return rows in wire format."""
    connection = context_of(session).connection
    (result,) = await connection.call([{"action": "query", "expression": expression}])
    rows: list[Row] = result["data"]
    return rows


def _stored(row: Row, names: Iterable[str]) -> Iterator[tuple[str, JSONValue]]:
    """Yield the attributes that a create operation accepts: plain values and times."""
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
            case _:  # the relation is empty
                pass


def _is_secret(row: Row) -> bool:
    named = [row[name] for name in _NAMING if name in row] if "value" in row else []
    return any(_SECRET.search(name) for name in named if isinstance(name, str))


@contextmanager
def _opened(target: Path) -> Iterator[IO[str]]:
    """Open a temporary file that replaces *target* when it is complete, and keeps its mode."""
    if target == STDOUT:
        yield sys.stdout
        sys.stdout.flush()
        return
    try:
        mode = target.stat().st_mode if target.exists() else None
        if mode is not None and not stat.S_ISREG(mode):
            raise UnusablePathError("FILE", target, "it is no regular file")
        target = Path(os.path.realpath(target))  # what a link points to
        stream: Any = NamedTemporaryFile(  # noqa: SIM115 - closed below, before it is moved
            "w", dir=target.parent, prefix=".dump-", delete=False, encoding="utf-8"
        )
    except OSError as error:
        raise UnusablePathError("FILE", target, error.strerror or str(error)) from error
    try:
        with stream:
            yield stream
        if mode is not None:
            Path(stream.name).chmod(stat.S_IMODE(mode))
        os.replace(stream.name, target)  # noqa: PTH105
    except OSError as error:
        Path(stream.name).unlink(missing_ok=True)
        raise UnusablePathError("FILE", target, error.strerror or str(error)) from error
    except BaseException:
        Path(stream.name).unlink(missing_ok=True)
        raise
