"""The server without HTTP: bytes of a request to bytes of an answer.

Everything here blocks; the ASGI application calls it in a worker thread, one call at a time.
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from pydantic_core import from_json, to_json

from aioftrackjobs.devserver.apply import Batch
from aioftrackjobs.devserver.computed import Addresses
from aioftrackjobs.devserver.credentials import Credentials, check_header_value
from aioftrackjobs.devserver.errors import SchemaError
from aioftrackjobs.devserver.loading import builtin_model, load_model
from aioftrackjobs.devserver.model import Model
from aioftrackjobs.devserver.operations import Caller, Operations
from aioftrackjobs.devserver.refusals import (
    NotFoundRefusal,
    Refusal,
    RequestRefusal,
    refusal_body,
)
from aioftrackjobs.devserver.results import Encoder
from aioftrackjobs.devserver.rules import Rules
from aioftrackjobs.devserver.seed import CONTENTS, Part, add_user, seed
from aioftrackjobs.devserver.sql import Sql
from aioftrackjobs.devserver.storage import Storage, is_storable
from aioftrackjobs.devserver.store import Store, Transaction
from aioftrackjobs.devserver.uploads import Uploads

logger = logging.getLogger(__name__)

DEFAULT_API_USER = "developer"
_TRUE = frozenset({"1", "true"})


@dataclass(frozen=True, slots=True)
class Answer:
    """What to send back: a status and a JSON body."""

    status: int
    body: bytes


class Engine:
    """Model, store, files and credentials of one server.

    Attributes:
        api_user: The user the server was started for; the key is that user's.

    Raises:
        ServerStartError: If it is given what it cannot use; then nothing of it stays.
    """

    def __init__(
        self,
        database: str | Path | None = None,
        storage: str | Path | None = None,
        schemas: Iterable[Mapping[str, Any]] | None = None,
        api_user: str = DEFAULT_API_USER,
        api_key: str | None = None,
    ) -> None:
        check_header_value("api_user", api_user)
        if api_key is not None:
            check_header_value("api_key", api_key)
        self.model, sql = _builtin() if schemas is None else _prepared(load_model(schemas))
        self.uploads = Uploads()
        self.api_user = api_user
        with ExitStack() as made:
            self.storage = Storage(storage)
            made.callback(self.storage.close)
            self._store = Store(self.model, sql, database)
            made.callback(self._store.close)
            self.api_keys = self._populate(api_user, api_key)
            made.pop_all()
        self.credentials = Credentials(self.api_keys)
        self._operations = Operations(self.model, self._store, self.uploads)

    @property
    def api_key(self) -> str:
        """The key of :attr:`api_user`."""
        return self.api_keys[self.api_user]

    def close(self) -> None:
        """Close the database, and remove a temporary storage folder."""
        self._store.close()
        self.storage.close()

    def _populate(self, api_user: str, api_key: str | None) -> dict[str, str]:
        """Seed a new store with what its schemas allow, and return the keys of all users."""
        for parts in CONTENTS:
            try:
                return self._fill(api_user, api_key, parts)
            except Refusal as refusal:
                reason = refusal.content
        raise SchemaError(None, f"a server with them cannot be filled: {reason}")

    def _fill(self, api_user: str, api_key: str | None, parts: Iterable[Part]) -> dict[str, str]:
        with self._store.transaction() as transaction:
            batch = self._batch(transaction, api_user)
            if not transaction.api_keys():
                seed(self.model, transaction, batch, api_user, parts)
            add_user(self.model, transaction, batch, api_user)
            if api_key or transaction.api_key(api_user) is None:
                transaction.set_api_key(api_user, api_key or secrets.token_urlsafe(24))
            return transaction.api_keys()

    def _batch(self, transaction: Transaction, username: str) -> Batch:
        encoder = Encoder(self.model, Addresses("", self.uploads.sign))
        return Batch(self.model, transaction, Rules(self.model, transaction, username), encoder)

    def answer(self, body: bytes, headers: Mapping[str, str], base_url: str) -> Answer:
        """Return the answer to a ``POST /api``."""
        strict = headers.get("ftrack-strict-api", "").lower() in _TRUE
        try:
            user = self.credentials.check(headers.get("ftrack-user"), headers.get("ftrack-api-key"))
            options = _options(headers.get("ftrack-api-options", ""))
            caller = Caller(user, base_url, denormalize="denormalize" in options)
            return Answer(200, to_json(self._operations.run(_read_batch(body), caller)))
        except RequestRefusal as refusal:
            return refused(refusal, refusal.status)
        except Refusal as refusal:
            return refused(refusal, refusal.status if strict else 200)

    def file_of(self, component_id: str) -> tuple[Path, str]:
        """Return where the file of a component is, and the name to save it under.

        Raises:
            NotFoundRefusal: If there is none.
        """
        if not is_storable(component_id) or not self.storage.path(component_id).is_file():
            raise NotFoundRefusal("There is no file for this component.")
        row: Mapping[str, Any] | None = None
        if "Component" in self.model.types:
            with self._store.transaction(writes=False) as transaction:
                row = transaction.read("Component", {"id": component_id})
        name = f"{row.get('name') or ''}{row.get('file_type') or ''}" if row else ""
        return self.storage.path(component_id), name or component_id


@cache
def _builtin() -> tuple[Model, Sql]:
    """Return what most servers are made for; making it is most of the work of a start."""
    return _prepared(builtin_model())


def _prepared(model: Model) -> tuple[Model, Sql]:
    return model, Sql(model)


def refused(refusal: Refusal, status: int) -> Answer:
    """Return *refusal* as an answer."""
    return Answer(status, to_json(refusal_body(refusal)))


def _read_batch(body: bytes) -> list[Any]:
    try:
        operations = from_json(body)
    except ValueError as error:
        raise RequestRefusal(f"The request body is not JSON: {error}.") from None
    if not isinstance(operations, list):
        raise RequestRefusal("The request body must be a JSON array of operations.")
    return operations


def _options(header: str) -> set[str]:
    """Return the options that are on; both documented separators are taken (section 1.2)."""
    options = set()
    for part in header.split(";"):
        name, _, value = part.replace("=", ":").partition(":")
        if value.strip().lower() in _TRUE:
            options.add(name.strip())
    return options
