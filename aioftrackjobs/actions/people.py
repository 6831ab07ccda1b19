"""What is known of users and projects, kept for a minute: no discovery needs a query of its own."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Hashable, Iterable, Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar

import anyio

from aioftrackjobs.actions.action_event import CONTEXT, ActionEvent, Selected
from aioftrackjobs.models import Entity, User
from aioftrackjobs.protocol.query import bind
from aioftrackjobs.session import AsyncSession

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")

#: Seconds for which what was read stays true.
_KEPT = 60.0

#: Entries of a cache; the oldest go first.
_MOST = 10_000

_USER = (
    "select id, username, first_name, last_name, email, is_active{roles} from User where {criteria}"
)

#: Where the entities of a table have their path, which begins with their project.
_LINKS = {
    "show": ("Project", "link"),
    CONTEXT: ("TypedContext", "link"),
    "assetversion": ("AssetVersion", "link"),
    "asset": ("Asset", "parent.link"),
}


@dataclass(frozen=True, slots=True)
class Person:
    """Who has clicked.

    Attributes:
        user: The user; None if there is none.
        roles: The names of all of their security roles.
    """

    user: User | None
    roles: frozenset[str] = frozenset()


class _Kept(Generic[K, V]):
    """Values that are read once a minute, each by one task, while others wait for it.

    Args:
        read: Reads those of some keys, all together.
    """

    def __init__(self, read: Callable[[list[K]], Awaitable[Mapping[K, V]]]) -> None:
        self._read = read
        self._known: dict[K, tuple[V, float]] = {}  # until when, in the time of the event loop
        self._wanted: dict[K, None] = {}  # what the next read is to bring
        self._lock = anyio.Lock()

    async def get(self, keys: Iterable[K], otherwise: V) -> list[V]:
        """Return the value of each of *keys*.

        Args:
            keys: The keys.
            otherwise: The value of a key that has none.

        Raises:
            FtrackJobsError: They could not be read.
        """
        wanted = list(keys)
        if missing := self._missing(wanted):
            self._wanted |= dict.fromkeys(missing)
            async with self._lock:
                if missing := self._missing(wanted):
                    await self._read_now([*missing, *self._wanted], otherwise)
        return [self._known[key][0] for key in wanted]

    async def _read_now(self, keys: list[K], otherwise: V) -> None:
        self._wanted.clear()
        found = await self._read(list(dict.fromkeys(keys)))
        until = anyio.current_time() + _KEPT
        while len(self._known) + len(keys) > _MOST and self._known:
            del self._known[next(iter(self._known))]
        for key in keys:
            self._known.pop(key, None)  # the latest go last
            self._known[key] = found.get(key, otherwise), until

    def _missing(self, keys: list[K]) -> list[K]:
        now = anyio.current_time()
        missing = []
        for key in keys:
            known = self._known.get(key)
            if known is None or known[1] <= now:
                missing.append(key)
        return missing


class People:
    """Users with their roles, and the projects of what is selected.

    Args:
        session: Where they are read.
        needs_roles: Whether any action is for certain roles.
    """

    def __init__(self, session: AsyncSession, *, needs_roles: bool) -> None:
        self._session = session
        self._needs_roles = needs_roles
        self._users = _Kept[tuple[str, str], Person](self._read_users)
        self._projects = _Kept[Selected, frozenset[str]](self._read_projects)

    async def who(self, event: ActionEvent) -> Person:
        """Return who has clicked.

        Raises:
            FtrackJobsError: The user could not be read.
        """
        if event.user_id:
            key = ("id", event.user_id)
        elif event.username:
            key = ("username", event.username)
        else:
            return Person(None)
        (person,) = await self._users.get([key], Person(None))
        return person

    async def projects_of(self, event: ActionEvent) -> list[frozenset[str]]:
        """Return the names and the id of the project of each selected entity; empty if unknown.

        Raises:
            FtrackJobsError: They could not be read.
        """
        return await self._projects.get(event.selection, frozenset())

    async def _read_users(self, keys: list[tuple[str, str]]) -> Mapping[tuple[str, str], Person]:
        roles = ", user_security_roles.security_role.name" if self._needs_roles else ""
        ids = [value for name, value in keys if name == "id"]
        names = [value for name, value in keys if name == "username"]
        criteria = bind("id in {ids} or username in {names}", {"ids": ids, "names": names})
        query = self._session.query(_USER.format(roles=roles, criteria=criteria)).of(User)
        found: dict[tuple[str, str], Person] = {}
        async for user in query:
            person = Person(user, _roles_of(user) if roles else frozenset())
            found["id", user.id] = person
            if user.username:
                found["username", user.username] = person
        return found

    async def _read_projects(self, keys: list[Selected]) -> Mapping[Selected, frozenset[str]]:
        project_ids: dict[str, str] = {}
        for table, (kind, link) in _LINKS.items():
            if ids := [each.id for each in keys if each.table.lower() == table]:
                criteria = bind("id in {ids}", {"ids": ids})
                query = f"select id, {link} from {kind} where {criteria}"
                async for row in self._session.query(query):
                    if (project_id := _project_in(row, link)) is not None:
                        project_ids[row["id"]] = project_id
        names: dict[str, frozenset[str]] = {}
        if project_ids:
            criteria = bind("id in {ids}", {"ids": sorted(set(project_ids.values()))})
            query = f"select id, name, full_name from Project where {criteria}"
            async for row in self._session.query(query):
                values = (row["id"], row["name"], row["full_name"])
                names[row["id"]] = frozenset(each for each in values if isinstance(each, str))
        return {each: names.get(project_ids.get(each.id, ""), frozenset()) for each in keys}


def _roles_of(user: User) -> frozenset[str]:
    names = set[str]()
    for link in user["user_security_roles"]:
        role = link["security_role"]
        if isinstance(role, Entity) and isinstance(role["name"], str):
            names.add(role["name"])
    return frozenset(names)


def _project_in(row: Entity, link: str) -> str | None:
    """Return the id of the project that the path of *row* begins with; None if it has none."""
    path: object = row
    for name in link.split("."):
        path = path.get(name) if isinstance(path, Entity) else None
    match path:
        case [{"type": "Project", "id": str() as project_id}, *_]:
            return project_id
    return None
