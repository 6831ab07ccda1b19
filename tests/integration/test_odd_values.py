"""One odd value of a program, a server or a log handler: only its own Job may notice it."""

from __future__ import annotations

import asyncio
import importlib
import logging
import os
import signal
import sys
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import pytest
import trio

from aioftrackjobs import (
    AsyncSession,
    ConnectError,
    FtrackJobsError,
    Job,
    RetryPolicy,
    RunningJob,
    job_context,
)
from aioftrackjobs.devserver import ServerHandle
from aioftrackjobs.jobs.ownership import Lease
from aioftrackjobs.session import connection_of, jobs_of
from aioftrackjobs.transport import WireRequest, WireResponse

from .cases import case
from .journals import entries
from .relay import Relay, Send
from .settings import QUICK, connected
from .waiting import shows, until

pytestmark = [pytest.mark.every_loop, pytest.mark.either_loop]


@asynccontextmanager
async def beside(session: AsyncSession, server: ServerHandle) -> AsyncIterator[RunningJob]:
    """Run a Job that must notice nothing: it reports progress before and after, and is done."""
    async with job_context(session, description="beside", interval=0.01) as job:
        job.progress(0.25)
        assert await shows(session, job, "beside (25 %)")
        yield job
        job.progress(0.75)
        assert await shows(session, job, "beside (75 %)")
    assert server.inspector.job(job.id)["status"] == "done"


# Dates of servers

DATES = [
    "Fri, 31 Dec 9999 23:59:59 GMT",
    "Fri, 31 Dec 9999 23:59:59 -2359",
    "Mon, 01 Jan 0001 00:00:00 +2359",
    "Mon, 30 Nov 2026 17:41:41 +9999",
    "Mon, 30 Nov 2026 17:41:41 +99999999999999999999",
    "Mon, 30 Nov 99999999999999999999 17:41:41 GMT",
    "Mon, 30 Nov 2026 99:99:99 GMT",
    "Thu, 01 Jan 1970 00:00:00 GMT",
    "Fri, 31 Dec 2998 23:59:59 GMT",
    "9" * 5000,
    "(" * 5000,
    "\x00",
    "",
]


@pytest.mark.parametrize("header", ["date", "retry-after"])
async def test_no_date_of_a_server_ends_anything(
    server: ServerHandle, session: AsyncSession, header: str
) -> None:
    left = list(DATES)

    async def damage(request: WireRequest, send: Send) -> WireResponse:
        response = await send(request)
        if not left:
            return response
        headers = {**response.headers, header: left.pop()}
        if header == "retry-after" and len(left) % 2:
            return WireResponse(429, b"", headers)
        return WireResponse(response.status, response.body, headers)

    async with beside(session, server) as job:
        Relay(session, damage)

        async def read() -> bool:
            await session.get(Job, job.id)
            return not left

        if header == "date":  # the others let the session wait
            await until(read)
            found = await session.get(Job, job.id)
            assert found is not None
            offset = connection_of(session).server_status.clock_offset
            assert abs(offset.total_seconds()) < 86_400
            lease = Lease.of(server.inspector.job(job.id)["data"])
            assert lease is not None
            assert abs((lease.until - datetime.now(UTC)).total_seconds()) < 86_400
        else:
            left.clear()


# Messages

RAISED = [ValueError, KeyboardInterrupt, SystemExit, asyncio.CancelledError, RecursionError]


class Unreadable:
    """Raises from whatever it is asked."""

    def __init__(self, kind: type[BaseException]) -> None:
        self._kind = kind

    def _fail(self, *_: object) -> Any:
        raise self._kind

    __str__ = __repr__ = __format__ = __len__ = __bool__ = __float__ = __int__ = _fail
    __eq__ = __hash__ = __index__ = _fail


class TextOfAnotherKind(str):
    """A text whose methods are of no use."""

    __slots__ = ()

    def _fail(self, *_: object, **__: object) -> Any:
        raise SystemExit

    def __str__(self) -> Any:
        return self

    __getitem__ = __len__ = __contains__ = __eq__ = __iter__ = __format__ = _fail
    split = replace = startswith = endswith = encode = strip = _fail
    __hash__ = str.__hash__


class NoText:
    def __str__(self) -> str:
        return 7  # type: ignore[return-value]


class OddClass:
    """Raises when ``isinstance`` asks for its class."""

    @property  # type: ignore[misc]
    def __class__(self) -> Any:
        raise SystemExit

    def __str__(self) -> str:
        raise SystemExit


