"""At least once: update events from the table ``Event``, which a lost connection does not lose.

The WebSocket only says that there is something to read. The events come from the table, in the
order of their ids; each row is one event with one entity. After each new connection, and now and
then, the last rows are read once more, because a transaction that takes long may add a row with a
lower id than those that were read already.

This is experimental. The embedded server keeps this table, and real servers have it in their
schemas, but no public program reads it, so that nothing is known about what their rows contain
(docs/protocol.md, section 10.3).
"""

from __future__ import annotations

import json
import os
from collections.abc import Awaitable, Callable
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
from pydantic_core import from_json

from aioftrackjobs.background import SafeLogger, Waiter
from aioftrackjobs.config.settings import require_path, server_identity
from aioftrackjobs.errors import (
    ConfigurationError,
    FtrackJobsError,
    MalformedResponseError,
    SessionStateError,
)
from aioftrackjobs.events.models import Gap, UpdateEvent, make_event
from aioftrackjobs.events.queue import EventQueue
from aioftrackjobs.protocol import events
from aioftrackjobs.protocol.changes import EntityNames
from aioftrackjobs.protocol.subscription import Expression

logger: SafeLogger = SafeLogger(__name__)

#: Rows of one query, and of those that are read once more.
_PAGE, _AGAIN = 500, 200

#: Ids of rows that are remembered, so that a row that is read twice is delivered once.
_REMEMBERED = 10_000

#: Seconds between two writes of the file, and before another attempt after a failure.
_SAVE_INTERVAL, _PAUSE = 0.5, 1.0

_COLUMNS = (
    "id, action, created_at, data, parent_type, parent_id, project_id, user_id, user.username"
)

Call = Callable[[list[dict[str, Any]]], Awaitable[list[Any]]]


class EventCursor:
    """Remembers in a file up to which update event a program has come. Experimental.

    ::

        cursor = EventCursor("listener.cursor")
        async with session.events.subscribe("topic=ftrack.update", cursor=cursor) as events:
            async for event in events:
                ...

    An event counts as handled when the loop asks for the next one. When the program starts again,
    it begins with the event after the last one that was handled: some may come once more, and
    none is left out. With a new file, it begins with the next event.

    Args:
        journal: The file, on a local disk. Each program needs its own.
    """

    def __init__(self, journal: str | os.PathLike[str]) -> None:
        require_path("journal", journal)
        self._path = Path(journal).expanduser().absolute()
        self._server = ""
        self._position: int | None = None
        self._saved: int | None = None
        self.is_in_use: bool = False

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._path}>"

    @property
    def position(self) -> int | None:
        """The id of the last event that was handled; None before the first one."""
        return self._position

    def advance(self, position: int) -> None:
        """Note that the events up to *position* were handled."""
        self._position = max(self._position or 0, position)

    async def open(self, server_url: str) -> None:
        """Read the file.

        Raises:
            SessionStateError: Another subscription uses this cursor.
            ConfigurationError: The file cannot be used, or is that of another server.
        """
        if self.is_in_use:
            raise SessionStateError("a cursor belongs to one subscription; make one for each")
        self._server = server_identity(server_url)
        self._position = self._saved = await anyio.to_thread.run_sync(self._read)
        self.is_in_use = True

    def _read(self) -> int | None:
        try:
            text = self._path.read_text(encoding="utf-8")
        except FileNotFoundError:
            return None
        except OSError as exc:
            problem = f"the cursor {self._path} cannot be read: {exc.strerror}"
            raise ConfigurationError([problem]) from exc
        try:
            content: Any = json.loads(text)
        except ValueError:
            content = None
        match content:
            case {"server": str(server), "position": int(position)} if position >= 0:
                if server == self._server:
                    return position
                problem = f"the cursor {self._path} is that of the server {server}"
            case _:
                problem = f"the cursor {self._path} is damaged, or another file; delete it"
        raise ConfigurationError([problem])

    async def save(self) -> None:
        """Write the file, if there is anything new; a failure is logged."""
        position = self._position
        if position is None or position == self._saved:
            return
        try:
            await anyio.to_thread.run_sync(self._write, position)
        except OSError as exc:
            logger.warning(
                "the cursor %(path)s cannot be written: %(error)s", path=self._path, error=exc
            )
        else:
            self._saved = position

    def _write(self, position: int) -> None:
        text = json.dumps({"server": self._server, "position": position})
        draft = self._path.with_name(f".{self._path.name}.{os.getpid()}")
        draft.write_text(text + "\n", encoding="utf-8")
        draft.replace(self._path)


