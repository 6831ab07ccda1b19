"""The pytest plugin of aioftrackjobs: fixtures of :mod:`aioftrackjobs.testing`, made when used.

pytest imports this in every run on a machine where aioftrackjobs is installed. So it imports
nothing but pytest, and the package above it nothing before it is used.
"""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Generator, Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from aioftrackjobs import AsyncSession
    from aioftrackjobs.devserver import Faults
    from aioftrackjobs.testing import FakeServer, FtrackCredentials, FtrackServer

_SEED_BITS = 32


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option by which a run has the faults of an earlier one."""
    parser.getgroup("ftrack").addoption(
        "--ftrack-seed",
        type=int,
        default=None,
        metavar="SEED",
        help="seed of the faults that ftrack servers of tests inject; failing tests show theirs",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Have pytest-asyncio, where it is, know the fixture that is for it."""
    seed = config.getoption("--ftrack-seed")
    config.stash[_SEED] = random.getrandbits(_SEED_BITS) if seed is None else seed
    if config.pluginmanager.has_plugin("asyncio"):
        from aioftrackjobs.pytest_plugin import on_asyncio

        config.pluginmanager.register(on_asyncio, "aioftrackjobs-on-asyncio")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Show in the report of a failing test what went wrong by plan, and how to have it again."""
    report = yield
    faults = item.stash.get(_FAULTS, ())
    if report.failed and faults:
        shown = [each.report() for each in faults]
        again = f"repeat with --ftrack-seed={item.config.stash[_SEED]}"
        report.sections.append(("ftrack faults", "\n".join((*shown, again))))
    return report


_SEED: pytest.StashKey[int] = pytest.StashKey()
_FAULTS: pytest.StashKey[list[Faults]] = pytest.StashKey()


def _note_faults(request: pytest.FixtureRequest, faults: Faults) -> None:
    """Have the report of the test tell of *faults*: it may use several servers."""
    noted = request.node.stash.setdefault(_FAULTS, [])
    if faults not in noted:  # as it is where a test is run again
        noted.append(faults)


@pytest.fixture(scope="session")
def _ftrack_run_server(request: pytest.FixtureRequest) -> Iterator[FtrackServer]:
    """The one server of the run."""
    _require_server()
    from aioftrackjobs.testing._server import serving

    with serving(request.config.stash[_SEED]) as server:
        yield server


@pytest.fixture
def ftrack_server(
    _ftrack_run_server: FtrackServer, request: pytest.FixtureRequest
) -> Iterator[FtrackServer]:
    """An ftrack server on a real socket, as new for each test: to break, and to look into."""
    _ftrack_run_server.reset(seed=request.config.stash[_SEED])
    _note_faults(request, _ftrack_run_server.faults)
    yield _ftrack_run_server
    _ftrack_run_server.faults.clear()


@pytest.fixture
def ftrack_fake_server(request: pytest.FixtureRequest) -> Iterator[FakeServer]:
    """An ftrack server without a socket, a new one for each test."""
    _require_server()
    from aioftrackjobs.testing import FakeServer

    with FakeServer(seed=request.config.stash[_SEED]) as server:
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
    """The environment variables that lead clients to the test's server, set for the test."""
    environment = ftrack_server.credentials.environment
    monkeypatch.delenv("FTRACK_APIKEY", raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    return environment


@pytest.fixture
def ftrack_session(request: pytest.FixtureRequest) -> AsyncSession:
    """An open session on the test's server."""
    # An async fixture belongs to whichever plugin it was made for. There is one for each, and
    # only this one, which is none, can tell which of them runs the test.
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
    """Fail the test with what to do if the server cannot be had."""
    try:
        import aioftrackjobs.devserver  # noqa: F401
    except ImportError as error:
        pytest.fail(f"the fixture needs an ftrack server: {error}", pytrace=False)
