"""shutdown_on_signals with real processes and real signals."""

from __future__ import annotations

import signal
import sys
from pathlib import Path

import anyio
import pytest

from aioftrackjobs import AsyncSession, Job, JobStatus, shutdown_on_signals
from aioftrackjobs.devserver import ServerHandle

from .test_process_ends import line, rest
from .test_recovery import daemon, settled

#: Steps of a shutdown at which another signal arrives.
STEPS = 12

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="there are no such signals")

#: Jobs in the block itself, in its tasks, and in a task that only asyncio knows.
DAEMON = """
    import asyncio
    import anyio
    from aioftrackjobs import AsyncSession, job_context, shutdown_on_signals

    async def work(session, number, inside):
        async with job_context(session, description=f"job {number}"):
            inside.append(number)
            await anyio.sleep_forever()

    async def main():
        inside = []
        async with AsyncSession() as session, shutdown_on_signals(session, grace=8):
            loose = LOOSE
            async with anyio.create_task_group() as group:
                for number in range(5):
                    group.start_soon(work, session, number, inside)
                while len(inside) < NUMBER:
                    await anyio.sleep(0.001)
                print("ready", flush=True)

    anyio.run(main, backend="BACKEND")
"""


def program(backend: str) -> str:
    is_asyncio = backend == "asyncio"
    loose = "asyncio.create_task(work(session, 99, inside))" if is_asyncio else "None"
    number = "6" if is_asyncio else "5"
    return DAEMON.replace("LOOSE", loose).replace("NUMBER", number).replace("BACKEND", backend)


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_ends_all_jobs_and_their_final_status_is_recorded(
    server: ServerHandle,
    session: AsyncSession,
    tmp_path: Path,
    backend: str,
    number: signal.Signals,
) -> None:
    async with daemon(server, tmp_path / "journal", code=program(backend)) as process:
        assert await line(process) == "ready"
        process.send_signal(number)
        errors = await rest(process)
        await process.wait()

    assert process.returncode == 128 + number, errors
    jobs = await session.query("Job").all()
    assert len(jobs) == (6 if backend == "asyncio" else 5)
    assert {job["status"] for job in jobs} == {JobStatus.FAILED}
    reason = f"failed: stopped by {number.name}"
    assert all(reason in job["data"] for job in jobs)
    assert "Traceback" not in errors


async def stopped(
    server: ServerHandle, session: AsyncSession, tmp_path: Path, code: str
) -> tuple[int | None, str]:
    """End the program *code* by SIGTERM; return its exit code, and the text of its only Job."""
    async with daemon(server, tmp_path / "journal", code=code) as process:
        assert await line(process) == "ready"
        process.send_signal(signal.SIGTERM)
        with anyio.fail_after(20):
            errors = await rest(process)
            await process.wait()

    assert "Traceback" not in errors
    (job,) = await session.query("Job").of(Job).all()
    return process.returncode, job.description or ""


AROUND = """
    import anyio
    from aioftrackjobs import AsyncSession, job_context, shutdown_on_signals

    async def work(session, task_status):
        async with job_context(session, description="around"):
            task_status.started()
            await anyio.sleep_forever()

    async def main():
        async with AsyncSession() as session, anyio.create_task_group() as group:
            await group.start(work, session)
            async with shutdown_on_signals(session, grace=600):
                print("ready", flush=True)
                await anyio.sleep_forever()

    anyio.run(main, backend="BACKEND")
"""


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
async def test_jobs_in_a_group_around_the_block_end_too(
    server: ServerHandle, session: AsyncSession, tmp_path: Path, backend: str
) -> None:
    code, text = await stopped(server, session, tmp_path, AROUND.replace("BACKEND", backend))
    assert (code, text) == (128 + signal.SIGTERM, "around - failed: stopped by SIGTERM")


