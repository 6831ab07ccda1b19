"""The server without HTTP: from the body of a request to the body of the response.

Methods that use the database block: the ASGI application calls them in a worker thread, one at a
time.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field, replace
from functools import cache, partial
from pathlib import Path
from typing import Any

from pydantic_core import from_json

from aioftrackjobs.devserver.api.background import Background
from aioftrackjobs.devserver.api.dispatcher import Dispatcher
from aioftrackjobs.devserver.api.query import parsed_early
from aioftrackjobs.devserver.api.request import Caller, Completion, Services
from aioftrackjobs.devserver.api.server_jobs import fail_abandoned
from aioftrackjobs.devserver.api.uploads import COMPLETE, assemble_uploads
from aioftrackjobs.devserver.api_errors import ApiError, EntityNotFoundError, RequestError
from aioftrackjobs.devserver.auth import (
    Credentials,
    Identity,
    acting_user,
    api_keys,
    check_header_value,
    owner_of,
)
from aioftrackjobs.devserver.errors import ServerStartError
from aioftrackjobs.devserver.events.actions import Actions
from aioftrackjobs.devserver.events.hub import EventHub
from aioftrackjobs.devserver.events.updates import UNNOTED, UpdateEvents
from aioftrackjobs.devserver.files.multipart import Parts
from aioftrackjobs.devserver.files.storage import Storage, is_storable
from aioftrackjobs.devserver.files.upload_tokens import UploadTokens
from aioftrackjobs.devserver.limits import (
    Clock,
    Limits,
    Meter,
    NeedsSlotError,
    SlowQueryError,
    response_cap,
    slow_among_writes,
)
from aioftrackjobs.devserver.options import Options
from aioftrackjobs.devserver.schema.loader import builtin_model, load_model, read_schemas
from aioftrackjobs.devserver.schema.model import Model
from aioftrackjobs.devserver.seed.demo_project import SeedContents
from aioftrackjobs.devserver.seed.fixtures import read_fixture
from aioftrackjobs.devserver.store.change_log import Change
from aioftrackjobs.devserver.store.database import Database, Transaction
from aioftrackjobs.devserver.store.tables import Snapshot, Tables

logger: logging.Logger = logging.getLogger(__name__)

#: Seconds that queries may keep other requests waiting; those that take longer are read beside.
_SHORT = 0.05
#: The same in a batch that also writes, which cannot be done beside others.
_LONGEST_AMONG_WRITES = 0.5


@dataclass(slots=True)
class Call:
    """A parsed batch; closed when its response is made.

    Attributes:
        size: Bytes of its body.
        steps: Operations, and parts of uploads: about how long it takes.
        completions: The uploads in parts that it completes, by upload id.
        completes_uploads: Whether files must be assembled before it runs.
    """

    operations: list[Any]
    caller: Caller
    size: int
    steps: int
    completions: dict[str, Completion] = field(default_factory=dict)
    completes_uploads: bool = False

    def close(self) -> None:
        """Remove the assembled files that were not put in place."""
        for completion in self.completions.values():
            if completion.file is not None:
                completion.file.discard()


class Engine:
    """Model, store, files and credentials of one server.

    Attributes:
        api_user: The user that the server was started for.
        contents: What it has held from its start, in words.
        hub: Delivers events between its clients.
        observers: Are called after each commit with the changes, in the thread that has made them;
            with None if all entities may be other ones.
        actions: Launches actions of these clients.

    Raises:
        ServerStartError: If an option cannot be used; then nothing of the server stays.
    """

    def __init__(self, options: Options) -> None:
        _check_credentials(options)
        if options.schemas is None:
            model, tables = _builtin()
        else:
            model = load_model(read_schemas(options.schemas))
            tables = Tables(model)
        self.model: Model = replace(model, ignores_unknown=options.ignore_unknown)
        self.limits: Limits = options.limits or Limits()
        self.api_user: str = options.api_user
        self._chosen: dict[str, str] = {}
        self.hub: EventHub = EventHub(self.limits)
        self._contents = SeedContents(options.empty, read_fixture(options.fixture))
        with ExitStack() as made:
            self.storage: Storage = Storage(options.storage)
            made.callback(self.storage.close)
            self._store = Database(tables, options.database)
            made.callback(self._store.close)
            self.uploads: UploadTokens = UploadTokens(self.limits, self._store.secret)
            self.parts: Parts = Parts(self.storage, lasting=self._store.is_lasting)
            self.credentials: Credentials = Credentials(options.global_api_key)
            self._services = Services(
                self.model,
                self._store,
                self.storage,
                self.uploads,
                self.parts,
                self.credentials,
                Background(),
                self.limits,
            )
            self._populate(options)
            self.api_keys: dict[str, str] = self._admit_users()
            self._updates = UpdateEvents(self.model, self.hub, self.limits.event)
            self.observers: list[Callable[[Sequence[Change] | None], None]] = []
            self._store.watch(self._collect, UNNOTED)
            self.actions: Actions = Actions(self.hub, self.model, self._user_id, self.api_user)
            if options.database is not None:
                fail_abandoned(self._services, self.api_user)
            made.pop_all()
        self._dispatcher = Dispatcher(self._services)

    @property
    def api_key(self) -> str:
        """The key of :attr:`api_user`."""
        return self.api_keys[self.api_user]

    def close(self) -> None:
        """Cancel work in the background, close the database, remove temporary files."""
        self._services.background.close()
        self.parts.close()
        self._store.close()
        self.storage.close()

    def _populate(self, options: Options) -> None:
        """Seed a new database with what its schemas allow."""
        # Other schemas may lack types that the seed needs; the built-in ones have all of them.
        level = logging.WARNING if options.schemas is None else logging.INFO
        for parts in self._contents.choices:
            try:
                is_new = self._fill(options.api_user, options.api_key, parts)
            except ApiError as error:
                reason = error.content
                left_out = parts[-1] if parts else "user"
                logger.log(level, "the seed leaves out its %s: %s", left_out, reason)
            else:
                self.contents: str = self._contents.describe(is_new=is_new, parts=parts)
                return
        raise ServerStartError("schemas", None, f"a server with them cannot be filled: {reason}")

    def _fill(self, api_user: str, api_key: str | None, parts: Iterable[str]) -> bool:
        with self._store.transaction() as transaction:
            new_batch = partial(self._services.batch, transaction, api_user)
            is_new = self._contents.fill(self.model, transaction, new_batch, api_user, parts)
            owner = owner_of(self.model, transaction, api_user)
            self.credentials.administrators = frozenset({owner})
            if api_key:
                transaction.set_api_key(owner, api_key)
                self._chosen = {owner: api_key}
            elif owner not in transaction.api_keys():
                transaction.make_api_key(owner)
        return is_new

    def _admit_users(self) -> dict[str, str]:
        with self._store.transaction(writes=False) as transaction:
            for owner, digest in transaction.key_digests():
                self.credentials.accept(owner, digest)
            return api_keys(self.model, transaction, self._chosen)

    def _collect(self, transaction: Transaction) -> Callable[[], None] | None:
        """Return what publishes the changes of *transaction* once it is committed."""
        changes = list(transaction.changes())
        publish = self._updates.collect(transaction, changes)
        if not (changes and self.observers):
            return publish

        def after_commit() -> None:
            if publish is not None:
                publish()
            for observer in self.observers:
                observer(changes)

        return after_commit

    def parse(self, body: bytes, caller: Caller) -> Call:
        """Return the batch in the body of a ``POST /api``; this does not use the database."""
        operations = _read_batch(body)
        steps = self.limits.check_batch(operations)
        self._dispatcher.check(operations)
        parsed = [parsed_early(self.limits, each) for each in operations]
        completes = any(each["action"] == COMPLETE for each in operations)
        return Call(parsed, caller, len(body), steps, completes_uploads=completes)

    def assemble(self, call: Call) -> None:
        """Assemble the files of uploads that *call* completes; takes as long as copying them."""
        assemble_uploads(self._services, call.operations, call.completions)

    def respond(
        self, call: Call, largest: int, is_awaited: Callable[[], bool] = lambda: False
    ) -> bytes:
        """Return the response to *call* as JSON; if there is an error, nothing of it is done.

        Args:
            call: The batch.
            largest: Bytes that the response may take.
            is_awaited: Returns whether other requests wait for the end of this one.

        Raises:
            NeedsSlotError: If it takes more, and the limits of the server allow that.
            SlowQueryError: If it only reads, and takes so long that :meth:`respond_beside` has to
                do it.
            ApiError: If an operation cannot be done, or the response is too big.
        """
        if self._dispatcher.writes(call.operations):
            seconds, short = self.limits.query, _LONGEST_AMONG_WRITES
            clock = Clock(seconds, slow_among_writes, short=short, is_awaited=is_awaited)
        else:
            clock = Clock(_SHORT * 4, SlowQueryError, short=_SHORT, is_awaited=is_awaited)
        cap = self._cap(largest)
        return self._dispatcher.run(call.operations, call.caller, call.completions, cap, clock)

    def respond_beside(self, call: Call, largest: int) -> bytes:
        """Do the same as :meth:`respond` for a batch that only reads, while others go on."""
        clock = Clock(self.limits.query, self.limits.query_too_slow)
        with self._store.beside() as store:
            return self._dispatcher.run(
                call.operations, call.caller, {}, self._cap(largest), clock, store
            )

    def _cap(self, largest: int) -> Callable[[], Meter]:
        is_all = largest >= self.limits.response
        return response_cap(largest, self.limits.response_too_big if is_all else NeedsSlotError)

    def interrupt(self) -> None:
        """Make what runs end soon; from any thread."""
        self._services.background.stopping.set()
        self._store.interrupt()

    def query(self, expression: str) -> bytes:
        """Return the response to a query that comes from no client; its entities are whole."""
        operation = {"action": "query", "expression": expression}
        caller = Caller(Identity("", is_global=True), "", denormalize=True)
        return self._dispatcher.run([operation], caller, {}, self._cap(self.limits.response))

    def save(self) -> Snapshot:
        """Return a copy of all entities."""
        return self._store.save()

    def restore(self, saved: Snapshot) -> None:
        """Restore all entities, keys and users as they were saved, and remove all files."""
        self._services.background.cancel_all()
        self.parts.close()
        self.storage.empty()
        self._store.restore(saved)
        self.credentials.clear()
        self.api_keys = self._admit_users()
        for observer in self.observers:
            observer(None)

    def check_user(self, identity: Identity) -> None:
        """Check the user that a request acts for."""
        with self._store.transaction(writes=False) as transaction:
            acting_user(self.model, transaction, identity)

    def _user_id(self, username: str) -> str | None:
        """Return the id of a user; None if there is none, or if the schemas have no users."""
        with suppress(KeyError), self._store.transaction(writes=False) as transaction:
            return owner_of(self.model, transaction, username)
        return None

    def file_of(self, component_id: str) -> tuple[Path, str]:
        """Return where the file of a component is, and the name to save it under."""
        if not is_storable(component_id) or not self.storage.path(component_id).is_file():
            raise EntityNotFoundError("There is no file for this component.")
        row: Mapping[str, Any] | None = None
        if "Component" in self.model.types:
            with self._store.transaction(writes=False) as transaction:
                row = transaction.read("Component", {"id": component_id})
        name = f"{row.get('name') or ''}{row.get('file_type') or ''}" if row else ""
        return self.storage.path(component_id), name or component_id


@cache
def _builtin() -> tuple[Model, Tables]:
    """Return model and tables of the built-in schemas; cached, as they take most of a start."""
    model = builtin_model()
    return model, Tables(model)


def _check_credentials(options: Options) -> None:
    for argument in ("api_user", "api_key", "global_api_key"):
        value = getattr(options, argument)
        if value is not None or argument == "api_user":
            check_header_value(argument, value)


def _read_batch(body: bytes) -> list[Any]:
    try:
        operations = from_json(body)
    except ValueError as error:
        raise RequestError(f"The request body is not JSON: {error}.") from None
    if not isinstance(operations, list):
        raise RequestError("The request body must be a JSON array of operations.")
    return operations
