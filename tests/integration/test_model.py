"""Random work of several flows on one session, checked against a plain model.

Three flows, one in the session's default unit and two in units of their own, create, change and
delete Jobs they share, commit, roll back, are refused and are cancelled, at turns of the event
loop that hypothesis chooses. A :class:`Spy` between the units and the session records which commits
were sent, in which order, and their outcomes. When no request is in progress, replaying the commits
that were applied must give what the server has; each refusal must have its reason in the commit
that was refused; and each operation is applied, pending again, uncertain or rolled back. There are
no retries, so that a lost response leaves its commit uncertain until the next one of the flow.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import AsyncExitStack
from contextvars import Context, copy_context
from dataclasses import dataclass, field
from typing import Any, TypeVar
from uuid import uuid4

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from aioftrackjobs import (
    AsyncSession,
    CommitUncertainError,
    ConnectError,
    EntityError,
    FtrackJobsError,
    Job,
    ServerError,
    TransportError,
)
from aioftrackjobs.commit.request import (
    Applied,
    Manner,
    NotApplied,
    Outcome,
    PendingRequest,
    Settle,
    Unknown,
    WithdrawnError,
)
from aioftrackjobs.commit.unit_of_work import UnitOfWork
from aioftrackjobs.config.retry import NO_RETRIES
from aioftrackjobs.devserver import ServerHandle, running
from aioftrackjobs.models import owner_of, remote_value
from aioftrackjobs.protocol.batching import fold
from aioftrackjobs.protocol.operations import Create, Delete, Operation, Update
from aioftrackjobs.session import connection_of, context_of

from ..amounts import amount
from ..tables import Tables, turns

T = TypeVar("T")
Rows = dict[str, str | None]

#: The id of a user who does not exist: the servers refuse each operation that refers to it.
MISSING_USER = "00000000-0000-4000-8000-00000000dead"

FLOWS = st.integers(0, 2)
JOBS = st.integers(0, 5)


@dataclass(eq=False)
class SentCommit:
    """A commit that was submitted.

    Attributes:
        taken: What the unit had recorded.
        changes: The same operations, folded as they are sent.
        is_repeated: Whether it was sent before with an unknown outcome.
        log: What was written from its submission to its end, if the server has a log.
        outcome: Its outcome; None while it is in progress.
    """

    taken: list[Operation]
    changes: Sequence[Operation]
    is_repeated: bool = False
    log: Sequence[Any] = ()
    outcome: Outcome | None = None


class Spy:
    """Records the commits that a unit of work submits to the session's dispatcher."""

    def __init__(
        self, flow: Flow, dispatcher: Any, ledger: list[SentCommit], log: Callable[[], list[Any]]
    ) -> None:
        self._flow = flow
        self._dispatcher = dispatcher
        self._ledger = ledger
        self._log = log

    def __getattr__(self, name: str) -> Any:
        return getattr(self._dispatcher, name)

    def submit(
        self,
        operations: Sequence[Operation],
        settle: Settle,
        manner: Manner | None,
        uncertain_because: TransportError | None,
    ) -> PendingRequest:
        sending = self._flow.note_submitted(operations, is_repeated=uncertain_because is not None)
        self._ledger.append(sending)
        before = len(self._log())

        def note(outcome: Outcome) -> None:
            assert sending.outcome is None, "a commit ends once"
            sending.outcome = outcome
            sending.log = self._log()[before:]
            settle(outcome)
            self._flow.note_ended(sending, outcome)

        request: PendingRequest = self._dispatcher.submit(
            operations, note, manner, uncertain_because
        )
        return request


@dataclass(eq=False)
class Call:
    """A caller of ``commit``, and what was recorded when it called."""

    task: asyncio.Task[None] = field(init=False)
    recorded: list[Operation] = field(default_factory=list)
    cancelled: bool = False


