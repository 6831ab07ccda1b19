"""job_context and RunningJob for plain threads, and what else runs, queues or recovers Jobs."""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator, Callable, Coroutine, Iterable, Iterator
from functools import wraps
from inspect import (
    Signature,
    isasyncgenfunction,
    iscoroutinefunction,
    isgeneratorfunction,
    signature,
)
from types import TracebackType
from typing import Any, ParamSpec, Self, TypeVar, cast

from aioftrackjobs.blocking._loop import call, check_interruption
from aioftrackjobs.blocking._proxies import Block, Proxy, Rows, mirrored
from aioftrackjobs.blocking._session import Session, default_session
from aioftrackjobs.config.settings import require
from aioftrackjobs.jobs.block import BlockContext, session_from
from aioftrackjobs.jobs.reports import Stage as AsyncStage
from aioftrackjobs.running import command_jobs, recovery, running_job
from aioftrackjobs.running.running_job import RunningJob as AsyncRunningJob
from aioftrackjobs.session import AsyncSession

P = ParamSpec("P")
T = TypeVar("T")


class _Reporter(Proxy):
    """Something that progress is reported on, by any thread, without waiting."""

    _runs_in_loop = False

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Reporter) and bool(self._async == other._async)

    def __hash__(self) -> int:
        return hash(self._async)

    def track(
        self, items: Iterable[T] | AsyncIterable[T], *, total: float | None = None
    ) -> Iterator[T]:
        tracked: AsyncIterator[T] = self._async.track(items, total=total)
        if isinstance(items, AsyncIterable):
            return Rows(tracked)
        return _Tracked(tracked)


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


class Stage(_Reporter, of=AsyncStage, without={"work_for"}):
    def __enter__(self) -> Self:
        self._async.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._async.__exit__(kind, error, trace)


class RunningJob(_Reporter, of=AsyncRunningJob, without={"innermost_active"}):
    pass


class JobBlock(Block):
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
        super().__init__(self._make_block(session._target()))
        return cast("RunningJob", super().__enter__())

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


def job_context(session: Any = None, **options: Any) -> JobBlock:
    return JobBlock(session, options)


def _with_session(function: Callable[..., Coroutine[Any, Any, Any]]) -> Callable[..., Any]:
    def run(session: Session, *args: Any, **kwargs: Any) -> Any:
        require(isinstance(session, Session), "session", "a blocking Session", session)
        return call(function, session._target(), *args, **kwargs)

    return mirrored(run, function)


def current_job() -> RunningJob:
    return RunningJob(running_job.current_job())


def _with_default_session(of: Signature) -> Signature:
    session, *others = of.parameters.values()
    session = session.replace(annotation=f"{session.annotation} | None", default=None)
    return of.replace(parameters=[session, *others], return_annotation="JobBlock")


mirrored(current_job, running_job.current_job)
mirrored(job_context, running_job.job_context)
job_context.__signature__ = _with_default_session(signature(job_context))  # type: ignore[attr-defined]
run_command = _with_session(command_jobs.run_command)
recover = _with_session(recovery.recover)
