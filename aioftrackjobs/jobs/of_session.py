"""JobsOfSession: the methods of a session about Jobs that others run, or that nobody runs yet."""

from __future__ import annotations

from typing import Any

from aioftrackjobs.config.settings import require, require_count
from aioftrackjobs.entities.queries import Query
from aioftrackjobs.jobs.context import JobsContext
from aioftrackjobs.models import Job


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
