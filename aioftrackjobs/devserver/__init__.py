"""A server that ftrack clients can talk to, on this machine: for trying things, and for tests.

::

    async with running() as server:
        async with AsyncSession(server.url, server.api_key, server.api_user) as session:
            ...

Faults are planned with ``server.faults``; :mod:`aioftrackjobs.devserver.faults.kinds` lists them.
``server.inspector`` reads its entities and files without a client. For tests on pytest there is
more in :mod:`aioftrackjobs.testing`.

It shares no code with the client but :mod:`aioftrackjobs.protocol` and
:mod:`aioftrackjobs.errors`: two implementations that meet only at the wire find each other's
mistakes. Its dependencies come with the extra ``server``.
"""

from __future__ import annotations

from importlib import import_module

from aioftrackjobs.errors import MissingExtraError

for _package in ("lark", "sqlalchemy", "starlette", "uvicorn", "websockets"):
    try:
        import_module(_package)
    except ImportError as _error:
        raise MissingExtraError("server", _package) from _error

from aioftrackjobs.devserver.assumptions import ASSUMPTIONS  # noqa: E402
from aioftrackjobs.devserver.errors import ServerEndedError, ServerStartError  # noqa: E402
from aioftrackjobs.devserver.faults.options import plan_faults  # noqa: E402
from aioftrackjobs.devserver.faults.plan import Faults  # noqa: E402
from aioftrackjobs.devserver.http.app import create_app  # noqa: E402
from aioftrackjobs.devserver.limits import Limits  # noqa: E402
from aioftrackjobs.devserver.options import ServerOptions  # noqa: E402
from aioftrackjobs.devserver.serving.handle import Inspector, ServerHandle  # noqa: E402
from aioftrackjobs.devserver.serving.runner import DEFAULT_PORT, running, serve  # noqa: E402

__all__ = [
    "ASSUMPTIONS",
    "DEFAULT_PORT",
    "Faults",
    "Inspector",
    "Limits",
    "ServerEndedError",
    "ServerHandle",
    "ServerOptions",
    "ServerStartError",
    "create_app",
    "plan_faults",
    "running",
    "serve",
]
