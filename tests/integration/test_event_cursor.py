"""Update events at least once: from the table, over lost connections and restarts."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import pytest

from aioftrackjobs import (
    ArgumentError,
    AsyncSession,
    ConfigurationError,
    ServerError,
    SessionStateError,
)
from aioftrackjobs.devserver import ServerHandle
from aioftrackjobs.events import Event, EventCursor, EventStream, Gap, UpdateEvent
from aioftrackjobs.testing import Drop, Refuse

from .settings import QUICK, connected
from .waiting import until

pytestmark = [pytest.mark.every_loop, pytest.mark.usefixtures("can_upgrade")]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "listener.cursor"


async def rename(session: AsyncSession, name: str) -> None:
    """Commit a change that events show."""
    shot = await session.query("Shot").first()
    assert shot is not None
    shot["name"] = name
    await session.commit()


@asynccontextmanager
async def listening(
    session: AsyncSession, path: Path, what: str = "topic=ftrack.update", **options: Any
) -> AsyncIterator[EventStream[Event]]:
    async with session.events.subscribe(what, cursor=EventCursor(path), **options) as events:
        yield events


async def names(events: EventStream[Event], count: int) -> list[str]:
    """Return the new names that the next events show."""
    found: list[str] = []
    with anyio.fail_after(20):
        while len(found) < count:
            event = await anext(events)
            assert isinstance(event, UpdateEvent), event
            (change,) = event.changes
            assert (change.entity_type, change.action) == ("Shot", "update")
            found.append(change.attributes["name"].new)
    return found


async def test_a_restarted_program_goes_on_where_it_was(
    server: ServerHandle, other: AsyncSession, path: Path
) -> None:
    await rename(other, "before")
    async with connected(server) as session, listening(session, path) as events:
        await rename(other, "1")
        await rename(other, "2")
        assert await names(events, 2) == ["1", "2"]  # "2" is not handled to the end
    await rename(other, "3")
    async with connected(server) as session, listening(session, path) as events:
        assert await names(events, 2) == ["2", "3"]
        await rename(other, "4")
        assert await names(events, 1) == ["4"]
        assert session.health.events.dropped == 0


async def test_no_event_is_lost_with_the_connection(
    server: ServerHandle, session: AsyncSession, other: AsyncSession, path: Path
) -> None:
    async with (
        listening(session, path) as events,
        session.events.subscribe("topic=ftrack.update") as without,
    ):
        for number in range(5):
            server.faults.inject(Drop(), on="events")
            await rename(other, f"{number} a")
            await until(partial(_has_reconnected, session, number))
            await rename(other, f"{number} b")
        expected = [f"{number} {letter}" for number in range(5) for letter in "ab"]
        assert await names(events, 10) == expected
        assert isinstance(await anext(without), Gap)


def _has_reconnected(session: AsyncSession, times: int) -> bool:
    return session.health.events.reconnects > times


async def test_a_slow_program_loses_nothing(
    session: AsyncSession, other: AsyncSession, path: Path
) -> None:
    async with listening(session, path, queue=2) as events:
        for number in range(7):
            await rename(other, str(number))
        await until(lambda: session.health.events.lag == 2)
        assert await names(events, 7) == [str(number) for number in range(7)]


async def test_what_the_hub_does_not_tell_is_found_now_and_then(
    server: ServerHandle, other: AsyncSession, path: Path
) -> None:
    timings = replace(QUICK, event_cursor_interval=0.05)
    async with connected(server, timings=timings) as session, listening(session, path) as events:
        for each in session.events._runtime.router.subscriptions:
            each.consumer.put = lambda _: None  # type: ignore[assignment, method-assign]
        await rename(other, "found")
        assert await names(events, 1) == ["found"]


async def test_the_expression_and_the_user_hold_for_rows(
    session: AsyncSession, other: AsyncSession, path: Path
) -> None:
    expression = f"topic=ftrack.update and source.user.username={other.api_user}"
    nobody = "topic=ftrack.update and source.user.username=nobody"
    async with listening(session, path, expression) as events:
        async with listening(session, path.with_name("second"), nobody) as none:
            await rename(other, "mine")
            with anyio.fail_after(20):
                event = await anext(events)
            assert isinstance(event, UpdateEvent)
            assert event.user.username == other.api_user
            assert event.sent
            with anyio.move_on_after(0.05) as scope:
                await anext(none)
            assert scope.cancelled_caught


async def test_rows_that_the_server_has_removed_are_a_gap(
    server: ServerHandle, other: AsyncSession, path: Path
) -> None:
    async with connected(server) as session, listening(session, path) as events:
        await rename(other, "1")
        await names(events, 1)
    for number in range(3):
        await rename(other, f"away {number}")
    ids = sorted(row["id"] for row in server.inspector.find("select id from Event"))
    deletion = {"action": "delete", "entity_type": "Event"}
    await other.call([{**deletion, "entity_key": [own_id]} for own_id in ids[:-1]])
    async with connected(server) as session, listening(session, path) as events:
        with anyio.fail_after(20):
            gap = await anext(events)
        assert isinstance(gap, Gap)
        assert gap.since <= gap.until
        assert await names(events, 1) == ["away 2"]


async def test_a_server_that_refuses_the_table_is_an_error(
    server: ServerHandle, session: AsyncSession, path: Path
) -> None:
    server.faults.inject(
        Refuse(), on=lambda request: "from Event " in str(request.operations), times=1
    )
    with pytest.raises(ServerError):
        async with listening(session, path):
            pass
    async with listening(session, path):  # the cursor was released
        pass


async def test_a_failure_while_reading_is_repeated(
    server: ServerHandle,
    session: AsyncSession,
    other: AsyncSession,
    path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("aioftrackjobs.events.cursor._PAUSE", 0.01)
    async with listening(session, path) as events:
        server.faults.inject(
            Refuse(), on=lambda request: "where id >" in str(request.operations), times=3
        )
        await rename(other, "1")
        assert await names(events, 1) == ["1"]


@pytest.mark.parametrize(
    "content",
    ["", "{", "[]", '{"position": 1}', '{"server": "other.test", "position": 1}', "null", "\0"],
)
async def test_a_file_that_is_no_cursor_of_this_server_is_refused(
    session: AsyncSession, path: Path, content: str
) -> None:
    path.write_text(content)
    with pytest.raises(ConfigurationError, match=r"listener\.cursor"):
        async with listening(session, path):
            pass
    assert path.read_text() == content


async def test_a_cursor_belongs_to_one_subscription(session: AsyncSession, path: Path) -> None:
    cursor = EventCursor(path)
    async with session.events.subscribe(UpdateEvent, cursor=cursor):
        with pytest.raises(SessionStateError, match="one subscription"):
            async with session.events.subscribe(UpdateEvent, cursor=cursor):
                pass
        assert cursor.is_in_use
    assert json.loads(path.read_text())["position"] == cursor.position
    wrong: list[Callable[[], object]] = [
        lambda: session.events.subscribe("topic=a", cursor=cursor),
        lambda: session.events.subscribe("topic=*", cursor=cursor),
        lambda: session.events.subscribe(UpdateEvent, where=lambda _: True, cursor=cursor),
        lambda: session.events.subscribe(UpdateEvent, cursor=str(path)),  # type: ignore[call-overload]
        lambda: EventCursor(""),
    ]
    for call in wrong:
        with pytest.raises(ArgumentError):
            call()
