"""What a fresh server holds: users, locations, the words of a studio and one small project.

All of that but the first two can be left out, and a fixture can bring more.

Only what the served schemas have room for is made. The ids are the true ones where real
servers share them (protocol reference, sections 5.5 and 6.1).
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, TypeAlias
from uuid import NAMESPACE_URL, uuid5

from aioftrackjobs.devserver.auth.users import owner_of, user_type
from aioftrackjobs.devserver.mutations.batch import Batch
from aioftrackjobs.devserver.schema.builtin.contexts import PRIORITY_NONE
from aioftrackjobs.devserver.schema.model import Model
from aioftrackjobs.devserver.schema.quirks import USER_TYPE
from aioftrackjobs.devserver.seed.fixtures import NO_FIXTURE, Fixture, load_fixture
from aioftrackjobs.devserver.store.database import Transaction
from aioftrackjobs.protocol.locations import BUILTIN_LOCATIONS

#: Yields entity types and values.
Part: TypeAlias = Callable[[], Iterator[tuple[str, dict[str, Any]]]]

#: Users besides the one the server is started for.
USERS = {
    "maya": ("Maya", "Artist"),
    "noor": ("Noor", "Supervisor"),
    "jenkins": ("Jenkins", "Build"),
}

_STATES = {
    "NOT_STARTED": "Not started",
    "IN_PROGRESS": "In progress",
    "DONE": "Done",
    "BLOCKED": "Blocked",
}
_STATUSES = (
    ("Not started", "NOT_STARTED", "#FFFFFF"),
    ("Ready to start", "NOT_STARTED", "#E67E22"),
    ("In progress", "IN_PROGRESS", "#3498DB"),
    ("Pending review", "IN_PROGRESS", "#F1C40F"),
    ("On hold", "BLOCKED", "#E74C3C"),
    ("Approved", "DONE", "#2ECC71"),
    ("Done", "DONE", "#1CBC90"),
)
_TASK_TYPES = (
    "Generic",
    "Modeling",
    "Animation",
    "Effects",
    "Compositing",
    "Lighting",
    "Rendering",
)
_BUILD_TYPES = ("Character", "Prop", "Environment")
#: The first of all, which entities start with, is one that everything may have.
_FIRST_STATUS, _FIRST_TYPE = _STATUSES[0][0], _TASK_TYPES[0]
_VERSION_STATUSES = (_FIRST_STATUS, "Pending review", "On hold", "Approved")
_SHOT_STATUSES = (_FIRST_STATUS, "In progress", "On hold", "Done")
#: Which statuses and types entities of an object type may have. The schemas let nobody change
#: those of the object types that are not here, and tasks have workflows instead.
_ALLOWED = {
    "Shot": (_SHOT_STATUSES, (_FIRST_TYPE,)),
    "Milestone": (_SHOT_STATUSES, (_FIRST_TYPE,)),
    "Asset Build": (_SHOT_STATUSES, (_FIRST_TYPE, *_BUILD_TYPES)),
}
_PRIORITIES = {"Low": 0.5, "Medium": 1.0, "High": 2.0, "Urgent": 3.0}
#: Clients look them up by name.
_CUSTOM_ATTRIBUTE_TYPES = (
    "text",
    "boolean",
    "date",
    "enumerator",
    "dynamic enumerator",
    "number",
    "expression",
    "notificationtype",
    "url",
)
_ASSET_TYPES = {"upload": "Upload", "geo": "Geometry", "img": "Image Sequence"}
#: Types of the things on each level of the demo project.
_LEVELS = ("Sequence", "Shot", "Task")
#: What the demo project holds, with the type of work of its tasks.
_TREE = {
    "sq010": "",
    "sq010/sh010": "",
    "sq010/sh010/anim": "Animation",
    "sq010/sh010/comp": "Compositing",
    "sq010/sh020": "",
    "sq010/sh020/anim": "Animation",
    "sq010/sh020/comp": "Compositing",
    "sq020": "",
    "sq020/sh030": "",
    "sq020/sh030/light": "Lighting",
}
_OBJECT_TYPES = {
    "Task": "11c137c0-ee7e-4f9c-91c5-8c77cec22b2c",
    "Shot": "bad911de-3bd6-47b9-8b46-3476e237cb36",
    "Sequence": "e5139355-61da-4c8f-9db4-3abc870166bc",
    "Folder": "3c133785-51cb-11e3-980a-20c9d0831e59",
    "Milestone": "01decdd1-51cb-11e3-9d5b-20c9d0831e59",
    "Episode": "22139355-61da-4c8f-9db4-3abc870166bc",
    "Asset Build": "4be63b64-5010-42fb-bf1f-428af9d638f0",
}


@dataclass(frozen=True, slots=True)
class Contents:
    """What a server holds when it starts.

    Attributes:
        empty: Only what authentication needs, the acting user and the built-in locations, is
            made in a new store.
        fixture: Entities that are loaded into any store.
    """

    empty: bool = False
    fixture: Fixture = NO_FIXTURE

    @property
    def choices(self) -> tuple[tuple[Part, ...], ...]:
        """What to fill a new store with, the most first, until the schemas allow it."""
        return _CONTENTS[-2:] if self.empty else _CONTENTS

    def fill(
        self,
        model: Model,
        transaction: Transaction,
        new_batch: Callable[[], Batch],
        api_user: str,
        parts: Iterable[Part],
    ) -> None:
        """Put *parts*, users and the fixture into the store; all users but *api_user* get keys.

        Raises:
            ServerStartError: If an entry of the fixture cannot be loaded.
            ApiError: If the schemas do not allow the rest, also only when the transaction ends.
        """
        if not transaction.api_keys():
            batch = new_batch()
            for part in parts:
                for entity_type, data in part():
                    _create(model, batch, entity_type, data)
            self._add_people(model, transaction, batch, api_user)
            batch.finish()
        load_fixture(model, transaction, new_batch, self.fixture)
        batch = new_batch()
        add_user(model, transaction, batch, api_user)
        batch.finish()

    def _add_people(
        self, model: Model, transaction: Transaction, batch: Batch, api_user: str
    ) -> None:
        """Add the users that the fixture does not bring along."""
        people = {api_user: ("", ""), **({} if self.empty else USERS)}
        for username in (name for name in people if name not in self.fixture.usernames):
            known = add_user(model, transaction, batch, username, *people[username])
            if known and username != api_user:
                owner = owner_of(model, transaction, username)
                transaction.set_api_key(owner, secrets.token_urlsafe(24))


def add_user(
    model: Model,
    transaction: Transaction,
    batch: Batch,
    username: str,
    first_name: str = "",
    last_name: str = "",
) -> bool:
    """Add an active user unless there is one; return whether the schemas have such users."""
    user = user_type(model)
    if user is None:
        return False
    data = {
        "id": _id("User", username),
        "username": username,
        "first_name": first_name or username.capitalize(),
        "last_name": last_name,
        "email": f"{username}@example.com",
        "is_active": True,
    }
    if transaction.read(user.root, {"username": username}) is None:
        if transaction.read(user.root, {user.primary_key[0]: data["id"]}) is not None:
            del data["id"]  # it is that of the user who was called so before
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
        yield (
            "Status",
            {
                **_word("Status", name, sort),
                "color": color,
                "is_active": True,
                "state": _reference("State", _id("State", state)),
            },
        )
    for sort, name in enumerate((*_TASK_TYPES, *_BUILD_TYPES)):
        yield "Type", _word("Type", name, sort)
    yield "Priority", {**_word("Priority", "None", 0), "id": PRIORITY_NONE}
    for sort, (name, value) in enumerate(_PRIORITIES.items(), start=1):
        yield "Priority", {**_word("Priority", name, sort), "value": value}
    for sort, (name, object_type_id) in enumerate(_OBJECT_TYPES.items()):
        yield "ObjectType", {"id": object_type_id, "name": name, "sort": sort}
    for short, name in _ASSET_TYPES.items():
        yield "AssetType", {"id": _id("AssetType", name), "name": name, "short": short}
    for name in _CUSTOM_ATTRIBUTE_TYPES:
        known = {"id": _id("CustomAttributeType", name), "name": name, "core": True}
        yield "CustomAttributeType", known


def _workflows() -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield a project schema, and what it allows."""
    statuses = {"Tasks": [name for name, _, _ in _STATUSES], "Versions": _VERSION_STATUSES}
    for name, names in statuses.items():
        workflow = {"id": _id("WorkflowSchema", name), "name": name}
        yield "WorkflowSchema", {**workflow, "statuses": _words("Status", names)}
    task_types = {"id": _id("TaskTypeSchema", "Tasks"), "name": "Tasks"}
    yield "TaskTypeSchema", {**task_types, "types": _words("Type", _TASK_TYPES)}
    yield (
        "ProjectSchema",
        {
            "id": PROJECT_SCHEMA,
            "name": "Default",
            "task_workflow_schema_id": _id("WorkflowSchema", "Tasks"),
            "asset_version_workflow_schema_id": _id("WorkflowSchema", "Versions"),
            "task_type_schema_id": _id("TaskTypeSchema", "Tasks"),
            "object_types": [_reference("ObjectType", each) for each in _OBJECT_TYPES.values()],
        },
    )
    for name, (names, types) in _ALLOWED.items():
        schema_id, object_type_id = _id("Schema", name), _OBJECT_TYPES[name]
        schema = {"id": schema_id, "type_id": object_type_id, "project_schema_id": PROJECT_SCHEMA}
        yield "Schema", schema
        for sort, status in enumerate(names):
            allowed = {"schema_id": schema_id, "status_id": _id("Status", status), "sort": sort}
            yield "SchemaStatus", allowed
        for sort, kind in enumerate(types):
            allowed = {"schema_id": schema_id, "type_id": _id("Type", kind), "sort": sort}
            yield "SchemaType", allowed


