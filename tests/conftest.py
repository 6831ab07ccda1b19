"""What all tests share: embedded servers, the plugins that run async tests, options."""

from __future__ import annotations

import gc
import os
import signal
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack, contextmanager
from inspect import iscoroutinefunction
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import certifi
import pytest
from anyio.from_thread import start_blocking_portal

from aioftrackjobs.devserver import ServerHandle, running

from . import amounts, default_library  # noqa: F401 - before hypothesis is told which of its profiles to load

#: Seconds for a test that is marked slow or runs programs; others have a minute. On a busy machine
#: either may take ten times as long as on its own.
_SLOW_LIMIT = 240

#: Tests of what users do run under pytest-asyncio, as most users' own tests do.
_ACCEPTANCE = Path(__file__).parent / "acceptance"

_PICTURES = Path(__file__).parents[1] / "docs" / "pictures"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--clients",
        choices=("core", "all"),
        default="core",
        help="which integration tests run on every HTTP client and event loop: those marked "
        "every_client (the default), or all",
    )
    parser.addoption(
        "--pictures", action="store_true", help="write the pictures of the documentation"
    )


def pytest_configure(config: pytest.Config) -> None:
    """Make this process, and those that tests start, alike on every machine."""
    _have_default_signal_handlers()
    if not hasattr(config, "workerinput"):  # the processes of pytest-xdist inherit it
        config.add_cleanup(_trust_one_certificate())


def _have_default_signal_handlers() -> None:
    """Have child processes start with default handlers of signals, whatever this one ignores.

    What is ignored stays ignored in a child, and a shell starts what runs in its background
    with SIGINT ignored. What is handled does not: so a handler that does nothing stands in.
    """
    for number in (signal.SIGINT, signal.SIGTERM):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, lambda *_: None)


def _trust_one_certificate() -> Callable[[], None]:
    """Trust a single authority, because each HTTP client of a test loads all of them anew.

    That takes 50 ms of computing. Tests with TLS have authorities of their own.

    Returns:
        What removes the file.
    """
    known = Path(certifi.where()).read_text()
    first = known[known.index("-----BEGIN") :].partition("-----END CERTIFICATE-----\n")
    folder = TemporaryDirectory()
    file = Path(folder.name, "authority.pem")
    file.write_text("".join(first[:2]))
    for name in ("SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
        os.environ.pop(name, None)
    os.environ["SSL_CERT_FILE"] = str(file)
    return folder.cleanup


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_collection() -> Generator[None, object, object]:
    """Keep what is collected, and lives to the end, out of the garbage collections of the tests."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


@pytest.hookimpl(tryfirst=True)
def pytest_pycollect_makeitem(
    collector: pytest.Module | pytest.Class, name: str, obj: object
) -> None:
    """Give each async test to the plugin that runs it: anyio's knows both event loops."""
    if not collector.istestfunction(obj, name):
        return
    hypothesis = getattr(obj, "hypothesis", None)
    if iscoroutinefunction(obj if hypothesis is None else hypothesis.inner_test):
        is_acceptance = collector.path.is_relative_to(_ACCEPTANCE)
        mark = pytest.mark.asyncio if is_acceptance else pytest.mark.anyio
        mark(obj)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Begin with the slow tests, so that no process of pytest-xdist works on one alone at the end.

    At first it gives each process an equal part of the tests, in their order.
    """
    processes = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    slow = [item for item in items if item.get_closest_marker("slow")]
    others = [item for item in items if not item.get_closest_marker("slow")]
    if not config.getoption("timeout"):
        for item in items:
            if item.get_closest_marker("slow") or item.path.is_relative_to(_ACCEPTANCE):
                item.add_marker(pytest.mark.timeout(_SLOW_LIMIT))
    parts = list[pytest.Item]()
    for number in range(processes):
        begins = slow[number::processes]
        size = max((len(items) - len(parts)) // (processes - number) - len(begins), 0)
        parts += [*begins, *others[:size]]
        del others[:size]
    items[:] = parts


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


@pytest.fixture
def pictures(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """The folder for pictures: that of the documentation with the option --pictures."""
    return _PICTURES if request.config.getoption("--pictures") else tmp_path
