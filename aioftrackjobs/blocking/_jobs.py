"""job_context and RunningJob for plain threads, and what else runs, queues or recovers Jobs."""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator, Callable, Coroutine, Iterable, Iterator
from functools import wraps
from inspect import isasyncgenfunction, iscoroutinefunction, isgeneratorfunction
from types import TracebackType
from typing import Any, Concatenate, ParamSpec, Protocol, Self, TypeVar, cast, overload

from aioftrackjobs.blocking._loop import call, check_interruption
from aioftrackjobs.blocking._mirror import (
    Block,
    Rows,
    begun_here,
    blocking,
    blocking_text,
    directly,
    documented,
    mirrors,
)
from aioftrackjobs.blocking._session import Session, default_session
from aioftrackjobs.config.settings import require
from aioftrackjobs.jobs.block import BlockContext, session_from
from aioftrackjobs.jobs.reports import Reporter as AsyncReporter
from aioftrackjobs.jobs.reports import Stage as AsyncStage
from aioftrackjobs.jobs.stopping import StopRequest
from aioftrackjobs.models import Job
from aioftrackjobs.running import command_jobs, recovery, running_job
from aioftrackjobs.running.running_job import RunningJob as AsyncRunningJob
from aioftrackjobs.session import AsyncSession

P = ParamSpec("P")
Q = ParamSpec("Q")
T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


class Reporter:
    """Something that progress is reported on."""

    __slots__ = ("_job",)

    def __init__(self, job: Any) -> None:
        self._job = job

    def _target(self) -> Any:
        return self._job

    def __repr__(self) -> str:
        return repr(self._job)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Reporter) and bool(self._job == other._job)

    def __hash__(self) -> int:
        return hash(self._job)

    progress = directly(AsyncReporter.progress)
    advance = directly(AsyncReporter.advance)

    @property
    @mirrors(AsyncReporter.message)
    def message(self) -> str | None:
        return cast("str | None", self._job.message)

    @message.setter
    def message(self, text: str | None) -> None:
        self._job.message = text

    @mirrors(AsyncReporter.track)
    def track(
        self, items: Iterable[T] | AsyncIterable[T], *, total: float | None = None
    ) -> Iterator[T]:
        tracked: AsyncIterator[T] = self._job.track(items, total=total)
        if isinstance(items, AsyncIterable):
            return Rows(tracked)
        return _Tracked(tracked)

    @mirrors(AsyncReporter.stage)
    def stage(self, name: str, *, weight: float = 1, total: float | None = None) -> Stage:
        return Stage(self._job.stage(name, weight=weight, total=total))


class _Tracked(Iterator[T]):
    """Items that are iterated over in the thread of the loop: they may be made by calls."""

    def __init__(self, tracked: AsyncIterator[T]) -> None:
        self._tracked = tracked

    def __next__(self) -> T:
        check_interruption()
        step = cast("Coroutine[Any, Any, T]", anext(self._tracked))
        try:
            step.send(None)  # it waits for nothing
        except StopIteration as stop:
            return cast("T", stop.value)
        except StopAsyncIteration:
            raise StopIteration from None
        raise AssertionError("an item was awaited")


class Stage(Reporter):
    @property
    @mirrors(AsyncStage.fraction)
    def fraction(self) -> float:
        return cast("float", self._job.fraction)

    def __enter__(self) -> Self:
        self._job.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._job.__exit__(kind, error, trace)


class RunningJob(Reporter):
    _job: AsyncRunningJob

    @property
    @mirrors(AsyncRunningJob.entity)
    def entity(self) -> Job:
        return self._job.entity

    @property
    @mirrors(AsyncRunningJob.id)
    def id(self) -> str:
        return self._job.id

    @property
    @mirrors(AsyncRunningJob.stop_requested)
    def stop_requested(self) -> StopRequest:
        return self._job.stop_requested

    @property
    @mirrors(AsyncRunningJob.description)
    def description(self) -> str | None:
        return self._job.description

    @description.setter
    def description(self, text: str | None) -> None:
        self._job.description = text

    attach = begun_here(AsyncRunningJob.attach)
    run = blocking(AsyncRunningJob.run)
    finish = directly(AsyncRunningJob.finish)
    fail = directly(AsyncRunningJob.fail)
    requeue = directly(AsyncRunningJob.requeue)


