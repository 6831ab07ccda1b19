"""Which unit of work a change belongs to: that of a block, of the running task, or of the session.

The first change that a task records makes a unit of work for it. Tasks that it starts afterwards
inherit that unit, in a context variable, to act on it: they commit it, roll it back or look at it,
until they record something themselves. So ``asyncio.wait_for(session.commit(), 5)`` and
``task_group.start_soon(session.commit)`` commit what the caller has recorded, although they run in
another task; but what two tasks record is never in one unit, unless both run inside one block.

A task inherits no more than what was recorded before it was started, and what follows until that is
committed or rolled back. It does not act on what its parent records after that.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextvars import ContextVar
from functools import partial
from types import MappingProxyType
from typing import Any
from weakref import WeakKeyDictionary, WeakSet, ref

from aioftrackjobs.background import EventLoop, SafeLogger
from aioftrackjobs.commit.changes import UnitOfWorkContext
from aioftrackjobs.commit.task_unit import NOTHING, Entry, TaskUnit, describe
from aioftrackjobs.connection import Connection
from aioftrackjobs.errors import SessionStateError

logger: SafeLogger = SafeLogger(__name__)

#: The unit of work that a task has entered, made or inherited, for each session.
_units: ContextVar[Mapping[TaskUnits, Entry]] = ContextVar("aioftrackjobs_units")

_NONE: Mapping[TaskUnits, Entry] = MappingProxyType({})


class TaskUnits:
    """The units of work of a session's tasks.

    Args:
        context: The entities of the session.
        connection: The connection of the session.

    Attributes:
        all: The units of work that exist, of tasks and of blocks.
        default: What is recorded outside of all tasks.
    """

    def __init__(self, context: UnitOfWorkContext, connection: Connection) -> None:
        self._context = context
        self._background = connection.background
        self._dispatcher = connection.dispatcher
        self._by_task = WeakKeyDictionary[Any, TaskUnit]()
        self._is_closed = False
        self.all: WeakSet[TaskUnit] = WeakSet()
        self.default: TaskUnit = self._add_unit()

    def _add_unit(self) -> TaskUnit:
        unit = TaskUnit(self._context, self._dispatcher)
        self.all.add(unit)
        return unit

    def to_record(self) -> TaskUnit:
        """Return the unit of work for a change that is recorded now.

        Raises:
            SessionStateError: The session is closed, or it belongs to another event loop, thread
                or process.
        """
        loop = self._background.event_loop
        if loop is None or loop.is_released:
            raise SessionStateError("the session is not open: nothing can be recorded")
        unit, _ = _units.get(_NONE).get(self, NOTHING)
        if unit is not None and unit.task is None and not unit.has_ended:
            loop.require_here()
            return unit  # of a block
        task = loop.current_task()
        unit, _ = self._entry(task)
        owner = None if unit is None else unit.task
        if unit is not None and owner is None:
            return unit  # of a block that has ended
        if task is None:
            return self.default if unit is None or unit.task_has_ended else unit
        if unit is None or owner is None or owner() is not task:
            unit = self._by_task.get(task) or self._begin_unit(task, loop)
        if unit.is_settled:
            unit.transaction += 1
            self._set((unit, unit.transaction))
        return unit

    def to_act_on(self) -> TaskUnit:
        """Return the unit of work to commit, to roll back or to look at.

        Raises:
            SessionStateError: The session belongs to another event loop, thread or process.
        """
        loop = self._background.event_loop
        return self._find(None if loop is None else loop.current_task())

    def to_commit(self) -> TaskUnit:
        """Do as :meth:`to_act_on` in any thread: the commit may be awaited in the right one."""
        try:
            return self.to_act_on()
        except SessionStateError:
            return self._find(None)

    def roll_back(self) -> None:
        """Roll back the unit of work to act on.

        If others may have recorded in it, a warning says so. A task that fails before it
        has recorded anything probably does not mean to drop the changes of its parent; and all
        callbacks outside of a block record in the same unit, that of the session.

        Raises:
            SessionStateError: The session belongs to another event loop, thread or process.
        """
        unit = self.to_act_on()
        loop = self._background.event_loop
        if loop is not None and unit.last_error is None:  # a rollback after a refusal is meant
            task, owner = loop.current_task(), unit.task and unit.task()
            by = "a callback" if task is None else f"task {loop.name_of(task)!r}"
            if unit is self.default and loop.is_running():
                unit.warn_of_rollback(by, "callbacks")
            elif owner and task and owner is not task and not unit.task_has_ended:
                unit.warn_of_rollback(by, f"task {loop.name_of(owner)!r}")
        unit.rollback()

    def _find(self, task: Any) -> TaskUnit:
        unit, transaction = self._entry(task)
        if unit is not None and unit.task is None:
            return unit  # of a block
        if task is not None:
            is_current = unit is not None and unit.transaction == transaction
            unit = self._by_task.get(task) or (unit if is_current else None)
        # The changes of callbacks belong to no task. A task with nothing of its own commits them.
        if unit is None or (unit.is_settled and not self.default.is_settled):
            return self.default
        return unit

    def _begin_unit(self, task: Any, loop: EventLoop) -> TaskUnit:
        """Make a unit of work for *task*, which is the running one."""
        unit = self._add_unit()
        unit.task = ref(task)
        self._by_task[task] = unit
        loop.at_end_of(task, partial(self._end_task, loop))
        return unit

    def _end_task(self, loop: EventLoop, task: Any) -> None:
        if (unit := self._by_task.pop(task, None)) is not None:
            unit.end_of_task(loop.name_of(task))

    def end_turn(self, name: str) -> None:
        """Drop what the running task has recorded and not committed, with a warning.

        It handles one thing after the other, and the next one must not commit that.

        Args:
            name: What the warning calls the task.
        """
        loop = self._background.event_loop
        task = None if loop is None else loop.current_task()
        if (unit := self._by_task.pop(task, None)) is not None:
            unit.end_of_task(name)
            unit.drop(keep_uncertain=True)
            self._set(NOTHING)

    def _entry(self, task: Any) -> Entry:
        """Return what *task*, which is the running one, has entered, made or inherited."""
        entry = _units.get(_NONE).get(self, NOTHING)
        if entry[0] is not None and entry[0].has_ended:
            return self._leave_late(entry, task)
        return entry

    def _set(self, entry: Entry) -> None:
        """Let the current task, and those that it starts, have *entry*."""
        units = _units.get(_NONE)
        if units.keys() - {self}:  # a task may outlive many sessions
            units = {each: its for each, its in units.items() if not each._is_closed}
            units.pop(self, None)
            _units.set(units if entry is NOTHING else {**units, self: entry})
        else:
            _units.set(_NONE if entry is NOTHING else {self: entry})

    def enter(self) -> TaskUnit:
        """Give what is recorded from now on a unit of work, also in tasks that are started."""
        unit = self._add_unit()
        unit.before = _units.get(_NONE).get(self, NOTHING)
        if (loop := self._background.event_loop) is not None:
            unit.entered_by = ref(loop.current_task() or loop)
        self._set((unit, 0))
        return unit

    def leave(self, unit: TaskUnit) -> None:
        """End *unit*, and return to the one from before."""
        unit.end()
        if _units.get(_NONE).get(self, NOTHING)[0] is unit:  # else this is another context
            self._set(unit.before)

    def _leave_late(self, entry: Entry, task: Any) -> Entry:
        """Return to what was before *entry* if *task* has entered it, and another has left it.

        That is what becomes of a block in an asynchronous generator that is not run to its end: a
        task of the event loop closes the generator.
        """
        found = entry
        while (unit := found[0]) is not None and unit.has_ended:
            if task is None or unit.entered_by() is not task:
                break
            found = unit.before
        if found is not entry:
            self._set(found)
        return found

    def close(self, *, by_error: bool) -> None:
        """Warn of what is recorded and not committed: the session closes.

        Args:
            by_error: Whether an error ends the caller's block, which explains why the caller has
                not committed.
        """
        try:
            own = self.default, self.to_act_on()
        except SessionStateError:
            return  # it cannot be closed here
        changes = [
            change
            for unit in sorted(self.all, key=lambda unit: unit not in own)
            for change in unit.report_at_close(quietly=by_error and unit in own)
        ]
        if changes:
            logger.warning(
                "the session is closed with %(count)d uncommitted operation(s): %(operations)s",
                count=len(changes),
                operations=describe(changes),
            )
        self._is_closed = True
        self._set(NOTHING)