@dataclass(eq=False)
class Flow:
    """A task's view: its context, its unit of work, and what the unit must have recorded."""

    context: Context
    unit: UnitOfWork
    pending: list[Operation] = field(default_factory=list)
    uncertain: list[Operation] = field(default_factory=list)
    dropped: list[Operation] = field(default_factory=list)  # rolled back, or folded to nothing
    in_progress: SentCommit | None = None
    rolled_back: bool = False
    calls: list[Call] = field(default_factory=list)

    def note_recorded(self) -> None:
        """Add the operations that the unit has recorded since the last call."""
        self.pending += self.unit.recorded_operations[len(self.pending) :]

    def roll_back(self) -> None:
        self.dropped += self.pending + self.uncertain
        self.pending, self.uncertain = [], []
        self.rolled_back = self.in_progress is not None

    def note_submitted(self, changes: Sequence[Operation], *, is_repeated: bool) -> SentCommit:
        if is_repeated:
            taken, self.uncertain = self.uncertain, []
        else:
            assert not self.uncertain, "a commit settles what is uncertain first"
            taken, self.pending = self.pending, []
        self.in_progress = SentCommit(taken, changes, is_repeated)
        return self.in_progress

    def note_ended(self, sending: SentCommit, outcome: Outcome) -> None:
        self.in_progress = None
        left: list[Operation] = []
        match outcome:
            case NotApplied(done=done):
                settled = {(type(each), each.target) for each in done}
                left = [each for each in sending.taken if (type(each), each.target) not in settled]
            case Unknown():
                left = sending.taken
            case Applied():
                pass
        if self.rolled_back:
            self.dropped += left
        elif isinstance(outcome, Unknown):
            self.uncertain += left
        else:
            self.pending[:0] = left
        self.rolled_back = False

    def deletes(self, job: Job) -> bool:
        return self.has(Delete, job)

    def has_yet_to_create(self, job: Job) -> bool:
        return self.has(Create, job)

    def has(self, kind: type[Operation], job: Job) -> bool:
        """Return whether an operation about *job* has not ended, or is uncertain."""
        taken = self.in_progress.taken if self.in_progress else []
        reference = job.__ftrack_reference__()
        return any(
            isinstance(each, kind) and each.target == reference
            for each in (*taken, *self.uncertain, *self.pending)
        )


