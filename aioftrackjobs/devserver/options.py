"""What a server is made from, however it is run."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypedDict

from aioftrackjobs.devserver.limits import Limits
from aioftrackjobs.devserver.schema.loader import SchemaSource
from aioftrackjobs.devserver.seed.fixtures import FixtureSource

DEFAULT_API_USER = "developer"


class ServerOptions(TypedDict, total=False):
    """The options of a server; all can be left out.

    Attributes:
        database: SQLite file; in memory if not given.
        storage: Folder for files; a temporary one if not given.
        schemas: JSON file of documents as ``query_schemas`` returns them, or the documents
            themselves; built-in ones if not given.
        api_user: User the server is made for; added if there is no such user.
        api_key: Key of *api_user*; made up, or kept from the database, if not given.
        global_api_key: Key that acts for any active user; there is none if not given.
        limits: How much one request may use.
        trusted_hosts: Names by which the server may be called, and whose pages may call it, beside
            IP addresses, names without a dot, and those that end in ``.localhost`` or ``.test``.
        empty: Create nothing in a new database but that user and the built-in locations.
        fixture: JSON file of entities to load, or the entities themselves.
        ignore_unknown: Ignore attributes in ``create`` and ``update`` that a type does not have,
            as some real servers do, instead of refusing them.
    """

    database: str | Path | None
    storage: str | Path | None
    schemas: SchemaSource | None
    api_user: str
    api_key: str | None
    global_api_key: str | None
    limits: Limits | None
    trusted_hosts: Iterable[str]
    empty: bool
    fixture: FixtureSource | None
    ignore_unknown: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """:class:`ServerOptions` with their defaults; never shows a key."""

    database: str | Path | None = None
    storage: str | Path | None = None
    schemas: SchemaSource | None = None
    api_user: str = DEFAULT_API_USER
    api_key: str | None = field(default=None, repr=False)
    global_api_key: str | None = field(default=None, repr=False)
    limits: Limits | None = None
    trusted_hosts: Iterable[str] = ()
    empty: bool = False
    fixture: FixtureSource | None = None
    ignore_unknown: bool = False
