"""Fixtures and fakes for the tests of the journal."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any

from aioftrackjobs import AsyncSession
from aioftrackjobs.background import BackgroundTasks
from aioftrackjobs.config.timings import DEFAULT_TIMINGS, Timings
from aioftrackjobs.devserver import ServerHandle
from aioftrackjobs.errors import ConnectError
from aioftrackjobs.journal import Journal, Process, this_process
from aioftrackjobs.transport import WireRequest, WireResponse

from .relay import Relay, Send

#: A process of this host that has ended, and one of another host.
DEAD = Process(this_process().host, 2**22 + 1, this_process().place, "1")
ELSEWHERE = Process("farm07", 4711, "another place", "12345")


@asynccontextmanager
async def journaled(
    server: ServerHandle, path: Path, **options: Any
) -> AsyncIterator[AsyncSession]:
    """Open a session with a journal."""
    async with AsyncSession(
        server.url, server.api_key, server.api_user, journal=path, **options
    ) as session:
        yield session


@asynccontextmanager
async def opened(path: Path, timings: Timings = DEFAULT_TIMINGS) -> AsyncIterator[Journal]:
    """Open a journal without a session."""
    host = BackgroundTasks(no_clean_up)
    await host.start()
    journal = Journal(path, server_url="http://s", api_user="maya", timings=timings)
    journal.start(host.new_waiter, host.spawn)
    try:
        yield journal
    finally:
        await host.aclose(journal.aclose)


async def no_clean_up() -> None:
    """There is none."""


def entries(path: Path) -> dict[str, str | None]:
    """Return what a journal holds: final reports by id."""
    try:
        with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)) as database:
            return dict(database.execute("SELECT id, final_report FROM entries"))
    except sqlite3.OperationalError:  # it is being made
        return {}


class Watch:
    """Reads the journal whenever a request leaves, and can make all requests fail."""

    def __init__(self, session: AsyncSession, path: Path) -> None:
        self.seen: list[tuple[list[dict[str, Any]], dict[str, str | None]]] = []
        self.away = False
        self._path = path
        Relay(session, self.send)

    async def send(self, request: WireRequest, send: Send) -> WireResponse:
        if isinstance(request.body, bytes):
            self.seen.append((json.loads(request.body), entries(self._path)))
        if self.away:
            raise ConnectError("away")
        return await send(request)

    def writes(self, action: str) -> list[tuple[dict[str, Any], dict[str, str | None]]]:
        return [
            (each, held) for sent, held in self.seen for each in sent if each["action"] == action
        ]