class Machine(RuleBasedStateMachine):
    """The flows, on a session with a server that :meth:`open` connects to.

    Attributes:
        validates_at_the_end: Whether the server validates a batch after all of its operations.
    """

    validates_at_the_end = False

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.stack = AsyncExitStack()
        self.session = self.run(self.open())
        self.context = context_of(self.session)
        self.ledger: list[SentCommit] = []
        self.rows: Rows = {}  # the model: what the server must have
        self.jobs: list[Job] = []
        self.stale: set[str] = set()  # the client cannot know what the server has of these
        self.tokens = 0
        self.flows = [self.enter(own=own) for own in (False, True, True)]

    async def open(self) -> AsyncSession:
        raise NotImplementedError

    async def stored(self) -> Rows:
        """Return the rows that the server has of the Jobs of this machine."""
        raise NotImplementedError

    def log(self) -> list[Any]:
        """Return what was written since the last check, if the server has a log."""
        return []

    def is_too_big(self, changes: Sequence[Operation]) -> bool:
        return False

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        return self.runner.run(coroutine)

    def enter(self, *, own: bool) -> Flow:
        context = copy_context()
        unit: UnitOfWork = self.context.tasks.default
        if own:
            entering = self.stack.enter_async_context(self.session.unit_of_work())

            async def enter() -> UnitOfWork:
                return await asyncio.get_running_loop().create_task(entering, context=context)

            unit = self.run(enter())
        flow = Flow(context, unit)
        unit._dispatcher = Spy(  # type: ignore[assignment]
            flow, unit._dispatcher, self.ledger, self.log
        )
        return flow

    def record(self, flow: Flow, function: Callable[..., T], *args: Any) -> T:
        try:
            return flow.context.run(function, *args)
        finally:
            flow.note_recorded()

    def token(self) -> str:
        self.tokens += 1
        return f'{{"token": {self.tokens}}}'

    # What flows do

    @rule(index=FLOWS, chosen=st.booleans())
    def create(self, index: int, *, chosen: bool) -> None:
        key = {"id": str(uuid4())} if chosen else {}
        data = {**key, "data": self.token()}
        job = self.record(self.flows[index], self.session.create, Job, data)
        self.jobs.append(job)

    @rule(index=FLOWS, job=JOBS)
    def change(self, index: int, job: int) -> None:
        self.set(index, job, "data", self.token())

    @rule(index=FLOWS, job=JOBS)
    def spoil(self, index: int, job: int) -> None:
        """Make a change that the server refuses."""
        self.set(index, job, "user_id", MISSING_USER)

    def set(self, index: int, place: int, name: str, value: str) -> None:
        if (job := self.job(place)) is None:
            return
        flow = self.flows[index]
        if flow.deletes(job):
            with pytest.raises(EntityError):
                self.record(flow, job.__setitem__, name, value)
        else:
            self.record(flow, job.__setitem__, name, value)

    @rule(index=FLOWS, job=JOBS)
    def delete(self, index: int, job: int) -> None:
        if (entity := self.job(job)) is None:
            return
        flow = self.flows[index]
        if any(other.has_yet_to_create(entity) for other in self.flows if other is not flow):
            with pytest.raises(EntityError):
                self.record(flow, self.session.delete, entity)
        else:
            self.record(flow, self.session.delete, entity)

    def job(self, place: int) -> Job | None:
        """Return one of the Jobs that can be changed, the latest for 0."""
        attached = [job for job in self.jobs if owner_of(job) is not None]
        return attached[-1 - place % len(attached)] if attached else None

    @rule(index=FLOWS)
    def commit(self, index: int) -> None:
        flow = self.flows[index]
        call = Call()

        async def commit() -> None:
            in_progress = flow.in_progress.taken if flow.in_progress else []
            call.recorded = [*in_progress, *flow.uncertain, *flow.pending]
            await self.session.commit()

        async def start() -> None:
            call.task = asyncio.get_running_loop().create_task(commit(), context=flow.context)
            await turns(1)

        self.run(start())
        flow.calls.append(call)

    @rule(index=FLOWS)
    def roll_back(self, index: int) -> None:
        flow = self.flows[index]
        flow.roll_back()
        flow.context.run(self.session.rollback)

    @precondition(lambda self: any(flow.calls for flow in self.flows))
    @rule(index=FLOWS, place=st.integers(0, 3))
    def cancel(self, index: int, place: int) -> None:
        calls = self.flows[index].calls
        if calls:
            call = calls[place % len(calls)]
            call.cancelled |= call.task.cancel()

    @rule(number=st.integers(1, 12))
    def turn(self, number: int) -> None:
        self.run(turns(number))

    # What must hold

    @invariant()
    def units_have_recorded_what_the_model_says(self) -> None:
        for flow in self.flows:
            recorded = list(flow.unit.recorded_operations)
            if not recorded and flow.pending and not fold(flow.pending):
                flow.dropped += flow.pending
                flow.pending = []
            assert recorded == flow.pending
            assert list(flow.unit.uncertain_operations) == flow.uncertain

    @rule()
    def settle(self) -> None:
        """Wait until all commits have ended, and check their outcomes."""
        self.run(self.drain())
        self.check_outcomes()

    async def drain(self) -> None:
        tasks = [call.task for flow in self.flows for call in flow.calls]
        if tasks:
            _, waiting = await asyncio.wait(tasks, timeout=3)
            assert not waiting, "a commit that never ends"
        for flow in self.flows:
            await asyncio.wait_for(flow.unit.settled(), 3)

    def check_outcomes(self) -> None:
        self.units_have_recorded_what_the_model_says()
        for sending in self.ledger:
            self.replay(sending)
        applied = {
            id(each)
            for sending in self.ledger
            if isinstance(sending.outcome, Applied)
            for each in sending.taken
        }
        done = {
            (type(each), each.target)
            for sending in self.ledger
            if isinstance(sending.outcome, NotApplied)
            for each in sending.outcome.done
        }
        for flow in self.flows:
            gone = applied | {id(each) for each in flow.dropped}
            for call in flow.calls:
                error = self.error_of(call)
                if error is None:
                    for each in call.recorded:
                        assert id(each) in gone or (type(each), each.target) in done
            flow.calls.clear()
        self.ledger.clear()
        assert self.run(self.stored()) == self.rows
        for job in self.jobs:
            if job.id in self.rows and job.id not in self.stale and owner_of(job) is not None:
                assert remote_value(job, "data") == self.rows[job.id]

    def error_of(self, call: Call) -> BaseException | None:
        if call.task.cancelled():
            assert call.cancelled
            return asyncio.CancelledError()
        error = call.task.exception()
        if isinstance(error, EntityError):
            assert "not yet created" in str(error) or "rolled back" in str(error)
            return error  # nothing was taken: the invariant has checked it
        assert error is None or isinstance(error, (ServerError, ConnectError, CommitUncertainError))
        if isinstance(error, FtrackJobsError):
            outcomes = [sending.outcome for sending in self.ledger]
            errors = [each.error for each in outcomes if isinstance(each, (NotApplied, Unknown))]
            assert (error if error.__cause__ is None else error.__cause__) in errors
        return error

    def replay(self, sending: SentCommit) -> None:
        match sending.outcome:
            case Applied() if sending.is_repeated:
                self.apply_repeated(sending)
            case Applied():
                assert self.fault_in(sending.changes) is None
                for each in sending.changes:
                    self.apply(each)
            case NotApplied(error=WithdrawnError()):
                assert any(call.cancelled for flow in self.flows for call in flow.calls)
            case NotApplied(error=ServerError(), done=done):
                assert self.fault_in(sending.changes) is not None or self.is_too_big(
                    sending.changes
                )
                self.apply_in_part(sending, done)
            case NotApplied(error=error, done=done):
                assert isinstance(error, ConnectError)
                self.apply_in_part(sending, done)
            case Unknown():
                self.apply_in_part(sending, ())
                self.stale.update(each.target.key[0][1] for each in sending.changes)
            case None:
                pytest.fail("a commit that has not ended")

    def fault_in(self, changes: Sequence[Operation]) -> Operation | None:
        """Return the first operation that a server must refuse."""
        present = set(self.rows)
        ends = {each.target for each in changes if isinstance(each, Delete)}
        for each in changes:
            key = each.target.key[0][1]
            match each:
                case Create(values=values) if "user_id" in values:
                    return each
                case Create():
                    present.add(key)
                case Update() if key not in present and each.target in ends:
                    continue  # deleted, as it should be
                case Update(values=values) if "user_id" in values and each.target in ends:
                    if not self.validates_at_the_end:
                        return each
                case Update(values=values) if key not in present or "user_id" in values:
                    return each
                case Delete() if key not in present:
                    return each  # it was never in doubt, so that the refusal stands
                case Delete():
                    present.discard(key)
        return None

    def apply(self, operation: Operation) -> None:
        key = operation.target.key[0][1]
        match operation:
            case Create(values=values):
                assert key not in self.rows
                self.rows[key] = str(values["data"])
            case Update(values=values):
                if "data" in values and key in self.rows:
                    self.rows[key] = str(values["data"])
            case Delete():
                self.rows.pop(key, None)
        if not isinstance(operation, Delete):
            self.stale.discard(key)

    def apply_in_part(self, sending: SentCommit, done: Sequence[Operation]) -> None:
        """Apply to the model what a server has done of a commit that it did not apply in full."""
        assert not isinstance(sending.outcome, Unknown)
        for each in done:  # its entity is gone, or it was sent before the part that was refused
            assert not isinstance(each, Create)
            self.apply(each)

    def apply_repeated(self, sending: SentCommit) -> None:
        """Apply to the model what a server has done of a commit that was sent before."""
        pytest.fail("an uncertain commit, without a fault")

    def teardown(self) -> None:
        """Wait until all commits have ended: nothing local and nothing uncertain may be left."""
        try:
            self.run(self.drain())
            self.check_outcomes()
            for index in range(len(self.flows)):
                self.roll_back(index)
            self.units_have_recorded_what_the_model_says()
            for job in self.jobs:
                if owner_of(job) is not None:
                    assert not job._local, "a local value that will never be sent"
            self.check_that_nothing_is_left()
        finally:
            for flow in self.flows:
                flow.unit.rollback()  # so that the ends of the blocks commit nothing
            self.run(self.stack.aclose())
            self.runner.close()

    def check_that_nothing_is_left(self) -> None:
        dispatcher = connection_of(self.session).dispatcher
        assert dispatcher.is_idle
        assert not self.context.creators