IGNORING = """
    import os
    import signal
    import anyio
    from aioftrackjobs import AsyncSession, job_context, shutdown_on_signals

    async def main():
        async with AsyncSession() as session, shutdown_on_signals(session, grace=8):
            async with job_context(session, description="in the background"):
                os.kill(os.getpid(), signal.SIGINT)
                for _ in range(100):  # it would be cancelled in one of these
                    await anyio.lowlevel.checkpoint()
                print("ready", flush=True)
                await anyio.sleep_forever()

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # as in the background of a shell
    anyio.run(main, backend="BACKEND")
    """


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
async def test_an_interrupt_that_was_ignored_before_stays_ignored(
    server: ServerHandle, session: AsyncSession, tmp_path: Path, backend: str
) -> None:
    code, text = await stopped(server, session, tmp_path, IGNORING.replace("BACKEND", backend))
    assert (code, text) == (128 + signal.SIGTERM, "in the background - failed: stopped by SIGTERM")


STUBBORN = """
    import time
    import anyio
    from anyio.to_thread import run_sync
    from aioftrackjobs import AsyncSession, job_context, shutdown_on_signals

    async def main():
        async with AsyncSession() as session, shutdown_on_signals(session, grace=GRACE):
            async with job_context(session, description="stubborn"):
                print("ready", flush=True)
                await run_sync(time.sleep, 3600)

    anyio.run(main)
"""


@pytest.mark.parametrize(("grace", "signals"), [("600", 2), ("0.5", 1)])
async def test_a_second_signal_and_the_end_of_the_grace_end_the_process_at_once(
    server: ServerHandle, session: AsyncSession, tmp_path: Path, grace: str, signals: int
) -> None:
    journal = tmp_path / "journal"
    async with daemon(server, journal, code=STUBBORN.replace("GRACE", grace)) as process:
        assert await line(process) == "ready"
        process.send_signal(signal.SIGTERM)
        assert process.stderr is not None
        assert b"SIGTERM" in await process.stderr.receive()
        if signals > 1:
            process.send_signal(signal.SIGINT)
        await process.wait()

    assert process.returncode == 128 + signal.SIGTERM
    async with AsyncSession(server.url, server.api_key, server.api_user, journal=journal) as later:
        await settled(later)
    (job,) = await session.query("Job").all()
    assert "worker process ended unexpectedly" in job["data"]


BLOCKED = """
    import logging
    import os
    import signal
    import time
    import anyio
    from aioftrackjobs import AsyncSession, job_context, shutdown_on_signals

    def announce_after(number, handler):
        def handle(*args):
            handler(*args)
            os.write(1, b"received\\n")  # print() is not safe in a handler

        signal.signal(number, handle)

    async def main():
        async with AsyncSession() as session, shutdown_on_signals(session, grace=GRACE):
            async with job_context(session, description="stubborn"):
                LOCK
                for number in (signal.SIGINT, signal.SIGTERM):
                    announce_after(number, signal.getsignal(number))
                print("ready", flush=True)
                while True:  # one sleep: a signal right before it would wait for its end
                    time.sleep(0.02)

    logging.basicConfig()
    anyio.run(main, backend="BACKEND")
"""

#: The program is in the midst of logging, and does not come out of it.
LOCK = "logging.getLogger().handlers[0].acquire()"


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
@pytest.mark.parametrize(
    ("grace", "signals", "lock"),
    [
        ("0.5", [signal.SIGTERM], "pass"),
        ("600", [signal.SIGINT, signal.SIGTERM], "pass"),
        ("600", [signal.SIGTERM, signal.SIGINT], "pass"),
        ("0.5", [signal.SIGTERM], LOCK),
    ],
)
async def test_a_call_that_blocks_the_event_loop_does_not_keep_the_process(
    server: ServerHandle,
    tmp_path: Path,
    backend: str,
    grace: str,
    signals: list[signal.Signals],
    lock: str,
) -> None:
    code = BLOCKED.replace("GRACE", grace).replace("LOCK", lock).replace("BACKEND", backend)
    async with daemon(server, tmp_path / "journal", code=code) as process:
        assert await line(process) == "ready"
        first, *others = signals
        process.send_signal(first)
        # Two signals that are pending at the same time may be delivered in either order.
        assert await line(process) == "received"
        for number in others:
            process.send_signal(number)
        with anyio.fail_after(30):
            await process.wait()

    assert process.returncode == 128 + first


