"""The pytest plugin of aioftrackjobs: the fixtures of :mod:`aioftrackjobs.testing`.

pytest imports this module in every run if aioftrackjobs is installed. So it imports nothing but
pytest, until a fixture is used; and the package itself imports its modules when they are used.
"""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Generator, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from aioftrackjobs import AsyncSession
    from aioftrackjobs.devserver import Faults
    from aioftrackjobs.testing import FakeServer, FtrackCredentials, FtrackServer

_SEED_BITS = 32


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option that repeats the faults of an earlier run."""
    parser.getgroup("ftrack").addoption(
        "--ftrack-seed",
        type=int,
        default=None,
        metavar="SEED",
        help="random seed of the faults that ftrack servers inject; a failing test shows its seed",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Choose the seed, and register the fixtures for pytest-asyncio if that is installed."""
    seed = config.getoption("--ftrack-seed")
    config.stash[_SEED] = random.getrandbits(_SEED_BITS) if seed is None else seed
    if config.pluginmanager.has_plugin("asyncio"):
        from aioftrackjobs.pytest_plugin import on_asyncio

        config.pluginmanager.register(on_asyncio, "aioftrackjobs-on-asyncio")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Show in the report of a failing test which faults were injected, and how to repeat them."""
    report = yield
    faults = item.stash.get(_FAULTS, ())
    if report.failed and faults:
        shown = [each.report() for each in faults]
        hint = f"repeat with --ftrack-seed={item.config.stash[_SEED]}"
        report.sections.append(("ftrack faults", "\n".join((*shown, hint))))
    return report


_SEED: pytest.StashKey[int] = pytest.StashKey()
_FAULTS: pytest.StashKey[list[Faults]] = pytest.StashKey()


def _note_faults(request: pytest.FixtureRequest, faults: Faults) -> None:
    """Add *faults* to the report of the test, which may use several servers."""
    noted = request.node.stash.setdefault(_FAULTS, [])
    if faults not in noted:  # it is noted already if the test is run a second time
        noted.append(faults)


@pytest.fixture(scope="session")
def ftrack_server_options() -> Mapping[str, Any]:
    """The options of the servers, as ``devserver.running`` takes them: define it to choose some."""
    return {}


@pytest.fixture(scope="session")
def _ftrack_run_server(
    request: pytest.FixtureRequest, ftrack_server_options: Mapping[str, Any]
) -> Iterator[FtrackServer]:
    """The server of the whole run."""
    _require_server()
    from aioftrackjobs.testing._server import serving

    with serving(request.config.stash[_SEED], **ftrack_server_options) as server:
        yield server


@pytest.fixture
def ftrack_server(
    _ftrack_run_server: FtrackServer, request: pytest.FixtureRequest
) -> Iterator[FtrackServer]:
    """An ftrack server on a real socket, reset for each test, with faults to inject."""
    _ftrack_run_server.reset(seed=request.config.stash[_SEED])
    _note_faults(request, _ftrack_run_server.faults)
    yield _ftrack_run_server
    _ftrack_run_server.faults.clear()


@pytest.fixture
def ftrack_fake_server(
    request: pytest.FixtureRequest, ftrack_server_options: Mapping[str, Any]
) -> Iterator[FakeServer]:
    """An ftrack server without a socket; a new one for each test."""
    _require_server()
    from aioftrackjobs.testing import FakeServer

    with FakeServer(seed=request.config.stash[_SEED], **ftrack_server_options) as server:
        _note_faults(request, server.faults)
        yield server


@pytest.fixture
def ftrack_credentials(ftrack_server: FtrackServer) -> FtrackCredentials:
    """URL, key and user of the test's server, for any client."""
    return ftrack_server.credentials


@pytest.fixture
def ftrack_environment(
    ftrack_server: FtrackServer, monkeypatch: pytest.MonkeyPatch
) -> dict[str, str]:
    """The environment variables for the test's server, which are set during the test."""
    environment = ftrack_server.credentials.environment
    monkeypatch.delenv("FTRACK_APIKEY", raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    return environment


@pytest.fixture
def ftrack_session(request: pytest.FixtureRequest) -> AsyncSession:
    """An open session on the test's server."""
    # An async fixture works only with the plugin for which it is made. So there is one for each,
    # and this fixture, which is not async, finds out which plugin runs the test.
    if "anyio_backend" in request.fixturenames:
        name = "_ftrack_session_on_anyio"
    elif request.config.pluginmanager.has_plugin("asyncio"):
        from aioftrackjobs.pytest_plugin.on_asyncio import fixture_for

        name = fixture_for(request)
    else:
        pytest.fail(
            "ftrack_session needs a plugin that runs async tests: mark the test with "
            "pytest.mark.anyio, or install pytest-asyncio",
            pytrace=False,
        )
    session: AsyncSession = request.getfixturevalue(name)
    return session


@pytest.fixture
async def _ftrack_session_on_anyio(ftrack_server: FtrackServer) -> AsyncIterator[AsyncSession]:
    async with ftrack_server.session() as session:
        yield session


def _require_server() -> None:
    """Fail the test with a hint if the packages for the server are not installed."""
    try:
        import aioftrackjobs.devserver  # noqa: F401
    except ImportError as error:
        pytest.fail(f"the fixture needs an ftrack server: {error}", pytrace=False)
