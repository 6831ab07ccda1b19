"""The Writer: the thread that writes a session's part of the journal, batch after batch."""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from aioftrackjobs.journal._entry import Owner
from aioftrackjobs.journal._file import JournalFile, UnusableJournalError
from aioftrackjobs.journal._ledger import Batch, Ledger
from aioftrackjobs.journal._presence import PresenceLock

#: Seconds after which what was written is synced to the disk.
_SYNC_AFTER = 0.1
#: Seconds between two heartbeats, if there is nothing to write.
_HEARTBEAT = 20.0


class Writer:
    """Writes batch after batch, until the journal is closed.

    Args:
        path: The file.
        owner: The session.
        ledger: Where the batches come from.
        call_soon: Calls a function in the event loop.
        busy_timeout: Seconds to wait for other processes that write.
    """

    def __init__(
        self,
        path: Path,
        owner: Owner,
        ledger: Ledger,
        call_soon: Callable[[Callable[[], None]], object],
        *,
        busy_timeout: float,
    ) -> None:
        self._path = path
        self._owner = owner
        self._ledger = ledger
        self._call_soon = call_soon
        self._busy_timeout = busy_timeout
        self._file: JournalFile | None = None
        self._presence = PresenceLock(owner.token)
        self._unsynced_since: float | None = None

    def start(self) -> None:
        """Start the thread."""
        # A daemon thread: a program that does not close its session may end all the same.
        threading.Thread(target=self._run, name="aioftrackjobs journal", daemon=True).start()

    def _run(self) -> None:
        batch = self._next_batch()
        while not batch.is_last:
            self._try(batch)
            self._settle(batch)
            self._try(None)
            batch = self._next_batch()
        self._try(batch)
        self._try(None, at_once=True)
        self._close()
        self._presence.release()
        self._settle(batch)  # last: when closing returns, the file is closed

    def _next_batch(self) -> Batch:
        """Wait for something to write, and take it."""
        if self._unsynced_since is None:
            self._ledger.wait(time.monotonic() + _HEARTBEAT)
        else:
            self._ledger.wait(self._unsynced_since + _SYNC_AFTER)
        return self._ledger.take()

    def _try(self, batch: Batch | None, *, at_once: bool = False) -> None:
        """Write *batch*, or sync what was written; note in the ledger if that fails."""
        try:
            if batch is not None:
                self._write(batch)
            elif self._file is not None:
                self._sync(self._file, at_once=at_once)
        except (sqlite3.Error, OSError, ValueError, UnusableJournalError) as exc:
            was_open = self._file is not None
            self._ledger.note_failure(str(exc) or type(exc).__name__, batch, was_open=was_open)
            self._close()

    def _write(self, batch: Batch) -> None:
        if self._file is None:
            self._file = JournalFile(self._path, self._owner, busy_timeout=self._busy_timeout)
            self._presence.hold(self._file.log_path)
        file = self._file
        file.write(time.time(), batch.entries, batch.gone)
        if batch.entries and self._unsynced_since is None:
            self._unsynced_since = time.monotonic()
        for receipt in batch.receipts:
            if receipt.work is not None:
                receipt.result = receipt.work(file)
        if self._ledger.problem is not None:
            # Is it solved? Only a sync shows that: a full disk may take writes and lose them.
            self._sync(file, at_once=True)
            self._ledger.note_success()
        self._ledger.note_written(batch)
        for receipt in batch.receipts:
            receipt.is_good = True

    def _sync(self, file: JournalFile, *, at_once: bool) -> None:
        """Sync entries that were written a while ago; deletes alone are not worth a sync."""
        since = self._unsynced_since
        if since is not None and (at_once or time.monotonic() - since >= _SYNC_AFTER):
            self._unsynced_since = None
            file.sync()

    def _close(self) -> None:
        file, self._file = self._file, None
        if file is not None:
            with suppress(sqlite3.Error, OSError):
                file.close()

    def _settle(self, batch: Batch) -> None:
        if awaited := self._ledger.settle(batch):

            def wake() -> None:
                for receipt in awaited:
                    receipt.wake()

            with suppress(RuntimeError):  # the event loop has ended: no task waits any more
                self._call_soon(wake)
