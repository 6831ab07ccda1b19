"""JobsOfSession: the methods of a session about Jobs that it does not run itself."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any
from uuid import UUID

from aioftrackjobs.config.settings import is_id, require, require_count, require_text
from aioftrackjobs.entities.queries import Query
from aioftrackjobs.jobs.block import check_arguments
from aioftrackjobs.jobs.context import JobsContext
from aioftrackjobs.jobs.stop_writing import stop_job
from aioftrackjobs.jobs.waiting import JobWatch, jobs_of_session, require_created
from aioftrackjobs.models import Entity, Job, JobState


class JobsOfSession:
    """What :class:`AsyncSession` does with Jobs that it does not run."""

    _jobs: JobsContext

    async def claim_job(self, query: Query[Any] | str, *, spread: int = 8) -> Job | None:
        """Claim one of the queued Jobs that *query* finds, for this session; None if none is free.

        Any number of daemons may do so at the same time; each Job goes to one of them. It stays
        queued, with a lease, until :func:`job_context` begins it::

            job = await session.claim_job('Job where status is "queued" order by created_at')
            if job is not None:
                async with job_context(session, job=job):
                    ...

        A claim takes at least half a second: it is written, and then read back. If the Job is not
        begun within the session's *lease*, or its process dies, it is free again.

        Args:
            query: Finds Jobs. Those that are not queued, or not free, do not count.
            spread: The Job is one of the first *spread* free ones, at random, so that not all
                daemons try the same one; 1 for the order of the query.

        Raises:
            ServerError: The server refused the query, or the user may not change the Jobs.
            TransportError: The server could not be reached.
        """
        self._jobs.require_open()
        require(isinstance(query, Query | str), "query", "a query of Jobs, or its text", query)
        require_count("spread", spread)
        expression = query if isinstance(query, str) else query.expression
        return await self._jobs.claims.claim(expression, spread=spread)

    async def queue_job(
        self,
        key: UUID | None = None,
        *,
        user: Entity | str | UUID | None = None,
        description: str | None = None,
        data: Mapping[str, Any] | str | None = None,
    ) -> Job:
        """Create a Job as queued, where its work is sent to a queue; return it.

        ::

            key = job_key("celery", "renders", task.id, redelivered_within=3600)
            job = await session.queue_job(key, user="maya", description="Render sh010")

        If the Job with this key is there already, it is returned as it is: a worker may have begun
        it before. If ftrack cannot be reached, the work can be sent all the same: its worker
        creates the Job then.

        Args:
            key: The key of the task, from :func:`job_key`; or the id of the new Job, a random one
                if None. Without a key, :meth:`claim_job` gives the Job to one of many daemons.
            user: The user that sees it, or its id or name; the session's own user if None.
            description: The text in the jobs menu.
            data: More values to keep in the Job's ``data``, as a mapping or JSON text.

        Raises:
            ArgumentError: An argument has a wrong type or value.
            NoResultFoundError: There is no such user.
            ServerError: The server refused it.
            TransportError: The server could not be reached.
            CommitUncertainError: It is not known whether the Job was created.
        """
        self._jobs.require_open()
        require(key is None or isinstance(key, UUID), "key", "a key from job_key", key)
        check_arguments(type(self), self, user=user, description=description, data=data)
        from aioftrackjobs.jobs.queueing import queue_job  # late: only producers need it

        return await queue_job(self._jobs, key, user=user, description=description, data=data)

    async def wait_for(
        self, jobs: Job | str | UUID | Iterable[Job | str | UUID], *, timeout: float | None = None
    ) -> list[JobState]:
        """Wait until *jobs* are done, failed or deleted, wherever they run; return their states.

        ::

            for state in await session.wait_for(jobs, timeout=3600):
                if not state.is_done:
                    print(state.id, state)  # Render sh010 - failed: OSError: disk full (failed)

        The session reads the Jobs from time to time: after a second, and less and less often, up
        to every ten seconds, as long as none of them changes. All tasks that wait share the
        queries. While the server does not respond, they go on waiting. The entities have the
        values that were read.

        Args:
            jobs: Jobs of this session, or their ids; one or several.
            timeout: Seconds after which the states are returned although not all Jobs have ended:
                ``has_ended`` of some is false then. None to wait for ever.

        Returns:
            The state of each Job, in the order of *jobs*.

        Raises:
            EntityError: A Job belongs to another session, or is not yet committed.
            SessionStateError: The session is closed, also while this waits.
            ServerError: The server refuses to return the Jobs, three times.
        """
        self._jobs.require_open()
        found = jobs_of_session(self._jobs.entities, jobs)
        await require_created(self._jobs.entities, found)
        return await self._jobs.poll.wait_for(found, timeout)

    def watch(self, jobs: Job | str | UUID | Iterable[Job | str | UUID]) -> JobWatch:
        """Return the changes of *jobs*, until all have ended, for ``async for``.

        ::

            async for job in session.watch(jobs):
                print(job.id, job.status, job.description, job.progress)

        The first read gives the state of each Job; after that, each :class:`JobState` has another
        status, text or progress than the one before. If the loop is slower than the changes, it
        gets the latest state of each Job. They are read, and errors are raised, as by
        :meth:`wait_for`.

        Args:
            jobs: Jobs of this session, or their ids; one or several.
        """
        self._jobs.require_open()
        return JobWatch(self._jobs.poll, self._jobs.entities, jobs)

    async def stop_job(
        self, job: Job | str | UUID, reason: str | None = None, *, by: str | None = None
    ) -> JobState:
        """Stop a Job, wherever it runs: it fails as "stopped by maya: wrong shot".

        ::

            state = await session.stop_job(job, "wrong shot")
            if not state.has_ended:
                state = await job.wait(timeout=60)

        A request to stop is written into the ``data`` of a Job that runs; the rest of it stays. A
        session of this package sees that within seconds, and cancels the block. A Job that waits
        in a queue, or whose owner is dead, fails at once. One that has ended is left alone.

        Args:
            job: A Job of any session, or its id.
            reason: Why, for the text of the Job.
            by: Who stops it; the user of the session if None.

        Returns:
            The state of the Job now. If it has not ended, it has the request.

        Raises:
            NoResultFoundError: There is no such Job.
            ServerError: The user may not change the Job.
            TransportError: The server could not be reached.
        """
        self._jobs.require_open()
        require_text("reason", reason, optional=True)
        require_text("by", by, optional=True)
        require(isinstance(job, Job | UUID) or is_id(job), "job", "a Job, or its id", job)
        return await stop_job(self._jobs, job, reason, by)
