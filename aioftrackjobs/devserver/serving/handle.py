"""The handle of a running server."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from aioftrackjobs.devserver.engine import Engine
from aioftrackjobs.devserver.faults.middleware import FaultMiddleware
from aioftrackjobs.devserver.faults.plan import Faults
from aioftrackjobs.devserver.serving.inspection import Inspector


@dataclass(frozen=True, slots=True)
class ServerHandle:
    """A running server.

    Attributes:
        url: The server's URL for clients.
        api_key: Key of *api_user*.
        api_keys: Keys of all users that have one, by name.
        faults: The faults that are planned, and those that were injected.
        inspector: Reads its entities and files without a client.
    """

    url: str
    api_user: str
    api_key: str = field(repr=False)
    api_keys: Mapping[str, str] = field(repr=False)
    faults: Faults
    inspector: Inspector = field(repr=False)


def handle_of(url: str, engine: Engine, app: FaultMiddleware) -> ServerHandle:
    """Return the handle of the server made of *engine* and *app* that is reached at *url*."""
    inspector = Inspector(engine, app.connections)
    keys = dict(engine.api_keys)
    return ServerHandle(url, engine.api_user, engine.api_key, keys, app.faults, inspector)
