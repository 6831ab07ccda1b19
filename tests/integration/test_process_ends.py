"""Real processes that are interrupted, or exit, while their Jobs run."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import pytest

from aioftrackjobs import AsyncSession, Job, JobStatus
from aioftrackjobs.devserver import ServerHandle

from .wires import listening


@asynccontextmanager
async def program(server: ServerHandle, code: str) -> AsyncIterator[anyio.abc.Process]:
    """Run *code* in a process of its own, with the server in its environment."""
    environment = {
        **os.environ,
        "FTRACK_SERVER": server.url,
        "FTRACK_API_KEY": server.api_key,
        "FTRACK_API_USER": server.api_user,
        "PYTHONWARNINGS": "default",
    }
    process = await anyio.open_process(
        [sys.executable, "-c", textwrap.dedent(code)],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    async with process:
        with anyio.fail_after(60):
            yield process
            await process.wait()


async def line(process: anyio.abc.Process) -> str:
    """Return the next text that the process prints, without white space at its ends."""
    assert process.stdout is not None
    while not (printed := (await process.stdout.receive()).decode().strip()):
        pass
    return printed


async def rest(process: anyio.abc.Process) -> str:
    """Return all that the process writes to its standard error until its end."""
    assert process.stderr is not None
    return b"".join([chunk async for chunk in process.stderr]).decode()


async def the_job(session: AsyncSession, description: str) -> Job:
    (job,) = [
        job
        for job in await session.query("Job").of(Job).all()
        if (job.description or "").startswith(description)
    ]
    return job


INTERRUPTED = """
    import {library}
    import anyio
    from aioftrackjobs import AsyncSession, job_context

    async def main():
        async with AsyncSession() as session:
            async with job_context(session, description="Long"):
                print("running", flush=True)
                await anyio.sleep_forever()

    {library}.run({main})
"""

UNCLOSED = """
    import anyio
    from aioftrackjobs import AsyncSession, job_context

    async def frames(session):
        async with job_context(session, description="unclosed"):
            yield 1
            yield 2

    async def main():
        global generators
        generators = [frames(await AsyncSession().__aenter__()) for _ in range(2)]
        for generator in generators:
            await anext(generator)

    anyio.run(main, backend="{backend}")
"""


#: A download that is stuck, in a session that is never closed, while the program fails.
STUCK = """
    import asyncio
    from aioftrackjobs import AsyncSession

    async def main():
        global download
        session = await AsyncSession("http://127.0.0.1:{port}").__aenter__()
        stuck = asyncio.Event()
        download = asyncio.create_task(
            session.download("c1", {target!r}, progress=lambda *_: stuck.set())
        )
        await stuck.wait()
        raise ZeroDivisionError

    asyncio.run(main())
"""


async def test_a_transfer_that_is_stuck_does_not_hold_up_the_end_of_its_process(
    server: ServerHandle, tmp_path: Path
) -> None:
    async def stall(stream: anyio.abc.ByteStream) -> None:
        await stream.receive()
        await stream.send(b"HTTP/1.1 200 OK\r\ncontent-length: 1000000\r\n\r\nsome")
        await anyio.sleep_forever()

    async with listening(stall) as port:
        code = STUCK.format(port=port, target=str(tmp_path / "x"))
        started = anyio.current_time()
        async with program(server, code) as process:
            assert "ZeroDivisionError" in await rest(process)

    assert process.returncode == 1
    assert anyio.current_time() - started < 50, "the time-out of the transfer is 60 s"


@pytest.mark.parametrize(
    ("library", "main"),
    [
        ("asyncio", "main()"),
        ("anyio", "main"),
        # Trio raises KeyboardInterrupt in the task itself.
        ("anyio", "main, backend='trio'"),
    ],
)
async def test_an_interrupted_process_fails_its_job(
    server: ServerHandle, session: AsyncSession, library: str, main: str
) -> None:
    async with program(server, INTERRUPTED.format(library=library, main=main)) as process:
        assert await line(process) == "running"
        assert (await the_job(session, "Long")).status is JobStatus.RUNNING
        process.send_signal(signal.SIGINT)
        errors = await rest(process)

    job = await the_job(session, "Long")
    assert (job.status, job.description) == (JobStatus.FAILED, "Long - failed: interrupted")
    assert process.returncode != 0
    assert "KeyboardInterrupt" in errors
    assert "never retrieved" not in errors


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
async def test_a_program_that_leaves_generators_unclosed_ends(
    server: ServerHandle, backend: str
) -> None:
    async with program(server, UNCLOSED.format(backend=backend)) as process:
        with anyio.fail_after(20):
            errors = await rest(process)

    assert process.returncode == 0
    if backend == "asyncio":
        assert errors.count("its failure was not reported") == 2


async def test_an_exit_in_another_task_fails_the_jobs_of_all(
    server: ServerHandle, session: AsyncSession
) -> None:
    """asyncio then cancels every task at once, the session's own included."""
    code = """
        import asyncio, sys
        from aioftrackjobs import AsyncSession, job_context

        async def work(session, name, inside):
            async with job_context(session, description=name):
                inside.release()
                await asyncio.sleep(3600)

        async def leave(inside):
            for _ in range(3):
                await inside.acquire()
            sys.exit(7)

        async def main():
            inside = asyncio.Semaphore(0)
            async with AsyncSession() as session:
                async with asyncio.TaskGroup() as group:
                    for name in ("one", "two", "three"):
                        group.create_task(work(session, name, inside))
                    group.create_task(leave(inside))

        asyncio.run(main())
    """
    async with program(server, code) as process:
        errors = await rest(process)

    states = [(await the_job(session, name)).status for name in ("one", "two", "three")]
    assert states == [JobStatus.FAILED] * 3, errors
    assert process.returncode == 7