CLOSING = """
    import anyio
    from aioftrackjobs import AsyncSession, shutdown_on_signals

    async def main():
        async with AsyncSession() as session:
            try:
                async with shutdown_on_signals(session, grace=600):
                    print("ready", flush=True)
                    await anyio.sleep_forever()
            finally:
                print("closing", flush=True)
                with anyio.CancelScope(shield=True):
                    await anyio.sleep_forever()

    anyio.run(main, backend="BACKEND")
"""


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
async def test_a_second_signal_is_received_until_the_very_end(
    server: ServerHandle, tmp_path: Path, backend: str
) -> None:
    code = CLOSING.replace("BACKEND", backend)
    async with daemon(server, tmp_path / "journal", code=code) as process:
        assert await line(process) == "ready"
        process.send_signal(signal.SIGTERM)
        assert await line(process) == "closing"
        process.send_signal(signal.SIGINT)
        with anyio.fail_after(30):
            await process.wait()

    assert process.returncode == 128 + signal.SIGTERM


FORKING = """
    import multiprocessing
    import time
    import anyio
    from anyio.to_thread import run_sync
    from aioftrackjobs import AsyncSession, job_context, shutdown_on_signals

    def work(begun):
        begun.set()
        while True:
            time.sleep(0.02)

    async def main():
        async with AsyncSession() as session, shutdown_on_signals(session):
            async with job_context(session, description="parent"):
                fork = multiprocessing.get_context("fork")
                begun = fork.Event()
                worker = fork.Process(target=work, args=(begun,))
                worker.start()
                await run_sync(begun.wait)
                worker.terminate()
                await run_sync(worker.join)
                print(worker.exitcode, flush=True)

    anyio.run(main, backend="BACKEND")
"""


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
async def test_a_signal_to_a_forked_worker_ends_only_that(
    server: ServerHandle, session: AsyncSession, tmp_path: Path, backend: str
) -> None:
    code = FORKING.replace("BACKEND", backend)
    async with daemon(server, tmp_path / "journal", code=code) as process:
        with anyio.fail_after(30):
            assert int(await line(process)) == -signal.SIGTERM
            await process.wait()

    assert process.returncode == 0
    (job,) = await session.query("Job").all()
    assert job["status"] == JobStatus.DONE


UPLOADING = """
    import anyio
    from aioftrackjobs import AsyncSession, job_context, shutdown_on_signals

    async def slow():
        yield b"x" * 65536
        print("ready", flush=True)
        await anyio.sleep_forever()

    async def main():
        async with AsyncSession() as session, shutdown_on_signals(session):
            async with job_context(session, description="upload") as job:
                await job.attach(slow(), name="a.bin")

    anyio.run(main)
"""


async def test_a_signal_aborts_uploads(
    server: ServerHandle, session: AsyncSession, tmp_path: Path
) -> None:
    async with daemon(server, tmp_path / "journal", code=UPLOADING) as process:
        assert await line(process) == "ready"
        process.send_signal(signal.SIGTERM)
        errors = await rest(process)
        await process.wait()

    assert process.returncode == 128 + signal.SIGTERM, errors
    assert await session.query("FileComponent").all() == []
    (job,) = await session.query("Job").all()
    assert job["status"] == JobStatus.FAILED


async def test_without_a_signal_the_block_runs_as_without_it(session: AsyncSession) -> None:
    async with shutdown_on_signals(session):
        pass
    with pytest.raises(ZeroDivisionError):
        async with shutdown_on_signals(session):
            raise ZeroDivisionError
    with anyio.CancelScope() as scope:
        async with shutdown_on_signals(session):
            scope.cancel()
            await anyio.sleep_forever()
    assert scope.cancelled_caught


