"""A server that ftrack clients can talk to, on this machine: for trying things, and for tests.

::

    async with running() as server:
        async with AsyncSession(server.url, server.api_key, server.api_user) as session:
            ...

It shares no code with the client but :mod:`aioftrackjobs.protocol` and
:mod:`aioftrackjobs.errors`: two implementations that meet only at the wire find each other's
mistakes. Its dependencies come with the extra ``server``.
"""

from __future__ import annotations

from importlib.util import find_spec

from aioftrackjobs.errors import MissingExtraError

for _package in ("lark", "sqlalchemy", "starlette", "uvicorn"):
    if find_spec(_package) is None:
        raise MissingExtraError("server", _package)

from aioftrackjobs.devserver.app import create_app  # noqa: E402
from aioftrackjobs.devserver.assumptions import ASSUMPTIONS  # noqa: E402
from aioftrackjobs.devserver.runner import (  # noqa: E402
    DEFAULT_PORT,
    ServerHandle,
    ServerStartError,
    running,
    serve,
)
from aioftrackjobs.devserver.store import StoreError  # noqa: E402

__all__ = [
    "ASSUMPTIONS",
    "DEFAULT_PORT",
    "ServerHandle",
    "ServerStartError",
    "StoreError",
    "create_app",
    "running",
    "serve",
]
