"""The journal: what this host owes the server, kept where a crash does not reach it.

It knows each Job that a session runs, each last word that the server has not acknowledged, and
each upload that is not registered. An entry is safe from the death of the process before the
request leaves that it is about, so that whatever the moment of death, the next session with the
journal can put things right.

Safe from a power cut it is a moment later, in one sync of the disk for all that came together:
who runs a Job does not wait for a disk. What the cut takes, at most the last tenth of a second on
a disk that is well, is entries of Jobs that just began, which the server has too: they fail when
their lease runs out, by :func:`recover`; and last words that were just said: most of them the
server has by then, and the Job of one that it has not is failed as lost.

A thread of its own writes, all changes that are waiting in one transaction. What no one waits for,
such as the end of an entry, travels with the next batch.

A journal that cannot be written never stops the work: it says so once, tries again now and then,
and writes what is still true by then.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeAlias
from uuid import uuid4

import anyio

from aioftrackjobs.errors import SessionStateError
from aioftrackjobs.host import Latch, loop_caller
from aioftrackjobs.journal_file import Entry, JournalFile, Key, Owner, UnusableJournalError
from aioftrackjobs.processes import this_process

logger = logging.getLogger(__name__)

JournalState: TypeAlias = Literal["off", "working", "failing"]

#: Seconds that changes wait which nobody waits for.
_LAZINESS = 0.5
#: Seconds after which what was written is synced to the disk.
_SYNC_AFTER = 0.1
#: Seconds between two batches, at least, where many wait.
_SPACING = 0.001
#: Seconds between two signs of life.
_HEARTBEAT = 20.0
#: Seconds before a file that failed is tried again, and that anybody waits for it, at most.
_RETRY, _PATIENCE = 10.0, 5.0

Spawn: TypeAlias = Callable[[Callable[[], Coroutine[Any, Any, None]]], object]
Work: TypeAlias = Callable[[JournalFile], Any]


@dataclass(eq=False, slots=True)
class _Waiter:
    """Who waits for the batch to be written, and for what he wants done after it."""

    latch: Latch
    work: Work | None = None
    since: float = field(default_factory=time.monotonic)
    result: Any = None
    is_written: bool = False

    def wake(self) -> None:
        if not self.latch.done():
            self.latch.set_result(None)


class Journal:
    """A session's part of the journal.

    Args:
        path: The file; None for no journal, where nothing is kept and nothing waited for.
        server_url: Where the Jobs are.
        api_user: Whose session it is.
    """

    def __init__(self, path: Path | None, *, server_url: str, api_user: str) -> None:
        self._path = path
        self._server_url, self._api_user = server_url, api_user
        self._holder = uuid4().hex
        self._changes = threading.Condition()
        # All of the following under its lock.
        self._entries: dict[Key, Entry] = {}
        self._unwritten: dict[Key, None] = {}
        self._waiters: list[_Waiter] = []
        self._served: list[_Waiter] = []  # those of the batch that is being written
        self._problem: str | None = None
        self._retry_at = 0.0
        self._wakes_at = 0.0  # when the writer looks for changes next
        self._closing = False
        self._runs = False
        # The event loop's own.
        self._watched = False
        # The writer's own: what the file holds of it, when many last waited, and what to sync.
        self._in_file: set[Key] = set()
        self._crowded_at = 0.0
        self._unsynced_since: float | None = None

    @property
    def holder(self) -> str:
        """What names the session in leases and in its entries."""
        return self._holder

    @property
    def state(self) -> JournalState:
        """Whether there is a journal, and whether it can be written."""
        if self._path is None:
            return "off"
        return "working" if self._problem is None else "failing"

    @property
    def problem(self) -> str | None:
        """Why it cannot be written; None if it can."""
        return self._problem

    def waiting_words(self) -> list[Entry]:
        """Return the last words that were not acknowledged, the oldest first."""
        return [entry for entry in self.unsettled() if entry.word is not None]

    def unsettled(self) -> list[Entry]:
        """Return what somebody has to see to, the oldest first: last words, and what is lost."""
        with self._changes:
            found = [
                entry
                for entry in self._entries.values()
                if entry.word is not None or entry.lost_host is not None
            ]
        return sorted(found, key=lambda entry: entry.since)

    def has(self, entry: Entry) -> bool:
        """Tell whether *entry* is still what is known."""
        with self._changes:
            return self._entries.get(entry.key) == entry

    # Keeping

    async def own(self, job_id: str) -> bool:
        """Note that the session runs a Job; returns when that is written, or cannot be.

        Returns:
            Whether it is written, and so outlives the process.
        """
        return await self._keep(Entry("job", job_id, self.holder, time.time()))

    async def keep_word(self, job_id: str, word: str) -> bool:
        """Note the last word of a Job, as JSON; returns as :meth:`own` does."""
        return await self._keep(Entry("job", job_id, self.holder, time.time(), word))

    async def note_upload(self, component_id: str) -> bool:
        """Note that bytes of a component are about to be sent; returns as :meth:`own` does."""
        return await self._keep(Entry("upload", component_id, self.holder, time.time()))

    async def _keep(self, entry: Entry) -> bool:
        if self._path is None:
            return False
        with self._changes:
            self._entries[entry.key] = entry
            self._note_change(entry.key)
        return (await self._written()).is_written

    def release_job(self, job_id: str) -> None:
        """Forget a Job: the server knows how it ended, or that it never began."""
        self._release(("job", job_id))

    def release_upload(self, component_id: str) -> None:
        """Forget an upload: it is registered, or removed."""
        self._release(("upload", component_id))

    def _release(self, key: Key) -> None:
        with self._changes:
            if self._entries.pop(key, None) is not None:
                self._note_change(key)

    def _note_change(self, key: Key) -> None:
        """Let *key* be written some time. Under the lock."""
        self._unwritten[key] = None
        if self._wakes_at > max(time.monotonic() + _LAZINESS, self._retry_at):
            self._changes.notify()

    async def claim(self) -> bool:
        """Take over what others have left; it is among what is *unsettled* then.

        Returns:
            Whether there may be more: it cannot be told if a process lives, or the file be used.
        """
        if self._path is None:
            return False
        return (claimed := await self._written(self._claim)).result or not claimed.is_written

    async def _written(self, work: Work | None = None) -> _Waiter:
        """Wait until all changes so far are written, unless they cannot be."""
        waiter = _Waiter(self._new_latch(), work)
        with self._changes:
            if not self._runs or self._closing or time.monotonic() < self._retry_at:
                return waiter
            self._waiters.append(waiter)
            is_first = len(self._waiters) == 1
        if is_first:
            self._call_soon(self._notify)  # with all that come in the same turn
        if not self._watched:
            with suppress(SessionStateError):  # it ends, and so does who waits
                self._spawn(self._watch)
                self._watched = True
        await waiter.latch
        return waiter

    def _notify(self) -> None:
        with self._changes:
            self._changes.notify()

    async def _watch(self) -> None:
        """Let nobody wait for long: a task for all, as a time-out of each would cost too much."""
        try:
            while self._waiters or self._served:
                await anyio.sleep(_PATIENCE / 2)
                with self._changes:
                    latest = time.monotonic() - _PATIENCE / 2
                    waiting = (*self._served, *self._waiters)
                    late = [waiter for waiter in waiting if waiter.since < latest]
                    if late:
                        self._fail(f"it takes longer than {_PATIENCE / 2:g} s")
                for waiter in late:
                    waiter.wake()
        finally:
            self._watched = False

    # The writer

    def start(self, new_latch: Callable[[], Latch], spawn: Spawn) -> None:
        """Start the writer; in the event loop.

        Args:
            new_latch: Makes what is waited for in the event loop.
            spawn: Runs a function in the background.
        """
        self._new_latch, self._spawn, self._call_soon = new_latch, spawn, loop_caller()
        if self._path is not None:
            # Made here, as a session may be made by a process that forks, and opened by its
            # children: each is an owner of its own.
            owner = Owner(uuid4().hex, this_process(), self._server_url, self._api_user)
            self._runs = True
            # A daemon: a program that does not close its session may end all the same.
            threading.Thread(
                target=self._write,
                args=(self._path, owner),
                name="aioftrackjobs journal",
                daemon=True,
            ).start()

    async def aclose(self) -> None:
        """Write what is left, and close the file."""
        with self._changes:
            if not self._runs or self._closing:
                return
            self._closing = True
            waiter = _Waiter(self._new_latch(), JournalFile.end)
            self._waiters.append(waiter)
            self._changes.notify()
        with anyio.move_on_after(_PATIENCE):
            await waiter.latch

    def _write(self, path: Path, owner: Owner) -> None:
        """Write batch after batch, until the journal is closed. The thread's function."""
        import sqlite3  # late: few sessions have a journal

        file: JournalFile | None = None
        waiters: list[_Waiter] = []
        closing = False
        while not closing:
            entries, gone, waiters, closing = self._next_batch()
            try:
                file = file or JournalFile(path, owner)
                self._write_batch(file, entries, gone, waiters)
            except (sqlite3.Error, OSError, UnusableJournalError) as exc:
                self._abandon(file, exc, gone)
                file = None
            if not closing:
                self._wake(waiters)
            try:
                if file is not None:
                    self._sync(file, at_once=closing)
            except (OSError, UnusableJournalError) as exc:
                self._abandon(file, exc)
                file = None
        if file is not None:
            _close(file)
        self._wake(waiters)  # of a session that was closed, nothing is open

    def _write_batch(
        self, file: JournalFile, entries: list[Entry], gone: list[Key], waiters: list[_Waiter]
    ) -> None:
        self._in_file.update(entry.key for entry in entries)  # a failure may come after it
        file.write(time.time(), entries, gone)
        self._in_file.difference_update(gone)
        if entries and self._unsynced_since is None:
            self._unsynced_since = time.monotonic()
        for waiter in waiters:
            if waiter.work is not None:
                waiter.result = waiter.work(file)
        if self._problem is not None:  # has it gone? A disk may take what it does not keep
            self._sync(file, at_once=True)
            self._note_success()
        for waiter in waiters:
            waiter.is_written = True

    def _sync(self, file: JournalFile, *, at_once: bool) -> None:
        """Sync what was written a while ago; that something is gone is not worth it."""
        since = self._unsynced_since
        if since is not None and (at_once or time.monotonic() - since >= _SYNC_AFTER):
            self._unsynced_since = None
            file.sync()

    def _claim(self, file: JournalFile) -> bool:
        entries, undecided = file.claim(time.time())
        self._in_file.update(entry.key for entry in entries)
        with self._changes:
            for entry in entries:
                self._entries.setdefault(entry.key, entry)
        return undecided

    def _next_batch(self) -> tuple[list[Entry], list[Key], list[_Waiter], bool]:
        """Wait for something to write, and take it."""
        with self._changes:
            deadline = time.monotonic() + _HEARTBEAT
            if self._unsynced_since is not None:
                deadline = self._unsynced_since + _SYNC_AFTER
            while not self._waiters:
                now = time.monotonic()
                if self._unwritten:
                    deadline = min(deadline, now + _LAZINESS)
                until = max(deadline, self._retry_at)
                if now >= until:
                    break
                self._wakes_at = until
                self._changes.wait(until - now)
            self._wakes_at = 0.0  # it looks now
        # Under load many come together; who is alone does not wait.
        if (spare := self._crowded_at + _SPACING - time.monotonic()) > 0:
            time.sleep(spare)
        with self._changes:
            keys, self._unwritten = self._unwritten, {}
            self._served = waiters = self._waiters
            self._waiters = []
            entries = [self._entries[key] for key in keys if key in self._entries]
            gone = [key for key in keys if key not in self._entries and key in self._in_file]
            return entries, gone, waiters, self._closing

    def _note_success(self) -> None:
        with self._changes:
            if self._problem is not None:
                logger.warning("the journal %s works again", self._path)
            self._problem, self._retry_at = None, 0.0

    def _abandon(
        self, file: JournalFile | None, error: Exception, gone: Sequence[Key] = ()
    ) -> None:
        """Close what cannot be used, and note what is to be written when it can."""
        with self._changes:
            # All that is true, not only what was tried: it may be another file by then.
            self._unwritten |= dict.fromkeys((*gone, *self._entries))
            self._fail(str(error) or type(error).__name__)
        if file is not None:
            _close(file)

    def _fail(self, problem: str) -> None:
        """Leave the file alone for a while. Under the lock."""
        if self._problem is None:
            logger.warning(
                "the journal %s cannot be used: %s; the work goes on without it, but what a crash "
                "of this process leaves behind is not known after it",
                self._path,
                problem,
            )
        self._problem = problem
        self._retry_at = time.monotonic() + _RETRY

    def _wake(self, waiters: list[_Waiter]) -> None:
        def wake() -> None:
            for waiter in waiters:
                waiter.wake()

        self._crowded_at = time.monotonic() if len(waiters) > 1 else 0.0
        with self._changes:
            self._served = []
        if waiters:
            with suppress(RuntimeError):  # the event loop has ended: nobody waits any more
                self._call_soon(wake)


def _close(file: JournalFile) -> None:
    import sqlite3

    with suppress(sqlite3.Error, OSError):
        file.close()
