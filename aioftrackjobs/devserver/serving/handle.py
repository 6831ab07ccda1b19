"""The handle of a running server, and its inspector, which reads entities and files from inside.

The inspector may be used from any thread. It needs no network, no client and no credentials, and
no fault is injected into it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic_core import from_json

from aioftrackjobs.devserver.engine import Engine
from aioftrackjobs.devserver.events.actions import Actions
from aioftrackjobs.devserver.faults.connections import Connections
from aioftrackjobs.devserver.faults.middleware import FaultMiddleware
from aioftrackjobs.devserver.faults.plan import Faults
from aioftrackjobs.devserver.store.tables import Snapshot
from aioftrackjobs.protocol.query import quote
from aioftrackjobs.protocol.values import VALUE_TYPE, decode_tagged

_JOBS = (
    "select id, status, type, data, created_at, finished_at, user.username,"
    " job_components.component.name, job_components.component.file_type,"
    " job_components.component.size from Job"
)
#: Seconds that running requests get to end before entities are restored.
_SETTLE_TIMEOUT = 2.0


class EntityInspector:
    """The entities of a server, as queries find them.

    Args:
        query: Returns the response to a query as a server sends it, in JSON.
    """

    def __init__(self, query: Callable[[str], bytes | str]) -> None:
        self.query = query

    def find(self, expression: str) -> list[dict[str, Any]]:
        """Return the entities that a query finds, as plain dictionaries; times are ``datetime``.

        Raises:
            FtrackJobsError: If *expression* is not a valid query.
        """
        entities: list[dict[str, Any]] = from_json(self.query(expression))[0]["data"]
        return [_plain(entity) for entity in entities]

    def jobs(self) -> list[dict[str, Any]]:
        """Return all Jobs, the oldest first, with what tests need.

        Each has ``id``, ``status``, ``type``, ``description``, ``data`` (a dictionary),
        ``user`` (a name), ``created_at``, ``finished_at`` and ``attachments``: of each file its
        ``id`` for :meth:`content`, ``name`` and ``size``.
        """
        return [_job(entity) for entity in self.find(f"{_JOBS} order by created_at")]

    def job(self, job: object) -> dict[str, Any]:
        """Return one Job, as in :meth:`jobs`.

        Args:
            job: Its id, or anything with an ``id``, such as the Job of a session.

        Raises:
            LookupError: If there is none.
        """
        job_id = str(getattr(job, "id", job))
        found = self.find(f"{_JOBS} where id is {quote(job_id)}")
        if found:
            return _job(found[0])
        known = ", ".join(f"{each['id']} ({each['description']})" for each in self.jobs())
        raise LookupError(f"the server holds no Job {job_id}; it holds: {known or 'none'}")


class Inspector(EntityInspector):
    """The entities and files of one server."""

    def __init__(self, engine: Engine, connections: Connections) -> None:
        super().__init__(engine.query)
        self._engine = engine
        self._connections = connections

    @property
    def contents(self) -> str:
        """What the server has held from its start, in words, as "the demo project"."""
        return self._engine.contents

    @property
    def entity_types(self) -> list[str]:
        """The names of all entity types."""
        return sorted(self._engine.model.types)

    def path(self, component_id: str) -> Path:
        """Return where the file of a component is kept.

        Raises:
            FtrackJobsError: If there is none.
        """
        path, _ = self._engine.file_of(component_id)
        return path

    def content(self, component_id: str) -> bytes:
        """Return the bytes of a component's file.

        Raises:
            FtrackJobsError: If there is none.
        """
        return self.path(component_id).read_bytes()

    def save(self) -> Snapshot:
        """Return a copy of all entities, for :meth:`restore`."""
        return self._engine.save()

    def restore(self, saved: Snapshot) -> None:
        """Restore all entities as they were saved, and remove all files.

        Running requests end first; those that a fault delays are dropped.

        Raises:
            TimeoutError: If they do not end in time.
        """
        if not self._connections.settle(_SETTLE_TIMEOUT):
            raise TimeoutError(
                f"requests are still running after {_SETTLE_TIMEOUT:g} s: is there a client that "
                "was not closed?"
            )
        self._engine.restore(saved)
        self._engine.actions.messages.clear()


@dataclass(frozen=True, slots=True)
class ServerHandle:
    """A running server.

    Attributes:
        url: The server's URL for clients.
        api_key: Key of *api_user*.
        api_keys: Keys of all users that have one, by name.
        faults: The faults that are planned, and those that were injected.
        inspector: Reads its entities and files without a client.
        actions: Discovers and launches actions of connected clients, as the web interface does.
    """

    url: str
    api_user: str
    api_key: str = field(repr=False)
    api_keys: Mapping[str, str] = field(repr=False)
    faults: Faults
    inspector: Inspector = field(repr=False)
    actions: Actions = field(repr=False)


def handle_of(url: str, engine: Engine, app: FaultMiddleware) -> ServerHandle:
    """Return the handle of the server made of *engine* and *app* that is reached at *url*."""
    inspector, keys = Inspector(engine, app.connections), dict(engine.api_keys)
    own = (engine.api_user, engine.api_key, keys)
    return ServerHandle(url, *own, app.faults, inspector, engine.actions)


def _plain(value: Any) -> Any:
    if isinstance(value, list):
        return [_plain(each) for each in value]
    if not isinstance(value, Mapping):
        return value
    if VALUE_TYPE in value:
        return decode_tagged(value)
    return {name: _plain(each) for name, each in value.items()}


def _job(entity: dict[str, Any]) -> dict[str, Any]:
    data = _parsed(entity["data"])
    components = [link["component"] for link in entity["job_components"]]
    names = ("id", "status", "type", "created_at", "finished_at")
    return {
        **{name: entity[name] for name in names},
        "user": entity["user"] and entity["user"]["username"],
        "data": data,
        "description": data.get("description"),
        "attachments": [
            {
                "id": component["id"],
                "name": f"{component['name']}{component['file_type'] or ''}",
                "size": component["size"],
            }
            for component in components
        ],
    }


def _parsed(data: str | None) -> dict[str, Any]:
    try:
        parsed = from_json(data or "{}")
    except ValueError:
        return {}
    return parsed if isinstance(parsed, dict) else {}