@pytest.mark.parametrize("kind", RAISED)
async def test_a_value_that_cannot_be_shown_ends_nothing(
    server: ServerHandle, session: AsyncSession, kind: type[BaseException]
) -> None:
    values: list[Any] = [Unreadable(kind), NoText(), OddClass(), TextOfAnotherKind("odd")]
    async with beside(session, server):
        async with job_context(
            session, description=TextOfAnotherKind("Render"), interval=0.01
        ) as job:
            for value in values:
                job.progress(0.5, value)
                job.progress(value)
                job.progress(0.5, total=value)
                job.advance(value)
                job.advance(1, value)
                job.message = value
                job.description = value
                with job.stage(value, weight=value, total=value):
                    job.progress(1, value, total=value)
            items = type("Items", (list,), {"__len__": lambda _: Unreadable(kind).__len__()})
            if issubclass(kind, Exception):
                assert [each async for each in job.track(items([1, 2]))] == [1, 2]
            job.description = TextOfAnotherKind("Render")
            job.message = None
            job.progress(0.5, TextOfAnotherKind("frame 5"))
            assert await shows(session, job, "Render (50 %, frame 5)")
            job.finish(TextOfAnotherKind("well"))
        assert server.inspector.job(job.id)["description"] == "Render - well"


async def test_a_message_that_blocks_blocks_no_other_thread(
    server: ServerHandle, session: AsyncSession
) -> None:
    begun, go_on = anyio.Event(), threading.Event()

    class Blocking:
        def __str__(self) -> str:
            anyio.from_thread.run_sync(begun.set)
            go_on.wait(20)
            return "late"

    async with beside(session, server) as job, anyio.create_task_group() as group:
        group.start_soon(anyio.to_thread.run_sync, lambda: job.progress(0.5, Blocking()))  # type: ignore[arg-type]
        await begun.wait()
        job.progress(0.6)
        assert await shows(session, job, "beside (60 %)")
        go_on.set()


# Foreign code in the background


@pytest.mark.parametrize("kind", [ValueError, SystemExit, asyncio.CancelledError, BaseException])
async def test_a_transport_that_raises_anything_fails_its_request_alone(
    server: ServerHandle, kind: type[BaseException]
) -> None:
    faults = [0]

    async def fail(request: WireRequest, send: Send) -> WireResponse:
        if faults[0]:
            faults[0] -= 1
            raise kind
        return await send(request)

    soon = RetryPolicy(first_delay=0.01, longest_delay=0.02)
    async with connected(server, retry=soon) as session:
        Relay(session, fail)
        async with beside(session, server):
            for _ in range(5):
                faults[0] = 2
                async with job_context(session) as job:
                    faults[0] = 2
                assert server.inspector.job(job.id)["status"] == "done"


@pytest.mark.parametrize("kind", [ValueError, SystemExit, asyncio.CancelledError])
async def test_a_source_that_raises_anything_fails_its_upload_alone(
    server: ServerHandle, session: AsyncSession, kind: type[BaseException]
) -> None:
    class Source:
        def read(self, _: int = -1) -> bytes:
            raise kind

    async def chunks() -> AsyncIterator[bytes]:
        yield b"abc"
        raise kind

    def fail(*_: object) -> None:
        raise kind

    async with beside(session, server):
        for source, progress in ((Source(), None), (chunks(), None), (b"abc", fail)):
            with pytest.raises(BaseException) as caught:  # noqa: PT011 - of any kind
                await session.create_component(source, name="a.bin", progress=progress)
            assert not isinstance(caught.value, AssertionError)


#: What runs in the background at the end of a Job, and fails once.
LAST_STEPS = [
    "aioftrackjobs.jobs.final_report.FinalReport._encode",
    "aioftrackjobs.jobs.channels.Channels.stop",
    "aioftrackjobs.jobs.delivery.Delivery._attempt",
]

#: The same while it runs.
STEPS = [
    "aioftrackjobs.jobs.leases.ActiveJobs.renew_all",
    "aioftrackjobs.jobs.lifecycle.JobLifecycle.renew_lease",
    "aioftrackjobs.jobs.lifecycle.JobLifecycle._post_data",
    "aioftrackjobs.jobs.channels.ProgressWriter._write_all",
    "aioftrackjobs.jobs.channels.Channel.write",
    "aioftrackjobs.jobs.reading.JobReader.read",
    "aioftrackjobs.jobs.journal_replay.JournalReplay.deliver",
    "aioftrackjobs.commit.lane.SendQueue.take",
    "aioftrackjobs.journal._file.JournalFile.write",
    "aioftrackjobs.journal._file.JournalFile.sync",
    "aioftrackjobs.journal._file.JournalFile.inspect",
    "aioftrackjobs.journal._file.JournalFile.claim",
]


