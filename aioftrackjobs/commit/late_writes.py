"""Late writes: requests that are applied after they were repeated, and bring old values back.

A request without a response is repeated, but it may still be on its way: in a proxy that is slow,
or in a server that hangs. If a newer commit of the same entity is applied first, the late request
overwrites it, although the newer commit was acknowledged::

    update, status = "running"   ----- time-out -----------------------> applied
    the same again                                 --> applied
    update, status = "done"                             --> applied
    what the server has                             running, done,        running

So the entities of such requests are watched for some time. After one time-out, two, four and so on,
they are read in one query for all; but only those whose values have changed since. If an entity has
all the values again that a lost request would change, they are replaced by the latest ones that
this session has committed; if a lost request has created again what was deleted since, it is
deleted again. Other values are those of other clients, and stay.

What cannot be excluded: until the next look the old values can be read. A request may be applied
after the last look, or after the session has closed, which logs a warning. Another client that sets
exactly the values of the lost request is taken for that request. Lists are not compared.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Any

import anyio

from aioftrackjobs.background import BackgroundTasks, SafeLogger
from aioftrackjobs.commit.request import PendingRequest
from aioftrackjobs.errors import FtrackJobsError, SessionStateError
from aioftrackjobs.protocol.operations import Create, Delete, Operation, Update
from aioftrackjobs.protocol.reconciliation import Row, agrees, same_value, value_queries
from aioftrackjobs.protocol.values import JSONValue, Reference

logger: SafeLogger = SafeLogger(__name__)

#: Entities that are watched at most; of further ones a late request is not noticed.
_MOST = 1_000

#: For how many time-outs, and for how many seconds at least, an entity is watched.
_TIMEOUTS, _SHORTEST = 4, 20.0


class _Watched:
    """An entity that a lost request may still change.

    Args:
        now: When the request was lost, in the time of the event loop.

    Attributes:
        sent: What the lost requests would do.
        latest: The values that were applied since.
        is_deleted: Whether it was deleted since.
        began: When the latest of the requests was lost.
        looks: How often it was looked at since.
    """

    def __init__(self, now: float) -> None:
        self.sent: list[Operation] = []
        self.latest: dict[str, Any] = {}
        self.is_deleted = False
        self.began = now
        self.looks = 0

    def note_applied(self, operation: Operation) -> None:
        """Note what was applied to the entity."""
        self.is_deleted = isinstance(operation, Delete)
        if isinstance(operation, Delete):
            self.latest.clear()
        else:
            self.latest.update(operation.values)

    def outdated(self) -> dict[str, Any]:
        """Return the attributes whose values a lost request would replace by older ones."""
        return {
            name: None
            for operation in self.sent
            if isinstance(operation, Update)
            for name in self._outdated(operation)
        }

    def _outdated(self, update: Update) -> list[str]:
        latest = self.latest
        return [name for name, old in update.values.items() if latest.get(name, old) != old]

    @property
    def is_at_risk(self) -> bool:
        """Whether a late request would undo anything."""
        if self.is_deleted:
            return any(isinstance(each, Create) for each in self.sent)
        return bool(self.outdated())

    def correction(self, target: Reference, row: Row | None) -> Operation | None:
        """Return what puts the entity right, which has the values of *row* now, if that is needed.

        Args:
            target: The entity.
            row: None if it does not exist.
        """
        if row is None:
            return None
        if self.is_deleted:
            creates = [each for each in self.sent if isinstance(each, Create)]
            is_back = any(each.fresh or agrees(each.values, row) for each in creates)
            return Delete(target) if is_back else None
        for each in self.sent:
            if not isinstance(each, Update):
                continue
            names = self._outdated(each)
            found = [name in row and same_value(each.values[name], row[name]) for name in names]
            if names and all(found):
                return Update(target, {name: self.latest[name] for name in names})
        return None


class LateWrites:
    """Watches the entities of lost requests, and puts right what these change too late.

    Args:
        background: Where it runs.
        read: Sends queries, and returns their results.
        write: Queues a commit.
        is_pending: Whether a commit of an entity has not ended.
        timeout: Seconds after which a request counts as lost.

    Attributes:
        watched: The entities that a lost request may still change.
    """

    def __init__(
        self,
        background: BackgroundTasks,
        *,
        read: Callable[[Sequence[Mapping[str, JSONValue]]], Awaitable[list[Any]]],
        write: Callable[[Sequence[Operation]], PendingRequest],
        is_pending: Callable[[Reference], bool],
        timeout: float,
    ) -> None:
        self._background = background
        self._read = read
        self._write = write
        self._is_pending = is_pending
        self._timeout = timeout
        self._longest = max(_TIMEOUTS * timeout, _SHORTEST)
        self.watched: dict[Reference, _Watched] = {}
        self._is_running = False

    def note_lost(self, operations: Sequence[Operation]) -> None:
        """Note that a request with *operations* has had no response."""
        now = anyio.current_time()
        for each in operations:
            watched = self.watched.get(each.target)
            if watched is None:
                if len(self.watched) >= _MOST:
                    continue
                watched = self.watched[each.target] = _Watched(now)
            if each not in watched.sent:
                watched.sent.append(each)
            watched.began, watched.looks = now, 0
        if not self._is_running and self.watched:
            try:
                self._background.spawn(self._run)
                self._is_running = True
            except SessionStateError:
                pass  # the session is closed

    def note_applied(self, operations: Sequence[Operation]) -> None:
        """Note that a commit of *operations* was applied."""
        for each in operations:
            if (watched := self.watched.get(each.target)) is not None:
                watched.note_applied(each)

    async def _run(self) -> None:
        try:
            while self.watched:
                await anyio.sleep_until(min(map(self._next_look, self.watched.values())))
                now = anyio.current_time()
                due = {
                    target: each
                    for target, each in self.watched.items()
                    if self._next_look(each) <= now
                }
                for each in due.values():
                    each.looks += 1
                with self._background.surviving("the look for late writes"):
                    await self._look(due)
                self.watched = {
                    target: each
                    for target, each in self.watched.items()
                    if self._next_look(each) <= each.began + self._longest
                }
        except SessionStateError:
            pass  # it is closed
        finally:
            self._is_running = False

    def _next_look(self, watched: _Watched) -> float:
        return watched.began + self._timeout * float(2**watched.looks)

    async def look(self) -> None:
        """Look at all entities now, and say which may still change: the session closes."""
        await self._look(self.watched)
        if risky := [str(target) for target, each in self.watched.items() if each.is_at_risk]:
            logger.warning(
                "the session closes while requests that got no response may still be applied, and "
                "bring back old values of %(entities)s",
                entities=", ".join(sorted(risky)),
            )

    async def _look(self, entities: Mapping[Reference, _Watched]) -> None:
        """Read those of *entities* that are at risk, and put right what is not as it was."""
        entities = {target: each for target, each in entities.items() if each.is_at_risk}
        if not entities:
            return
        try:
            rows = await self._rows({key: each.outdated() for key, each in entities.items()})
        except SessionStateError:
            raise
        except FtrackJobsError as exc:
            logger.debug("it is not known whether old values are back: %(error)s", error=exc)
            return
        written: list[PendingRequest] = []
        for target, each in entities.items():
            correction = each.correction(target, rows.get(target))
            if correction is None or self._is_pending(target):
                continue  # what is being written now is newer
            logger.warning(
                "%(entity)s: a request that had no response was applied late; what it has "
                "overwritten is "
                "written again",
                entity=target,
            )
            each.sent.append(correction)  # should this write be late itself
            written.append(self._write([correction]))
        for request in written:
            await request.ended()

    async def _rows(self, names: Mapping[Reference, Iterable[str]]) -> dict[Reference, Row]:
        queries = value_queries(names)
        results = await self._read([query.operation for query in queries])
        rows: dict[Reference, Row] = {}
        for query, result in zip(queries, results, strict=True):
            try:
                rows |= query.found(result)
            except (LookupError, TypeError):
                logger.debug("it is not known whether old values are back: the rows are odd")
        return rows
