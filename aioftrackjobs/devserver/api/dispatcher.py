"""The operations of a request: which there are, and what each answers.

A request is one batch in one transaction. Its answer has one entry for each operation, or is
one refusal for all of them (protocol reference, section 2).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import Any

from pydantic_core import to_json

from aioftrackjobs.devserver.api import (
    accounts,
    encode_media,
    query,
    server_information,
    uploads,
)
from aioftrackjobs.devserver.api.request import ApiRequest, Caller, Completion, Operation, Services
from aioftrackjobs.devserver.api_errors import (
    ApiError,
    InvalidCredentialsError,
    UnsupportedOperationError,
    ValidationError,
)
from aioftrackjobs.devserver.limits import Meter, ResponseCap
from aioftrackjobs.protocol.schemas import schema_hash

#: A real server does these; they are refused by name rather than as unknown (section 2.3).
_UNSUPPORTED = frozenset(
    {
        "_authorize_operation",
        "_track_usage",
        "add_user_security_role",
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
        "grant_user_security_role_project",
        "parse_query",
        "permissions",
        "remove_user_security_role",
        "revoke_api_key_project",
        "revoke_api_key_security_role",
        "revoke_user_security_role_project",
        "storage_usage",
        "un_assume_user",
        "update_user_security_role",
    }
)


@dataclass(frozen=True, slots=True)
class _Action:
    """What is done for an operation.

    Attributes:
        answer: Does it, and returns its part of the answer.
        writes: Whether it may change the database.
    """

    answer: Callable[[ApiRequest, Operation], Any]
    writes: bool = False


class Operations:
    """Runs batches of operations against one store."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._schemas = list(services.model.documents)
        self._actions: Mapping[str, _Action] = {
            "query": _Action(query.answer_query),
            "search": _Action(query.answer_search),
            "create": _Action(_create, writes=True),
            "update": _Action(_update, writes=True),
            "delete": _Action(_delete, writes=True),
            "query_schemas": _Action(lambda *_: self._schemas),
            "query_server_information": _Action(
                partial(
                    server_information.server_information, schema_hash=schema_hash(self._schemas)
                )
            ),
            "get_upload_metadata": _Action(uploads.get_upload_metadata),
            uploads.COMPLETE: _Action(uploads.complete_multipart_upload, writes=True),
            "encode_media": _Action(encode_media.encode_media, writes=True),
            "reset_remote": _Action(accounts.reset_remote, writes=True),
            "get_widget_url": _Action(accounts.get_widget_url),
            "send_user_invite": _Action(accounts.send_user_invite),
            "send_review_session_invite": _Action(accounts.send_review_session_invite),
        }

    def check(self, operations: Iterable[Any]) -> None:
        """Check that there are such *operations*.

        Raises:
            ApiError: If one of them is none.
        """
        for operation in operations:
            self._check(operation)

    def run(
        self,
        operations: Sequence[Operation],
        caller: Caller,
        completions: Mapping[str, Completion],
        cap: ResponseCap,
    ) -> bytes:
        """Return the answers to *operations*, all of them done or none.

        Args:
            operations: What was checked before.
            caller: Who sent them.
            completions: The uploads in parts that they complete, by upload id.
            cap: How many bytes may be read, and sent.

        Raises:
            ApiError: If one of them cannot be done.
        """
        actions = [self._actions[operation["action"]] for operation in operations]
        writes = any(action.writes for action in actions)
        transaction = self._services.store.transaction(writes=writes, read=cap.meter())
        with ExitStack() as placed, transaction as entered:
            request = ApiRequest(self._services, entered, caller, completions, cap.meter())
            _check_user(request, writes=writes)
            answers = [
                action.answer(request, operation)
                for action, operation in zip(actions, operations, strict=True)
            ]
            if writes:
                request.batch.finish()
            texts = _encoded(answers, cap.meter())
            for incoming in request.placing:
                placed.enter_context(incoming.kept())
        for afterwards in request.afterwards:
            afterwards()
        return b"[" + b",".join(texts) + b"]"

    def _check(self, operation: Any) -> None:
        if not isinstance(operation, Mapping):
            raise ValidationError("An operation must be an object.")
        name = operation.get("action")
        if not isinstance(name, str):
            raise ValidationError("An operation must name its 'action'.")
        if name not in self._actions:
            raise _unknown_action(name)


def _encoded(answers: Iterable[Any], sent: Meter) -> list[bytes]:
    """Return each answer as JSON; *sent* is told of their bytes before there are too many."""
    texts: list[bytes] = []
    for answer in answers:
        texts.append(to_json(answer))
        sent(len(texts[-1]))
    return texts


def _check_user(request: ApiRequest, *, writes: bool) -> None:
    """Have a global key act for existing users only, when more than reading is asked for.

    A real server lets one in whose user does not exist, and clients look the user up next
    (protocol reference, section 1.6).
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
    # The official Python client looks for this text, u included (section 1.4).
    return ValidationError(f"Invalid action u'{action}'")
