"""What a session has to say to its journal's file: shared by the event loop and the writer.

Each change is noted at once, and written by the next batch, whoever asks for that. The end of an
entry is nobody's expedite: it waits until there are many, or for half a second.

The ledger has some *spare* ids, too, whose entries are written before there are Jobs to take them:
a Job that begins alone finds its entry in the file, and waits for nothing. A crowd waits for one
batch, and stays together: its next request is one, too. So a process that dies leaves the entries
of some Jobs that the server never hears of, as one does that dies between an entry and its Job.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Lock
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeAlias
from uuid import uuid4

from aioftrackjobs.background import Waiter
from aioftrackjobs.journal._entry import Entry, Key

if TYPE_CHECKING:
    from aioftrackjobs.journal._file import JournalFile

logger = logging.getLogger("aioftrackjobs.journal")

JournalState: TypeAlias = Literal["off", "working", "failing"]
Work: TypeAlias = "Callable[[JournalFile], Any]"

#: Seconds that changes wait which nobody waits for; and so many entries are deleted at once.
_LAZINESS, _MANY = 0.5, 64
#: Seconds before a file that failed is tried again.
_RETRY = 10.0
#: Spare ids, and how many of them are left when more are made.
_SPARE, _FEW = 8, 4


class Receipt:
    """Tells when all that was noted before it is written, or cannot be.

    Args:
        work: What else is to be done with the file, after that.

    Attributes:
        since: When it was asked for, in monotonic seconds.
        result: Of the work.
        is_good: Whether all is written, and so outlives the process.
        is_answered: Whether there is no more to wait for.
        latch: Opens then, if anybody waits.
    """

    __slots__ = ("is_answered", "is_good", "latch", "result", "since", "work")

    def __init__(self, work: Work | None = None) -> None:
        self.work = work
        self.since = time.monotonic()
        self.result: Any = None
        self.is_good = self.is_answered = False
        self.latch: Waiter | None = None

    def wake(self) -> None:
        """Wake who waits. In the event loop."""
        if self.latch is not None and not self.latch.done():
            self.latch.set_result(None)


class Batch(NamedTuple):
    """What is written together.

    Attributes:
        entries: New ones, or those that replace others.
        spare: Entries for Jobs to come.
        gone: Keys of entries that are to be deleted.
        fresh: Keys of entries that the file has not had before.
        receipts: Who waits for it.
        is_last: Whether the journal is being closed.
    """

    entries: list[Entry]
    spare: list[Entry]
    gone: list[Key]
    fresh: set[Key]
    receipts: list[Receipt]
    is_last: bool


class Ledger:
    """Keeps what is true, and what of it is not written. All of it may be used from any thread.

    Args:
        path: The file; None for no journal.
        holder: Names the session in its entries.
    """

    def __init__(self, path: Path | None, holder: str) -> None:
        self._path = path
        self._holder = holder
        self._bell = SimpleQueue[None]()  # wakes the writer
        self._lock = Lock()
        # All of the following under it.
        self._entries: dict[Key, Entry] = {}
        self._unwritten: dict[Key, None] = {}
        self._gone: dict[Key, None] = {}  # to be deleted
        self._lazy_since: float | None = None  # of the first change that nobody waits for
        self._in_file: set[Key] = set()  # of ours, or it may be
        self._spare = deque[str]()
        self._is_crowded = False  # many waited for the last batch
        self._wants_spare = False  # a session without Jobs needs none
        self._receipts: list[Receipt] = []
        self._served: list[Receipt] = []  # those of the batch that is being written
        self._problem: str | None = None
        self._retry_at = 0.0
        self._wakes_at = 0.0  # when the writer looks for changes next
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
        """Tell whether *entry* is still what is known."""
        with self._lock:
            return self._entries.get(entry.key) == entry

    # Noting

    def note(self, entry: Entry, receipt: Receipt) -> bool:
        """Note a new *entry*, or one that replaces another; return as :meth:`ask` does."""
        with self._lock:
            self._entries[entry.key] = entry
            self._unwritten[entry.key] = None
            self._gone.pop(entry.key, None)
            return self._ask(receipt)

    def forget(self, key: Key) -> None:
        """Note that an entry is no longer needed."""
        with self._lock:
            if self._entries.pop(key, None) is not None:
                self._unwritten.pop(key, None)
                if key in self._in_file:
                    self._gone[key] = None
                    self._note_lazy(time.monotonic())

    def _note_lazy(self, now: float) -> None:
        if self._lazy_since is None:
            self._lazy_since = now
        if self._wakes_at > max(self._lazy_since + _LAZINESS, self._retry_at):
            self._bell.put(None)

    def take_over(self, entries: Iterable[Entry]) -> None:
        """Keep *entries* that the file holds, and that are ours from now on."""
        with self._lock:
            for entry in entries:
                self._in_file.add(entry.key)
                self._entries.setdefault(entry.key, entry)

    def take_spare(self, now: float) -> str | None:
        """Return the id of a Job whose entry is in the file; None if there is none to be had."""
        with self._lock:
            self._wants_spare = True
            if self._is_crowded or not self._spare:
                return None
            job_id = self._spare.popleft()
            self._note_lazy(time.monotonic())  # to make another, and see that the file is there
            entry = Entry("job", job_id, self._holder, now)
            self._entries[entry.key] = entry
            return job_id

    # Asking

    def ask(self, receipt: Receipt) -> bool:
        """Ask for a batch, as soon as the writer is rung for.

        Returns:
            Whether nobody has asked for it before, and the writer is to be rung for. If it cannot
            be written now, that is answered at once.
        """
        with self._lock:
            return self._ask(receipt)

    def _ask(self, receipt: Receipt) -> bool:
        now = time.monotonic()
        if not self._is_open or now < self._retry_at:
            receipt.is_answered = True
            self._note_lazy(now)  # nobody waits, but what is true is written as soon as it can be
            return False
        self._receipts.append(receipt)
        return len(self._receipts) == 1

    def must_wait(self, receipt: Receipt, new_waiter: Callable[[], Waiter]) -> bool:
        """Tell whether *receipt* is to be waited for; it has a latch then."""
        with self._lock:
            if not receipt.is_answered and receipt.latch is None:
                receipt.latch = new_waiter()
            return not receipt.is_answered

    def ring(self) -> None:
        """Have the writer look for changes."""
        self._bell.put(None)

    def open(self) -> None:
        """Take questions, as there is a writer from now on."""
        self._is_open = True

    def close(self, receipt: Receipt) -> bool:
        """Ask for the last batch; return whether there is going to be one."""
        with self._lock:
            if not self._is_open:
                return False
            self._is_open = False
            self._receipts.append(receipt)
        self._bell.put(None)
        return True

    @property
    def is_asked(self) -> bool:
        """Whether anybody waits for something to be written."""
        return bool(self._receipts or self._served)

    def late(self, patience: float) -> list[Receipt]:
        """Return the receipts of those who wait for longer than *patience*, in seconds.

        If there are any, the file counts as one that fails.
        """
        with self._lock:
            latest = time.monotonic() - patience
            late = [each for each in (*self._served, *self._receipts) if each.since < latest]
            for receipt in late:
                receipt.is_answered = True
            if late:
                self._fail(f"it takes longer than {patience:g} s")
            return late

    # The writer's

    def wait(self, deadline: float) -> None:
        """Wait until there is something to write, or until *deadline*, in monotonic seconds."""
        while True:
            with self._lock:
                now = time.monotonic()
                if self._lazy_since is not None:
                    deadline = min(deadline, self._lazy_since + _LAZINESS)
                until = max(deadline, self._retry_at)
                is_over = bool(self._receipts) or now >= until
                self._wakes_at = 0.0 if is_over else until
            if is_over:
                return
            with suppress(Empty):
                self._bell.get(timeout=until - now)

    def take(self, now: float) -> Batch:
        """Take all that is to be written."""
        with self._lock:
            is_last = not self._is_open
            since = self._lazy_since
            is_due = is_last or (since is not None and time.monotonic() >= since + _LAZINESS)
            if is_due:
                self._lazy_since = None
            entries = [self._entries[key] for key in self._unwritten]
            self._unwritten.clear()
            spare = [] if is_last else self._make_spare(now, few=_SPARE if is_due else _FEW)
            if is_last:
                self._drop_spare()
            # A failure may come after it is written.
            fresh = {entry.key for entry in (*entries, *spare)} - self._in_file
            self._in_file |= fresh
            gone: list[Key] = []
            if is_due or len(self._gone) >= _MANY:
                gone, self._gone = list(self._gone), {}
            self._served, self._receipts = self._receipts, []
            self._is_crowded = len(self._served) > 1
            return Batch(entries, spare, gone, fresh, self._served, is_last)

    def _make_spare(self, now: float, *, few: int) -> list[Entry]:
        # None for a file that fails: each attempt would leave some to be deleted.
        if not self._wants_spare or self._problem is not None or len(self._spare) > few:
            return []
        missing = _SPARE - len(self._spare)
        return [Entry("job", str(uuid4()), self._holder, now) for _ in range(missing)]

    def _drop_spare(self) -> None:
        self._gone |= {("job", job_id): None for job_id in self._spare}
        self._spare.clear()

    def note_written(self, batch: Batch) -> None:
        """Note that *batch* is in the file."""
        with self._lock:
            self._in_file.difference_update(batch.gone)
            self._spare.extend(entry.id for entry in batch.spare)

    def note_answered(self, batch: Batch) -> list[Receipt]:
        """Note that *batch* is dealt with, whatever became of it; return who is to be woken."""
        with self._lock:
            self._served = []
            for receipt in batch.receipts:
                receipt.is_answered = True
            return [receipt for receipt in batch.receipts if receipt.latch is not None]

    def note_success(self) -> None:
        """Note that the file can be written."""
        with self._lock:
            if self._problem is not None:
                logger.warning("the journal %s works again", self._path)
            self._problem, self._retry_at = None, 0.0

    def note_failure(
        self, problem: str, batch: Batch | None = None, *, was_open: bool = True
    ) -> None:
        """Note that the file is lost, maybe with *batch*, and is to be written anew some time.

        Args:
            problem: What is wrong with it.
            batch: What was to be written, if anything was.
            was_open: Whether any of that may be in it.
        """
        with self._lock:
            self._drop_spare()
            if batch is not None:
                self._gone |= {key: None for key in batch.gone if key not in self._entries}
                self._gone |= dict.fromkeys(entry.key for entry in batch.spare)
                if not was_open:  # else what ends while it fails would pile up
                    self._in_file -= batch.fresh
                    for key in batch.fresh:
                        self._gone.pop(key, None)
            # All that is true, not only what was tried: it may be another file by then.
            self._unwritten |= dict.fromkeys(self._entries)
            self._note_lazy(time.monotonic())
            self._fail(problem)

    def _fail(self, problem: str) -> None:
        """Leave the file alone for a while."""
        if self._problem is None:
            logger.warning(
                "the journal %s cannot be used: %s; the work goes on without it, but what a crash "
                "of this process leaves behind is not known after it",
                self._path,
                problem,
            )
        self._problem = problem
        self._retry_at = time.monotonic() + _RETRY
