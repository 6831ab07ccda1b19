"""The owners of personal API keys, and the user that a request acts for."""

from __future__ import annotations

from typing import Any

from aioftrackjobs.devserver.api_errors import InvalidCredentialsError
from aioftrackjobs.devserver.auth.credentials import Identity
from aioftrackjobs.devserver.schema.model import EntityType, Model
from aioftrackjobs.devserver.store.database import Transaction


def user_type(model: Model) -> EntityType | None:
    """Return the entity type of users; None where the schemas have none with a name."""
    user = model.types.get("User")
    return user if user is not None and "username" in user.attributes else None


def owner_of(model: Model, transaction: Transaction, username: str) -> str:
    """Return the owner of a user's key: the user's id, or the name where schemas have no users.

    Raises:
        KeyError: If the schemas have users and this one does not exist.
    """
    user = user_type(model)
    if user is None:
        return username
    row = transaction.read(user.root, {"username": username})
    if row is None:
        raise KeyError(username)
    owner: str = row[user.primary_key[0]]
    return owner


def api_keys(model: Model, transaction: Transaction) -> dict[str, str]:
    """Return the keys of all users that have one and still exist, by name."""
    user, keys = user_type(model), transaction.api_keys()
    if user is None:
        return keys
    rows = {owner: transaction.read(user.root, {user.primary_key[0]: owner}) for owner in keys}
    return {row["username"]: keys[owner] for owner, row in rows.items() if row is not None}


def acting_user(
    model: Model, transaction: Transaction, identity: Identity
) -> dict[str, Any] | None:
    """Return the row of the user that a request acts for; None where schemas have no users.

    Raises:
        InvalidCredentialsError: If the user is inactive or deleted, or does not own the key.
    """
    user = user_type(model)
    if user is None:
        if not identity.may_act_as(identity.username):
            raise InvalidCredentialsError
        return None
    row = transaction.read(user.root, {"username": identity.username})
    if not identity.may_act_as(row and row[user.primary_key[0]]):
        raise InvalidCredentialsError
    if row is not None and row.get("is_active", 1) == 0:
        raise InvalidCredentialsError
    return row
