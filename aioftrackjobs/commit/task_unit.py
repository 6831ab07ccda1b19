"""The unit of work of a task or a block, in which users' code records.

Other tasks may change the same entities at the same time, and there is one local value of each
attribute: the latest. A task that takes a change back keeps the values that others have recorded.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Coroutine, Iterable
from typing import Any, TypeAlias
from weakref import ref

from aioftrackjobs.background import SafeLogger
from aioftrackjobs.commit.changes import InFlightCommit, RecordedChange, creation_key, not_created
from aioftrackjobs.commit.unit_of_work import UnitOfWork
from aioftrackjobs.errors import EntityError
from aioftrackjobs.models import Entity, adopt, owner_of
from aioftrackjobs.protocol.operations import NOT_SET, Create, Delete, Update
from aioftrackjobs.protocol.references import linked_ids

logger: SafeLogger = SafeLogger(__name__)

#: How many changes a warning names.
_MOST_NAMED = 5


class TaskUnit(UnitOfWork):
    """A unit of work that a task records in, or several tasks inside a block.

    If no task is left that could commit it, it is rolled back.

    Attributes:
        task: Returns the task that it belongs to, or None if that is gone; None if it belongs to
            a block, or to the session.
        entered_by: Returns the task that has entered its block, or None if that is gone.
        before: What its block was entered in.
        transaction: Counts how often it had something to commit again, after all was settled.
    """

    task: Callable[[], object | None] | None = None
    transaction = 0
    entered_by: Callable[[], object | None] = staticmethod(lambda: None)
    before: Entry = (None, 0)
    _task_name: str | None = None  # of the task, when it has ended
    _promised: ref[Coroutine[Any, Any, None]] | None = None
    _reported = -1  # the number of the latest change that a warning has named

    @property
    def task_has_ended(self) -> bool:
        """Whether the task has ended that it belongs to."""
        return self._task_name is not None

    # Committing

    def promise_commit(self) -> Coroutine[Any, Any, None]:
        """Return a :meth:`commit`, which another task may await after this unit's has ended."""
        coroutine = self.commit()
        self._promised = ref(coroutine)
        return coroutine

    def _needed_first(self) -> UnitOfWork | None:
        """Return a unit whose commit in progress creates what this one needs.

        Raises:
            EntityError: Another unit has not committed an entity that this one needs, or an entity
                does not exist any more.
        """
        context = self._context
        for change in self._pending:
            owner: object = owner_of(change.entity)
            if owner is not context and isinstance(change.operation, Update):
                raise EntityError(
                    f"{change.entity!r} was deleted, or its creation was rolled back; roll back "
                    "to drop its changes"
                )
        if not context.creators:
            return None
        operations = [change.operation for change in self._pending]
        keys = {creation_key(each.target) for each in operations}
        in_progress = None
        for key in keys.union(linked_ids(operations)):
            creator = context.creators.get(key, self)
            if creator is self:
                continue
            if (entity := creator.pending_creation(key)) is not None:
                raise EntityError(not_created(entity))
            if creator.is_sending:
                in_progress = creator
        return in_progress

    # Local values

    def has_recorded(self, entity: Entity, name: str) -> bool:
        """Return whether *name* was set or reset here, and that is not settled."""
        return any(each.entity is entity and name in each.names for each in self.unsettled())

    def others_value(self, entity: Entity, name: str) -> Any:
        """Return the latest value of *name* that another unit has recorded, else ``NOT_SET``."""
        values = self._values_of_others([entity])
        return values.get((id(entity), name), NOT_SET)

    # The end of its task

    def end_of_task(self, name: str) -> None:
        """Note that the task has ended that it belongs to, and warn of what it has not committed.

        Args:
            name: Name of the task.
        """
        self._task_name = name
        promised = None if self._promised is None else self._promised()
        if promised is None or inspect.getcoroutinestate(promised) != inspect.CORO_CREATED:
            self._warn()

    def _return(self, taken: list[RecordedChange], commit: InFlightCommit) -> None:
        super()._return(taken, commit)
        if self.task_has_ended:
            self._warn()

    def _warn(self) -> None:
        if pending := self._take_unreported():
            logger.warning(
                "task %(task)r ended with %(count)d uncommitted operation(s): "
                "%(operations)s; commit in the task that "
                "records, or in an `async with session.unit_of_work()` block around both tasks",
                task=self._task_name,
                count=len(pending),
                operations=describe(pending),
            )

    def warn_of_rollback(self, by: str, owner: str) -> None:
        """Warn of a rollback by another task than the one that has recorded.

        Args:
            by: Who rolls back.
            owner: Who may have recorded.
        """
        if self._pending:
            logger.warning(
                "%(by)s rolls back %(count)d uncommitted operation(s) of %(task)s: "
                "%(operations)s; to keep what others record, "
                "put an `async with session.unit_of_work()` block around each task and thread",
                by=by,
                count=len(self._pending),
                task=owner,
                operations=describe(self._pending),
            )

    def drop_abandoned(self) -> None:
        """Roll back, and warn: the block is in a generator that was not run to its end."""
        if pending := self._take_unreported():
            logger.warning(
                "a generator was left inside of its `async with session.unit_of_work()` block, "
                "which rolls back %(count)d uncommitted operation(s): %(operations)s; close "
                "it with "
                "contextlib.aclosing()",
                count=len(pending),
                operations=describe(pending),
            )
        self.drop()

    def report_at_close(self, *, quietly: bool) -> list[RecordedChange]:
        """Return what is recorded, unless a warning has named it; no warning names it later.

        Args:
            quietly: Return nothing.
        """
        unreported = self._take_unreported()
        return [] if quietly else unreported

    def _take_unreported(self) -> list[RecordedChange]:
        found = [each for each in self._pending if each.number > self._reported]
        if found:
            self._reported = max(each.number for each in found)
        return found

    def __del__(self) -> None:
        # No task can commit it any more: entities must not show what will never be sent.
        if self._pending and not sys.is_finalizing():
            if self.task is not None:
                self._warn()
            created = [each.entity for each in self._pending if isinstance(each.operation, Create)]
            self.drop(keep_uncertain=True)
            for entity in created:
                adopt(entity, _NoOwner(self._context))


