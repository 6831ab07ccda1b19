"""What a fresh server holds: users, locations, the words of a studio and one small project.

Only what the served schemas have room for is made. The ids are the true ones where real
servers share them (protocol reference, sections 5.5 and 6.1).
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeAlias
from uuid import NAMESPACE_URL, uuid5

from aioftrackjobs.devserver.apply import Batch
from aioftrackjobs.devserver.declarations.contexts import PRIORITY_NONE
from aioftrackjobs.devserver.model import Model
from aioftrackjobs.devserver.store import Transaction
from aioftrackjobs.protocol.locations import BUILTIN_LOCATIONS

#: Yields entity types and values.
Part: TypeAlias = Callable[[], Iterator[tuple[str, dict[str, Any]]]]

USER_TYPE = "ac9fa5aa-4361-11e0-b7cc-0019bb4983d8"
#: Users besides the one the server is started for.
USERS = {"maya": ("Maya", "Artist"), "jenkins": ("Jenkins", "Build")}

_STATES = {"NOT_STARTED": "Not started", "IN_PROGRESS": "In progress", "DONE": "Done"}
_STATUSES = (
    ("Not started", "NOT_STARTED", "#FFFFFF"),
    ("In progress", "IN_PROGRESS", "#3498DB"),
    ("Done", "DONE", "#1CBC90"),
)
_TYPES = ("Generic", "Animation", "Compositing", "Lighting", "Rendering")
_OBJECT_TYPES = {
    "Task": "11c137c0-ee7e-4f9c-91c5-8c77cec22b2c",
    "Shot": "bad911de-3bd6-47b9-8b46-3476e237cb36",
    "Sequence": "e5139355-61da-4c8f-9db4-3abc870166bc",
    "Folder": "3c133785-51cb-11e3-980a-20c9d0831e59",
}


def seed(
    model: Model, transaction: Transaction, batch: Batch, api_user: str, parts: Iterable[Part]
) -> None:
    """Fill an empty store with users and *parts*, and give keys to all users but *api_user*.

    Raises:
        Refusal: If the schemas do not allow it, also only when the transaction ends.
    """
    for part in parts:
        for entity_type, data in part():
            _create(model, batch, entity_type, data)
    for username, (first_name, last_name) in {api_user: ("", ""), **USERS}.items():
        known = add_user(model, transaction, batch, username, first_name, last_name)
        if known and username != api_user:
            transaction.set_api_key(username, secrets.token_urlsafe(24))
    batch.finish()


def add_user(
    model: Model,
    transaction: Transaction,
    batch: Batch,
    username: str,
    first_name: str = "",
    last_name: str = "",
) -> bool:
    """Add an active user unless there is one; return whether the schemas have such users."""
    user = model.types.get("User")
    if user is None or "username" not in user.attributes:
        return False
    data = {
        "id": _id("User", username),
        "username": username,
        "first_name": first_name or username.capitalize(),
        "last_name": last_name,
        "email": f"{username}@example.com",
        "is_active": True,
        "user_type_id": USER_TYPE,
    }
    if transaction.read(user.root, {"username": username}) is None:
        _create(model, batch, "User", data)
    return True


def _create(model: Model, batch: Batch, entity_type: str, data: dict[str, Any]) -> None:
    """Create an entity with what its type has room for, if there is such a type."""
    known = model.types.get(entity_type)
    if known is not None:
        room = known.attributes.keys() | known.relations.keys()
        fitting = {name: value for name, value in data.items() if name in room}
        batch.create({"entity_type": entity_type, "entity_data": fitting})


def _basics() -> Iterator[tuple[str, dict[str, Any]]]:
    for location in BUILTIN_LOCATIONS:
        yield "Location", {"id": location.id, "name": location.name, "label": location.name}
    yield "UserType", {"id": USER_TYPE, "name": "Artist"}


def _vocabulary() -> Iterator[tuple[str, dict[str, Any]]]:
    for short, name in _STATES.items():
        yield "State", {"id": _id("State", short), "name": name, "short": short}
    for sort, (name, state, color) in enumerate(_STATUSES):
        reference = {"__entity_type__": "State", "id": _id("State", state)}
        yield (
            "Status",
            {
                **_word("Status", name, sort),
                "color": color,
                "is_active": True,
                "state": reference,
            },
        )
    for sort, name in enumerate(_TYPES):
        yield "Type", _word("Type", name, sort)
    yield "Priority", {**_word("Priority", "None", 0), "id": PRIORITY_NONE}
    yield "Priority", {**_word("Priority", "High", 1), "value": 1.0}
    for sort, (name, object_type_id) in enumerate(_OBJECT_TYPES.items()):
        yield "ObjectType", {"id": object_type_id, "name": name, "sort": sort}
    yield "AssetType", {"id": _id("AssetType", "Upload"), "name": "Upload", "short": "upload"}


def _project() -> Iterator[tuple[str, dict[str, Any]]]:
    schema_id = _id("ProjectSchema", "Default")
    yield "ProjectSchema", {"id": schema_id, "name": "Default"}
    project_id = _id("Project", "demo")
    yield (
        "Project",
        {
            "id": project_id,
            "name": "demo",
            "full_name": "Demo project",
            "status": "active",
            "project_schema_id": schema_id,
        },
    )
    parent_id = project_id
    for entity_type, name in (("Sequence", "sq010"), ("Shot", "sh010"), ("Task", "comp")):
        own_id = _id(entity_type, name)
        yield entity_type, {"id": own_id, "name": name, "parent_id": parent_id}
        parent_id = own_id


def _word(entity_type: str, name: str, sort: int) -> dict[str, Any]:
    return {"id": _id(entity_type, name), "name": name, "sort": sort}


def _id(entity_type: str, name: str) -> str:
    """Return an id that is the same on every fresh server."""
    return str(uuid5(NAMESPACE_URL, f"ftrack:{entity_type}/{name}"))


#: What to fill a store with, the most first. Schemas need not allow all of it: in a part of a
#: server's types, those that the demo project hangs on may be missing.
CONTENTS: tuple[tuple[Part, ...], ...] = (
    (_basics, _vocabulary, _project),
    (_basics, _vocabulary),
    (_basics,),
    (),
)
