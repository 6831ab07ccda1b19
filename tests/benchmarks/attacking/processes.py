"""Attacks on whole processes: kills, stops, signals, blocked loops, damage of their journals."""

from __future__ import annotations

import signal
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import anyio

from aioftrackjobs import FtrackJobsError, recover

from .ground import Ground, hanging_counts
from .programs import Program
from .proxy import proxied
from .score import Score

#: Seconds within which a session that starts cleans up after a process that is dead.
_CLEANING = 30.0

_WORKERS = """
async def work(session, number):
    async with job_context(session, description=str(number), interval=0.1) as job:
        print(job.id, flush=True)
        step = 0
        while True:
            step += 1
            job.progress(0.5, f"step {step}")
            await anyio.sleep(0.1)

async def main():
    async with AsyncSession(journal=sys.argv[2] or None) as session, AsyncExitStack() as stack:
        if "handled" in sys.argv:
            await stack.enter_async_context(shutdown_on_signals(session, grace=3))
        async with anyio.create_task_group() as group:
            for number in range(5):
                group.start_soon(work, session, number)
"""

#: Each Job ends as done, but the loop or the process stands still for longer than the lease.
_STANDING = """
async def main():
    async with AsyncSession(lease=2.0, journal=sys.argv[2] or None) as session:
        async with job_context(session) as job:
            print(job.id, flush=True)
            await anyio.sleep(0.5)
            time.sleep(float(sys.argv[3]))
            await anyio.sleep(1.5)
    print("ended", flush=True)
"""

_EXEC = """
async def work(session):
    async with job_context(session) as job:
        print(job.id, flush=True)
        await anyio.sleep_forever()

async def main():
    async with AsyncSession(journal=sys.argv[2]) as session:
        if len(sys.argv) > 3:
            print("again", flush=True)
            await anyio.sleep(15)
            return
        async with anyio.create_task_group() as group:
            for _ in range(3):
                group.start_soon(work, session)
            await anyio.sleep(1)
            os.execv(sys.executable, [*sys.orig_argv, "again"])
"""


def truncate(journal: Path) -> None:
    with journal.open("r+b") as file:
        file.truncate(0)


