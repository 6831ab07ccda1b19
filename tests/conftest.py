"""What all tests share: embedded servers, the examples that hypothesis tries, options.

Async tests run on anyio's pytest plugin, on asyncio unless a folder says otherwise.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest
from anyio.from_thread import start_blocking_portal
from hypothesis import settings

from aioftrackjobs.devserver import ServerHandle, running

settings.register_profile("default", max_examples=25, deadline=None)
settings.register_profile("long", max_examples=400, deadline=None)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default"))


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--clients",
        choices=("core", "all"),
        default="core",
        help="which integration tests run on every HTTP client and event loop: those marked "
        "every_client (the default), or all",
    )


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    return "asyncio"


class SharedServer:
    """A running server that each test gets as it was at its start."""

    def __init__(self, handle: ServerHandle) -> None:
        self._handle = handle
        self._saved = handle.inspector.save()

    @contextmanager
    def as_new(self) -> Iterator[ServerHandle]:
        """Give the server to one test, without entities, files and faults of earlier ones.

        Raises:
            TimeoutError: If an earlier test has left a request that does not end.
        """
        self._handle.faults.reset()
        self._handle.inspector.restore(self._saved)
        yield self._handle
        self._handle.faults.clear()


@pytest.fixture(scope="session")
def start_shared_server() -> Iterator[Callable[..., SharedServer]]:
    """Start a server for the rest of the run, with the options of ``running``."""
    with ExitStack() as stack:
        portal = stack.enter_context(start_blocking_portal())

        def start(**options: Any) -> SharedServer:
            server = portal.wrap_async_context_manager(running(**options))
            return SharedServer(stack.enter_context(server))

        yield start


@pytest.fixture(scope="session")
def shared_server(start_shared_server: Callable[..., SharedServer]) -> SharedServer:
    """The server of this process with the built-in schemas."""
    return start_shared_server()


@pytest.fixture
def server(shared_server: SharedServer) -> Iterator[ServerHandle]:
    """A server on a free port, as new."""
    with shared_server.as_new() as handle:
        yield handle
