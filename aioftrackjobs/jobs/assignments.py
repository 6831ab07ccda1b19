"""Assignments: what the program sets on the entity of its running Job.

The program may set a status or a text on it as on every other entity, and commit that or not. Both
is respected: the Job ends with this status, and continues with this text. What is not committed
goes along with the final report. Otherwise the program's next commit would send it after that.
"""

from __future__ import annotations

from collections.abc import Callable
from weakref import WeakSet

from aioftrackjobs.commit.unit_of_work import UnitOfWork
from aioftrackjobs.entities.context import EntityContext
from aioftrackjobs.jobs.data import JobData
from aioftrackjobs.models import Job, JobStatus, current_value, remote_value
from aioftrackjobs.protocol.operations import NOT_SET

#: The attributes that a final report sets.
_REPORTED = ("status", "data")


class Assignments:
    """Observes what the program sets on the entity of one Job, unless another block does it.

    Args:
        entities: The entities of the session.
        job: The Job.
        data: What the Job reports; continues with texts that the program sets.
        statuses: Gets the statuses that the program sets.
        write_soon: Has the Job written soon.
    """

    def __init__(
        self,
        entities: EntityContext,
        job: Job,
        data: JobData,
        statuses: set[object],
        *,
        write_soon: Callable[[], None],
    ) -> None:
        self._entities = entities
        self._job = job
        self._data = data
        self._statuses = statuses
        self._write_soon = write_soon
        self._units = WeakSet[UnitOfWork]()
        self._texts: tuple[str | None, str | None] = None, None  # before and after it has set data
        entities.observers.setdefault(id(job), self._note)

    def end(self) -> None:
        """Observe it no more: the entity is the program's again."""
        observers = self._entities.observers
        if observers.get(id(self._job)) == self._note:
            del observers[id(self._job)]

    def _note(self, name: str, value: object, unit: UnitOfWork) -> None:
        self._units.add(unit)
        if name == "status" and value is not NOT_SET:
            self._statuses.add(value)
        elif name == "data":
            self._note_data(value)
            self._write_soon()

    def _note_data(self, value: object) -> None:
        current, remote = current_value(self._job, "data"), remote_value(self._job, "data")
        before, after = self._texts
        if value is not NOT_SET:
            before = self._data.description if current is remote else before
            self._data.adopt_change(current, value)
            self._texts = before, self._data.description
        elif self._data.description == after:
            self._data.description = before

    @property
    def status(self) -> JobStatus | None:
        """The status that the program has set, and the Job still has; None to decide it anew."""
        if not self._statuses:
            return None
        status = current_value(self._job, "status")
        is_end = isinstance(status, JobStatus) and status is not JobStatus.RUNNING
        return status if is_end else None

    def take_over(self) -> None:
        """Let the next report contain what is not committed, and no later commit."""
        for unit in tuple(self._units):
            left = unit.drop_updates(self._job, _REPORTED)
            self._data.adopt_values(remote_value(self._job, "data"), left.get("data"))