def _project() -> Iterator[tuple[str, dict[str, Any]]]:
    project_id = _id("Project", "demo")
    yield (
        "Project",
        {
            "id": project_id,
            "name": "demo",
            "full_name": "Demo project",
            "status": "active",
            "project_schema_id": PROJECT_SCHEMA,
        },
    )
    for path, type_name in _TREE.items():
        above, _, name = path.rpartition("/")
        entity_type = _LEVELS[path.count("/")]
        values = {"id": _tree_id(path), "name": name, "parent_id": _tree_id(above) or project_id}
        if type_name:
            values["type_id"] = _id("Type", type_name)
        yield entity_type, values


def _words(entity_type: str, names: Iterable[str]) -> list[dict[str, Any]]:
    """Return references to words of a vocabulary."""
    return [_reference(entity_type, _id(entity_type, name)) for name in names]


def _reference(entity_type: str, key: str) -> dict[str, Any]:
    return {"__entity_type__": entity_type, "id": key}


def _word(entity_type: str, name: str, sort: int) -> dict[str, Any]:
    return {"id": _id(entity_type, name), "name": name, "sort": sort}


def _tree_id(path: str) -> str | None:
    return _id(_LEVELS[path.count("/")], path) if path else None


def _id(entity_type: str, name: str) -> str:
    """Return an id that is the same on every fresh server."""
    return str(uuid5(NAMESPACE_URL, f"ftrack:{entity_type}/{name}"))


PROJECT_SCHEMA = _id("ProjectSchema", "Default")
#: What to fill a store with, the most first. Schemas need not allow all of it: in a part of a
#: server's types, those that the demo project hangs on may be missing.
_CONTENTS: tuple[tuple[Part, ...], ...] = (
    (_basics, _vocabulary, _workflows, _project),
    (_basics, _vocabulary, _workflows),
    (_basics, _vocabulary),
    (_basics,),
    (),
)