class TablesMachine(Machine):
    """On an in-memory server that may behave in different ways, hang, and break connections."""

    async def open(self) -> AsyncSession:
        self.tables = Tables()
        self.tables.refuses = lambda each: (
            each.get("entity_data", {}).get("user_id") == MISSING_USER
        )
        return await self.stack.enter_async_context(self.tables.session())

    async def stored(self) -> Rows:
        return {key: row["data"] for key, row in self.tables.rows.items()}

    async def drain(self) -> None:
        self.tables.gate.set()
        await super().drain()

    @rule(atomic=st.booleans(), reorders=st.booleans(), most=st.sampled_from([None, 3]))
    def change_server(self, *, atomic: bool, reorders: bool, most: int | None) -> None:
        """Change the behaviour of the server, while no request is in progress."""
        self.settle()
        self.tables.atomic, self.tables.reorders = atomic, reorders
        self.tables.most_operations = most

    @rule()
    def hang(self) -> None:
        if self.tables.gate.is_set():
            self.tables.gate = type(self.tables.gate)()

    @rule()
    def resume(self) -> None:
        self.tables.gate.set()

    @rule(fault=st.sampled_from(["refused connection", "lost request", "lost response"]))
    def fail(self, fault: str) -> None:
        self.tables.faults.append(fault)

    def check_outcomes(self) -> None:
        super().check_outcomes()
        self.tables.faults.clear()
        self.tables.applied.clear()

    def is_too_big(self, changes: Sequence[Operation]) -> bool:
        most = self.tables.most_operations
        return most is not None and len(changes) > most

    def log(self) -> list[Any]:
        return self.tables.applied

    def apply_in_part(self, sending: SentCommit, done: Sequence[Operation]) -> None:
        happened = self.happened(sending)
        for change in sending.changes:
            key = change.target.key[0][1]
            if change in happened or (change in done and isinstance(change, Delete)):
                self.apply(change)
                self.stale.add(key)  # other values of a create or update are pending again
            elif change in done and isinstance(change, Create):
                assert sending.is_repeated
                assert key in self.rows

    def apply_repeated(self, sending: SentCommit) -> None:
        happened = self.happened(sending)
        ends = {each.target for each in sending.changes if isinstance(each, Delete)}
        for change in sending.changes:
            key = change.target.key[0][1]
            if change in happened:
                self.apply(change)
            elif isinstance(change, Create):
                assert key in self.rows
                self.stale.discard(key)  # what others have written since is kept
            else:  # deleted, as it should be
                assert key not in self.rows
                assert change.target in ends

    def happened(self, sending: SentCommit) -> list[Operation]:
        """Return which changes of a commit the server has applied while it was in progress."""
        effects: dict[str, set[tuple[str, object]]] = {}
        for each in sending.log:
            of_key = effects.setdefault(each["entity_key"][0], set())
            if each["action"] == "delete":  # also of an entity that the same commit has created
                of_key.clear()
            of_key.add((each["action"], each.get("entity_data", {}).get("data")))
        return [
            change
            for change in sending.changes
            if self.mark(change) in effects.get(change.target.key[0][1], ())
        ]

    @staticmethod
    def mark(operation: Operation) -> tuple[str, object]:
        values = {} if isinstance(operation, Delete) else operation.values
        return type(operation).__name__.lower(), values.get("data")


