"""Dispatching the operations of a batch to the functions that do them.

A batch is one transaction. Its response has one result for each operation, or is one error for
all of them (docs/protocol.md, section 2).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import Any

from pydantic_core import to_json

from aioftrackjobs.devserver.api import (
    administration,
    encode_media,
    query,
    security_roles,
    uploads,
)
from aioftrackjobs.devserver.api.request import ApiRequest, Caller, Completion, Operation, Services
from aioftrackjobs.devserver.api_errors import (
    ApiError,
    InvalidCredentialsError,
    UnsupportedOperationError,
    ValidationError,
)
from aioftrackjobs.devserver.limits import Clock, Meter, ResponseCap, unlimited
from aioftrackjobs.devserver.store.database import Connection
from aioftrackjobs.protocol.schemas import schema_hash

#: A real server supports these; here they are refused as unsupported, not as unknown (section 2.3).
_UNSUPPORTED = frozenset(
    {
        "_authorize_operation",
        "_track_usage",
        "assume_user",
        "compute_rollups",
        "configure_otp",
        "configure_totp",
        "convert_entity",
        "delayed_job",
        "disable_2fa",
        "generate_signed_url",
        "generate_totp",
        "grant_api_key_project",
        "grant_api_key_security_role",
        "parse_query",
        "revoke_api_key_project",
        "revoke_api_key_security_role",
        "storage_usage",
        "un_assume_user",
    }
)
#: Operations about the roles of users; the documentation has both "remove" and "revoke".
_ROLE_ACTIONS = (
    "add_user_security_role",
    "grant_user_security_role_project",
    "remove_user_security_role",
    "revoke_user_security_role",
    "revoke_user_security_role_project",
    "update_user_security_role",
)


@dataclass(frozen=True, slots=True)
class _Action:
    """How an operation is done.

    Attributes:
        run: Does it, and returns its result.
        writes: Whether it may change the database.
    """

    run: Callable[[ApiRequest, Operation], Any]
    writes: bool = False


class Dispatcher:
    """Runs batches of operations against one database."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._schemas = list(services.model.documents)
        self._actions: Mapping[str, _Action] = {
            "query": _Action(query.run_query),
            "search": _Action(query.run_search),
            "create": _Action(_create, writes=True),
            "update": _Action(_update, writes=True),
            "delete": _Action(_delete, writes=True),
            "query_schemas": _Action(lambda *_: self._schemas),
            "query_server_information": _Action(
                partial(administration.server_information, schema_hash=schema_hash(self._schemas))
            ),
            "get_upload_metadata": _Action(uploads.get_upload_metadata),
            uploads.COMPLETE: _Action(uploads.complete_multipart_upload, writes=True),
            "encode_media": _Action(encode_media.encode_media, writes=True),
            "reset_remote": _Action(administration.reset_remote, writes=True),
            "permissions": _Action(security_roles.permissions),
            **dict.fromkeys(_ROLE_ACTIONS, _Action(security_roles.change_role, writes=True)),
            "get_widget_url": _Action(administration.get_widget_url),
            "send_user_invite": _Action(administration.send_user_invite),
            "send_review_session_invite": _Action(administration.send_review_session_invite),
        }

    def check(self, operations: Iterable[Any]) -> None:
        """Check that the server supports all *operations*.

        Raises:
            ApiError: If it does not support one of them.
        """
        for operation in operations:
            if not isinstance(operation, Mapping):
                raise ValidationError("An operation must be an object.")
            name = operation.get("action")
            if not isinstance(name, str):
                raise ValidationError("An operation must name its 'action'.")
            if name not in self._actions:
                raise _unknown_action(name)

    def writes(self, operations: Iterable[Operation]) -> bool:
        """Return whether one of *operations*, which :meth:`check` has accepted, writes."""
        return any(self._actions[operation["action"]].writes for operation in operations)

    def run(
        self,
        operations: Sequence[Operation],
        caller: Caller,
        completions: Mapping[str, Completion],
        cap: ResponseCap,
        clock: Clock = unlimited,
        store: Connection | None = None,
    ) -> bytes:
        """Return the results of *operations* as JSON; either all of them are done or none.

        Args:
            operations: Operations that :meth:`check` has accepted.
            caller: The sender.
            completions: The uploads in parts that they complete, by upload id.
            cap: How many bytes may be read, and sent.
            clock: How long the queries may take.
            store: Where they are done, if not in the database itself.

        Raises:
            ApiError: If one of them cannot be done.
        """
        actions = [self._actions[operation["action"]] for operation in operations]
        writes = self.writes(operations)
        store = store or self._services.store
        transaction = store.transaction(writes=writes, read=cap.meter(), clock=clock)
        with ExitStack() as kept_files, transaction as entered:
            request = ApiRequest(self._services, entered, caller, completions, cap.meter())
            _check_user(request, writes=writes)
            results = []
            for action, operation in zip(actions, operations, strict=True):
                if not writes:
                    clock.check()
                results.append(action.run(request, operation))
            if writes:
                request.batch.join_caller()
                request.batch.finish()
            texts = _encoded(results, cap.meter())
            for incoming in request.files_to_place:
                kept_files.enter_context(incoming.kept())
        for function in request.after_commit:
            function()
        return b"[" + b",".join(texts) + b"]"


def _encoded(results: Iterable[Any], sent: Meter) -> list[bytes]:
    """Return each result as JSON; *sent* counts the bytes, one result after the other."""
    texts: list[bytes] = []
    for result in results:
        texts.append(to_json(result))
        sent(len(texts[-1]))
    return texts


def _check_user(request: ApiRequest, *, writes: bool) -> None:
    """Refuse writes with a global key for a user that does not exist.

    A real server accepts reads from such a user, as clients look the user up next (protocol
    reference, section 1.6).
    """
    if writes and request.user is None and request.caller.identity.is_global:
        raise InvalidCredentialsError


def _create(request: ApiRequest, operation: Operation) -> dict[str, Any]:
    return {"action": "create", "data": request.batch.create(operation)}


def _update(request: ApiRequest, operation: Operation) -> dict[str, Any]:
    return {"action": "update", "data": request.batch.update(operation)}


def _delete(request: ApiRequest, operation: Operation) -> dict[str, Any]:
    return {"action": "delete", "data": request.batch.delete(operation)}


def _unknown_action(action: str) -> ApiError:
    if action in _UNSUPPORTED:
        return UnsupportedOperationError(f"The development server does not support '{action}'.")
    # The official Python client searches for this text, with the u (section 1.4).
    return ValidationError(f"Invalid action u'{action}'")