class TableFeed:
    """Fills the queue of one subscription from the table; it is what the hub delivers to.

    Args:
        cursor: Remembers what was handled.
        expression: Which events the subscription is for.
        queue: Takes the events. While it is full, nothing is read.
        call: Sends operations to the server.
        names: Returns names of types and attributes.
        new_waiter: Makes what a task waits for.
        interval: Seconds from one look at the table to the next, if nothing wakes it.
    """

    def __init__(
        self,
        cursor: EventCursor,
        expression: Expression,
        queue: EventQueue[UpdateEvent],
        *,
        call: Call,
        names: Callable[[], EntityNames],
        new_waiter: Callable[[], Waiter],
        interval: float,
    ) -> None:
        self._cursor = cursor
        self._expression = expression
        self._queue = queue
        self._call = call
        self._names = names
        self._new_waiter = new_waiter
        self._interval = interval
        self._first = self._last = 0  # where this process began, and up to where it has read
        self._last_time = datetime.now(UTC)
        self._seen: dict[int, None] = {}
        self._waiter: Waiter | None = None
        self._is_awake = self._looks_back = True
        self._scope = anyio.CancelScope()

    # As the consumer of the subscription

    @property
    def dropped(self) -> int:
        """Events that were dropped so far: none, because nothing is read while there is no room."""
        return self._queue.dropped

    def __len__(self) -> int:
        return len(self._queue)

    def put(self, _: Any) -> None:
        """Take an event of the hub as the news that the table has it, too."""
        self._wake()

    def put_gap(self, _: Gap) -> None:
        """Look for what the table has got meanwhile."""
        self._looks_back = True
        self._wake()

    def close(self) -> None:
        """Take no more."""
        self._queue.close()
        self._scope.cancel()

    def _wake(self) -> None:
        self._is_awake = True
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    # Reading

    async def begin(self) -> None:
        """Find where to begin.

        Raises:
            ServerError: The server has no such table, or does not show it.
        """
        position = self._cursor.position
        if position is None:
            rows = await self._query("select id from Event order by id descending limit 1")
            position = rows[0]["id"] if rows else 0
            self._cursor.advance(position)
            await self._cursor.save()
        else:
            await self._query("select id from Event limit 1")
        self._first = self._last = position

    async def run(self) -> None:
        """Read the table until the subscription ends."""
        with self._scope:
            async with anyio.create_task_group() as group:
                group.start_soon(self._save_now_and_then)
                while True:
                    try:
                        await self._read()
                    except SessionStateError:
                        group.cancel_scope.cancel()
                        return
                    except FtrackJobsError as exc:
                        logger.warning("the table of events cannot be read: %(error)s", error=exc)
                        await anyio.sleep(_PAUSE)
                        continue
                    await self._sleep()

    async def _sleep(self) -> None:
        if not self._is_awake:
            self._waiter = self._new_waiter()
            with anyio.move_on_after(self._interval) as scope:
                await self._waiter
            self._looks_back = self._looks_back or scope.cancelled_caught
        self._is_awake = False

    async def _save_now_and_then(self) -> None:
        while True:
            await anyio.sleep(_SAVE_INTERVAL)
            await self._cursor.save()

    async def _read(self) -> None:
        looks_back, self._looks_back = self._looks_back, False
        after = self._last
        try:
            if looks_back:
                after = max(self._first, self._last - _AGAIN)
            while True:
                rows = await self._query(
                    f"select {_COLUMNS} from Event where id > {after} order by id limit {_PAGE}"
                )
                if rows and rows[0]["id"] > self._last + 1:
                    await self._report_removed()
                for row in rows:
                    await self._deliver(row)
                if len(rows) < _PAGE:
                    return
                after = rows[-1]["id"]
        except BaseException:
            self._looks_back = self._looks_back or looks_back
            raise

    async def _report_removed(self) -> None:
        """Report a gap if the server has removed rows that were not read."""
        rows = await self._query("select id, created_at from Event order by id limit 1")
        if rows and rows[0]["id"] > self._last + 1:
            until = _time(rows[0].get("created_at")) or datetime.now(UTC)
            self._queue.put_gap(Gap(min(self._last_time, until), until))
            self._last = rows[0]["id"] - 1

    async def _deliver(self, row: dict[str, Any]) -> None:
        own_id: int = row["id"]
        if own_id in self._seen:
            return
        payload = read_row(row)
        if self._expression.matches(payload):
            await self._queue.wait_for_room()
            self._queue.put(make_event(payload, UpdateEvent, self._names()))
        self._seen[own_id] = None
        if len(self._seen) > _REMEMBERED:
            del self._seen[next(iter(self._seen))]
        self._last = max(self._last, own_id)
        self._last_time = _time(row.get("created_at")) or self._last_time

    async def _query(self, expression: str) -> list[dict[str, Any]]:
        (result,) = await self._call([{"action": "query", "expression": expression}])
        rows = result.get("data") if isinstance(result, dict) else None
        if not isinstance(rows, list):
            raise MalformedResponseError("a query's result has no list of data", status=200)
        found = [row for row in rows if isinstance(row, dict) and isinstance(row.get("id"), int)]
        if len(found) < len(rows):
            raise MalformedResponseError("a row of the type Event has no number", status=200)
        return found

    # The end

    def note_handled(self, event: UpdateEvent) -> None:
        """Note that the program is done with *event*."""
        position = getattr(event, "row", {}).get("id")
        if isinstance(position, int):
            self._cursor.advance(position)

    async def end(self) -> None:
        """Write the file, and release the cursor."""
        await self._cursor.save()
        self._cursor.is_in_use = False


def read_row(row: dict[str, Any]) -> dict[str, Any]:
    """Return a row of the type ``Event`` as an update event, with the row itself as ``row``."""
    entity: Any = None
    with suppress(ValueError, TypeError):
        entity = from_json(row.get("data") or "")
    if not (isinstance(entity, dict) and "entityId" in entity):
        action, _, table = str(row.get("action") or "").partition(".")
        entity = {
            "entityId": row.get("parent_id"),
            "entityType": row.get("parent_type") or table,
            "action": action,
        }
    user = row.get("user")
    return {
        "topic": events.UPDATE,
        "id": f"event-{row['id']}",
        "data": {"entities": [entity], "user": {"userid": row.get("user_id")}},
        "sent": row.get("created_at"),
        "source": {
            "user": {
                "id": row.get("user_id"),
                "username": user.get("username") if isinstance(user, dict) else None,
            }
        },
        "target": "",
        "row": row,
    }


def _time(value: object) -> datetime | None:
    """Return a time of a row; the server's times are in UTC."""
    text = value.get("value") if isinstance(value, dict) else value
    try:
        found = datetime.fromisoformat(str(text))
    except ValueError:
        return None
    return found.replace(tzinfo=UTC) if found.tzinfo is None else found