async def test_a_process_without_a_closed_session_ends_and_fails_its_job(
    server: ServerHandle, session: AsyncSession
) -> None:
    code = """
        import asyncio
        from aioftrackjobs import AsyncSession, job_context

        async def work(session, inside):
            async with job_context(session, description="left"):
                inside.set()
                await asyncio.sleep(3600)

        async def main():
            session = await AsyncSession().__aenter__()
            inside = asyncio.Event()
            task = asyncio.create_task(work(session, inside))
            await inside.wait()

        asyncio.run(main())
    """
    async with program(server, code) as process:
        errors = await rest(process)

    assert (await the_job(session, "left")).status is JobStatus.FAILED, errors
    assert process.returncode == 0


async def test_a_job_that_is_done_stays_done_when_its_final_status_is_interrupted(
    server: ServerHandle, session: AsyncSession
) -> None:
    code = """
        import asyncio, os, signal
        from aioftrackjobs import AsyncSession, job_context

        async def main():
            async with AsyncSession() as session:
                async with job_context(session, description="finished"):
                    pass
                    asyncio.get_running_loop().call_soon(os.kill, os.getpid(), signal.SIGINT)

        asyncio.run(main())
    """
    async with program(server, code) as process:
        await rest(process)

    assert (await the_job(session, "finished")).status is JobStatus.DONE


ENDED_AT_ANY_TURN = """
    import asyncio
    from aioftrackjobs import AsyncSession, job_context

    async def main(turns):
        session = await AsyncSession().__aenter__()
        await session.current_user()
        running = asyncio.Event()

        async def work():
            async with job_context(session, description=f"Turn {turns}"):
                running.set()
                await asyncio.sleep(0)

        task = asyncio.create_task(work())
        await running.wait()
        for _ in range(turns):
            await asyncio.sleep(0)
        raise SystemExit

    for turns in range(8):
        try:
            asyncio.run(main(turns))
        except SystemExit:
            pass
"""


async def test_a_job_gets_its_final_status_at_whatever_turn_the_program_ends(
    server: ServerHandle, session: AsyncSession
) -> None:
    """The end of the program cancels tasks that have not had their first turn, too."""
    async with program(server, ENDED_AT_ANY_TURN):
        pass

    for turns in range(8):
        job = await the_job(session, f"Turn {turns}")
        assert job.status in (JobStatus.DONE, JobStatus.FAILED)


async def test_a_program_ends_although_its_journal_hangs(
    server: ServerHandle, session: AsyncSession, tmp_path: Path
) -> None:
    """The task that watches over all waits for the journal is cancelled with the others."""
    code = f"""
        import asyncio, threading
        from aioftrackjobs import AsyncSession, job_context
        from aioftrackjobs.journal._file import JournalFile
        from aioftrackjobs.config.timings import Timings

        hangs = threading.Event()

        def hang(self, *args):
            hangs.set()
            threading.Event().wait()

        async def work(session, name, inside):
            async with job_context(session, description=name):
                inside.set()
                await asyncio.sleep(3600)

        async def main():
            timings = Timings(journal_stall_limit=1.0)
            session = AsyncSession(journal={str(tmp_path / "journal")!r}, timings=timings)
            await session.__aenter__()
            await session.current_user()
            inside = asyncio.Event()
            tasks = [asyncio.create_task(work(session, "inside", inside))]
            await inside.wait()
            JournalFile.write = hang
            for number in range(3):
                tasks.append(asyncio.create_task(work(session, str(number), inside)))
                await asyncio.sleep(0)
                await asyncio.to_thread(hangs.wait)
            raise SystemExit(7)

        asyncio.run(main())
    """
    async with program(server, code) as process:
        errors = await rest(process)

    assert (await the_job(session, "inside")).status is JobStatus.FAILED, errors
    assert process.returncode == 7