class JobBlock(Block[AsyncRunningJob, RunningJob]):
    """The block of a Job, to enter once with ``with``, or to run around each call of a function.

    Args:
        session: A session, or a function that returns one; None for the one of the environment.
        options: The other arguments of ``job_context``.
    """

    def __init__(
        self, session: Session | Callable[[], Session] | None, options: dict[str, Any]
    ) -> None:
        is_session = session is None or isinstance(session, Session) or callable(session)
        require(
            is_session, "session", "a blocking Session, or a function that returns one", session
        )
        self._session, self._options = session, options
        self._make_block(_not_yet)  # so that a wrong argument is an error here
        self._is_entered = False

    def _make_block(
        self, session: AsyncSession | Callable[[], AsyncSession]
    ) -> BlockContext[AsyncRunningJob]:
        return running_job.job_context(session, **self._options)

    def __enter__(self) -> RunningJob:
        if self._is_entered:
            raise RuntimeError("a block is entered once; call job_context(...) again for each Job")
        self._is_entered = True
        session = default_session() if self._session is None else self._session
        if not isinstance(session, Session):
            session = session_from(session, Session)
        super().__init__(self._make_block(session._target()), RunningJob)
        return super().__enter__()

    def __call__(self, function: Callable[P, T]) -> Callable[P, T]:
        """Return *function* with a block of its own around each call.

        Raises:
            TypeError: *function* is a coroutine function, or a generator, or no function.
        """
        is_async = iscoroutinefunction(function) or isasyncgenfunction(function)
        if is_async or isgeneratorfunction(function) or not callable(function):
            raise TypeError(
                "job_context of blocking code decorates plain functions; for coroutine functions "
                f"there is aioftrackjobs.job_context: {function!r}"
            )

        @wraps(function)
        def run(*args: P.args, **kwargs: P.kwargs) -> T:
            with JobBlock(self._session, self._options):
                return function(*args, **kwargs)

        return run


def _not_yet() -> AsyncSession:
    raise NotImplementedError


class _JobContext(Protocol[P]):
    @overload
    def __call__(
        self, session: Session | Callable[[], Session], /, *args: P.args, **kwargs: P.kwargs
    ) -> JobBlock: ...
    @overload
    def __call__(self, /, *args: P.args, **kwargs: P.kwargs) -> JobBlock: ...
    def __call__(self, /, *args: Any, **kwargs: Any) -> JobBlock: ...


def _with_optional_session(
    function: Callable[
        Concatenate[AsyncSession | Callable[[], AsyncSession], P], BlockContext[AsyncRunningJob]
    ],
) -> _JobContext[P]:
    @wraps(function, updated=())
    def make(session: Session | Callable[[], Session] | None = None, **options: Any) -> JobBlock:
        return JobBlock(session, options)

    return cast("_JobContext[P]", documented(make, function))


def _with_session(
    function: Callable[Concatenate[AsyncSession, P], Coroutine[Any, Any, T]],
) -> Callable[Concatenate[Session, P], T]:
    @wraps(function, updated=())
    def run(session: Session, *args: P.args, **kwargs: P.kwargs) -> T:
        require(isinstance(session, Session), "session", "a blocking Session", session)
        return call(function, session._target(), *args, **kwargs)

    return cast("Callable[Concatenate[Session, P], T]", documented(run, function))


job_context = _with_optional_session(running_job.job_context)
run_command = _with_session(command_jobs.run_command)
recover = _with_session(recovery.recover)


@mirrors(running_job.current_job)
def current_job() -> RunningJob:
    return RunningJob(running_job.current_job())


for _blocking, _async in ((RunningJob, AsyncRunningJob), (Stage, AsyncStage)):
    _blocking.__doc__ = blocking_text(_async.__doc__)
