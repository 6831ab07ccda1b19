"""What users report progress on: a running Job, and the stages of its work.

All of it may be called from any thread, callback or signal handler, and none of it raises an error
for what it is passed: a report must never end the work that it is about.
"""

from __future__ import annotations

import threading
from collections.abc import AsyncIterable, AsyncIterator, Iterable, Sized
from contextlib import AbstractContextManager
from contextvars import ContextVar
from types import TracebackType
from typing import Any, Protocol, Self, TypeVar, cast

from aioftrackjobs.background import SafeLogger, show_value, text_of
from aioftrackjobs.jobs.progress import Progress
from aioftrackjobs.jobs.stages import Work, number, plain

logger: SafeLogger = SafeLogger(__name__)

T = TypeVar("T")

#: The innermost stage that the calling code runs in, and in the same way those around it.
_stages: ContextVar[tuple[Stage, Any] | None] = ContextVar("aioftrackjobs_stages", default=None)


class ProgressReceiver(Protocol):
    """A Job that runs."""

    @property
    def has_ended(self) -> bool:
        """Whether nothing is reported about it any more."""
        ...

    def show_progress(self, progress: Progress) -> None:
        """Have *progress* written soon. Never waits; may be called from any thread."""
        ...


class Reports:
    """The reports about one Job.

    Args:
        job: What receives them.
    """

    def __init__(self, job: ProgressReceiver) -> None:
        self.job = job
        self.work: Work = Work()
        # It is entered again by a signal handler that interrupts a report of the same thread.
        self.lock: AbstractContextManager[bool] = threading.RLock()
        self._has_warned = False

    def send(self, work: Work) -> None:
        """Have the state of the Job written, with what *work*, a part of it, is doing."""
        if not work.ended:  # a late report about a stage is no news
            self.job.show_progress(work.shown())

    def warn(self, problem: str, *, depth: int = 3) -> None:
        """Log the first *problem* of the Job.

        Not to be called with the lock: a handler of the log may report progress, too.

        Args:
            problem: What makes no sense.
            depth: The frame that passed it, counted from here on as 1.
        """
        if not (self._has_warned or self.job.has_ended):
            self._has_warned = True
            logger.warning(
                "%(job)r: %(problem)s cannot be shown as progress; the work goes on, and "
                "further reports like "
                "this are not logged",
                job=self.job,
                problem=problem,
                stacklevel=depth,
            )


class Reporter:
    """Something that progress is reported on."""

    #: So that setting a misspelt attribute is an error.
    __slots__ = ("__weakref__", "_reports")

    def __init__(self, reports: Reports) -> None:
        self._reports = reports

    def _work(self) -> Work:
        """Return what a report is about that is made now."""
        raise NotImplementedError

    def progress(
        self, done: float, message: str | float | None = None, *, total: float | None = None
    ) -> None:
        """Report how far the work is. Never waits; only the latest report is written.

        It can be called from any thread, callback or signal handler. It raises no error: a number
        that makes no sense is not shown, and the first one of a Job is logged as a warning. So is a
        number above 1 without a *total*, which is shown as it is, without a percentage. After the
        end of the Job, it does nothing.

        Args:
            done: From 0 to 1, or up to *total*.
            message: What the Job is doing. A number is taken as the *total*, because many functions
                call back with two numbers: ``session.download(..., progress=job.progress)``.
            total: The value of *done* at the end of the work.
        """
        work = self._work()
        if total is None and issubclass(type(message), (int, float)):
            message, total = None, cast("float", message)
        # Values of the user's are read before the lock is taken: they may run any code, and block.
        text = text_of(message)
        given, whole = plain(done), plain(total)
        with self._reports.lock:
            problem = work.progress(given, text, whole)
            self._reports.send(work)
        if message is not None and text is None:
            problem = problem or "a message without a text"
        if problem is not None:
            self._reports.warn(problem)

    def advance(self, amount: float = 1, message: str | None = None) -> None:
        """Report that some more work is done, for example one more file.

        Example: ``job.progress(0, total=3)``, and then ``job.advance()`` for each of three files.

        Args:
            amount: How much more, in the unit of the *total* of the stage, or of an earlier
                :meth:`progress`. Without a total, it is only counted.
            message: What the Job is doing; the number that is done by now if None.
        """
        work = self._work()
        text, given = text_of(message), plain(amount)
        if message is not None and text is None:
            text = ""  # it replaces the last one, and no count takes its place
        with self._reports.lock:
            problem = work.advance(given, text)
            self._reports.send(work)
        if problem is not None:
            self._reports.warn(problem)

    @property
    def message(self) -> str | None:
        """What the Job is doing, as the jobs menu shows it beside the percentage.

        A message that is set here stays until another is set; a report with a message of its own
        replaces it for that report.
        """
        return self._work().message

    @message.setter
    def message(self, text: str | None) -> None:
        work, plain_text = self._work(), text_of(text)
        with self._reports.lock:
            work.message = plain_text
            self._reports.send(work)

    def track(
        self, items: Iterable[T] | AsyncIterable[T], *, total: float | None = None
    ) -> AsyncIterator[T]:
        """Iterate over *items*, and report after each one how many are done.

        Args:
            items: Anything to iterate over, with ``for`` or ``async for``.
            total: How many items there are, if they have no length, and if that is not the total of
                the stage.
        """
        if total is None:
            total = _length(items)
        return _Tracked(self._reports, self._work(), items, total)

    def stage(self, name: str, *, weight: float = 1, total: float | None = None) -> Stage:
        """Return a stage of the work: a context manager, for ``async with`` or ``with``.

        Inside the block, also in the tasks and threads that it starts, what is reported on the Job
        is about the stage. Stages may be nested, and run at the same time.

        Example:
            Two stages that are planned before the first begins, so that the percentage is exact::

                encode, upload = job.stage("encode", weight=3), job.stage("upload")
                async with encode:  # from 0 to 75 %
                    async for frame in job.track(frames):
                        await render(frame)
                async with upload:
                    await job.attach(movie, report_progress=True)

        A stage that is made when it begins may be followed by others. So it gets only a part of
        what is left: its weight, where one more stage of weight 1 is expected. After
        ``job.progress(0, total=4)``, weights are parts of this total.

        Args:
            name: Stands before the message of the stage.
            weight: The share of the stage, in relation to the others.
            total: How much work it is, in the unit of ``progress`` and ``advance``.
        """
        return Stage(self._reports, self._work(), name, weight, total)


