"""One request while it is answered: what its operations share."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from aioftrackjobs.devserver.api.background import Background
from aioftrackjobs.devserver.api_errors import ValidationError
from aioftrackjobs.devserver.auth.credentials import Credentials, Identity
from aioftrackjobs.devserver.auth.users import acting_user
from aioftrackjobs.devserver.entities.serializer import Encoder
from aioftrackjobs.devserver.entities.urls import Addresses
from aioftrackjobs.devserver.files.multipart import Parts
from aioftrackjobs.devserver.files.storage import Incoming, Storage
from aioftrackjobs.devserver.files.upload_tokens import Announced, Uploads
from aioftrackjobs.devserver.limits import Limits, Meter
from aioftrackjobs.devserver.mutations.batch import Batch
from aioftrackjobs.devserver.mutations.defaults import Rules
from aioftrackjobs.devserver.schema.model import Model
from aioftrackjobs.devserver.store.database import Store, Transaction

Operation = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Services:
    """What a server is made of."""

    model: Model
    store: Store
    storage: Storage
    uploads: Uploads
    parts: Parts
    credentials: Credentials
    background: Background
    limits: Limits

    def batch(self, transaction: Transaction, username: str) -> Batch:
        """Return a batch of *username*'s whose answers nobody reads."""
        encoder = Encoder(self.model, Addresses("", self.uploads.sign_download))
        return Batch(self.model, transaction, Rules(self.model, transaction, username), encoder)


@dataclass(frozen=True, slots=True)
class Caller:
    """Who sent a request, and how the answer is wanted.

    Attributes:
        base_url: Address under which the caller reaches this server.
        denormalize: Whether repeated entities are wanted whole.
        strict: Whether only what was asked for is wanted, which grouping needs.
    """

    identity: Identity
    base_url: str
    denormalize: bool = False
    strict: bool = False

    @property
    def username(self) -> str:
        """The user the request acts for."""
        return self.identity.username


@dataclass(frozen=True, slots=True)
class Completion:
    """An upload in parts that a batch completes.

    Attributes:
        file: The file made of its parts; None if it was completed before.
    """

    announced: Announced
    file: Incoming | None


class ApiRequest:
    """One batch of operations in one transaction.

    Attributes:
        user: The acting user's row; None if there is none.
        completions: The uploads in parts that are completed here, by upload id.
        placing: Their files, to put in place as the last thing before the commit.
        afterwards: What to do when the transaction has ended well; it must not fail.
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
        self.placing: list[Incoming] = []
        self.afterwards: list[Callable[[], object]] = []
        self.user = acting_user(services.model, transaction, caller.identity)
        model = services.model
        addresses = Addresses(caller.base_url, services.uploads.sign_download)
        self.encoder = Encoder(model, addresses, denormalize=caller.denormalize, written=written)

    @cached_property
    def batch(self) -> Batch:
        """What the operations change; made with the first that does."""
        model = self.services.model
        rules = Rules(model, self.transaction, self.caller.username)
        return Batch(model, self.transaction, rules, self.encoder)

    def row(self, entity_type: str, key: object) -> dict[str, Any] | None:
        """Return the entity of a type with a single *key*, None if there is none."""
        known = self.services.model.types.get(entity_type)
        if known is None or not isinstance(key, str):
            return None
        return self.transaction.read(known.root, {known.primary_key[0]: key})


def text_of(operation: Operation, name: str) -> str:
    """Return a text that *operation* must have.

    Raises:
        ValidationError: If it does not.
    """
    value = operation.get(name)
    if not isinstance(value, str) or not value:
        raise ValidationError(f"'{operation['action']}' needs a text '{name}'.")
    return value
