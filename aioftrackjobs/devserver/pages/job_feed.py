"""Which Jobs there are and which have changed, from the store's own changes.

Nothing of it happens before the first page is opened.
"""

from __future__ import annotations

import asyncio
import secrets
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import islice
from typing import Any

from pydantic_core import from_json

from aioftrackjobs.devserver.engine import Engine
from aioftrackjobs.devserver.pages.access import Run
from aioftrackjobs.devserver.pages.streams import Streams
from aioftrackjobs.devserver.store.change_log import Change

#: Changes that are remembered; a page that has missed more gets all rows.
_KEPT = 5000
#: Keys of a Job's data that only who runs it writes; a change shows that it is alive.
_SIGNS = ("lease", "progress", "description")
_ALL = "select id, status, user_id from Job"
_RUNNING = 'select id, data from Job where status is "running"'


@dataclass(slots=True)
class KnownJob:
    """What is known of a Job beside its row.

    Attributes:
        until: When its lease ends, if it is running and has one.
        alive_at: When its owner was last seen to write it, since the first page was opened.
    """

    status: str
    user_id: str | None
    until: datetime | None = None
    alive_at: datetime | None = None


class JobFeed:
    """The Jobs of *engine*, and what changes of them.

    All of it runs in the event loop, but :meth:`_note`.
    """

    def __init__(self, engine: Engine, run: Run, streams: Streams) -> None:
        self._engine = engine
        self._run = run
        self._streams = streams
        self._loop: asyncio.AbstractEventLoop | None = None
        self._loading = asyncio.Lock()
        self._is_loaded = False
        self._early: list[Sequence[Change]] = []
        self._resets = 0
        self._looked_at = datetime.now(UTC)
        #: What gets each change of a Job, by its id.
        self.watched: dict[str, Callable[[Change], None]] = {}
        self._clear()

    def _clear(self) -> None:
        self._start = secrets.token_hex(4)
        self._number = 0
        self._log = deque[str](maxlen=_KEPT)
        self.jobs: dict[str, KnownJob] = {}
        self._leased = set[str]()
        self._counts = defaultdict[str | None, Counter[str]](Counter)

    @property
    def position(self) -> str:
        """Up to which change all is known now."""
        return f"{self._start}-{self._number}"

    def since(self, position: str) -> set[str] | None:
        """Return the ids of the Jobs that have changed after *position*; None for all."""
        start, _, text = position.partition("-")
        number = int(text) if text.isdecimal() and len(text) < 20 else -1
        missed = self._number - number
        if start != self._start or not 0 <= missed <= len(self._log):
            return None
        return set(islice(reversed(self._log), missed))

    def counts(self, user_id: str | None) -> Mapping[str, int]:
        """Return how many Jobs of a user, or of all, have each status; ``lost`` among them."""
        some = self._counts.values() if user_id is None else [self._counts[user_id]]
        return sum(some, Counter[str](lost=len(self.lost(user_id))))

    def users(self) -> list[str]:
        """Return the ids of the users who have Jobs."""
        return [user for user, counts in self._counts.items() if user and counts.total()]

    def lost(self, user_id: str | None = None) -> list[str]:
        """Return the ids of running Jobs whose lease has ended."""
        now = datetime.now(UTC)
        return [
            own_id
            for own_id, until in self._leases()
            if until < now and user_id in (None, self.jobs[own_id].user_id)
        ]

    def _leases(self) -> Iterator[tuple[str, datetime]]:
        for own_id in self._leased:
            until = self.jobs[own_id].until
            if until is not None:
                yield own_id, until

    async def ready(self) -> None:
        """Return when all Jobs are known.

        Raises:
            ApiError: If they cannot be read.
        """
        async with self._loading:
            if self._loop is None:
                self._engine.observers.append(self._note)
            self._loop = asyncio.get_running_loop()
            while not self._is_loaded:
                self._early.clear()
                resets = self._resets
                rows, running = await self._run(self._read)
                if resets != self._resets:
                    continue
                self._clear()
                for row in rows:
                    self._set(row["id"], KnownJob(row["status"], row["user_id"]))
                for row in running:
                    if row["id"] in self.jobs:
                        self._set_lease(row["id"], until_of(data_of(row["data"])))
                for changes in self._early:
                    self._apply(changes)
                self._is_loaded = True
            self._note_ends()

    def _read(self) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        rows, running = (from_json(self._engine.query(each)) for each in (_ALL, _RUNNING))
        return rows[0]["data"], running[0]["data"]

    def _note(self, changes: Sequence[Change] | None) -> None:
        """Pass changes on to the event loop; in the thread that has made them."""
        tables = self._tables()
        some = None if changes is None else [each for each in changes if each.table in tables]
        if self._loop is not None and (some is None or some):
            with suppress(RuntimeError):  # the server is stopping, and its loop is closed
                self._loop.call_soon_threadsafe(self._receive, some)

    def _tables(self) -> set[str]:
        types = self._engine.model.types
        return {types[name].root for name in ("Job", "JobComponent") if name in types}

    def _receive(self, changes: Sequence[Change] | None) -> None:
        if changes is None:
            self._resets += 1
            self._is_loaded = False
            self._start = ""  # no position of before is good any more
        elif self._is_loaded:
            self._apply(changes)
        else:
            self._early.append(changes)
        self._streams.wake()

    def _apply(self, changes: Iterable[Change]) -> None:
        jobs = self._engine.model.types["Job"].root
        for change in changes:
            row = change.after or change.before or {}
            if change.table == jobs:
                if watch := self.watched.get(row["id"]):
                    watch(change)
                self._apply_to_job(row["id"], change)
                self._changed(row["id"])
            elif row.get("job_id"):
                self._changed(row["job_id"])

    def _apply_to_job(self, own_id: str, change: Change) -> None:
        if change.after is None:
            self._remove(own_id)
            return
        job = self._set(own_id, KnownJob(change.after["status"], change.after.get("user_id")))
        if job.status == "running":
            before = data_of((change.before or {}).get("data"))
            after = data_of(change.after.get("data"))
            self._set_lease(own_id, until_of(after))
            if any(before.get(sign) != after.get(sign) for sign in _SIGNS):
                job.alive_at = datetime.now(UTC)

    def _changed(self, own_id: str) -> None:
        self._number += 1
        self._log.append(own_id)

    def _set(self, own_id: str, job: KnownJob) -> KnownJob:
        known = self._remove(own_id)
        job.alive_at = None if known is None else known.alive_at
        self.jobs[own_id] = job
        self._counts[job.user_id][job.status] += 1
        return job

    def _remove(self, own_id: str) -> KnownJob | None:
        known = self.jobs.pop(own_id, None)
        self._leased.discard(own_id)
        if known is not None:
            self._counts[known.user_id][known.status] -= 1
        return known

    def _set_lease(self, own_id: str, until: datetime | None) -> None:
        self.jobs[own_id].until = until
        if until is not None:
            self._leased.add(own_id)

    def _note_ends(self) -> None:
        """Let the ends of leases since the last look count as changes of their Jobs."""
        before, self._looked_at = self._looked_at, datetime.now(UTC)
        for own_id, until in self._leases():
            if before < until <= self._looked_at:
                self._changed(own_id)


def data_of(text: object) -> dict[str, Any]:
    """Return the JSON object in a Job's data; an empty one if it has none."""
    try:
        data = from_json(text) if isinstance(text, str) else {}
    except ValueError:
        return {}
    return data if isinstance(data, dict) else {}


def until_of(data: Mapping[str, Any]) -> datetime | None:
    """Return when the lease in a Job's data ends; None if there is none that can be read."""
    lease = data.get("lease")
    return time_of(lease.get("until")) if isinstance(lease, dict) else None


def time_of(text: object) -> datetime | None:
    """Return the time that a text in a Job's data says; None if it says none."""
    try:
        time = datetime.fromisoformat(text) if isinstance(text, str) else None
        return time and (time if time.tzinfo else time.replace(tzinfo=UTC)).astimezone(UTC)
    except (ValueError, OverflowError):
        return None
