"""How often execution changes modules from the entry into ``job_context`` to the first byte sent.

    python tests/benchmarks/module_changes.py [--list]

A reader who follows a call has to change files as often. Each function of this package that is
called, or resumed after an ``await``, counts as one change if it is in another module than the
function before. Returns do not count, and functions of other packages do not count.

The benchmark measures the second Job of a session. At that time everything is imported, the user is
known, the connection is open, and no query precedes the Job. Its lease is a new one, as in a farm
whose Jobs do not all begin in the same second. The server is a stub in this process, on a loopback
socket. The figure depends a little on the version of Python.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import socket
import sys
from pathlib import Path
from types import FrameType

import aioftrackjobs
from aioftrackjobs import AsyncSession, job_context

PACKAGE = f"{Path(aioftrackjobs.__file__).parent}/"

#: Seconds until a new lease is made: all Jobs that begin in the same second share one.
NEXT_LEASE = 1.1


class Recorder:
    """Records the modules that execution goes through until a socket sends the first byte.

    Attributes:
        modules: In the order of execution; no two neighbours are the same.
    """

    def __init__(self) -> None:
        self.modules: list[str] = []

    def start(self) -> None:
        """Begin, without garbage collection, which can call functions at any time."""
        gc.collect()
        gc.disable()
        sys.setprofile(self._record)

    def _record(self, frame: FrameType, event: str, function: object) -> None:
        if event == "c_call":
            if getattr(function, "__name__", "").startswith("send") and isinstance(
                getattr(function, "__self__", None), socket.socket
            ):
                sys.setprofile(None)
                gc.enable()
        elif event == "call" and frame.f_code.co_filename.startswith(PACKAGE):
            module = frame.f_code.co_filename.removeprefix(PACKAGE)
            if not self.modules or self.modules[-1] != module:
                self.modules.append(module)


USER = {"__entity_type__": "User", "id": "1", "username": "maya"}
JOBS: dict[str, dict[str, object]] = {}  #: what was written, by id


async def respond(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Serve one connection: each operation succeeds."""
    try:
        while True:
            head = (await reader.readuntil(b"\r\n\r\n")).lower()
            size = int(head.partition(b"content-length: ")[2].partition(b"\r\n")[0])
            operations = json.loads(await reader.readexactly(size))
            body = json.dumps([result(operation) for operation in operations]).encode()
            lines = (
                b"HTTP/1.1 200 OK",
                b"content-type: application/json",
                b"content-length: %d" % len(body),
            )
            writer.write(b"\r\n".join([*lines, b"", body]))
    except asyncio.IncompleteReadError:
        pass  # the session is closed
    finally:
        writer.close()


def result(operation: dict[str, object]) -> dict[str, object]:
    """Return the result of an operation."""
    if operation["action"] == "query":
        of_jobs = " from Job " in str(operation["expression"])
        rows = (
            [JOBS[key] for key in JOBS if key in str(operation["expression"])]
            if of_jobs
            else [USER]
        )
        return {"action": "query", "data": rows, "metadata": {}}
    (key,) = operation["entity_key"]  # type: ignore[misc]
    JOBS.setdefault(key, {}).update(operation["entity_data"], id=key)  # type: ignore[call-overload]
    written = {"__entity_type__": operation["entity_type"], "id": key}
    return {"action": operation["action"], "data": written}


async def measure() -> list[str]:
    """Return the modules in the order of execution."""
    recorder = Recorder()
    server = await asyncio.start_server(respond, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with AsyncSession(f"http://127.0.0.1:{port}", "key", "maya") as session:
        async with job_context(session, description="first"):
            pass
        await asyncio.sleep(NEXT_LEASE)
        recorder.start()
        async with job_context(session, description="second"):
            pass
    server.close()
    return recorder.modules


def main() -> None:
    """Measure, and print the number of changes."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--list", action="store_true", help="print the modules as well")
    options = parser.parse_args()
    modules = asyncio.run(measure())
    if options.list:
        print(*modules, sep="\n")
    print(f"{len(modules) - 1} changes of the module before the first byte is sent")


if __name__ == "__main__":
    main()
