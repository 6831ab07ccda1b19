"""Authentication: API keys, the users that they belong to, and the user that a request acts for.

Credentials are the name of a user, and a key that belongs to that user.
"""

from __future__ import annotations

import hmac
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from aioftrackjobs.devserver.api_errors import InvalidCredentialsError
from aioftrackjobs.devserver.errors import ServerStartError
from aioftrackjobs.devserver.schema.model import EntityType, Model
from aioftrackjobs.devserver.store.database import Transaction, key_digest

#: Values that every client can send in a header and every server receives unchanged: visible
#: ASCII, with blanks only inside (RFC 9110, section 5.5).
_HEADER_VALUE = re.compile(r"[!-~]+(?: +[!-~]+)*")
#: The security role of users who manage the others.
ADMINISTRATOR = "Administrator"


def check_header_value(argument: str, value: object) -> None:
    """Check that *value* can be sent in a header; *argument* names it."""
    if not isinstance(value, str):
        reason = f"it is not text but of type {type(value).__name__}"
    elif not value:
        reason = "it is empty"
    elif not _HEADER_VALUE.fullmatch(value):
        reason = "it may hold visible ASCII characters, and blanks between them"
    else:
        return
    raise ServerStartError("credentials", argument, reason)


@dataclass(frozen=True, slots=True)
class Identity:
    """The user that a request acts for.

    Attributes:
        owners: The owners of the key: ids of users, or names where schemas have no users.
        is_global: The key is not the user's own but one that acts for any user.
        is_administrator: The key is that of a user who manages the others.
    """

    username: str
    owners: frozenset[str] = frozenset()
    is_global: bool = False
    is_administrator: bool = False

    def may_act_as(self, owner: object) -> bool:
        """Return whether the key belongs to *owner*, or acts for any user."""
        return self.is_global or owner in self.owners


class Credentials:
    """The API keys of all users who have one, and the global one. Never shows a key.

    A key belongs to a user's id, not to the name: otherwise a client that renames users could
    act as others. The database knows which user has the name, and whether that user is active.

    Attributes:
        administrators: Owners of keys who may reset the keys of others.
    """

    def __init__(self, global_api_key: str | None = None) -> None:
        self._owners: dict[bytes, frozenset[str]] = {}
        self.administrators: frozenset[str] = frozenset()
        self._global_digest = None if global_api_key is None else key_digest(global_api_key)

    def check(self, username: str | None, api_key: str | None) -> Identity:
        """Return the identity of the pair; the caller compares the name with the owners."""
        if not username or not api_key:
            raise InvalidCredentialsError
        return self.identity(username, key_digest(api_key))

    @property
    def digests(self) -> list[bytes]:
        """The digests of all keys."""
        return [*self._owners, *filter(None, [self._global_digest])]

    def identity(self, username: str, digest: bytes) -> Identity:
        """Return the identity of a user and the key with this digest, as :meth:`check` does."""
        owners = self._owners.get(digest, frozenset())
        is_global = self._global_digest is not None and hmac.compare_digest(
            digest, self._global_digest
        )
        if not owners and not is_global:
            raise InvalidCredentialsError
        return Identity(username, owners, is_global, bool(owners & self.administrators))

    def clear(self) -> None:
        """Remove all personal keys."""
        self._owners.clear()

    def accept(self, owner: str, digest: bytes) -> None:
        """Accept the key with this digest for *owner*, beside others."""
        self._owners[digest] = self._owners.get(digest, frozenset()) | {owner}

    def set_api_key(self, owner: str, api_key: str) -> None:
        """Accept *api_key* for *owner*, and no longer earlier ones."""
        kept = {digest: owners - {owner} for digest, owners in self._owners.items()}
        self._owners = {digest: owners for digest, owners in kept.items() if owners}
        self.accept(owner, key_digest(api_key))


def user_type(model: Model) -> EntityType | None:
    """Return the entity type of users; None where the schemas have none with a name."""
    user = model.types.get("User")
    return user if user is not None and "username" in user.attributes else None


def owner_of(model: Model, transaction: Transaction, username: str) -> str:
    """Return the owner of a user's key: the user's id, or the name where schemas have no users."""
    user = user_type(model)
    if user is None:
        return username
    row = transaction.read(user.root, {"username": username})
    if row is None:
        raise KeyError(username)
    owner: str = row[user.primary_key[0]]
    return owner


def api_keys(
    model: Model, transaction: Transaction, chosen: Mapping[str, str] | None = None
) -> dict[str, str]:
    """Return the known keys of all users that have one and still exist, by name.

    Of *chosen* keys the database has digests only; they are given by owner.
    """
    user, keys = user_type(model), transaction.api_keys() | dict(chosen or {})
    if user is None:
        return keys
    rows = {owner: transaction.read(user.root, {user.primary_key[0]: owner}) for owner in keys}
    return {row["username"]: keys[owner] for owner, row in rows.items() if row is not None}


def has_role(transaction: Transaction, user_id: object, role: str) -> bool:
    """Return whether a user has the security role called *role*."""
    held, roles = (transaction.tables.get(name) for name in ("UserSecurityRole", "SecurityRole"))
    if held is None or roles is None or not {"user_id", "security_role_id"} <= set(held.c.keys()):
        return False
    if not {"id", "name"} <= set(roles.c.keys()):
        return False
    own = (held.c.user_id == user_id) & (held.c.security_role_id == roles.c.id)
    return bool(transaction.fetch(sa.select(held.c.user_id).where(own, roles.c.name == role)))


def acting_user(
    model: Model, transaction: Transaction, identity: Identity
) -> dict[str, Any] | None:
    """Return the row of the user that a request acts for; None where schemas have no users."""
    user, row = user_type(model), None
    owner: object = identity.username
    if user is not None:
        row = transaction.read(user.root, {"username": identity.username})
        owner = row and row[user.primary_key[0]]
    is_active = row is None or row.get("is_active", 1) != 0
    if not (is_active and identity.may_act_as(owner)):
        raise InvalidCredentialsError
    return row