class Stage(Reporter):
    """A stage of a Job's work: see :meth:`RunningJob.stage`.

    Example: ``async with job.stage("encode", weight=3): await encode()``

    A block that is left by an exception leaves the stage as far as it came. One that is entered
    again inside of itself, or by several tasks, ends when it is left for the last time.
    """

    __slots__ = ("_entries", "_own")

    def __init__(
        self, reports: Reports, within: Work, name: str, weight: float, total: float | None
    ) -> None:
        super().__init__(reports)
        known_weight = number(weight)
        known_total = None if total is None else number(total)
        text = text_of(name) or ""
        with reports.lock:
            self._own = Work(
                within,
                text,
                1.0 if known_weight is None else known_weight,
                known_total or None,
            )
        if known_weight is None or (total is not None and not known_total):
            values = f"weight {show_value(weight)} and total {show_value(total)}"
            reports.warn(f"a stage of {values}", depth=4)
        self._entries = 0

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._own.name!r} of {self._reports.job!r}>"

    @property
    def fraction(self) -> float:
        """The part of the stage that is done, from 0 to 1."""
        return self._own.fraction

    def _work(self) -> Work:
        return self._own

    def work_for(self, reports: Reports) -> Work | None:
        """Return what a report inside of the stage is about; None if it is of another Job."""
        if self._reports is not reports:
            return None
        work = self._own
        while work.ended and work.within is not None:
            work = work.within
        return work

    def __enter__(self) -> Self:
        _stages.set((self, _stages.get()))
        with self._reports.lock:
            self._entries += 1
            if self._entries == 1:
                self._own.begin()
            self._reports.send(self._own)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        entered = _stages.get()
        if entered is not None and entered[0] is self:
            _stages.set(entered[1])
        within = self._own.within
        with self._reports.lock:
            self._entries -= 1
            if self._entries > 0:
                return
            self._own.end(succeeded=error is None)
            if within is not None and error is None:
                self._reports.send(within)

    async def __aenter__(self) -> Self:
        return self.__enter__()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.__exit__(kind, error, trace)


def current_work(reports: Reports) -> Work:
    """Return the work of the innermost stage that the calling code runs in, or of the Job."""
    entered = _stages.get()
    while entered is not None:
        stage, entered = entered
        if (work := stage.work_for(reports)) is not None:
            return work
    return reports.work


def _length(items: object) -> int | None:
    """Return how many *items* there are; None if they do not say that."""
    try:
        return len(items) if isinstance(items, Sized) else None
    except Exception:  # noqa: BLE001 - the work is to iterate over them, whatever their length
        return None


class _Tracked(AsyncIterator[T]):
    """Items, and a report after each one.

    This is no generator, because a generator that is left half-way is never closed.
    """

    def __init__(
        self,
        reports: Reports,
        work: Work,
        items: Iterable[T] | AsyncIterable[T],
        total: float | None,
    ) -> None:
        self._reports = reports
        self._work = work
        self._items = aiter(items) if isinstance(items, AsyncIterable) else iter(items)
        self._total = work.given_total if total is None else number(total)
        self._count = 0
        if self._total:
            work.expect(self._total)
        elif total is not None and self._total is None:
            reports.warn(f"a total of {show_value(total)} items", depth=4)

    async def __anext__(self) -> T:
        if self._count and self._total:
            with self._reports.lock:
                self._work.progress(self._count, None, self._total)
                self._work.show_count()
                self._reports.send(self._work)
        if isinstance(self._items, AsyncIterator):
            item = await anext(self._items)
        else:
            try:
                item = next(self._items)
            except StopIteration:
                raise StopAsyncIteration from None
        self._count += 1
        return item
