"""What users hold of a running server."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from aioftrackjobs.devserver.engine import Engine
from aioftrackjobs.devserver.faults.middleware import Injector
from aioftrackjobs.devserver.faults.plan import Faults
from aioftrackjobs.devserver.serving.inspection import Inspector


@dataclass(frozen=True, slots=True)
class ServerHandle:
    """A running server.

    Attributes:
        url: What clients take as the server's URL.
        api_key: Key of *api_user*.
        api_keys: Keys of all users that have one, by name.
        faults: What is to go wrong, and what did.
        inspector: What it holds, to look at without a client.
    """

    url: str
    api_user: str
    api_key: str = field(repr=False)
    api_keys: Mapping[str, str] = field(repr=False)
    faults: Faults
    inspector: Inspector = field(repr=False)


def handle_of(url: str, engine: Engine, app: Injector) -> ServerHandle:
    """Return the handle of the server that *engine* and *app* make, reached at *url*."""
    inspector = Inspector(engine, app.traffic)
    keys = dict(engine.api_keys)
    return ServerHandle(url, engine.api_user, engine.api_key, keys, app.faults, inspector)
