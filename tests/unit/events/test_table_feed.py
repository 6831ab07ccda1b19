"""What a cursor makes of the rows of the table, which real servers may write differently."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from aioftrackjobs.background import running_event_loop
from aioftrackjobs.events import EventCursor, Gap
from aioftrackjobs.events.cursor import TableFeed, read_row
from aioftrackjobs.events.queue import EventQueue
from aioftrackjobs.protocol.changes import NO_NAMES
from aioftrackjobs.protocol.subscription import parse

pytestmark = pytest.mark.parametrize("anyio_backend", ["asyncio", "trio"])


class Table:
    """Rows of the type ``Event``, and the feed of one program."""

    def __init__(self, path: Path) -> None:
        self.rows: dict[int, dict[str, Any]] = {}
        self.queries: list[str] = []
        self.cursor = EventCursor(path)
        new_waiter = running_event_loop().new_waiter
        self.queue = EventQueue[Any](5000, "drop_oldest", "topic=ftrack.update", new_waiter)
        self.feed = TableFeed(
            self.cursor,
            parse("topic=ftrack.update"),
            self.queue,
            call=self.call,
            names=lambda: NO_NAMES,
            new_waiter=new_waiter,
            interval=60,
        )

    def add(self, *ids: int, **values: Any) -> None:
        for own_id in ids:
            entity = {"entityId": str(own_id), "entityType": "task", "action": "update"}
            self.rows[own_id] = {"id": own_id, "data": json.dumps(entity), **values}

    async def call(self, operations: list[dict[str, Any]]) -> list[Any]:
        await anyio.lowlevel.checkpoint()
        ((expression,),) = [[each["expression"] for each in operations]]
        self.queries.append(expression)
        after = re.search(r"id > (\d+)", expression)
        limit = re.search(r"limit (\d+)", expression)
        found = sorted(each for each in self.rows if after is None or each > int(after[1]))
        if "descending" in expression:
            found.reverse()
        rows = [self.rows[each] for each in found]
        return [{"action": "query", "data": rows[: int(limit[1])] if limit else rows}]

    async def ids(self, count: int) -> list[str]:
        with anyio.fail_after(10):
            return [(await self.queue.get()).changes[0].id for _ in range(count)]  # type: ignore[union-attr]


@asynccontextmanager
async def following(path: Path, *first: int) -> AsyncIterator[Table]:
    table = Table(path)
    table.add(*first)
    await table.cursor.open("https://a.test")
    await table.feed.begin()
    async with anyio.create_task_group() as group:
        group.start_soon(table.feed.run)
        yield table
        table.feed.close()
    await table.feed.end()


async def test_rows_that_are_added_late_with_a_lower_id_are_found(tmp_path: Path) -> None:
    async with following(tmp_path / "c", 10) as table:
        table.add(12, 14)
        table.feed.put(None)
        assert await table.ids(2) == ["12", "14"]
        table.add(11, 13, 15, 9)  # 9 is from before the beginning
        table.feed.put_gap(Gap.__new__(Gap))
        assert sorted(await table.ids(3)) == ["11", "13", "15"]
        assert table.queue.get_now() is None


async def test_many_rows_come_in_pages_and_once_each(tmp_path: Path) -> None:
    async with following(tmp_path / "c") as table:
        table.add(*range(1, 1201))
        table.feed.put(None)
        assert await table.ids(1200) == [str(number) for number in range(1, 1201)]
        before = len(table.queries)
        table.feed.put(None)
        table.add(1201)
        assert await table.ids(1) == ["1201"]
        assert "id > 1200" in table.queries[before]


async def test_removed_rows_are_a_gap_once(tmp_path: Path) -> None:
    async with following(tmp_path / "c", 5) as table:
        table.add(6, created_at="2026-01-01T00:00:00")
        table.feed.put(None)
        assert await table.ids(1) == ["6"]
        table.rows.clear()
        table.add(20, created_at={"__type__": "datetime", "value": "2026-01-02T00:00:00"})
        for _ in range(2):
            table.feed.put_gap(Gap.__new__(Gap))
        gap = await table.queue.get()
        assert isinstance(gap, Gap)
        assert (gap.since.day, gap.until.day) == (1, 2)
        assert await table.ids(1) == ["20"]
        assert table.queue.get_now() is None


@pytest.mark.parametrize("data", [None, "", "no JSON", "[]", "5", '{"x": 1}', {"entityId": 1}])
async def test_rows_of_another_form_are_events_all_the_same(data: Any) -> None:
    row = {"id": 7, "action": "update.task", "data": data, "parent_id": "3", "user": 5}
    payload = read_row(row)
    assert payload["data"]["entities"] == [
        {"entityId": "3", "entityType": "task", "action": "update"}
    ]
    assert payload["source"]["user"] == {"id": None, "username": None}
    assert payload["row"] is row


async def test_the_file_keeps_what_was_handled(tmp_path: Path) -> None:
    path = tmp_path / "c"
    async with following(path, 5) as table:
        assert json.loads(path.read_text()) == {"server": "a.test", "position": 5}
        table.add(6, 7)
        table.feed.put(None)
        with anyio.fail_after(10):
            first = await table.queue.get()
        table.feed.note_handled(first)  # type: ignore[arg-type]
    assert json.loads(path.read_text())["position"] == 6
    assert [each.name for each in tmp_path.iterdir()] == ["c"]
    async with following(path, 5, 6, 7) as table:
        assert await table.ids(1) == ["7"]


async def test_a_file_that_cannot_be_written_ends_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with following(tmp_path / "folder" / "c", 5) as table:
        table.add(6)
        table.feed.put(None)
        assert await table.ids(1) == ["6"]
    assert "cannot be written" in caplog.text
