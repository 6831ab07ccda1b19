"""The Ledger: what a session has recorded in its journal, and what of it the file does not have.

The event loop and the writer's thread share it. A change is recorded here at once, and the next
batch writes it, whatever that batch was requested for:

- A new entry, or one that replaces another, requests a batch, because a task waits for it.
- The end of an entry requests none: nothing depends on it. Such *deferred* changes are written half
  a second later, or earlier with a batch that was requested meanwhile.

If the file cannot be written, it is left alone for some seconds. Until then requests are settled
at once, without success; then everything that is still true is written again.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Lock
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeAlias

from aioftrackjobs.background import SafeLogger, Waiter
from aioftrackjobs.journal._entry import Entry, Key

if TYPE_CHECKING:
    from aioftrackjobs.journal._file import JournalFile

logger = SafeLogger("aioftrackjobs.journal")

JournalState: TypeAlias = Literal["off", "working", "failing"]
Change: TypeAlias = Literal["working", "failing"]
Work: TypeAlias = "Callable[[JournalFile], Any]"

#: Seconds until deferred changes are written, and so many entries are deleted earlier.
_DEFERRAL, _MANY = 0.5, 64


class Receipt:
    """Settles when all earlier records are written, or cannot be written.

    Args:
        work: What else is to be done with the file, after that.

    Attributes:
        since: When it was requested, in monotonic seconds.
        result: The result of the work.
        is_good: Whether all is written, so that it outlives the process.
        is_settled: Whether there is nothing more to wait for.
        waiter: Wakes the task that waits, if there is one.
    """

    __slots__ = ("is_good", "is_settled", "result", "since", "waiter", "work")

    def __init__(self, work: Work | None = None) -> None:
        self.work: Work | None = work
        self.since: float = time.monotonic()
        self.result: Any = None
        self.is_good: bool = False
        self.is_settled: bool = False
        self.waiter: Waiter | None = None

    def wake(self) -> None:
        """Wake the task that waits. In the event loop."""
        if self.waiter is not None and not self.waiter.done():
            self.waiter.set_result(None)


class Batch(NamedTuple):
    """What is written together.

    Attributes:
        entries: New ones, or those that replace others.
        gone: Keys of entries that are to be deleted.
        fresh: Keys of entries that the file has not had before.
        receipts: What is settled with the batch.
        is_last: Whether the journal is being closed.
    """

    entries: list[Entry]
    gone: list[Key]
    fresh: set[Key]
    receipts: list[Receipt]
    is_last: bool


class Ledger:
    """Keeps what is true, and what of it is not written. All methods may be called in any thread.

    Args:
        path: The file; None for no journal.
        retry: Seconds before a file that failed is tried again.
        note_change: Called, in any thread, when the file fails, or works again.
    """

    def __init__(
        self,
        path: Path | None,
        *,
        retry: float,
        note_change: Callable[[Change], object] | None = None,
    ) -> None:
        self._path = path
        self._note_change = note_change
        self._retry = retry
        self._wakeups = SimpleQueue[None]()  # each item wakes the writer once
        self._lock = Lock()
        # The lock protects all of the following.
        self._entries: dict[Key, Entry] = {}
        self._unwritten: dict[Key, None] = {}
        self._gone: dict[Key, None] = {}  # to be deleted
        self._deferred_since: float | None = None  # the first deferred change
        self._in_file: set[Key] = set()  # the entries of this session that the file may have
        self._receipts: list[Receipt] = []
        self._in_progress: list[Receipt] = []  # those of the batch that is being written
        self._problem: str | None = None
        self._retry_at = 0.0
        self._changes: list[
            tuple[Change, str]
        ] = []  # to be logged once the lock is free: a handler may ask for the health
        self._is_open = False

    @property
    def problem(self) -> str | None:
        """Why the file cannot be written; None if it can."""
        return self._problem

    def entries(self) -> list[Entry]:
        """Return all that is true."""
        with self._lock:
            return list(self._entries.values())

    def has(self, entry: Entry) -> bool:
        """Return whether *entry* is still true, without changes."""
        with self._lock:
            return self._entries.get(entry.key) == entry

    # Recording, in the event loop

    def record(self, entry: Entry, receipt: Receipt) -> bool:
        """Record an *entry* that is new or replaces another; return as :meth:`request_batch`."""
        with self._lock:
            self._entries[entry.key] = entry
            self._unwritten[entry.key] = None
            self._gone.pop(entry.key, None)
            return self._request_batch(receipt)

    def forget(self, key: Key) -> None:
        """Record that an entry is no longer needed."""
        with self._lock:
            if self._entries.pop(key, None) is not None:
                self._unwritten.pop(key, None)
                if key in self._in_file:
                    self._gone[key] = None
                    self._defer()

    def _defer(self) -> None:
        """Have the writer write in a while; the first deferred change starts the clock."""
        if self._deferred_since is None:
            self._deferred_since = time.monotonic()
            self._wakeups.put(None)

    def take_over(self, entries: Iterable[Entry]) -> None:
        """Keep *entries* that the file has, and that belong to this session from now on."""
        with self._lock:
            for entry in entries:
                self._in_file.add(entry.key)
                self._entries.setdefault(entry.key, entry)

    # Requesting a batch

    def request_batch(self, receipt: Receipt) -> bool:
        """Request a batch that settles *receipt*; it is written after a :meth:`wake_writer`.

        Returns:
            Whether the caller has to wake the writer: the request is the first one for its batch.
            If the file cannot be written now, the receipt is settled at once.
        """
        with self._lock:
            return self._request_batch(receipt)

    def _request_batch(self, receipt: Receipt) -> bool:
        if not self._is_open or time.monotonic() < self._retry_at:
            receipt.is_settled = True
            self._defer()  # what is true is written as soon as that is possible
            return False
        self._receipts.append(receipt)
        return len(self._receipts) == 1

    def must_wait(self, receipt: Receipt, new_waiter: Callable[[], Waiter]) -> bool:
        """Return whether a task has to wait for *receipt*, which then has a waiter."""
        with self._lock:
            if not receipt.is_settled and receipt.waiter is None:
                receipt.waiter = new_waiter()
            return not receipt.is_settled

    def wake_writer(self) -> None:
        """Have the writer look for changes."""
        self._wakeups.put(None)

    def open(self) -> None:
        """Take requests, because there is a writer from now on."""
        self._is_open = True

    def close(self, receipt: Receipt) -> bool:
        """Request the last batch; return whether there is going to be one."""
        with self._lock:
            if not self._is_open:
                return False
            self._is_open = False
            self._receipts.append(receipt)
        self._wakeups.put(None)
        return True

    def settle_late(self, stall_limit: float) -> None:
        """Settle, without success, the receipts that are older than *stall_limit*, in seconds.

        If there are any, the file counts as failing.
        """
        with self._lock:
            latest = time.monotonic() - stall_limit
            late = [each for each in (*self._in_progress, *self._receipts) if each.since < latest]
            for receipt in late:
                receipt.is_settled = True
            if late:
                self._fail(f"it takes longer than {stall_limit:g} s", self._retry)
        self._log()

    # For the writer, in its thread

    def wait(self, deadline: float) -> None:
        """Wait until there is something to write, or until *deadline*, in monotonic seconds."""
        while True:
            # What these wake-ups were for is seen below. While batches are requested all the time,
            # nothing would take them, so that they would pile up.
            while not self._wakeups.empty():
                self._wakeups.get()
            with self._lock:
                now, until = time.monotonic(), deadline
                if self._deferred_since is not None:
                    until = min(until, self._deferred_since + _DEFERRAL)
                until = max(until, self._retry_at)
                if self._receipts or now >= until:
                    return
            # Something may be recorded before this line: its wake-up is in the queue then.
            with suppress(Empty):
                self._wakeups.get(timeout=until - now)

    def written(self) -> dict[Key, str | None]:
        """Return the final reports of the entries that the file has to have, by their keys."""
        with self._lock:
            return {
                key: entry.final_report
                for key, entry in self._entries.items()
                if key in self._in_file and key not in self._unwritten
            }

    def take(self) -> Batch:
        """Take all that is to be written."""
        with self._lock:
            is_last, since = not self._is_open, self._deferred_since
            is_due = is_last or (since is not None and time.monotonic() >= since + _DEFERRAL)
            if is_due:
                self._deferred_since = None
            entries = [self._entries[key] for key in self._unwritten]
            self._unwritten.clear()
            # Noted before they are written: a write that seems to fail may have succeeded.
            fresh = {entry.key for entry in entries} - self._in_file
            self._in_file |= fresh
            gone: list[Key] = []
            if is_due or len(self._gone) >= _MANY:
                gone, self._gone = list(self._gone), {}
            self._in_progress, self._receipts = self._receipts, []
            return Batch(entries, gone, fresh, self._in_progress, is_last)

    def note_written(self, batch: Batch) -> None:
        """Note that *batch* is in the file."""
        with self._lock:
            self._in_file.difference_update(batch.gone)

    def settle(self, batch: Batch) -> list[Receipt]:
        """Settle the receipts of *batch*; return those that have a waiter, which is to be woken."""
        with self._lock:
            self._in_progress = []
            for receipt in batch.receipts:
                receipt.is_settled = True
            return [receipt for receipt in batch.receipts if receipt.waiter is not None]

    def note_success(self) -> None:
        """Note that the file can be written."""
        with self._lock:
            if self._problem is not None:
                self._changes.append(("working", ""))
            self._problem, self._retry_at = None, 0.0
        self._log()

    def note_failure(
        self,
        problem: str,
        batch: Batch | None = None,
        *,
        was_open: bool = True,
        retry: float | None = None,
    ) -> None:
        """Note that the file cannot be used, so that it is written anew after a while.

        Args:
            problem: What is wrong with it.
            batch: What was to be written, if anything was.
            was_open: Whether the file may have any part of the batch.
            retry: Seconds until it is tried again; as for a file that fails if None.
        """
        with self._lock:
            if batch is not None:
                self._gone |= {key: None for key in batch.gone if key not in self._entries}
                if not was_open:  # otherwise deletes would pile up while it fails
                    self._in_file -= batch.fresh
                    for key in batch.fresh:
                        self._gone.pop(key, None)
            # All that is true, not only the batch: another file may be in its place by then.
            self._unwritten |= dict.fromkeys(self._entries)
            self._defer()
            self._fail(problem, self._retry if retry is None else min(retry, self._retry))
        self._log()

    def _fail(self, problem: str, retry: float) -> None:
        """Leave the file alone for a while."""
        if self._problem is None:
            self._changes.append(("failing", problem))
        self._problem = problem
        self._retry_at = time.monotonic() + retry

    def _log(self) -> None:
        with self._lock:
            changes, self._changes = self._changes, []
        for change, problem in changes:
            if change == "working":
                logger.warning("the journal %(path)s works again", path=self._path)
            else:
                logger.warning(
                    "the journal %(path)s cannot be used: %(error)s; the work goes on "
                    "without it, but what a "
                    "crash of this process leaves behind is not known after it",
                    path=self._path,
                    error=problem,
                )
            if self._note_change is not None:
                self._note_change(change)
