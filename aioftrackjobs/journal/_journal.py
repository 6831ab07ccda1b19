"""A session's part of the journal, as the session sees it."""

from __future__ import annotations

import time
from collections.abc import Callable, Coroutine
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias
from uuid import uuid4

import anyio

from aioftrackjobs.background import Waiter, loop_caller, turn_end_caller
from aioftrackjobs.errors import SessionStateError
from aioftrackjobs.journal._entry import Entry, Owner
from aioftrackjobs.journal._ledger import JournalState, Ledger, Receipt
from aioftrackjobs.journal._process import this_process

if TYPE_CHECKING:
    from aioftrackjobs.journal._file import JournalFile

#: Seconds that anybody waits for the file, at most.
_PATIENCE = 5.0

Spawn: TypeAlias = Callable[[Callable[[], Coroutine[Any, Any, None]]], object]


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
        self._ledger = Ledger(path, self._holder)
        self._watched = False

    @property
    def holder(self) -> str:
        """What names the session in leases and in its entries."""
        return self._holder

    @property
    def state(self) -> JournalState:
        """Whether there is a journal, and whether it can be written."""
        if self._path is None:
            return "off"
        return "working" if self._ledger.problem is None else "failing"

    @property
    def problem(self) -> str | None:
        """Why it cannot be written; None if it can."""
        return self._ledger.problem

    def pending_final_reports(self) -> list[Entry]:
        """Return the last words that were not acknowledged, the oldest first."""
        return [entry for entry in self.unsettled() if entry.final_report is not None]

    def unsettled(self) -> list[Entry]:
        """Return what somebody has to see to, the oldest first: last words, and what is lost."""
        found = [
            entry
            for entry in self._ledger.entries()
            if entry.final_report is not None or entry.lost_host is not None
        ]
        return sorted(found, key=lambda entry: entry.since)

    def has(self, entry: Entry) -> bool:
        """Tell whether *entry* is still what is known."""
        return self._ledger.has(entry)

    # Keeping

    async def own_new(self) -> str:
        """Return the id of a Job that the session is going to create and run.

        That is written by then, or cannot be.
        """
        if self._path is None:
            return str(uuid4())
        if (job_id := self._ledger.take_spare(time.time())) is None:
            job_id = str(uuid4())
            try:
                await self.record_job(job_id)
            except BaseException:
                self.release_job(job_id)
                raise
        return job_id

    async def record_job(self, job_id: str) -> bool:
        """Note that the session runs a Job; returns when that is written, or cannot be.

        Returns:
            Whether it is written, and so outlives the process.
        """
        return await self._keep_written("job", job_id)

    async def record_upload(self, component_id: str) -> bool:
        """Note that bytes of a component are about to be sent; returns as ``record_job``."""
        return await self._keep_written("upload", component_id)

    async def _keep_written(self, kind: str, id_: str) -> bool:
        if self._path is None:
            return False
        return await self.wait_until_written(
            self._keep(Entry(kind, id_, self._holder, time.time()))
        )

    def record_final_report(self, job_id: str, word: str) -> Receipt:
        """Note the last word of a Job, as JSON, and have it written.

        Returns:
            What *written* waits for.
        """
        return self._keep(Entry("job", job_id, self._holder, time.time(), word))

    def _keep(self, entry: Entry) -> Receipt:
        receipt = Receipt()
        if self._ledger.note(entry, receipt):
            self._ring()
        return receipt

    async def wait_until_written(self, receipt: Receipt) -> bool:
        """Wait for *receipt*; return as :meth:`record_job` does."""
        if self._ledger.must_wait(receipt, self._new_latch):
            assert receipt.latch is not None  # noqa: S101 - for type checkers
            self._have_watched()
            await receipt.latch
        return receipt.is_good

    def release_job(self, job_id: str) -> None:
        """Forget a Job: the server knows how it ended, or that it never began."""
        self._ledger.forget(("job", job_id))

    def release_upload(self, component_id: str) -> None:
        """Forget an upload: it is registered, or removed."""
        self._ledger.forget(("upload", component_id))

    async def claim(self) -> bool:
        """Take over what others have left; it is among what is *unsettled* then.

        Returns:
            Whether there may be more: it cannot be told if a process lives, or the file be used.
        """
        if self._path is None:
            return False
        receipt = Receipt(self._claim)
        if self._ledger.ask(receipt):
            self._ring()
        return not await self.wait_until_written(receipt) or receipt.result

    def _claim(self, file: JournalFile) -> bool:
        entries, undecided = file.claim(time.time())
        self._ledger.take_over(entries)
        return undecided

    def _ring(self) -> None:
        self._at_turn_end(self._ledger.ring)  # with all that come in the same turn

    def _have_watched(self) -> None:
        if not self._watched:
            with suppress(SessionStateError):  # it ends, and so does who waits
                self._spawn(self._watch)
                self._watched = True

    async def _watch(self) -> None:
        """Let nobody wait for long: a task for all, as a time-out of each would cost too much."""
        try:
            while self._ledger.is_asked:
                await anyio.sleep(_PATIENCE / 2)
                for receipt in self._ledger.late(_PATIENCE / 2):
                    receipt.wake()
        finally:
            self._watched = False

    # From start to end

    def start(self, new_waiter: Callable[[], Waiter], spawn: Spawn) -> None:
        """Start the writer; in the event loop.

        Args:
            new_waiter: Makes what is waited for in the event loop.
            spawn: Runs a function in the background.
        """
        self._new_latch, self._spawn = new_waiter, spawn
        self._at_turn_end = turn_end_caller()
        if self._path is not None:
            # Made here, as a session may be made by a process that forks, and opened by its
            # children: each is an owner of its own.
            owner = Owner(uuid4().hex, this_process(), self._server_url, self._api_user)
            from aioftrackjobs.journal._writer import Writer  # late: few sessions have a journal

            self._ledger.open()
            Writer(self._path, owner, self._ledger, loop_caller()).start()

    async def aclose(self) -> None:
        """Write what is left, and close the file."""
        if self._path is not None:
            receipt = Receipt(lambda file: file.end())
            if self._ledger.close(receipt):
                with anyio.move_on_after(_PATIENCE):
                    await self.wait_until_written(receipt)