def cut_log(journal: Path) -> None:
    log = Path(f"{journal}-wal")
    if log.exists():
        with log.open("r+b") as file:
            file.truncate(log.stat().st_size // 2)


def overwrite_log(journal: Path) -> None:
    log = Path(f"{journal}-wal")
    if log.exists():
        with log.open("r+b") as file:
            file.write(b"\xa5" * log.stat().st_size)


def overwrite(journal: Path) -> None:
    with journal.open("r+b") as file:
        file.write(b"no database at all " * 500)


def drop_tables(journal: Path) -> None:
    with closing(sqlite3.connect(journal, timeout=5)) as database, database:
        names = database.execute("select name from sqlite_master where type = 'table'").fetchall()
        for (name,) in names:
            if not name.startswith("sqlite_"):
                database.execute(f'drop table "{name}"')


def delete_rows(journal: Path) -> None:
    with closing(sqlite3.connect(journal, timeout=5)) as database, database:
        names = database.execute("select name from sqlite_master where type = 'table'").fetchall()
        for (name,) in names:
            if not name.startswith("sqlite_"):
                database.execute(f'delete from "{name}"')


def remove(journal: Path) -> None:
    for path in journal.parent.glob(f"{journal.name}*"):
        path.unlink()


DAMAGES: tuple[Callable[[Path], None], ...] = (
    truncate,
    cut_log,
    overwrite_log,
    overwrite,
    drop_tables,
    remove,
)


async def damaged_journals(ground: Ground) -> Score:
    """A journal is damaged while it is in use, and its process is killed a little later."""
    score, chance = Score(), ground.chance

    async with proxied(ground.server) as proxy:
        for number, damage in enumerate(chance.sample(DAMAGES, 2)):
            journal = ground.folder / f"{number}.sqlite"
            async with Program(ground, _WORKERS, str(journal), url=proxy.url) as program:
                expected = {(await program.line()).strip(): "failed" for _ in range(5)}
                await anyio.sleep(0.5)
                damage(journal)
                score.attempts += 1
                await anyio.sleep(3)  # it is noticed within a second, and rewritten
                if not program.is_running:
                    score.note("left", f"the process has ended ({damage.__name__})")
                program.send(signal.SIGKILL)
                await program.ended()
            await _cleaned(ground, score, proxy.url, journal, expected, damage.__name__)
            score.operations += len(expected)
    return score


async def _cleaned(
    ground: Ground, score: Score, url: str, journal: Path, expected: dict[str, str], what: str
) -> None:
    """Open a session on the journal of a dead process; count the Jobs that stay running."""
    from aioftrackjobs import AsyncSession

    found: dict[str, str] = {}
    try:
        async with (
            hanging_counts(score, "the session after a kill"),
            AsyncSession(url, ground.server.key, ground.server.user, journal=journal),
        ):
            with anyio.move_on_after(_CLEANING):
                while "running" in found.values() or not found:
                    await anyio.sleep(0.3)
                    found = await ground.server.statuses(list(expected))
    except FtrackJobsError as exc:
        score.note("left", f"no session can use the journal ({what}): {exc}")
    for key in expected:
        if found.get(key) == "running":
            score.note("left", f"a Job of a dead process stays running ({what})")
        elif found.get(key) != "failed":
            score.note("false", f"a Job of a dead process is {found.get(key)} ({what})")


async def blocked_loops(ground: Ground) -> Score:
    """A loop is blocked for longer than its lease, and ``recover`` runs beside."""
    return await _standing(ground, blocked=True)


async def stopped_processes(ground: Ground) -> Score:
    """A process is stopped (SIGSTOP) for longer than its lease, and ``recover`` runs beside."""
    return await _standing(ground, blocked=False)


async def _standing(ground: Ground, *, blocked: bool) -> Score:
    score, chance = Score(), ground.chance
    journal = str(ground.folder / "standing.sqlite") if chance.random() < 0.5 else ""
    expected: dict[str, str] = {}

    async with proxied(ground.server) as proxy:

        async def run() -> None:
            block = "6" if blocked else "0"
            async with Program(ground, _STANDING, journal, block, url=proxy.url) as program:
                expected[(await program.line()).strip()] = "done"
                score.attempts += 1
                if not blocked:
                    await anyio.sleep(chance.random())
                    program.send(signal.SIGSTOP)
                    await anyio.sleep(6)
                    program.send(signal.SIGCONT)
                try:
                    await program.line()
                    await program.ended()
                except (TimeoutError, anyio.EndOfStream, anyio.IncompleteRead):
                    score.note("left", "a process that stood still does not end")

        async def recover_often() -> None:
            async with ground.session(proxy) as session:
                while True:
                    await recover(session, grace=0)
                    await anyio.sleep(0.5)

        async with anyio.create_task_group() as group:
            group.start_soon(recover_often)
            async with anyio.create_task_group() as programs:
                for _ in range(3):
                    programs.start_soon(run)
            group.cancel_scope.cancel()
        await ground.check_ended(score, expected)
    score.operations = len(expected)
    return score


async def double_signals(ground: Ground) -> Score:
    """Two signals to end come one after the other, at any distance."""
    score, chance = Score(), ground.chance

    async with proxied(ground.server) as proxy:

        async def run(number: int) -> None:
            journal = ground.folder / f"{number}.sqlite"
            first, second = chance.choices((signal.SIGINT, signal.SIGTERM), k=2)
            how = chance.choice(("handled", "as they are"))
            if how == "as they are" and ground.backend == "asyncio":
                # Only of SIGINT does asyncio make a cancellation. Two interruptions that leave the
                # loop are a third Ctrl-C, by which anyio's threads may wait for ever.
                first = signal.SIGINT
            async with Program(ground, _WORKERS, str(journal), how, url=proxy.url) as program:
                expected = {(await program.line()).strip(): "failed" for _ in range(5)}
                program.send(first)
                await anyio.sleep(chance.choice((0, 0.001, 0.01, 0.1, 0.5)) * chance.random())
                program.send(second)
                score.attempts += 1
                with anyio.move_on_after(25) as scope:
                    await program.ended()
                if scope.cancelled_caught:
                    score.note("left", "a process did not end after two signals")
            await _cleaned(ground, score, proxy.url, journal, expected, "two signals")
            score.operations += len(expected)

        async with anyio.create_task_group() as group:
            for number in range(4):
                group.start_soon(run, number)
    return score


async def restarts(ground: Ground) -> Score:
    """Processes are killed, or start again by exec; their journals have what was running."""
    score, chance = Score(), ground.chance

    async with proxied(ground.server) as proxy:

        async def kill(number: int) -> None:
            journal = ground.folder / f"{number}.sqlite"
            async with Program(ground, _WORKERS, str(journal), url=proxy.url) as program:
                expected = {(await program.line()).strip(): "failed" for _ in range(5)}
                await anyio.sleep(chance.random())
                program.send(signal.SIGKILL)
                await program.ended()
            score.attempts += 1
            await _cleaned(ground, score, proxy.url, journal, expected, "kill")
            score.operations += len(expected)

        async def execute(number: int) -> None:
            journal = ground.folder / f"{number}.sqlite"
            async with Program(ground, _EXEC, str(journal), url=proxy.url) as program:
                expected = {(await program.line()).strip(): "failed" for _ in range(3)}
                await program.line()
                score.attempts += 1
                await ground.check_ended(score, expected, 13)
            score.operations += len(expected)

        async with anyio.create_task_group() as group:
            group.start_soon(kill, 0)
            group.start_soon(kill, 1)
            group.start_soon(execute, 2)
    return score


KINDS = {
    "damaged journals": damaged_journals,
    "blocked loops": blocked_loops,
    "stopped processes": stopped_processes,
    "double signals": double_signals,
    "restarts": restarts,
}
