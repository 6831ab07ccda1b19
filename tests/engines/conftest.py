"""Engines on their real services; the tests are skipped where one of them is not installed."""

from __future__ import annotations

import os
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack, contextmanager
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from aioftrackjobs import AsyncSession
from aioftrackjobs.devserver import ServerHandle

from . import services
from .farm import Farm

_numbers = count(1)


@contextmanager
def _or_skipped(start: Callable[[], Any]) -> Iterator[Any]:
    with ExitStack() as stack:
        try:
            service = stack.enter_context(start())
        except services.Missing as missing:
            pytest.skip(str(missing))
        yield service


@pytest.fixture(scope="session")
def postgres() -> Iterator[str]:
    """How to connect to PostgreSQL."""
    pytest.importorskip("psycopg", reason="psycopg is not installed", exc_type=ImportError)
    with _or_skipped(services.postgres) as conninfo:
        yield conninfo


@pytest.fixture(scope="session")
def redis() -> Iterator[str]:
    """The URL of Redis."""
    with _or_skipped(services.redis) as url:
        yield url


@pytest.fixture
def database(postgres: str) -> str:
    """How to connect to a database of its own."""
    import psycopg

    name = f"test{next(_numbers)}"
    with psycopg.connect(f"{postgres} dbname=postgres", autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}".encode())
    return f"{postgres} dbname={name}"


@pytest.fixture
def redis_url(redis: str) -> str:
    """The URL of Redis; what a test keeps there has a name of its own."""
    return f"{redis}/{next(_numbers) % 16}"


@pytest.fixture
async def session(server: ServerHandle) -> AsyncIterator[AsyncSession]:
    """An open session, which looks at what workers have done."""
    async with AsyncSession(server.url, server.api_key, server.api_user) as opened:
        yield opened


@pytest.fixture
async def farm(server: ServerHandle, session: AsyncSession) -> AsyncIterator[Farm]:
    """Worker processes, each on a host of its own as this package sees it."""
    env = {
        **os.environ,
        "FTRACK_SERVER": server.url,
        "FTRACK_API_KEY": server.api_key,
        "FTRACK_API_USER": server.api_user,
        "PYTHONPATH": os.pathsep.join([str(Path(__file__).parents[2]), *sys.path]),
    }
    started = Farm(session, env)
    yield started
    await started.close()
