"""The server without HTTP: bytes of a request to bytes of an answer.

Everything here blocks; the ASGI application calls it in a worker thread, one call at a time.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

from pydantic_core import from_json, to_json

from aioftrackjobs.devserver.background import Background
from aioftrackjobs.devserver.credentials import Credentials, check_header_value
from aioftrackjobs.devserver.errors import SchemaError
from aioftrackjobs.devserver.fixtures import FixtureSource, read_fixture
from aioftrackjobs.devserver.limits import Limits
from aioftrackjobs.devserver.loading import builtin_model, load_model
from aioftrackjobs.devserver.model import Model
from aioftrackjobs.devserver.multipart import Parts
from aioftrackjobs.devserver.operations import Operations
from aioftrackjobs.devserver.owners import api_keys, owner_of
from aioftrackjobs.devserver.refusals import (
    NotFoundRefusal,
    Refusal,
    RequestRefusal,
    TransferRefusal,
    refusal_body,
)
from aioftrackjobs.devserver.request import Caller, Services, acting_user
from aioftrackjobs.devserver.seed import Contents, Part
from aioftrackjobs.devserver.server_jobs import fail_abandoned
from aioftrackjobs.devserver.sql import Sql
from aioftrackjobs.devserver.storage import Storage, is_storable
from aioftrackjobs.devserver.store import Store
from aioftrackjobs.devserver.uploads import Uploads

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
        global_api_key: str | None = None,
        limits: Limits | None = None,
        *,
        empty: bool = False,
        fixture: FixtureSource | None = None,
    ) -> None:
        check_header_value("api_user", api_user)
        for argument, key in (("api_key", api_key), ("global_api_key", global_api_key)):
            if key is not None:
                check_header_value(argument, key)
        self.model, sql = _builtin() if schemas is None else _prepared(load_model(schemas))
        self.limits = limits or Limits()
        self.api_user = api_user
        self._contents = Contents(empty, read_fixture(fixture))
        with ExitStack() as made:
            self.storage = Storage(storage)
            made.callback(self.storage.close)
            self._store = Store(self.model, sql, database)
            made.callback(self._store.close)
            self.uploads = Uploads(self.limits, self._store.secret)
            self.parts = Parts(self.storage, lasting=self._store.is_lasting)
            self.credentials = Credentials(global_api_key)
            self._services = self._make_services()
            self._populate(api_user, api_key)
            self.api_keys = self._admit_users()
            if database is not None:
                fail_abandoned(self._services, api_user)
            made.pop_all()
        self._operations = Operations(self._services)

    def _make_services(self) -> Services:
        return Services(
            self.model,
            self._store,
            self.storage,
            self.uploads,
            self.parts,
            self.credentials,
            Background(),
            self.limits,
        )

    @property
    def api_key(self) -> str:
        """The key of :attr:`api_user`."""
        return self.api_keys[self.api_user]

    def close(self) -> None:
        """Give up work in the background, close the database, remove what is temporary."""
        self._services.background.close()
        self.parts.close()
        self._store.close()
        self.storage.close()

    def _populate(self, api_user: str, api_key: str | None) -> None:
        """Seed a new store with what its schemas allow."""
        for parts in self._contents.choices:
            try:
                self._fill(api_user, api_key, parts)
            except Refusal as refusal:
                reason = refusal.content
            else:
                return
        raise SchemaError(None, f"a server with them cannot be filled: {reason}")

    def _fill(self, api_user: str, api_key: str | None, parts: Iterable[Part]) -> None:
        with self._store.transaction() as transaction:
            new_batch = partial(self._services.batch, transaction, api_user)
            self._contents.fill(self.model, transaction, new_batch, api_user, parts)
            owner = owner_of(self.model, transaction, api_user)
            if api_key or transaction.api_key(owner) is None:
                transaction.set_api_key(owner, api_key or secrets.token_urlsafe(24))

    def _admit_users(self) -> dict[str, str]:
        """Let in whoever has a key, and return the keys of all users by name."""
        with self._store.transaction(writes=False) as transaction:
            for owner, api_key in transaction.api_keys().items():
                self.credentials.set_api_key(owner, api_key)
            return api_keys(self.model, transaction)

    def answer(self, body: bytes, headers: Mapping[str, str], base_url: str) -> Answer:
        """Return the answer to a ``POST /api``."""
        try:
            who = self.credentials.check(headers.get("ftrack-user"), headers.get("ftrack-api-key"))
            options = _options(headers.get("ftrack-api-options", ""))
            caller = Caller(
                who,
                base_url,
                denormalize="denormalize" in options,
                strict="strict" in options or _is_strict(headers),
            )
            operations = _read_batch(body)
            self.limits.check_batch(operations)
            return Answer(200, to_json(self._operations.run(operations, caller)))
        except Refusal as refusal:
            return refused(refusal, _status(refusal, headers))

    def authenticate(self, username: str | None, api_key: str | None) -> None:
        """Check who asks for a file.

        Raises:
            CredentialsRefusal: If the pair stands for no active user.
        """
        identity = self.credentials.check(username, api_key)
        with self._store.transaction(writes=False) as transaction:
            acting_user(self.model, transaction, identity)

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


def _status(refusal: Refusal, headers: Mapping[str, str]) -> int:
    """Return the status of a refusal of a batch: 200 unless the client wants real ones."""
    is_no_batch = isinstance(refusal, RequestRefusal) and not isinstance(refusal, TransferRefusal)
    return refusal.status if is_no_batch or _is_strict(headers) else 200


def _is_strict(headers: Mapping[str, str]) -> bool:
    return headers.get("ftrack-strict-api", "").strip().lower() in _TRUE


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
