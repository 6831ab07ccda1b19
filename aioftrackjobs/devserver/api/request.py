"""The context of one batch, which its operations share."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

from aioftrackjobs.devserver.api.background import Background
from aioftrackjobs.devserver.api_errors import EntityNotFoundError, ValidationError
from aioftrackjobs.devserver.auth import ADMINISTRATOR, Credentials, Identity, acting_user, has_role
from aioftrackjobs.devserver.entities.computed import FileUrls
from aioftrackjobs.devserver.entities.serializer import Serializer
from aioftrackjobs.devserver.files.multipart import Parts
from aioftrackjobs.devserver.files.storage import IncomingFile, Storage
from aioftrackjobs.devserver.files.upload_tokens import AnnouncedUpload, UploadTokens
from aioftrackjobs.devserver.limits import Limits, Meter
from aioftrackjobs.devserver.mutations.batch import Batch
from aioftrackjobs.devserver.schema.model import Model
from aioftrackjobs.devserver.store.database import Database, Transaction

Operation = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Services:
    """The parts of a server that operations use."""

    model: Model
    store: Database
    storage: Storage
    uploads: UploadTokens
    parts: Parts
    credentials: Credentials
    background: Background
    limits: Limits

    def batch(self, transaction: Transaction, username: str) -> Batch:
        """Return a batch that acts for *username*, outside of any request."""
        serializer = Serializer(self.model, FileUrls("", partial(self.uploads.sign, "get")))
        return Batch(self.model, transaction, username, serializer)


@dataclass(frozen=True, slots=True)
class Caller:
    """The sender of a batch, and the form in which it gets the response.

    Attributes:
        base_url: Address by which the sender reaches this server.
        denormalize: Whether entities that are repeated are sent whole.
        strict: Whether strict mode is on, which grouping needs.
    """

    identity: Identity
    base_url: str
    denormalize: bool = False
    strict: bool = False

    @property
    def username(self) -> str:
        """The user that the batch acts for."""
        return self.identity.username


@dataclass(frozen=True, slots=True)
class Completion:
    """An upload in parts that a batch completes.

    Attributes:
        file: The file made of its parts; None if it was completed before.
    """

    announced: AnnouncedUpload
    file: IncomingFile | None


class ApiRequest:
    """One batch of operations in one transaction.

    Attributes:
        user: The acting user's row; None if there is none.
        completions: The uploads in parts that are completed here, by upload id.
        files_to_place: Their files, to put in place as the last step before the commit.
        after_commit: Functions to call after the commit; they must not fail.
    """

    def __init__(
        self,
        services: Services,
        transaction: Transaction,
        caller: Caller,
        completions: Mapping[str, Completion],
        written: Meter,
    ) -> None:
        self.services = services
        self.transaction = transaction
        self.caller = caller
        self.completions = completions
        self.files_to_place: list[IncomingFile] = []
        self.after_commit: list[Callable[[], object]] = []
        self.user: dict[str, Any] | None = acting_user(services.model, transaction, caller.identity)
        self.file_urls: FileUrls = FileUrls(caller.base_url, partial(services.uploads.sign, "get"))
        self.serializer: Serializer = Serializer(
            services.model, self.file_urls, denormalize=caller.denormalize, written=written
        )

    @cached_property
    def batch(self) -> Batch:
        """The changes of the batch; made with the first operation that writes."""
        return Batch(
            self.services.model,
            self.transaction,
            self.caller.username,
            self.serializer,
            lambda: self.is_administrator,
        )

    @property
    def is_administrator(self) -> bool:
        """Whether the caller manages users: by key, or by the role at this moment."""
        identity, user = self.caller.identity, self.user
        if identity.is_administrator or identity.is_global:
            return True
        return user is not None and has_role(self.transaction, user.get("id"), ADMINISTRATOR)

    def row(self, entity_type: str, key: object) -> dict[str, Any] | None:
        """Return the row of the entity with a single *key*, None if there is none."""
        known = self.services.model.types.get(entity_type)
        if known is None or not isinstance(key, str):
            return None
        return self.transaction.read(known.root, {known.primary_key[0]: key})

    def existing(self, entity_type: str, key: object) -> dict[str, Any]:
        """Return the row of the entity with a single *key*."""
        row = self.row(entity_type, key)
        if row is None:
            raise EntityNotFoundError(f"There is no {entity_type} {key}.")
        return row


def text_of(operation: Operation, name: str) -> str:
    """Return a text that *operation* must have."""
    value = operation.get(name)
    if not isinstance(value, str) or not value:
        raise ValidationError(f"'{operation['action']}' needs a text '{name}'.")
    return value