#: A unit, if any, and the number of the transaction in which a task has inherited it.
Entry: TypeAlias = tuple[TaskUnit | None, int]

#: The entry of a task without a unit.
NOTHING: Entry = (None, 0)


class _NoOwner:
    """The owner of an entity that is never created, because its task has ended: as its session."""

    def __init__(self, context: Any) -> None:
        self._context = context

    def record_update(self, entity: Entity, name: str, value: object) -> None:
        raise EntityError(
            f"{entity!r} was never created: the task that recorded it has ended without a commit"
        )

    def __getattr__(self, name: str) -> Any:
        return getattr(self._context, name)


def describe(changes: Iterable[RecordedChange]) -> str:
    """Return what the log says of *changes*: which entities, which attributes, no values.

    Example:
        ``"Job 4f2 created; status, data of Task 1c9"``.
    """
    created, deleted = set[int](), set[int]()
    entities, names = dict[int, Entity](), dict[int, dict[str, None]]()
    for change in changes:
        key = id(change.entity)
        entities[key] = change.entity
        if isinstance(change.operation, Delete):
            deleted.add(key)
        else:
            created |= {key} if isinstance(change.operation, Create) else set()
            names.setdefault(key, {}).update(dict.fromkeys(change.operation.values))
    texts = list[str]()
    for key, entity in entities.items():
        _, identity = entity.__ftrack_reference__()
        text = f"{entity.entity_type} {', '.join(value for _, value in identity)}"
        if key in created:
            text += " created"
        elif key not in deleted:
            text = f"{', '.join(names[key])} of {text}"
        texts.append(text + " deleted" if key in deleted else text)
    more = len(texts) - _MOST_NAMED
    return "; ".join(texts[:_MOST_NAMED]) + (f"; and {more} more" if more > 0 else "")