class ServerMachine(Machine):
    """On the embedded server, over a socket; one server for all examples."""

    handle: ServerHandle
    validates_at_the_end = True

    async def open(self) -> AsyncSession:
        self.observer = await self.open_session()
        return await self.open_session()

    async def open_session(self) -> AsyncSession:
        handle = self.handle
        session = AsyncSession(handle.url, handle.api_key, handle.api_user, retry=NO_RETRIES)
        return await self.stack.enter_async_context(session)

    async def stored(self) -> Rows:
        ids = [job.id for job in self.jobs]
        found = self.observer.query("select id, data from Job where id in {ids}", ids=ids).of(Job)
        return {job.id: job.data for job in await found.all()} if ids else {}


@pytest.fixture(scope="module")
def server() -> Iterator[ServerHandle]:
    """One server for all tests of this module, which use Jobs with different ids."""
    with asyncio.Runner() as runner:
        stack = AsyncExitStack()
        yield runner.run(stack.enter_async_context(running()))
        runner.run(stack.aclose())


def check(machine: type[Machine], *, examples: int, steps: int) -> None:
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=examples,
            stateful_step_count=steps,
            deadline=None,
            derandomize=settings.get_current_profile_name() == "default",
            database=None,
            phases=(Phase.generate, Phase.shrink),
            suppress_health_check=list(HealthCheck),
        ),
    )


@pytest.mark.long
def test_flows_against_the_embedded_server(server: ServerHandle) -> None:
    class OnServer(ServerMachine):
        handle = server

    check(OnServer, examples=amount(10, 300), steps=40)


@pytest.mark.slow
@pytest.mark.long
def test_flows_against_a_server_with_faults() -> None:
    check(TablesMachine, examples=amount(60, 3000), steps=40)
