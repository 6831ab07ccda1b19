"""The event hub of a session, beside those of the official clients.

    python tests/benchmarks/hub.py [rates|latency|subscriptions|memory|soak ...] [--quick]

- ``rates``: events a second that a handler gets, of our hub, and of the official Python and
  JavaScript clients, from the same server (``replay_hub.py``), each in a process of its own. The
  ratios count. Without npm, JavaScript is left out.
- ``latency``: from a commit to the handler, on the embedded server.
- ``subscriptions``: 10 000 of them on one hub, events to each, and a new connection.
- ``memory``: that of a process that gets a million events.
- ``soak``: an hour's worth of events, with the socket cut 200 times. With a cursor nothing may be
  lost, without it every loss must be announced.

It ends with status 1 if a result is wrong.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import anyio
from replay_hub import ReplayHub

from aioftrackjobs import AsyncSession
from aioftrackjobs.devserver import running
from aioftrackjobs.events import Event, UpdateEvent

HERE = Path(__file__).parent
JAVASCRIPT = HERE.parent / "devserver" / "javascript"
PEERS = ("ours", "python", "javascript")
#: How much faster our hub has to be than the official Python client.
AIM = 5.0


async def recorded_event() -> dict[str, Any]:
    """Return an update event of the embedded server."""
    async with (
        running() as server,
        AsyncSession(server.url, server.api_key, server.api_user) as session,
        session.events.subscribe(UpdateEvent) as events,
    ):
        shot = await session.query("Shot").first()
        assert shot is not None
        shot["description"] = "A longer description of this shot"
        await session.commit()
        event = await anext(events)
        assert isinstance(event, UpdateEvent)
        return event.model_dump(exclude={"in_reply_to"}) | {"inReplyToEvent": None}


# The consumers: each prints how many events it has handled, and how long that took.


async def consume_ours(url: str, count: int) -> dict[str, float]:
    handled, began, finished = 0, Clock(), anyio.Event()
    async with AsyncSession(url, "key", "developer") as session:

        @session.events.on("topic=ftrack.update", queue=1_000_000)
        async def handle(event: Event) -> None:
            nonlocal handled, began
            if handled == 0:
                began = Clock()
            handled += 1

        @session.events.on("topic=benchmark.end")
        async def end(_: Event) -> None:
            finished.set()

        # The server of this benchmark has no schemas, which the names in events come from.
        session.events._runtime._has_tried_names = True
        await session.events.ready()
        await session.events.publish("benchmark.play")
        await finished.wait()
        return {"handled": handled, **began.read()}


def consume_python(url: str, count: int) -> dict[str, float]:
    import warnings

    warnings.simplefilter("ignore")
    import ftrack_api.event.base
    import ftrack_api.event.hub

    hub = ftrack_api.event.hub.EventHub(url, "developer", "key")
    hub.connect()
    handled, began, is_over = 0, Clock(), False

    def handle(_: object) -> None:
        nonlocal handled, began
        if handled == 0:
            began = Clock()
        handled += 1

    def end(_: object) -> None:
        nonlocal is_over
        is_over = True

    hub.subscribe("topic=ftrack.update", handle)
    hub.subscribe("topic=benchmark.end", end)
    hub.publish(ftrack_api.event.base.Event("benchmark.play"))
    while not is_over:
        hub.wait(0)
    return {"handled": handled, **began.read()}


class Clock:
    """Wall and processor time since its creation."""

    def __init__(self) -> None:
        self._wall, self._cpu = time.perf_counter(), time.process_time()

    def read(self) -> dict[str, float]:
        return {
            "seconds": time.perf_counter() - self._wall,
            "cpu": time.process_time() - self._cpu,
        }


async def run_peer(peer: str, url: str, count: int, programs: Path | None) -> dict[str, float]:
    if peer == "javascript":
        command = ["node", str(programs / "hub.mjs"), url, str(count)]  # type: ignore[operator]
    else:
        command = [sys.executable, __file__, "--consume", peer, url, str(count)]
    done = await anyio.run_process(command, stderr=None)
    result: dict[str, float] = json.loads(done.stdout)
    assert result["handled"] == count, (peer, result)
    return result


def install_javascript() -> Path | None:
    """Return a folder with the official JavaScript client; None if there is no npm."""
    if not (shutil.which("npm") and shutil.which("node")):
        return None
    import tempfile

    folder = Path(tempfile.mkdtemp()) / "programs"
    shutil.copytree(JAVASCRIPT, folder)
    shutil.copy(HERE / "hub.mjs", folder)
    command = ["npm", "ci", "--no-audit", "--no-fund", "--ignore-scripts", "--prefer-offline"]
    installed = subprocess.run(command, cwd=folder, capture_output=True, check=False)
    return folder if installed.returncode == 0 else None


async def rates(count: int, repeat: int) -> bool:
    programs = install_javascript()
    event = await recorded_event()
    print(f"{count} events of {len(json.dumps(event))} bytes, median of {repeat}")
    found: dict[str, float] = {}
    url = await ReplayHub(event, count).start()
    for peer in PEERS if programs else PEERS[:2]:
        results = [await run_peer(peer, url, count, programs) for _ in range(repeat)]
        seconds = statistics.median(each["seconds"] for each in results)
        cpu = statistics.median(each["cpu"] for each in results)
        found[peer] = seconds
        print(
            f"  {peer:<12}{count / seconds:>10.0f} events/s{cpu / count * 1e6:>10.1f} us CPU each"
        )
    ratio = found["python"] / found["ours"]
    print(f"  {ratio:.1f} times the official Python client (aim: {AIM:g})")
    return ratio >= AIM


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("parts", nargs="*", default=[])
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--consume", nargs=3, metavar=("PEER", "URL", "COUNT"))
    options = parser.parse_args()
    if options.consume:
        peer, url, count = options.consume
        if peer == "ours":
            result = anyio.run(consume_ours, url, int(count))
        else:
            result = consume_python(url, int(count))
        print(json.dumps(result))
        return 0
    quick = options.quick
    parts = {
        "rates": lambda: rates(5_000 if quick else 20_000, 1 if quick else 3),
    }
    good = True
    for part in options.parts or parts:
        good = asyncio.run(parts[part]()) and good
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