@pytest.mark.parametrize("step", [*LAST_STEPS, *STEPS], ids=lambda step: step.partition(".")[2])
async def test_a_fault_in_the_background_ends_its_own_piece_of_work(
    server: ServerHandle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    kinds = [ZeroDivisionError, SystemExit, asyncio.CancelledError]
    if "journal._file" in step:
        del kinds[1:]  # nothing in the thread of the journal runs code of others
    module, _, method = step.rpartition(".")
    module, _, owner = module.rpartition(".")
    target = getattr(importlib.import_module(module), owner)
    run, planned = getattr(target, method), list[type[BaseException]]()

    def fail(self: Any, *args: Any, **options: Any) -> Any:
        if planned:
            raise planned.pop()
        return run(self, *args, **options)

    monkeypatch.setattr(target, method, fail)
    timings = replace(QUICK, job_read_interval=0.02, replay_interval=0.02, journal_retry=0.05)
    path = tmp_path / "jobs.journal"

    async def work() -> None:
        part = 0.0

        async def step_is_taken() -> bool:
            nonlocal part
            part = (part + 0.01) % 1
            job.progress(part)
            with suppress(FtrackJobsError):
                await session.get(Job, job.id)
            if step.endswith("sync"):  # only new entries are synced, and the first may be by now
                async with job_context(session):
                    pass
            jobs_of(session).replay.wake()
            return not planned

        await until(step_is_taken)

    async def end() -> None:
        async with job_context(session, description="ends", interval=0.01) as ending:
            ending.progress(0.5)
            assert await shows(session, ending, "ends (50 %)")
            planned.append(kind)
        assert server.inspector.job(ending.id)["status"] == "done"
        assert not planned

    async with (
        connected(server, journal=path, lease=0.06, timings=timings) as session,
        beside(session, server) as job,
    ):
        for kind in kinds:
            with case(kind):
                if step in LAST_STEPS:
                    await end()
                else:
                    planned.append(kind)
                    await work()
                job.progress(0.6)
                assert await shows(session, job, "beside (60 %)")
                await until(lambda: entries(path) == {job.id: None})


def interrupted(
    server: ServerHandle, run: Callable[..., object], interrupt: Callable[[], object]
) -> tuple[str, str]:
    """Run a Job, and interrupt a request in its background; return how the Job ended."""
    ids = list[str]()

    async def main() -> None:
        async with connected(server) as session, job_context(session, interval=0.01) as job:
            ids.append(job.id)

            async def pass_on(request: WireRequest, send: Send) -> WireResponse:
                relay.end()
                interrupt()
                return await send(request)

            relay = Relay(session, pass_on)
            job.progress(0.5)
            await anyio.sleep_forever()

    with pytest.raises(KeyboardInterrupt):
        run(main)
    (job_id,) = ids
    found = server.inspector.job(job_id)
    return found["status"], found["description"]


def asyncio_run(main: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(main())


@pytest.mark.parametrize("run", [asyncio_run, trio.run], ids=["asyncio", "trio"])
def test_an_interruption_in_the_background_interrupts_the_program_and_fails_its_jobs(
    server: ServerHandle, run: Callable[..., object]
) -> None:
    """As when Ctrl-C is pressed for the second time, or another signal has its handler.

    It arrives in whatever code runs then.
    """

    def interrupt() -> None:
        raise KeyboardInterrupt

    status, _ = interrupted(server, run, interrupt)
    assert status == "failed"


@pytest.mark.skipif(sys.platform == "win32", reason="signals differ")
def test_ctrl_c_that_arrives_in_background_work_of_trio_is_for_the_program(
    server: ServerHandle,
) -> None:
    ended = interrupted(server, trio.run, partial(signal.raise_signal, signal.SIGINT))
    assert ended == ("failed", "50 % - failed: interrupted")


class Raising(logging.Handler):
    def __init__(self, kind: type[BaseException]) -> None:
        super().__init__()
        self.kind, self.count = kind, 0

    def emit(self, _: logging.LogRecord) -> None:
        self.count += 1
        raise self.kind


@contextmanager
def raising_logs(kind: type[BaseException]) -> Iterator[Raising]:
    handler, logger = Raising(kind), logging.getLogger("aioftrackjobs")
    logger.addHandler(handler)
    level = logger.level
    logger.setLevel(logging.DEBUG)
    try:
        yield handler
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)


@pytest.mark.parametrize("kind", [ValueError, SystemExit, RecursionError])
async def test_log_handlers_that_raise_change_nothing(
    server: ServerHandle, tmp_path: Path, kind: type[BaseException]
) -> None:
    path = tmp_path / "jobs.journal"
    with raising_logs(kind) as handler:
        async with connected(server, journal=path) as session, beside(session, server):
            faults = [0]

            async def fail(request: WireRequest, send: Send) -> WireResponse:
                if faults[0]:
                    faults[0] -= 1
                    raise ValueError
                return await send(request)

            Relay(session, fail)
            path.unlink()
            with pytest.raises(LookupError, match="on purpose"):
                async with job_context(session) as job:
                    job.progress("odd")  # type: ignore[arg-type]
                    faults[0] = 2
                    raise LookupError("on purpose")
            assert server.inspector.job(job.id)["status"] == "failed"
            await until(lambda: handler.count)


async def test_a_log_handler_may_ask_for_the_health_of_the_session(
    server: ServerHandle, tmp_path: Path
) -> None:
    """Also when it is told that the journal fails, in the journal's own thread."""
    path, seen = tmp_path / "jobs.journal", list[str]()

    class Asking(logging.Handler):
        def emit(self, _: logging.LogRecord) -> None:
            seen.append(session.health.journal)

    async with connected(server, journal=path) as session, beside(session, server):
        handler = Asking()
        logging.getLogger("aioftrackjobs").addHandler(handler)
        try:
            path.unlink()
            await until(lambda: "failing" in seen)
        finally:
            logging.getLogger("aioftrackjobs").removeHandler(handler)
    assert set(seen) <= {"working", "failing"}


@pytest.mark.parametrize("function", ["sleep", "chance"])
async def test_a_retry_policy_that_raises_keeps_no_job_running(
    server: ServerHandle, session: AsyncSession, function: str
) -> None:
    def fail(*_: object) -> Any:
        raise ZeroDivisionError

    options: dict[str, Any] = {function: fail}
    policy = RetryPolicy(**options)
    timings = replace(QUICK, job_read_interval=0.05)
    async with beside(session, server), connected(server, retry=policy, timings=timings) as odd:
        async with job_context(odd, interval=0.01) as job:
            left = [2]

            async def lose(request: WireRequest, send: Send) -> WireResponse:
                if left[0]:
                    left[0] -= 1
                    raise ConnectError("gone")
                return await send(request)

            Relay(odd, lose)
            job.progress(0.5)
            await until(lambda: not left[0])
            left[0] = 2
        assert server.inspector.job(job.id)["status"] == "done"


# Errors of blocks


class NestedError(Exception):
    """Has a text that refers to itself."""

    def __str__(self) -> str:
        return str(self)


class KindOfKinds(type):
    @property
    def __name__(cls) -> str:  # type: ignore[override]
        raise SystemExit


class OddError(Exception, metaclass=KindOfKinds):
    @property
    def __cause__(self) -> Any:  # type: ignore[override]
        raise SystemExit

    @property
    def __notes__(self) -> Any:  # type: ignore[override]
        raise SystemExit

    @property  # type: ignore[misc]
    def __class__(self) -> Any:
        raise SystemExit


def failing(kind: type[BaseException]) -> Exception:
    def fail(_: object) -> str:
        raise kind

    error: Exception = type("FailingError", (Exception,), {"__str__": fail, "__repr__": fail})()
    return error


def nested_groups() -> Exception:
    error: Exception = ValueError("innermost")
    for _ in range(3000):
        error = ExceptionGroup("g", [error])
    return error


def wide_group() -> Exception:
    return ExceptionGroup("g", [ValueError(f"member {number}") for number in range(100_000)])


def many_causes() -> Exception:
    error = ValueError("last")
    latest: BaseException = error
    for number in range(100_000):
        latest.__cause__ = KeyError(number)
        latest = latest.__cause__
    return error


def circle() -> Exception:
    error, other = ValueError("circle"), KeyError("b")
    error.__cause__, other.__context__ = other, error
    return error


def with_notes(notes: object) -> Exception:
    error = ValueError("noted")
    error.__notes__ = notes  # type: ignore[assignment]
    return error


def syntax_error(*place: object) -> Exception:
    error = SyntaxError("bad syntax", ("a.py", 1, 1, "x ="))
    error.filename, error.lineno, error.offset, error.text = place  # type: ignore[assignment]
    return error


def many_frames() -> Exception:
    error = ValueError("deep")
    for _ in range(100_000):
        try:
            raise error
        except ValueError:
            pass
    return error


def from_source(filename: str) -> Exception:
    try:
        exec(compile("raise ValueError('from a file')", filename, "exec"), {})
    except ValueError as error:
        return error
    raise AssertionError


def pipe_as_source() -> Exception:
    os.mkfifo("pipe.py")
    return from_source(str(Path("pipe.py").absolute()))


def no_text_as_source() -> Exception:
    Path("bytes.py").write_bytes(b"\xff\xfe\x00raise" * 100)
    return from_source(str(Path("bytes.py").absolute()))


ERRORS: dict[str, tuple[Callable[[], Exception], str]] = {
    "nested groups": (nested_groups, "innermost"),
    "a wide group": (wide_group, "member 0"),
    "many causes": (many_causes, "last"),
    "a circle": (circle, "circle"),
    "notes that are none": (lambda: with_notes(7), "noted"),
    "notes of another kind": (lambda: with_notes([7, None, b"x", Unreadable(ValueError)]), "noted"),
    "endless notes": (lambda: with_notes(["x" * 10**6] * 1000), "noted"),
    "syntax error with bytes": (lambda: syntax_error(b"a", b"1", b"2", b"x"), "bad syntax"),
    "syntax error without": (lambda: syntax_error(None, None, None, None), "bad syntax"),
    "syntax error with objects": (lambda: syntax_error({}, [], 1.5, 7), "bad syntax"),
    "no text: ValueError": (lambda: failing(ValueError), "FailingError"),
    "no text: KeyboardInterrupt": (lambda: failing(KeyboardInterrupt), "FailingError"),
    "no text: SystemExit": (lambda: failing(SystemExit), "FailingError"),
    "no text: CancelledError": (lambda: failing(asyncio.CancelledError), "FailingError"),
    "a text of itself": (NestedError, "NestedError"),
    "an odd class": (OddError, "OddError"),
    "many frames": (many_frames, "deep"),
    "a source that is gone": (lambda: from_source("/nowhere/gone.py"), "from a file"),
    "a source that is a pipe": (pipe_as_source, "from a file"),
    "a source that does not end": (lambda: from_source("/dev/zero"), "from a file"),
    "a source that is no text": (no_text_as_source, "from a file"),
    "a huge text": (lambda: ValueError("x" * 20_000_000), "ValueError: xxx"),
    "lone surrogates": (lambda: ValueError("\udcff odd \ud800"), "odd"),
    "an odd argument": (lambda: ValueError(Unreadable(SystemExit)), "ValueError"),
}


if sys.platform == "win32":
    for each in ("a source that is a pipe", "a source that does not end"):
        del ERRORS[each]


@pytest.mark.slow
async def test_an_odd_error_is_the_one_that_comes_out_and_fails_its_job_alone(
    server: ServerHandle, session: AsyncSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    async with beside(session, server):
        for name, (make, text) in ERRORS.items():
            with case(name):
                error = make()
                job_id, caught = await failed_by(error, session)
                assert caught is error
                free_causes(error)
                found = server.inspector.job(job_id)
                assert found["status"] == "failed"
                assert found["description"].startswith("Odd - failed: ")
                assert text in found["description"]
                content = server.inspector.content(found["attachments"][0]["id"])
                assert text.encode() in content
                assert b"Error" in content
                assert len(content) < 1_000_000


async def failed_by(error: Exception, session: AsyncSession) -> tuple[str, BaseException | None]:
    """Raise *error* in the block of a Job; return its id, and the error that comes out."""
    caught: BaseException | None = None
    try:
        async with job_context(session, description="Odd") as job:
            raise error
    except BaseException as exc:  # noqa: BLE001 - whatever comes out
        caught = exc
    return job.id, caught


def free_causes(error: BaseException) -> None:
    """Free a long chain of causes one by one: together that recurses too deeply."""
    if not isinstance(error, OddError):
        following: BaseException | None = error
        while following is not None:
            following.__cause__, following = None, following.__cause__
