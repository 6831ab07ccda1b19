"""Attachments of Jobs: a file is uploaded, and a ``JobComponent`` links it to the Job.

The traceback of a failed block becomes an attachment here, too. ftrack's web interface offers only
one attachment of a Job for download, so that a second one leads to a warning.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Mapping
from types import FrameType
from typing import TYPE_CHECKING, Any, NamedTuple

import anyio
from anyio.to_thread import run_sync

from aioftrackjobs.background import SafeLogger, format_error
from aioftrackjobs.entities.context import EntityContext
from aioftrackjobs.entities.queries import Query
from aioftrackjobs.errors import FtrackJobsError
from aioftrackjobs.models import Entity, FileComponent, Job, JobComponent
from aioftrackjobs.protocol.query import bind

if TYPE_CHECKING:
    from aioftrackjobs.commit.unit_of_work import UnitOfWork
    from aioftrackjobs.transfers.content import Uploadable
    from aioftrackjobs.transfers.control import ProgressCallback
    from aioftrackjobs.transfers.upload import Links

logger: SafeLogger = SafeLogger(__name__)

#: The attachment that users cannot download in the web interface.
_SECOND = 2

#: Seconds that counting the attachments of a Job may take, because it is only for a warning.
_COUNTING = 2.0

#: Packages that call a coroutine function for other code.
_EVENT_LOOPS = frozenset({"aioftrackjobs", "anyio", "asyncio", "trio", "uvloop"})


class Caller(NamedTuple):
    """A line of the user's code, for a warning about it.

    Attributes:
        filename: Its file.
        line: Its number.
        module: Its module.
        registry: What Python keeps in a module, so that it shows a warning once for a line.
    """

    filename: str
    line: int
    module: str
    registry: dict[Any, Any]

    @classmethod
    def find(cls) -> Caller:
        """Return the innermost line on the stack that is neither of this package nor a loop's."""
        frame: FrameType | None = sys._getframe(1)
        found = frame
        while frame is not None:
            name = str(frame.f_globals.get("__name__", ""))
            if name.partition(".")[0] not in _EVENT_LOOPS:
                found = frame
                break
            frame = frame.f_back
        assert found is not None  # noqa: S101 - this function runs
        scope = found.f_globals
        registry = scope.setdefault("__warningregistry__", {})
        name = str(scope.get("__name__", "<string>"))
        return cls(found.f_code.co_filename, found.f_lineno, name, registry)

    def warn(self, text: str) -> None:
        """Show a warning that points at the line."""
        warnings.warn_explicit(
            text, UserWarning, self.filename, self.line, self.module, self.registry
        )


class Attachments:
    """The attachments of one Job.

    Args:
        entities: The entities of the session.
        job_is_new: Whether the Job was just created, so that others have attached nothing to it.
    """

    __slots__ = ("_entities", "_has_warned", "_job_is_new", "_known")

    def __init__(self, entities: EntityContext, *, job_is_new: bool) -> None:
        self._entities = entities
        self._job_is_new = job_is_new
        self._known = 0  # how many there are at least
        self._has_warned = False

    async def add(
        self,
        job: Job,
        source: Uploadable,
        caller: Caller,
        *,
        name: str | None = None,
        data: Mapping[str, Any] | None = None,
        progress: ProgressCallback | None = None,
    ) -> FileComponent:
        """Upload *source*, and attach it to *job*.

        Args:
            job: A Job that the server has.
            source: What to upload, as :meth:`AsyncSession.create_component` takes it.
            caller: At which line a warning about a second attachment points.
            name: File name with extension; needed if *source* has no path.
            data: Attributes of the component.
            progress: Called with the bytes sent, and how many there are.

        Raises:
            TransferError: The file could not be read, or the server did not take it.
            TransportError: The server could not be reached.
        """
        from aioftrackjobs.transfers.upload import upload  # late: many never move a file

        if not self._known:
            self._known = await self._count(job)
        component = await upload(
            self._entities,
            source,
            data={} if data is None else data,
            name=name,
            links=self._link_to(job),
            progress=progress,
        )
        self._known += 1
        if self._known >= _SECOND and not self._has_warned:
            self._has_warned = True
            caller.warn(
                f"Job {job.id} gets a second attachment; ftrack's web interface offers only one "
                "of them for download"
            )
        return component

    def _link_to(self, job: Job) -> Links:
        """Return what attaches a component to *job*, in the commit that registers it."""

        def link(unit: UnitOfWork, component: FileComponent) -> list[Entity]:
            data = {"component_id": component.id, "job_id": job.id}
            return [self._entities.create(JobComponent, data, unit=unit)]

        return link

    async def _count(self, job: Job) -> int:
        """Return how many attachments *job* has that this object has not made, as far as known.

        The program may have created links by hand. An earlier run may have failed, with a
        traceback, and others may have attached something.
        """
        links = self._entities.identity.keys_of(JobComponent.entity_type)
        found = {component_id for component_id, job_id in links if job_id == job.id}
        if self._job_is_new:
            return len(found)
        text = bind("select component_id from JobComponent where job_id is {id}", {"id": job.id})
        query: Query[Entity] = Query(self._entities, f"{text} limit {_SECOND}")
        with anyio.move_on_after(_COUNTING):
            try:
                found |= {str(row["component_id"]) for row in await query.all()}
            except FtrackJobsError as exc:
                logger.debug(
                    "%(job)r: its attachments were not counted: %(error)s", job=job, error=exc
                )
        return len(found)

    async def add_report(self, job: Job, error: Exception | None, log: str = "") -> None:
        """Attach *log* and the traceback of *error*, with causes, groups and notes, as a text file.

        It is one file, because users can download only one. If that fails, it is only logged,
        because the end of the Job does not depend on it.

        Args:
            job: The Job.
            error: By what its block was left; None for no traceback.
            log: What it has logged; empty for a traceback alone.
        """
        kind = "log" if log else "traceback"
        try:
            from aioftrackjobs.transfers.upload import upload  # late: few Jobs fail

            texts = [log] if log else []
            if error is not None:
                # In a thread: source files are read, on disks that may be slow, or hang.
                text = await run_sync(
                    format_error,
                    error,
                    self._entities.redact,
                    abandon_on_cancel=True,
                    limiter=anyio.CapacityLimiter(1),  # the program may use all common threads
                )
                texts.append(text)
            content = "\n".join(texts).encode(errors="replace")
            if not self._known:
                self._known = await self._count(job)
            links = self._link_to(job)
            name = f"{kind}.txt"
            await upload(self._entities, content, data={}, name=name, links=links)
        except Exception as exc:  # noqa: BLE001 - the block's own error must come out
            logger.warning(
                "%(job)r: its %(attachment)s was not attached: %(error)s",
                job=job,
                attachment=kind,
                error=exc,
            )
            return
        self._known += 1
        if self._known >= _SECOND:
            logger.warning(
                "%(job)r: its %(attachment)s is a second attachment; ftrack's web interface "
                "offers only one of "
                "them for download",
                job=job,
                attachment=kind,
            )
