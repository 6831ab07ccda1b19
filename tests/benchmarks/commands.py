"""Commands that are killed, stopped, timed out or cut off at random moments.

``python tests/benchmarks/commands.py --runs 200`` runs ``aioftrackjobs run`` so many times against
an embedded server, and does something to each at a random moment. In the end no Job may be running,
and no process of a command may be left. It exits with 1 if one is.

``--speed`` measures instead, as ratios: how long it takes from the start of ``aioftrackjobs run``
to the first instruction of its command, and how long 200 MB of output take: read from ``cat``
itself, from a second ``cat`` that relays them in C, and from a program in Python that does nothing
else, which is the floor.

``--long-line`` passes a line of 256 MiB and one of 1 GiB through it: memory must be the same, and
time in proportion. ``--browsers 1000`` opens so many streams of the jobs page of a server of its
own: most must be refused with a reason, the page must load, and a Job must run meanwhile.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import anyio
import httpx
from anyio.to_thread import run_sync

from aioftrackjobs import AsyncSession, recover
from aioftrackjobs.devserver import running
from aioftrackjobs.testing import ServerProcess

#: Marks all processes of a run of this program.
_MARK = "COMMANDS_BENCHMARK"

#: A command with a child, a daemon that has left its group, and progress. Some ignore SIGTERM.
_SCRIPT = """
case $1 in 0) trap '' TERM INT;; esac
sleep 120 & setsid sleep 120 & daemon=$!
n=0; while [ $n -lt $2 ]; do n=$((n + 1)); echo openjd_progress: $n; sleep 0.05; done
kill -KILL $daemon  # a command that ends by itself may leave one
exit $3
"""

_KINDS = (
    "SIGKILL of the program",
    "SIGKILL of its group",
    "SIGKILL of the command",
    "SIGTERM",
    "SIGINT",
    "SIGSTOP and SIGCONT",
    "timeout",
    "stop request",
    "cut off",
    "nothing",
)


class _Run:
    """One run of ``aioftrackjobs run``, and what happens to it."""

    def __init__(self, number: int, kind: str, url: str, env: dict[str, str], rng: random.Random):
        self.kind = kind
        self.name = f"run {number}"
        self._rng = rng
        self._env = {**env, "FTRACK_SERVER": url, _MARK: str(number)}
        options = ["--grace", "0.5s", "-d", self.name]
        if kind == "timeout":
            options += ["--timeout", f"{rng.uniform(0.1, 2):.2f}s"]
        ending = [str(rng.randrange(2)), str(rng.randrange(10, 50)), str(rng.choice([0, 0, 3]))]
        self._command = [sys.executable, "-m", "aioftrackjobs", "run", *options, "--", "sh", "-c"]
        self._command += [_SCRIPT, "sh", *ending]

    async def go(self, session: AsyncSession) -> str:
        """Run it, and return how it ended."""
        process = subprocess.Popen(  # noqa: ASYNC220 - it takes a millisecond
            self._command,
            env=self._env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        await anyio.sleep(self._rng.uniform(0, 2.5))
        await self._disturb(process, session)
        with anyio.move_on_after(60):
            while process.poll() is None:  # noqa: ASYNC110 - it is a process
                await anyio.sleep(0.05)
            return "exit code" if process.returncode >= 0 else "killed"
        process.kill()
        return "HANGS"

    async def _disturb(self, process: subprocess.Popen[bytes], session: AsyncSession) -> None:
        match self.kind:
            case "SIGKILL of the program":
                process.kill()
            case "SIGKILL of its group":
                os.killpg(process.pid, signal.SIGKILL)
            case "SIGKILL of the command":
                for pid, command in _processes(self._env[_MARK]):
                    if command.startswith("sh\0-c"):
                        os.kill(pid, signal.SIGKILL)
            case "SIGTERM":
                process.terminate()
            case "SIGINT":
                process.send_signal(signal.SIGINT)
            case "SIGSTOP and SIGCONT":
                process.send_signal(signal.SIGSTOP)
                await anyio.sleep(0.5)
                process.send_signal(signal.SIGCONT)
            case "stop request":
                for job in await session.query('Job where status is "running"').all():
                    if self.name in str(job["data"]).split('"'):
                        await session.stop_job(job.id, "at random")


async def _storm(runs: int, seed: int, at_once: int) -> bool:
    rng = random.Random(seed)
    print(f"{runs} runs, --seed {seed}")
    kinds = [rng.choice(_KINDS) for _ in range(runs)]
    ends = Counter[tuple[str, str]]()
    limiter = anyio.Semaphore(at_once)
    async with running() as server:
        folder = tempfile.mkdtemp()
        env = {
            **os.environ,
            "FTRACK_API_USER": server.api_user,
            "FTRACK_API_KEY": server.api_key,
            "FTRACK_JOBS_JOURNAL": str(Path(folder) / "journal"),
        }
        async with AsyncSession(server.url, server.api_key, server.api_user, journal="") as session:

            async def one(run: _Run) -> None:
                async with limiter:
                    ends[run.kind, await run.go(session)] += 1

            async with anyio.create_task_group() as group:
                for number in range(runs):
                    kind = kinds[number]
                    url = "http://127.0.0.1:9" if kind == "cut off" else server.url
                    group.start_soon(one, _Run(number, kind, url, env, random.Random(rng.random())))
            with anyio.move_on_after(30):
                while _processes(None):  # noqa: ASYNC110 - what watchdogs are about to end
                    await anyio.sleep(0.1)
            left = [_described(pid, command, kinds) for pid, command in _processes(None)]
            recovery = await recover(session)
            jobs = await session.query("select status from Job").all()
            statuses = Counter(job["status"] for job in jobs)
    for (kind, end), count in sorted(ends.items()):
        print(f"{count:5} {kind}: {end}")
    print(f"Jobs: {dict(statuses)}; {len(recovery.failed)} of them failed by recover")
    print(f"processes left: {left or 'none'}")
    hangs = any(end == "HANGS" for _, end in ends)
    return not (left or hangs or set(statuses) - {"done", "failed"})


def _processes(mark: str | None) -> list[tuple[int, str]]:
    """Return the processes of a run, or of all, with their command lines."""
    needle = f"{_MARK}=".encode() if mark is None else f"{_MARK}={mark}\0".encode()
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit() and int(folder.name) != os.getpid():
            try:
                if needle in (folder / "environ").read_bytes():
                    found.append((int(folder.name), (folder / "cmdline").read_text()))
            except OSError:
                continue
    return found


def _described(pid: int, command: str, kinds: list[str]) -> str:
    variables = (Path("/proc") / str(pid) / "environ").read_text().split("\0")
    number = next(each.partition("=")[2] for each in variables if each.startswith(_MARK))
    return f"{command!r} of {kinds[int(number)]}"


# Speed


#: Reads the output of a command and writes it again, with the pipes and reads of ours.
_RELAY = """
import fcntl, os, subprocess, sys
process = subprocess.Popen(sys.argv[1:], stdout=subprocess.PIPE)
source, view = process.stdout.fileno(), memoryview(bytearray(2**20))
fcntl.fcntl(source, fcntl.F_SETPIPE_SZ, 2**20)
while count := os.readv(source, [view]):
    left = view[:count]
    while left:
        left = left[os.write(1, left):]
