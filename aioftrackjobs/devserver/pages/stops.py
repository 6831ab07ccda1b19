"""Stop requests of the page, which stay until the owners of their Jobs have seen them.

The owner of a Job writes all its data, as it has read them shortly before. So it may overwrite a
request that was written in between, and then never see it. Such a request is written again, until
the owner writes data in which it stands: it has read it by then.
"""

from __future__ import annotations

import anyio

from aioftrackjobs.devserver.api_errors import ApiError
from aioftrackjobs.devserver.auth import Identity
from aioftrackjobs.devserver.engine import Engine
from aioftrackjobs.devserver.pages import jobs
from aioftrackjobs.devserver.pages.access import Run
from aioftrackjobs.devserver.pages.job_feed import JobFeed, data_of
from aioftrackjobs.devserver.pages.streams import Streams
from aioftrackjobs.devserver.store.change_log import Change

#: Seconds for which a request is kept, and how often it is written again: some programs write data
#: without reading them, and do not know requests at all.
_KEPT_FOR, _REPETITIONS = 60.0, 20


class _Watch:
    """What becomes of one request.

    Attributes:
        is_lost: Whether it was overwritten.
        is_over: Whether the owner has seen it, or there is nothing to stop any more.
    """

    def __init__(self) -> None:
        self.is_lost = False
        self.is_over = False

    def note(self, change: Change) -> None:
        """Take note of a change of the Job."""
        if change.after is None or change.after["status"] != "running":
            self.is_over = True
            return
        before, after = (data_of((row or {}).get("data")) for row in (change.before, change.after))
        self.is_lost = jobs.stop_in(after) is None
        # A request leaves the lease as it is; each write of the owner renews it.
        self.is_over |= not self.is_lost and before.get("lease") != after.get("lease")


class Stops:
    """Writes stop requests into the Jobs of *engine*."""

    def __init__(self, engine: Engine, run: Run, streams: Streams, feed: JobFeed) -> None:
        self._engine, self._run, self._streams, self._feed = engine, run, streams, feed
        self._watches: dict[str, _Watch] = {}

    async def write(self, identity: Identity, job_id: str, reason: str) -> bool:
        """Write a request; return whether it is to be kept.

        Raises:
            ApiError: As :func:`jobs.stop_job`.
        """
        await self._feed.ready()
        self._watches[job_id] = watch = _Watch()
        self._feed.watched[job_id] = watch.note
        is_kept = False
        try:
            is_kept = bool(await self._run(jobs.stop_job, self._engine, identity, job_id, reason))
        finally:
            if not is_kept:
                self._forget(job_id, watch)
        return is_kept

    async def keep(self, identity: Identity, job_id: str, reason: str) -> None:
        """Write a request again whenever it is overwritten, until its owner has seen it."""
        watch, repetitions = self._watches.get(job_id), _REPETITIONS
        if watch is None:
            return
        try:
            with anyio.move_on_after(_KEPT_FOR):
                while repetitions and not watch.is_over:
                    if watch.is_lost:
                        repetitions, watch.is_lost = repetitions - 1, False
                        await self._run(jobs.stop_job, self._engine, identity, job_id, reason)
                    elif not await self._streams.changes():
                        return
        except ApiError:
            pass  # the Job has ended, or is gone
        finally:
            self._forget(job_id, watch)

    def _forget(self, job_id: str, watch: _Watch) -> None:
        if self._watches.get(job_id) is watch:  # otherwise a later request is in its place
            del self._watches[job_id], self._feed.watched[job_id]
