"""What a new database holds: users, locations, the vocabulary of a studio and a demo project.

The data is in ``demo_project.json``, in parts that build on each other. Only what the served
schemas can store is created. Ids are the real ones where real servers share them (protocol
reference, sections 5.5 and 6.1), and the same on every new server otherwise.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any
from uuid import NAMESPACE_URL, uuid5

from pydantic_core import from_json

from aioftrackjobs.devserver.auth import ADMINISTRATOR, has_role, owner_of, user_type
from aioftrackjobs.devserver.mutations.batch import Batch
from aioftrackjobs.devserver.schema.model import Model
from aioftrackjobs.devserver.seed.fixtures import NO_FIXTURE, Fixture, load_fixture
from aioftrackjobs.devserver.store.database import Transaction

#: Parts of the data, each of which needs those before it.
_PARTS = ("basics", "vocabulary", "workflows", "project")


@dataclass(frozen=True, slots=True)
class SeedContents:
    """What a server holds when it starts.

    Attributes:
        empty: Create only what authentication needs, the acting user and the built-in locations
            in a new database.
        fixture: Entities that are loaded into any database.
    """

    empty: bool = False
    fixture: Fixture = NO_FIXTURE

    @property
    def choices(self) -> list[Sequence[str]]:
        """The parts to fill a new database with, most first, until the schemas allow them.

        Schemas need not allow all: those of a part of the types may lack some that the demo
        project needs.
        """
        most = 1 if self.empty else len(_PARTS)
        return [_PARTS[:count] for count in range(most, -1, -1)]

    def fill(
        self,
        model: Model,
        transaction: Transaction,
        new_batch: Callable[[], Batch],
        api_user: str,
        parts: Iterable[str],
    ) -> bool:
        """Create *parts*, users and the fixture; all users but *api_user* get keys.

        Returns:
            Whether the database was new, without which there are no *parts*.
        """
        is_new = not transaction.key_digests()
        if is_new:
            batch = new_batch()
            for part in parts:
                for entity in demo_data()[part]:
                    _create(model, batch, entity["__entity_type__"], entity)
            self._add_users(model, transaction, batch, api_user)
            batch.finish()
        load_fixture(model, transaction, new_batch, self.fixture)
        batch = new_batch()
        _add_user(model, transaction, batch, api_user)
        _grant(model, transaction, batch, api_user, ADMINISTRATOR)
        batch.finish()
        return is_new

    def describe(self, *, is_new: bool, parts: Sequence[str]) -> str:
        """Return in words what a server holds that was filled with *parts*."""
        if not is_new:
            words = ["what its database has"]
        elif "project" in parts:
            words = ["the demo project"]
        else:
            words = []
        if self.fixture.name or self.fixture.entries:
            count = len(self.fixture.entries)
            entities = "1 entity" if count == 1 else f"{count} entities"
            words.append(f"{entities} of {self.fixture.name or 'a list'}")
        return " and ".join(words) or "one user and no project"

    def _add_users(
        self, model: Model, transaction: Transaction, batch: Batch, api_user: str
    ) -> None:
        users = dict.fromkeys([api_user, *(() if self.empty else _known_users())])
        for username in (name for name in users if name not in self.fixture.usernames):
            has_users = _add_user(model, transaction, batch, username)
            if has_users and username != api_user:
                _grant(model, transaction, batch, username, "User")
                owner = owner_of(model, transaction, username)
                transaction.make_api_key(owner)


@cache
def demo_data() -> dict[str, list[dict[str, Any]]]:
    """Return the entities of all parts, and the users besides the one that a server is for."""
    data: dict[str, list[dict[str, Any]]] = from_json(
        files(__package__).joinpath("demo_project.json").read_bytes()
    )
    return data


def _known_users() -> dict[str, dict[str, Any]]:
    return {user["username"]: user for user in demo_data()["users"]}


def _add_user(model: Model, transaction: Transaction, batch: Batch, username: str) -> bool:
    user = user_type(model)
    if user is None:
        return False
    values = {
        "id": str(uuid5(NAMESPACE_URL, f"ftrack:User/{username}")),
        "username": username,
        "first_name": username.capitalize(),
        "last_name": "",
        "email": f"{username}@example.com",
        "is_active": True,
        **_known_users().get(username, {}),
    }
    if transaction.read(user.root, {"username": username}) is None:
        if transaction.read(user.root, {user.primary_key[0]: values["id"]}) is not None:
            del values["id"]  # another user has it, who had this name before
        _create(model, batch, "User", values)
    return True


def _grant(model: Model, transaction: Transaction, batch: Batch, username: str, role: str) -> None:
    """Give a user a security role on all projects, if there is such a role."""
    roles, held = (model.types.get(name) for name in ("SecurityRole", "UserSecurityRole"))
    if roles is None or held is None or user_type(model) is None or "name" not in roles.attributes:
        return
    found = transaction.read(roles.root, {"name": role})
    user_id = owner_of(model, transaction, username)
    if found is None or has_role(transaction, user_id, role):
        return
    own_id = str(uuid5(NAMESPACE_URL, f"ftrack:UserSecurityRole/{username}/{role}"))
    keys = {"id": own_id, "user_id": user_id, "security_role_id": found["id"]}
    if transaction.read(held.root, {"id": own_id}) is None:
        _create(model, batch, held.name, {**keys, "is_all_open_projects": True})


def _create(model: Model, batch: Batch, entity_type: str, values: Mapping[str, Any]) -> None:
    """Create an entity with the values that its type can store, if there is such a type."""
    known = model.types.get(entity_type)
    if known is not None:
        storable = known.attributes.keys() | known.relations.keys()
        fitting = {name: value for name, value in values.items() if name in storable}
        batch.create({"entity_type": entity_type, "entity_data": fitting})