"""
_ROUNDS = 3


class _Pass(NamedTuple):
    """One run of a program whose output was read.

    Attributes:
        seconds: From its first to its last byte.
        processor: Seconds of the processor, of the program and all that it started.
        memory: Megabytes of the largest of these processes.
    """

    seconds: float
    processor: float
    memory: float


def _measure(env: dict[str, str], folder: Path) -> None:
    ours = [sys.executable, "-m", "aioftrackjobs", "run"]
    reference = [sys.executable, "-c", "import argparse, subprocess"]
    starts, references = [], []
    for _ in range(10):
        references.append(_seconds(lambda: subprocess.run(reference, check=True)))
        starts.append(_until_first_byte([*ours, "--", "echo", "x"], env))
    print(f"start: {min(starts) / min(references):.2f} times 'import argparse, subprocess'")
    line = b"render/sh010/beauty.%04d.exr took 1.23 seconds, no errors, no warnings\n"
    files = [folder / "200 MB", folder / "400 MB"]
    piece = line * (10**6 // len(line))
    for number, path in enumerate(files, 1):
        with path.open("wb") as written:  # in pieces: a process inherits the memory of its parent
            for _ in range(200 * number):
                written.write(piece)
    programs = {
        "cat": [],
        "cat | cat": ["sh", "-c", '"$@" | cat', "sh"],
        "floor": [sys.executable, "-c", _RELAY],
        "run": [*ours, "--"],
        "run --preset cycles": [*ours, "--preset", "cycles", "--"],
    }
    passes: dict[str, list[list[_Pass]]] = {name: [[], []] for name in programs}
    for _ in range(_ROUNDS):
        for name, prefix in programs.items():
            for path, found in zip(files, passes[name], strict=True):
                found.append(_passing([*prefix, "cat", str(path)], env, path.stat().st_size))
    cat = min(each.seconds for each in passes["cat"][0])
    used = {
        name: min(each.processor for each in double) - min(each.processor for each in single)
        for name, (single, double) in passes.items()
    }
    for name, (single, double) in passes.items():
        time_ratio = min(each.seconds for each in single) / cat
        memory = [min(each.memory for each in found) for found in (single, double)]
        print(
            f"200 MB through {name}: {time_ratio:.2f} times the time of cat, "
            f"{used[name]:.2f} s of the processor without the start; "
            f"{memory[0]:.0f} MB of memory, {memory[1]:.0f} MB for 400 MB"
        )


def _seconds(call: object) -> float:
    began = time.perf_counter()
    call()  # type: ignore[operator]
    return time.perf_counter() - began


def _until_first_byte(command: list[str], env: dict[str, str]) -> float:
    began = time.perf_counter()
    process = subprocess.Popen(command, env=env, stdout=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.read(1)
    passed = time.perf_counter() - began
    process.communicate()
    return passed


def _passing(command: list[str], env: dict[str, str], size: int) -> _Pass:
    """Run a command that writes so many bytes, and read them."""
    process = subprocess.Popen(command, env=env, stdout=subprocess.PIPE)
    assert process.stdout is not None
    source, view = process.stdout.fileno(), memoryview(bytearray(2**20))
    left = size - os.readv(source, [view])
    began = time.perf_counter()
    while left > 0:
        count = os.readv(source, [view])
        assert count, f"{left} bytes of the output are lost"
        left -= count
    seconds = time.perf_counter() - began
    _, _, usage = os.wait4(process.pid, 0)
    process.returncode = 0  # it is waited for
    process.stdout.close()
    return _Pass(seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1000)


def _environment(url: str, user: str, key: str) -> dict[str, str]:
    named = {"FTRACK_SERVER": url, "FTRACK_API_USER": user, "FTRACK_API_KEY": key}
    return {**os.environ, **named}


async def _speed() -> None:
    async with running() as server:
        env = _environment(server.url, server.api_user, server.api_key)
        with tempfile.TemporaryDirectory() as folder:
            await run_sync(_measure, env, Path(folder))


# A line without an end


_LINE = """
import os, sys
left, piece = int(sys.argv[1]), b"x" * 2**20
while left:
    left -= os.write(1, piece[:left])
