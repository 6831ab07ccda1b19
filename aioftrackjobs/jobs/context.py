"""JobsContext: what the Jobs of one session share."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING

import anyio

from aioftrackjobs.background import BackgroundTasks
from aioftrackjobs.commit.api_client import ServerStatus
from aioftrackjobs.config.retry import RetryPolicy
from aioftrackjobs.config.secret import Secret
from aioftrackjobs.entities.context import EntityContext
from aioftrackjobs.jobs.channels import ProgressWriters
from aioftrackjobs.jobs.claims import Claims
from aioftrackjobs.jobs.job_events import JobEvents
from aioftrackjobs.jobs.journal_replay import JournalReplay
from aioftrackjobs.jobs.leases import ActiveJobs
from aioftrackjobs.jobs.reading import JobReader
from aioftrackjobs.jobs.waiting import JobPoll
from aioftrackjobs.journal import Journal

if TYPE_CHECKING:
    from aioftrackjobs.telemetry import SafeObserver


class JobsContext:
    """The one collaborator of a Job's lifecycle; a session has one for all its Jobs.

    Args:
        entities: The entities of the session, and its connection.
        lease: Seconds that the lease of a running Job lasts; 0 for no leases.

    Attributes:
        background: Where work runs that no caller may cancel.
        journal: What a crash must not lose.
        server: What is known of the server: whether it responds, and its time.
        retry: How to repeat what may be repeated.
        send_within: Seconds from the read of a Job until the write that is made from it leaves.
        reader: Reads what others have written in them.
        active: The Jobs that run.
        claims: Which of the Jobs that exist already this session may begin.
        poll: Reads Jobs that tasks wait for.
        events: Wakes these two when an event says that a Job has changed.
        progress: What writes their progress and renews their leases.
        replay: Delivers what the journal keeps.
        creating: Jobs of engines that a task creates or begins now, by their ids.
        observer: What watches the session; None for nothing.
    """

    def __init__(self, entities: EntityContext, *, lease: float) -> None:
        connection = entities.connection
        self.entities = entities
        self.background: BackgroundTasks = connection.background
        self.journal: Journal = connection.journal
        self.server: ServerStatus = connection.server_status
        self.retry: RetryPolicy = connection.retry
        self.observer: SafeObserver | None = connection.observer
        self.send_within: float = connection.timings.data_send_limit
        self.reader: JobReader = JobReader(entities)
        self.events: JobEvents = JobEvents(self._wake)
        self.active: ActiveJobs = ActiveJobs(
            connection.background,
            connection.server_status,
            connection.journal,
            self.reader,
            connection,
            seconds=lease,
            period=connection.timings.job_read_interval,
            listen=self.events.listen,
        )
        self.claims: Claims = Claims(entities, lease=lease)
        self.poll: JobPoll = JobPoll(entities, self.reader, listen=self.events.listen)
        entities.wait_for_job = self.poll.wait_for_one
        self.progress: ProgressWriters = ProgressWriters(
            connection.background, self.reader, connection.retry, connection.server_status.pauses
        )
        self.replay: JournalReplay = JournalReplay(entities)
        self.creating: dict[str, anyio.Event] = {}
        connection.end_jobs = self._end_jobs

    async def _end_jobs(self) -> None:
        self.poll.close()
        await self.active.close()
        await self.claims.close()

    def _wake(self, ids: Collection[str] | None) -> None:
        self.poll.wake(ids)
        self.active.wake(ids)

    def require_open(self) -> None:
        """Raise SessionStateError unless the session is open, and is not being closed."""
        self.entities.connection.require_open()

    def environment(self, given: Mapping[str, str] | None) -> Mapping[str, str] | None:
        """Return the variables that a command gets: *given*, and what continues the trace."""
        if self.observer is None or (given is not None and not isinstance(given, Mapping)):
            return given
        found = {name.upper(): value for name, value in self.observer.carrier().items()}
        return {**found, **(given or {})}

    @property
    def api_key(self) -> Secret[str]:
        """The API key, which must not appear in any text."""
        return self.entities.connection.credentials.api_key