#: Forks a process for each moment, because imports take longer than what is tested.
AT_ONCE = """
    import os
    import signal
    import sys
    import anyio
    import httpx  # as a session does when it is opened
    import trio
    from aioftrackjobs import AsyncSession, shutdown_on_signals
    from aioftrackjobs.running import signals

    async def main():
        async with AsyncSession() as session:
            try:
                async with shutdown_on_signals(session, grace=600):
                    sys.setprofile(profile)
                    os.kill(os.getpid(), signal.SIGINT)
                    await anyio.sleep_forever()
            finally:
                if left > 0:
                    os.kill(os.getpid(), signal.SIGINT)
                with anyio.CancelScope(shield=True):
                    await anyio.sleep_forever()

    def profile(frame, event, argument):  # a signal at some moment of the shutdown
        global left
        is_ours = frame.f_back.f_code.co_filename == signals.__file__
        if event == "call" and is_ours and frame.f_code.co_name in STEPS:
            left -= 1
            if not left:
                sys.setprofile(None)
                os.kill(os.getpid(), signal.SIGINT)

    STEPS = ("__exit__", "__aexit__", "signal", "_exit_out_of_groups")
    moments = {}
    for left in range(1, 1 + int(sys.argv[1])):
        if (pid := os.fork()) == 0:
            signal.alarm(30)  # ends one that does not end by itself
            anyio.run(main, backend="BACKEND")
            os._exit(0)
        moments[pid] = left
    while moments:
        pid, status = os.wait()
        print(moments.pop(pid), os.waitstatus_to_exitcode(status), flush=True)
"""


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["asyncio", "trio"])
async def test_a_second_signal_at_any_moment_of_the_shutdown_ends_the_process(
    server: ServerHandle, tmp_path: Path, backend: str
) -> None:
    code = AT_ONCE.replace("BACKEND", backend)
    async with daemon(server, tmp_path / "journal", STEPS, code=code) as process:
        assert process.stdout is not None
        lines = b"".join([chunk async for chunk in process.stdout]).decode().splitlines()
    codes = {int(moment): int(code) for moment, code in map(str.split, lines)}
    assert codes == dict.fromkeys(range(1, 1 + STEPS), 128 + signal.SIGINT)


TWO_SESSIONS = """
    import anyio
    from aioftrackjobs import AsyncSession, job_context, shutdown_on_signals

    async def main():
        async with (
            AsyncSession() as one,
            AsyncSession() as other,
            shutdown_on_signals(one),
            shutdown_on_signals(other),
            job_context(one, description="one"),
            job_context(other, description="other"),
        ):
            print("ready", flush=True)
            await anyio.sleep_forever()

    anyio.run(main, backend="BACKEND")
"""


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
async def test_a_signal_ends_the_jobs_of_two_sessions(
    server: ServerHandle, session: AsyncSession, tmp_path: Path, backend: str
) -> None:
    code = TWO_SESSIONS.replace("BACKEND", backend)
    async with daemon(server, tmp_path / "journal", code=code) as process:
        assert await line(process) == "ready"
        process.send_signal(signal.SIGTERM)
        errors = await rest(process)
        await process.wait()

    assert process.returncode == 128 + signal.SIGTERM, errors
    jobs = await session.query("Job").all()
    assert all("failed: stopped by SIGTERM" in job["data"] for job in jobs), jobs
    assert len(jobs) == 2


@pytest.mark.skipif(sys.platform != "linux", reason="the lock of another system may differ")
async def test_a_call_that_never_comes_back_to_the_interpreter_delays_nothing(
    server: ServerHandle, tmp_path: Path
) -> None:
    """Python runs handlers only between two instructions of the main thread."""
    code = """
        import ctypes
        import signal
        import threading
        import anyio
        from aioftrackjobs import AsyncSession, shutdown_on_signals

        async def main():
            async with AsyncSession() as session, shutdown_on_signals(session, grace=600):
                libc = ctypes.CDLL(None)
                lock = ctypes.create_string_buffer(64)
                libc.pthread_mutex_lock(lock)
                print("ready", flush=True)
                libc.pthread_mutex_lock(lock)  # a deadlock, which no signal interrupts

        anyio.run(main)
    """
    async with daemon(server, tmp_path / "journal", code=code) as process:
        assert await line(process) == "ready"
        process.send_signal(signal.SIGTERM)
        assert process.stderr is not None
        process.send_signal(signal.SIGINT)
        await process.wait()

    assert process.returncode in (128 + signal.SIGTERM, 128 + signal.SIGINT)
