"""How often execution changes modules from the entry into ``job_context`` to the first byte sent.

    python tests/benchmarks/module_changes.py [--list]

A reader who follows what a call does has to change files as often. Each function of this package
that is called, or resumed after an ``await``, counts as one change if it is in another module than
the one before. Returns do not count, nor do functions of other packages.

What is measured is the second Job of a session, whose user is known and whose connection is open:
everything is imported, and nothing is asked before. Its lease is a new one, as in a farm whose Jobs
do not all begin in the same second. The server is a stand-in in this process, on a loopback socket.
The figure depends a little on the version of Python, and on the collection of garbage.
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
    """Notes the modules that execution goes through, until a socket sends the first byte.

    Attributes:
        modules: In their order; no two neighbours are the same.
    """

    def __init__(self) -> None:
        self.modules: list[str] = []

    def start(self) -> None:
        """Begin; garbage is not collected meanwhile, which calls functions at any time."""
        gc.collect()
        gc.disable()
        sys.setprofile(self._note)

    def _note(self, frame: FrameType, event: str, function: object) -> None:
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
    """Return what a server responds to an operation."""
    if operation["action"] == "query":
        user = {"__entity_type__": "User", "id": "1", "username": "maya"}
        return {"action": "query", "data": [user], "metadata": {}}
    (key,) = operation["entity_key"]  # type: ignore[misc]
    written = {"__entity_type__": operation["entity_type"], "id": key}
    return {"action": operation["action"], "data": written}


async def measure() -> list[str]:
    """Return the modules in their order."""
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
    parser.add_argument("--list", action="store_true", help="print the modules, too")
    options = parser.parse_args()
    modules = asyncio.run(measure())
    if options.list:
        print(*modules, sep="\n")
    print(f"{len(modules) - 1} changes of the module before the first byte is sent")


if __name__ == "__main__":
    main()