"""


async def _long_line() -> bool:
    """Pass lines of two lengths; return whether memory was the same, and time in proportion."""
    options = {
        "run": [],
        "run --preset cycles": ["--preset", "cycles"],
        "run --progress": ["--progress", r"^(\d+) percent$"],
    }
    holds = True
    async with running() as server:
        env = _environment(server.url, server.api_user, server.api_key)
        for name, given in options.items():
            found = []
            for size in (2**28, 2**30):
                command = [sys.executable, "-m", "aioftrackjobs", "run", *given, "--"]
                command += [sys.executable, "-c", _LINE, str(size)]
                found.append(await run_sync(_passing, command, env, size))
            short, long = found
            print(
                f"a line of 256 MiB and of 1 GiB through {name}: "
                f"{short.seconds:.2f} s and {long.seconds:.2f} s; "
                f"{short.memory:.0f} MB and {long.memory:.0f} MB of memory"
            )
            holds &= long.memory < 1.1 * short.memory and long.seconds < 8 * short.seconds
    return holds


# Many browsers


async def _open_stream(url: str, cookie: str, statuses: Counter[str]) -> None:
    """Open a stream of the jobs page, note its status, and read it until it is cancelled.

    Like a browser, it connects again if the server has closed the connection before a response: of
    those that wait for their request it keeps only some.
    """
    host, port = url.removeprefix("http://").split(":")
    lines = ["GET /pages/stream?since= HTTP/1.1", f"Host: {host}:{port}", f"Cookie: {cookie}"]
    request = "\r\n".join([*lines, "Accept: text/html", "", ""]).encode()
    while True:
        with suppress(anyio.EndOfStream, anyio.BrokenResourceError):
            async with await anyio.connect_tcp(host, int(port)) as stream:
                await stream.send(request)
                head = b""
                while b"\r\n\r\n" not in head:
                    head += await stream.receive()
                is_told = b"retry-after" in head.lower()
                statuses[head.split()[1].decode() + (", Retry-After" if is_told else "")] += 1
                with suppress(anyio.EndOfStream, anyio.BrokenResourceError):
                    while True:
                        await stream.receive()
                return
        await anyio.sleep(0.5)


async def _browsers(count: int) -> bool:
    """Open many streams; return whether they are bounded, and all else works meanwhile."""
    statuses = Counter[str]()
    with tempfile.TemporaryDirectory() as folder, ServerProcess(Path(folder)) as server:
        user, key = server.api_user, server.api_key
        env = _environment(server.url, user, key)
        async with httpx.AsyncClient(base_url=server.url, timeout=60) as browser:
            await browser.post("/pages/login", data={"user": user, "key": key})
            cookie = "; ".join(f"{name}={value}" for name, value in browser.cookies.items())
            async with anyio.create_task_group() as group:
                for _ in range(count):
                    group.start_soon(_open_stream, server.url, cookie, statuses)
                with anyio.fail_after(120):
                    while statuses.total() < count:  # noqa: ASYNC110 - the streams go on
                        await anyio.sleep(0.1)
                began = time.perf_counter()
                page = await browser.get("/", headers={"accept": "text/html"})
                print(f"{dict(statuses)}; then the page {page.status_code}, ", end="")
                print(f"in {time.perf_counter() - began:.2f} s")
                command = [sys.executable, "-m", "aioftrackjobs", "run", "--", "true"]
                done = await anyio.run_process(command, env=env, check=False)
                print(f"a command as a Job meanwhile: exit code {done.returncode}")
                group.cancel_scope.cancel()
            with anyio.move_on_after(30):
                while (await browser.get("/pages/status")).status_code != 204:  # noqa: ASYNC110
                    await anyio.sleep(0.1)
            after = (await browser.get("/pages/status")).status_code
            print(f"a stream after they have left: {after}")
    is_bounded = count <= 100 or statuses["503, Retry-After"] == count - 100
    return is_bounded and (page.status_code, done.returncode, after) == (200, 0, 204)


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument("--seed", type=int, default=random.randrange(10**6))
    parser.add_argument("--at-once", type=int, default=4)
    parser.add_argument("--speed", action="store_true")
    parser.add_argument("--long-line", action="store_true")
    parser.add_argument("--browsers", type=int, metavar="N")
    options = parser.parse_args()
    if options.long_line:
        sys.exit(0 if anyio.run(_long_line) else 1)
    if options.browsers:
        sys.exit(0 if anyio.run(_browsers, options.browsers) else 1)
    if options.speed:
        anyio.run(_speed)
        return
    sys.exit(0 if anyio.run(_storm, options.runs, options.seed, options.at_once) else 1)


if __name__ == "__main__":
    main()
