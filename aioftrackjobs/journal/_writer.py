"""The Writer: the thread that writes a session's part of the journal, batch after batch."""

from __future__ import annotations

import math
import sqlite3
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path

from aioftrackjobs.background import SafeLogger, text_of, type_name
from aioftrackjobs.journal._entry import Owner
from aioftrackjobs.journal._file import JournalFile
from aioftrackjobs.journal._ledger import Batch, Ledger
from aioftrackjobs.journal._place import (
    DamagedJournalError,
    UnusableJournalError,
    is_damage,
    set_aside,
)
from aioftrackjobs.journal._presence import PresenceLock

logger = SafeLogger("aioftrackjobs.journal")

#: Seconds after which what was written is synced to the disk.
_SYNC_AFTER = 0.1
#: Seconds between two heartbeats, if there is nothing to write, and between two looks for damage.
_HEARTBEAT, _INSPECTION = 20.0, 0.4
#: Seconds without a write after which a look also finds out whether the file is locked.
_IDLE = 0.3
#: Seconds until a journal that is damaged or gone is made anew; and how often in how many seconds.
_RENEWAL, _RENEWALS, _PERIOD = 0.3, 30, 60.0


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
        self._beat_at = self._inspected_at = self._written_at = -math.inf
        self._renewals: list[float] = []
        self._damaged: list[Path] = []  # files that were moved, and have entries to save

    def start(self) -> None:
        """Start the thread."""
        # A daemon thread: a program that does not close its session may end all the same.
        threading.Thread(target=self._run, name="aioftrackjobs journal", daemon=True).start()

    def _run(self) -> None:
        batch = self._next_batch()
        while not batch.is_last:
            if batch.entries or batch.gone or batch.receipts or self._is_due():
                self._try(partial(self._write, batch), batch)
                self._settle(batch)
            self._try(self._sync)
            self._try(self._inspect)
            batch = self._next_batch()
        self._try(partial(self._write, batch), batch)
        self._try(partial(self._sync, at_once=True))
        self._close()
        self._presence.release()
        self._settle(batch)  # last: when closing returns, the file is closed

    def _next_batch(self) -> Batch:
        """Wait for something to write, and take it."""
        deadline = time.monotonic() + _INSPECTION
        if self._unsynced_since is not None:
            deadline = min(deadline, self._unsynced_since + _SYNC_AFTER)
        self._ledger.wait(deadline)
        return self._ledger.take()

    def _is_due(self) -> bool:
        """Return whether to write although nothing is new: a heartbeat, or after a failure."""
        is_late = time.monotonic() - self._beat_at >= _HEARTBEAT
        return is_late or self._ledger.problem is not None

    def _try(self, step: Callable[[], None], batch: Batch | None = None) -> None:
        """Do one step with the file; note in the ledger if that fails.

        Whatever happens, the thread goes on: all that the session records waits for it.

        Args:
            step: What to do.
            batch: What it writes, if anything.
        """
        try:
            step()
        except Exception as exc:  # noqa: BLE001 - see above
            was_open = self._file is not None
            error = self._cause_of(exc)
            problem = text_of(error) or type_name(error)
            if _is_damage(error):
                problem += self._set_aside()
            retry = _RENEWAL if _is_of_file(error) and self._may_renew() else None
            self._ledger.note_failure(problem, batch, was_open=was_open, retry=retry)
            self._close()

    def _cause_of(self, error: Exception) -> Exception:
        """Return the damage that has led to *error*; if there is none, *error* itself."""
        if self._file is not None and isinstance(error, sqlite3.Error) and not _is_damage(error):
            try:
                self._file.inspect({})
            except Exception as exc:  # noqa: BLE001 - it says more
                return exc
        return error

    def _may_renew(self) -> bool:
        """Return whether to make the file anew soon: something may damage it again and again."""
        now = time.monotonic()
        self._renewals = [each for each in self._renewals if now - each < _PERIOD]
        if len(self._renewals) >= _RENEWALS:
            return False
        self._renewals.append(now)
        return True

    def _set_aside(self) -> str:
        """Move the damaged file away; return what to say about that."""
        try:
            moved = set_aside(self._path) if self._file is None else self._file.set_aside()
        except OSError as exc:
            return f"; it could not be moved: {exc}"
        if moved is None:
            return ""
        self._damaged.append(moved)
        return f"; it was moved to {moved}"

    def _open(self) -> JournalFile:
        file = JournalFile(self._path, self._owner, busy_timeout=self._busy_timeout)
        self._presence.hold(file.log_path)
        while self._damaged:
            count = file.salvage(self._damaged.pop())
            logger.info(
                "%(count)d entries of other sessions were saved in %(path)s",
                count=count,
                path=self._path,
            )
        return file

    def _write(self, batch: Batch) -> None:
        if self._file is None:
            self._file = self._open()
        file = self._file
        self._beat_at = time.monotonic()
        file.write(time.time(), batch.entries, batch.gone)
        self._written_at = time.monotonic()
        if batch.entries and self._unsynced_since is None:
            self._unsynced_since = time.monotonic()
        for receipt in batch.receipts:
            if receipt.work is not None:
                receipt.result = receipt.work(file)
        if file.set_aside_rows:
            logger.warning(
                "%(count)d rows of the journal %(path)s cannot be used; they were moved to "
                "its table set_aside",
                count=file.set_aside_rows,
                path=self._path,
            )
            file.set_aside_rows = 0
        if self._ledger.problem is not None:
            # Is it solved? Only a sync shows that: a full disk may take writes and lose them.
            self._sync(at_once=True)
            self._ledger.note_success()
        self._ledger.note_written(batch)
        for receipt in batch.receipts:
            receipt.is_good = True

    def _sync(self, *, at_once: bool = False) -> None:
        """Sync entries that were written a while ago; deletes alone are not worth a sync."""
        since = self._unsynced_since
        if self._file is None or since is None:
            return
        if at_once or time.monotonic() - since >= _SYNC_AFTER:
            self._unsynced_since = None
            self._file.sync()

    def _inspect(self) -> None:
        """Look for damage: see :mod:`._damage`."""
        if self._file is None or time.monotonic() - self._inspected_at < _INSPECTION:
            return
        self._inspected_at = time.monotonic()
        self._file.inspect(self._ledger.written())
        if self._inspected_at - self._written_at >= _IDLE:  # otherwise the writes have shown it
            self._file.require_unlocked()

    def _close(self) -> None:
        file, self._file = self._file, None
        if file is not None:
            with suppress(Exception):
                file.close()

    def _settle(self, batch: Batch) -> None:
        if awaited := self._ledger.settle(batch):

            def wake() -> None:
                for receipt in awaited:
                    receipt.wake()

            with suppress(RuntimeError):  # the event loop has ended: no task waits any more
                self._call_soon(wake)


def _is_damage(error: Exception) -> bool:
    if isinstance(error, sqlite3.Error):
        return is_damage(error)
    return isinstance(error, DamagedJournalError)


def _is_of_file(error: Exception) -> bool:
    """Return whether *error* may come from the file, and not from the disk or other processes.

    While one session moves the file aside, another one may find only a part of it.
    """
    if isinstance(error, sqlite3.Error) and not _is_damage(error):
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF
        return code in (sqlite3.SQLITE_ERROR, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN)
    return isinstance(error, (sqlite3.Error, UnusableJournalError))
