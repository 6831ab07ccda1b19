"""Journal: a session's part of the journal, as the event loop uses it."""

from __future__ import annotations

import time
from collections.abc import Callable, Coroutine
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias
from uuid import uuid4

import anyio
from anyio.to_thread import run_sync

from aioftrackjobs.background import Waiter, loop_caller, turn_end_caller
from aioftrackjobs.config.timings import DEFAULT_TIMINGS, Timings
from aioftrackjobs.errors import ConfigurationError, SessionStateError
from aioftrackjobs.journal._entry import Entry, Owner
from aioftrackjobs.journal._ledger import JournalState, Ledger, Receipt
from aioftrackjobs.journal._process import this_process

if TYPE_CHECKING:
    from aioftrackjobs.journal._file import JournalFile

Spawn: TypeAlias = Callable[[Callable[[], Coroutine[Any, Any, None]]], object]

#: Seconds after which a task goes on, at most, if the writer's call does not arrive.
_LOST_CALL = 0.5


class Journal:
    """A session's part of the journal.

    Args:
        path: The file; None for no journal, where nothing is kept and nothing is waited for.
        server_url: The server of the Jobs.
        api_user: The user of the session.
        timings: Times that tests shorten.
        note_change: Called, in any thread, when it fails, or works again.

    Attributes:
        holder: The name of the session in leases and in its entries.
    """

    def __init__(
        self,
        path: Path | None,
        *,
        server_url: str,
        api_user: str,
        timings: Timings = DEFAULT_TIMINGS,
        note_change: Callable[[Literal["working", "failing"]], object] | None = None,
    ) -> None:
        self._path = path
        self._server_url, self._api_user = server_url, api_user
        self._timings = timings
        self.holder: str = uuid4().hex
        self._ledger = Ledger(path, retry=timings.journal_retry, note_change=note_change)
        self._is_watched = False
        self._awaited = set[Receipt]()

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
        """Return the entries with a final report that the server has not acknowledged.

        The oldest comes first.
        """
        return [entry for entry in self.unsettled() if entry.final_report is not None]

    def unsettled(self) -> list[Entry]:
        """Return the entries with a final report, and those of dead processes, the oldest first."""
        found = [
            entry
            for entry in self._ledger.entries()
            if entry.lost_host is not None
            or (entry.final_report is not None and entry.kind == "job")
        ]
        return sorted(found, key=lambda entry: entry.since)

    def has(self, entry: Entry) -> bool:
        """Return whether *entry* is still true, without changes."""
        return self._ledger.has(entry)

    def keeps_job(self, job_id: str) -> bool:
        """Return whether this session has something to report about the Job with this id."""
        return any(entry.key == ("job", job_id) for entry in self._ledger.entries())

    # Recording

    async def record_job(self, job_id: str) -> bool:
        """Record that the session runs a Job; returns when that is written, or cannot be.

        Returns:
            Whether it is written, so that it outlives the process.
        """
        return await self._record_and_wait("job", job_id)

    async def record_upload(self, component_id: str) -> bool:
        """Record that bytes of a component are about to be sent; waits as ``record_job`` does."""
        return await self._record_and_wait("upload", component_id)

    async def _record_and_wait(self, kind: str, id_: str) -> bool:
        if self._path is None:
            return False
        receipt = self._record(Entry(kind, id_, self.holder, time.time()))
        return await self.wait_until_written(receipt)

    def record_final_report(self, job_id: str, report: str) -> Receipt:
        """Record the final report of a Job, as JSON text.

        Returns:
            A receipt for :meth:`wait_until_written`.
        """
        return self._record(Entry("job", job_id, self.holder, time.time(), report))

    def record_start(self, job_id: str, report: str) -> Receipt:
        """Record what a Job is created with if this process dies before the server has it.

        Args:
            job_id: The id that it is going to have.
            report: Its final report, as JSON text.
        """
        return self._record(Entry("start", job_id, self.holder, time.time(), report))

    def replace_start(self, start: Entry, report: str) -> None:
        """Replace the start of a dead process by a final report, unless there is one already."""
        job = ("job", start.id)
        if not any(each.key == job and each.final_report for each in self._ledger.entries()):
            since = start.lost_at or start.since
            self._record(start._replace(kind="job", since=since, final_report=report))
        self._ledger.forget(start.key)

    def _record(self, entry: Entry) -> Receipt:
        receipt = Receipt()
        if self._ledger.record(entry, receipt):
            self._wake_writer()
        return receipt

    async def wait_until_written(self, receipt: Receipt) -> bool:
        """Wait for *receipt*; return as :meth:`record_job` does."""
        if self._ledger.must_wait(receipt, self._new_waiter):
            assert receipt.waiter is not None  # noqa: S101 - for type checkers
            self._awaited.add(receipt)
            try:
                self._ensure_watched()
                await receipt.waiter
            finally:
                self._awaited.discard(receipt)
        return receipt.is_good

    def release_job(self, job_id: str) -> None:
        """Forget a Job: the server knows how it ended, or it never began."""
        self._ledger.forget(("job", job_id))

    def release_start(self, job_id: str) -> None:
        """Forget what a Job is created with: the server has it, or a final report says more."""
        self._ledger.forget(("start", job_id))

    def release_upload(self, component_id: str) -> None:
        """Forget an upload: it is registered, or removed."""
        self._ledger.forget(("upload", component_id))

    async def claim(self) -> bool:
        """Take over what dead processes have left; :meth:`unsettled` returns it from then on.

        Returns:
            Whether there may be more: because it is not certain whether a process lives, or
            because the file cannot be used now.
        """
        if self._path is None:
            return False
        receipt = Receipt(self._claim)
        if self._ledger.request_batch(receipt):
            self._wake_writer()
        return not await self.wait_until_written(receipt) or receipt.result

    def _claim(self, file: JournalFile) -> bool:
        entries, undecided = file.claim(time.time())
        self._ledger.take_over(entries)
        return undecided

    def _wake_writer(self) -> None:
        # At the end of the turn: one batch then has what all tasks of this turn have recorded.
        self._at_turn_end(self._ledger.wake_writer)

    def _ensure_watched(self) -> None:
        if not self._is_watched:
            with suppress(SessionStateError):  # the session ends, and so does the task that waits
                self._spawn(self._watch)
                self._is_watched = True

    async def _watch(self) -> None:
        """Let no task wait for long.

        One task watches over all waits, because a time-out for each would cost too much.
        """
        stall_limit = self._timings.journal_stall_limit / 2
        try:
            while self._awaited:
                await anyio.sleep(min(stall_limit, _LOST_CALL))
                self._ledger.settle_late(stall_limit)
                self._wake_settled()
        finally:
            self._is_watched = False

    def _wake_settled(self) -> None:
        """Wake the tasks whose receipts are settled.

        The writer does so, too, by a call into the event loop. That is lost when a forked process
        leaves the loop: it closes what wakes both of them.
        """
        for receipt in self._awaited:
            if receipt.is_settled:
                receipt.wake()

    # From start to end

    async def require_usable(self) -> None:
        """Raise ConfigurationError if no journal can be at its path.

        A file that cannot be used for another reason, which may pass, is no error: the work goes on
        without it, and it is tried again.
        """
        if self._path is None:
            return
        from aioftrackjobs.journal._place import find_problem  # late, as in start()

        problem: str | None = None
        with anyio.move_on_after(self._timings.journal_stall_limit):
            problem = await run_sync(find_problem, self._path, abandon_on_cancel=True)
        if problem is not None:
            raise ConfigurationError(
                [
                    f"the journal {self._path} cannot be used: {problem} "
                    "(argument journal or FTRACK_JOBS_JOURNAL)"
                ]
            )

    def start(self, new_waiter: Callable[[], Waiter], spawn: Spawn) -> None:
        """Start the writer; in the event loop.

        Args:
            new_waiter: Makes what a task of the event loop waits for.
            spawn: Runs a function in the background.
        """
        self._new_waiter, self._spawn = new_waiter, spawn
        self._at_turn_end = turn_end_caller()
        if self._path is not None:
            # The owner is made here, and not with the session: if a process makes a session and
            # then forks, each child that opens the session is an owner of its own.
            owner = Owner(uuid4().hex, this_process(), self._server_url, self._api_user)
            from aioftrackjobs.journal._writer import Writer  # late: few sessions have a journal

            self._ledger.open()
            Writer(
                self._path,
                owner,
                self._ledger,
                loop_caller(),
                busy_timeout=self._timings.journal_busy_timeout,
            ).start()

    async def aclose(self) -> None:
        """Write what is left, and close the file."""
        if self._path is not None:
            receipt = Receipt(lambda file: file.end())
            if self._ledger.close(receipt):
                with anyio.move_on_after(self._timings.journal_stall_limit):
                    async with anyio.create_task_group() as group:
                        group.start_soon(self._watch_end)
                        await self.wait_until_written(receipt)
                        group.cancel_scope.cancel()

    async def _watch_end(self) -> None:
        """Watch over the last wait, when the background tasks have ended."""
        while True:
            await anyio.sleep(_LOST_CALL)
            self._wake_settled()
