"""Dispatching the operations of a batch to the functions that do them.

A batch is one transaction. Its response has one result for each operation, or is one error for
all of them (docs/protocol.md, section 2).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from importlib.resources import files
from typing import Any, TypeAlias

from pydantic_core import to_json

from aioftrackjobs.devserver.api import administration, encode_media, query, uploads
from aioftrackjobs.devserver.api.request import ApiRequest, Caller, Completion, Operation, Services
from aioftrackjobs.devserver.api_errors import (
    InvalidCredentialsError,
    UnsupportedOperationError,
    ValidationError,
)
from aioftrackjobs.devserver.limits import Clock, Meter, unlimited
from aioftrackjobs.devserver.mutations.batch import Batch
from aioftrackjobs.devserver.store.database import Connection

#: A real server supports these; here they are refused as unsupported, not as unknown (section 2.3).
_UNSUPPORTED = frozenset(files(__package__).joinpath("unsupported.txt").read_text().split())
Run: TypeAlias = Callable[[ApiRequest, Operation], Any]


def _write(
    change: Callable[[Batch, Operation], Any], request: ApiRequest, operation: Operation
) -> dict[str, Any]:
    return {"action": operation["action"], "data": change(request.batch, operation)}


#: How operations that only read are done.
_READING: Mapping[str, Run] = {
    "query": query.run_query,
    "search": query.run_search,
    "query_schemas": lambda request, _: request.services.model.documents,
    "query_server_information": administration.server_information,
    "get_upload_metadata": uploads.get_upload_metadata,
    "permissions": administration.permissions,
    "get_widget_url": administration.get_widget_url,
    "send_user_invite": partial(administration.invited, entity_type="User", name="user_id"),
    "send_review_session_invite": partial(
        administration.invited,
        entity_type="ReviewSessionInvitee",
        name="review_session_invitee_id",
    ),
}
#: How those are done that may change the database. About the roles of users, the documentation
#: has both "remove" and "revoke".
_WRITING: Mapping[str, Run] = {
    "create": partial(_write, Batch.create),
    "update": partial(_write, Batch.update),
    "delete": partial(_write, Batch.delete),
    uploads.COMPLETE: uploads.complete_multipart_upload,
    "encode_media": encode_media.encode_media,
    "reset_remote": administration.reset_remote,
    "add_user_security_role": administration.change_role,
    "grant_user_security_role_project": administration.change_role,
    "remove_user_security_role": administration.change_role,
    "revoke_user_security_role": administration.change_role,
    "revoke_user_security_role_project": administration.change_role,
    "update_user_security_role": administration.change_role,
}
_ACTIONS = {**_READING, **_WRITING}


class Dispatcher:
    """Runs batches of operations against one database."""

    def __init__(self, services: Services) -> None:
        self._services = services

    def check(self, operations: Iterable[Any]) -> None:
        """Check that the server supports all *operations*."""
        for operation in operations:
            if not isinstance(operation, Mapping):
                raise ValidationError("An operation must be an object.")
            name = operation.get("action")
            if not isinstance(name, str):
                raise ValidationError("An operation must name its 'action'.")
            if name in _UNSUPPORTED:
                raise UnsupportedOperationError(
                    f"The development server does not support '{name}'."
                )
            if name not in _ACTIONS:
                # The official Python client searches for this text, with the u (section 1.4).
                raise ValidationError(f"Invalid action u'{name}'")

    def writes(self, operations: Iterable[Operation]) -> bool:
        """Return whether one of *operations*, which :meth:`check` has accepted, writes."""
        return any(operation["action"] in _WRITING for operation in operations)

    def run(
        self,
        operations: Sequence[Operation],
        caller: Caller,
        completions: Mapping[str, Completion],
        meter: Callable[[], Meter],
        clock: Clock = unlimited,
        store: Connection | None = None,
    ) -> bytes:
        """Return the results of *operations* as JSON; either all of them are done or none."""
        writes = self.writes(operations)
        store = store or self._services.store
        transaction = store.transaction(writes=writes, read=meter(), clock=clock)
        with ExitStack() as kept_files, transaction as entered:
            request = ApiRequest(self._services, entered, caller, completions, meter())
            # As clients look up their user next, a real server accepts reads from one that does
            # not exist (docs/protocol.md, section 1.6).
            if writes and request.user is None and caller.identity.is_global:
                raise InvalidCredentialsError
            results = []
            for operation in operations:
                name = operation["action"]
                if writes:
                    clock.enter(writes=name in _WRITING)
                else:
                    clock.check()
                results.append(_ACTIONS[name](request, operation))
            if writes:
                clock.enter(writes=True)
                request.batch.join_caller()
                request.batch.finish()
            texts, sent = [], meter()
            for result in results:
                texts.append(to_json(result))
                sent(len(texts[-1]))
            for incoming in request.files_to_place:
                kept_files.enter_context(incoming.kept())
        for function in request.after_commit:
            function()
        return b"[" + b",".join(texts) + b"]"
