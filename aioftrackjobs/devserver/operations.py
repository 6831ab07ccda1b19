"""The operations of a request: which there are, and what each answers.

A request is one batch in one transaction. Its answer has one entry for each operation, or is
one refusal for all of them (protocol reference, section 2).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from aioftrackjobs.devserver.apply import Batch
from aioftrackjobs.devserver.computed import Addresses
from aioftrackjobs.devserver.model import Model
from aioftrackjobs.devserver.projections import select
from aioftrackjobs.devserver.query.compiler import Compiler
from aioftrackjobs.devserver.query.parser import parse
from aioftrackjobs.devserver.query.syntax import Query
from aioftrackjobs.devserver.refusals import (
    Refusal,
    UnsupportedRefusal,
    ValidationRefusal,
)
from aioftrackjobs.devserver.results import Encoder, Loader
from aioftrackjobs.devserver.rules import Rules
from aioftrackjobs.devserver.store import Store, Transaction
from aioftrackjobs.devserver.uploads import Uploads
from aioftrackjobs.protocol.schemas import schema_hash

Operation = Mapping[str, Any]

_READING = frozenset({"query", "query_schemas", "query_server_information", "get_upload_metadata"})
#: A real server does these; they are refused by name rather than as unknown.
_UNSUPPORTED = frozenset(
    {
        "search",
        "complete_multipart_upload",
        "encode_media",
        "delayed_job",
        "reset_remote",
        "get_widget_url",
        "send_user_invite",
        "send_review_session_invite",
        "generate_signed_url",
        "compute_rollups",
        "permissions",
        "configure_totp",
    }
)


@dataclass(frozen=True, slots=True)
class Caller:
    """Who sent a request, and how the answer is wanted.

    Attributes:
        base_url: Address under which the caller reaches this server.
        denormalize: Whether repeated entities are wanted whole.
    """

    username: str
    base_url: str
    denormalize: bool = False


class Operations:
    """Runs batches of operations against one store."""

    def __init__(self, model: Model, store: Store, uploads: Uploads) -> None:
        self._model = model
        self._store = store
        self._uploads = uploads
        self._schemas = list(model.documents)
        self._schema_hash = schema_hash(self._schemas)

    def run(self, operations: list[Any], caller: Caller) -> list[Any]:
        """Return the answers to *operations*, all of them done or none.

        Raises:
            Refusal: If one of them cannot be done.
        """
        if not all(isinstance(operation, Mapping) for operation in operations):
            raise ValidationRefusal("An operation must be an object.")
        if not all(isinstance(operation.get("action"), str) for operation in operations):
            raise ValidationRefusal("An operation must name its 'action'.")
        writes = any(operation.get("action") not in _READING for operation in operations)
        with self._store.transaction(writes=writes) as transaction:
            request = _Request(self, transaction, caller)
            answers = [request.answer(operation) for operation in operations]
            request.batch.finish()
        return answers

    def server_information(self, caller: Caller, values: Any) -> dict[str, Any]:
        """Return facts about this server (protocol reference, section 2.4)."""
        facts: dict[str, Any] = {
            "version": "dev",
            "schema_hash": self._schema_hash,
            "is_timezone_support_enabled": True,
            "storage_scenario": {"scenario": "ftrack.automatic", "data": {}},
        }
        if values is None:
            return facts
        if not isinstance(values, list):
            raise ValidationRefusal("'values' must be a list of names.")
        facts |= {
            "user_information": {"username": caller.username},
            "is_nested_subqueries_enabled": True,
        }
        return {name: facts[name] for name in values if isinstance(name, str) and name in facts}

    def compiler(self, transaction: Transaction) -> Compiler:
        """Return a compiler for the tables of *transaction*."""
        return Compiler(self._model, transaction.tables)

    @property
    def model(self) -> Model:
        """The entity types served."""
        return self._model

    @property
    def schemas(self) -> list[dict[str, Any]]:
        """The schema documents served, in their order."""
        return self._schemas

    @property
    def uploads(self) -> Uploads:
        """Where uploads are announced."""
        return self._uploads


class _Request:
    """One request while it is answered."""

    def __init__(self, operations: Operations, transaction: Transaction, caller: Caller) -> None:
        self._operations = operations
        self._transaction = transaction
        self._caller = caller
        model = operations.model
        addresses = Addresses(caller.base_url, operations.uploads.sign)
        self._encoder = Encoder(model, addresses, denormalize=caller.denormalize)
        rules = Rules(model, transaction, caller.username)
        self.batch = Batch(model, transaction, rules, self._encoder)
        self._actions: dict[str, Callable[[Operation], Any]] = {
            "query": self._query,
            "create": self._create,
            "update": self._update,
            "delete": self._delete,
            "query_schemas": lambda _: operations.schemas,
            "query_server_information": self._server_information,
            "get_upload_metadata": self._upload_metadata,
        }

    def answer(self, operation: Operation) -> Any:
        """Return the answer to one operation."""
        action = operation["action"]
        if action in self._actions:
            return self._actions[action](operation)
        raise _unknown_action(action)

    def _create(self, operation: Operation) -> dict[str, Any]:
        return {"action": "create", "data": self.batch.create(operation)}

    def _update(self, operation: Operation) -> dict[str, Any]:
        return {"action": "update", "data": self.batch.update(operation)}

    def _delete(self, operation: Operation) -> dict[str, Any]:
        return {"action": "delete", "data": self.batch.delete(operation)}

    def _server_information(self, operation: Operation) -> dict[str, Any]:
        return self._operations.server_information(self._caller, operation.get("values"))

    def _upload_metadata(self, operation: Operation) -> dict[str, Any]:
        component = None
        component_id = operation.get("component_id")
        if isinstance(component_id, str) and "Component" in self._transaction.tables:
            component = self._transaction.read("Component", {"id": component_id})
        return self._operations.uploads.announce(operation, component, self._caller.base_url)

    def _query(self, operation: Operation) -> dict[str, Any]:
        expression = operation.get("expression")
        if not isinstance(expression, str):
            raise ValidationRefusal("A query needs an 'expression'.")
        query = parse(expression)
        if query.group_by:
            rows, more = self._groups(query)
        else:
            rows, more = self._entities(query)
        next_offset = (query.offset or 0) + len(rows) if more else None
        return {
            "action": "query",
            "data": rows,
            "metadata": {"next": {"offset": next_offset}},
        }

    def _entities(self, query: Query) -> tuple[list[Any], bool]:
        compiler, model = self._operations.compiler(self._transaction), self._operations.model
        selection = select(model, query)
        columns = selection.columns(model)
        statement = compiler.select(query, compiler.scope(query), columns)
        found, more = _page(query, self._transaction.fetch(statement))
        rows = [dict(zip(columns, row, strict=True)) for row in found]
        loaded = Loader(model, self._transaction).load(selection, rows)
        return self._encoder.entities(selection, loaded), more

    def _groups(self, query: Query) -> tuple[list[Any], bool]:
        compiler = self._operations.compiler(self._transaction)
        statement, names = compiler.select_groups(query)
        found, more = _page(query, self._transaction.fetch(statement))
        return [dict(zip(names, row, strict=True)) for row in found], more


def _page(query: Query, found: Any) -> tuple[Any, bool]:
    """Return the rows of the page, and whether there are more after it."""
    if query.limit is None or len(found) <= query.limit:
        return found, False
    return found[: query.limit], True


def _unknown_action(action: str) -> Refusal:
    if action in _UNSUPPORTED:
        return UnsupportedRefusal(f"The development server does not support '{action}'.")
    # The official Python client looks for this text, u included (section 1.4).
    return ValidationRefusal(f"Invalid action u'{action}'")
