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
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import anyio
from replay_hub import ReplayHub

from aioftrackjobs import AsyncSession
from aioftrackjobs.devserver import Limits, running
from aioftrackjobs.events import Event, EventCursor, Gap, UpdateEvent
from aioftrackjobs.testing import Drop

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


async def until(condition: Callable[[], object]) -> None:
    while not condition():  # noqa: ASYNC110 - there is no event
        await anyio.sleep(0.001)


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

    NAMES = ("seconds", "cpu")

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
    url = await ReplayHub(event, count).start()
    results: dict[str, list[dict[str, float]]] = {peer: [] for peer in PEERS}
    for _ in range(repeat):  # in turns, as the load of the machine changes
        for peer in PEERS if programs else PEERS[:2]:
            results[peer].append(await run_peer(peer, url, count, programs))
    found: dict[str, tuple[float, float]] = {}
    for peer, runs in results.items():
        if runs:
            seconds, cpu = (statistics.median(run[what] for run in runs) for what in Clock.NAMES)
            found[peer] = seconds, cpu
            each = cpu / count * 1e6
            print(f"  {peer:<12}{count / seconds:>10.0f} events/s{each:>10.1f} us CPU each")
    ratio, cpu_ratio = (
        theirs / ours for theirs, ours in zip(found["python"], found["ours"], strict=True)
    )
    print(f"  {ratio:.1f} times the official Python client (aim: {AIM:g})", end=", ")
    print(f"{cpu_ratio:.1f} times by processor time")
    return max(ratio, cpu_ratio) >= AIM


async def latency(count: int) -> bool:
    """From the beginning of a commit to the handler, and from the response to the commit."""
    async with (
        running() as server,
        AsyncSession(server.url, server.api_key, server.api_user) as session,
        AsyncSession(server.url, server.api_key, server.api_user) as other,
    ):
        arrived = anyio.Event()
        times: list[float] = []

        @session.events.on(UpdateEvent)
        async def note(_: UpdateEvent) -> None:
            times.append(time.perf_counter())
            arrived.set()

        await session.events.ready()
        user = await other.current_user()
        job = other.create("Job", {"status": "running", "user": user})
        await other.commit()
        await arrived.wait()
        commits, handlers = [], []
        for number in range(count):
            arrived = anyio.Event()
            job["data"] = json.dumps({"n": number})
            began = time.perf_counter()
            await other.commit()
            commits.append(time.perf_counter() - began)
            with anyio.fail_after(10):
                await arrived.wait()
            handlers.append(times[-1] - began)
    print(f"latency of {count} commits on the embedded server, in ms")
    for name, values in (("response", commits), ("handler", handlers)):
        ordered = sorted(value * 1000 for value in values)
        middle, late = ordered[len(ordered) // 2], ordered[int(len(ordered) * 0.99)]
        print(f"  {name:<12}median {middle:.1f}, 99 % {late:.1f}")
    return True


async def subscriptions(count: int) -> bool:
    """Make many, send events to each, and make them again on a new connection."""
    limits = Limits(subscriptions=count + 10, waiting_events=64 << 20)
    async with (
        running(limits=limits) as server,
        AsyncSession(server.url, server.api_key, server.api_user) as session,
        AsyncSession(server.url, server.api_key, server.api_user) as other,
    ):
        handled: list[int] = []
        began = Clock()
        for number in range(count):
            session.events.on(f"topic=many and data.shot=shot{number}")(
                lambda event: handled.append(event.data["n"])  # which returns None
            )
        await session.events.ready()
        made = began.read()
        began = Clock()
        for number in range(1000):
            shot = f"shot{number * 7 % count}"
            await other.events.publish("many", {"shot": shot, "n": number}, wait=False)
        await until(lambda: len(handled) == 1000)
        delivered = began.read()
        server.faults.inject(Drop(), on="events")
        await other.events.publish("many", {"shot": "shot0", "n": -1})
        began = Clock()
        await until(lambda: session.health.events.reconnects)
        await session.events.ready()
        again = began.read()
    print(f"{count} subscriptions on one hub (server and clients in one process)")
    print(f"  made in {made['seconds']:.2f} s, again after a loss in {again['seconds']:.2f} s")
    print(f"  1000 events in {delivered['seconds']:.2f} s")
    return sorted(handled) == list(range(1000))


async def memory(count: int) -> bool:
    """Compare the memory of this process after a tenth of the events and after all."""
    event = await recorded_event()
    sizes: list[int] = []
    url = await ReplayHub(event, count // 10).start()
    async with AsyncSession(url, "key", "developer") as session:
        finished = anyio.Event()

        def use(event: Event) -> None:
            assert isinstance(event, UpdateEvent)
            assert event.changes

        session.events.on("topic=ftrack.update", queue=1000)(use)
        session.events.on("topic=benchmark.end")(lambda _: finished.set())
        session.events._runtime._has_tried_names = True
        await session.events.ready()
        for _ in range(10):
            finished = anyio.Event()
            await session.events.publish("benchmark.play", wait=False)
            await finished.wait()
            sizes.append(resident())
        received = session.health.events.received
    growth = sizes[-1] - sizes[0]
    print(f"memory after {received} events: {sizes[0] >> 10} KiB, then {growth / 1024:+.0f} KiB")
    return growth < 8 << 20 and received >= count


def resident() -> int:
    """Return the resident memory of this process, in bytes (Linux)."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


async def soak(events: int, cuts: int) -> bool:
    """Cut the socket while changes are committed, and account for each of them."""
    with tempfile.TemporaryDirectory() as folder:
        return await _soak(events, cuts, Path(folder) / "soak.cursor")


async def _soak(events: int, cuts: int, path: Path) -> bool:
    written: dict[str, tuple[datetime, datetime]] = {}
    plain: list[Any] = []
    complete: list[str] = []

    def text_of(event: Any) -> str:
        return str(event.changes[0].attributes["data"].new)

    async def listen(session: AsyncSession, cursor: EventCursor | None, ready: anyio.Event) -> None:
        async with session.events.subscribe(UpdateEvent, cursor=cursor) as stream:
            ready.set()
            async for item in stream:
                if cursor is None:
                    plain.append(item)
                else:
                    complete.append(text_of(item))

    async with (
        running() as server,
        AsyncSession(server.url, server.api_key, server.api_user) as one,
        AsyncSession(server.url, server.api_key, server.api_user) as two,
        AsyncSession(server.url, server.api_key, server.api_user) as other,
    ):
        job = other.create("Job", {"status": "running", "user": await other.current_user()})
        await other.commit()
        await other.events.ready()
        async with anyio.create_task_group() as group:
            for session, cursor in ((one, None), (two, EventCursor(path))):
                ready = anyio.Event()
                group.start_soon(listen, session, cursor, ready)
                await ready.wait()
            step = max(1, events // cuts)
            for number in range(events):
                if number % step == 0:
                    await until(lambda: all(each.health.events.is_good for each in (one, two)))
                if number % step == step // 2:
                    server.faults.inject(Drop(), on="events")
                began = datetime.now(UTC)
                job["data"] = text = json.dumps({"n": number})
                await other.commit()
                written[text] = began, datetime.now(UTC)
            server.faults.clear()
            with anyio.fail_after(120):
                await until(lambda: len(complete) == events)
                await one.events.ready()  # with the gaps before
                await other.events.publish("ftrack.update")
                await until(lambda: plain and getattr(plain[-1], "changes", None) == [])
            health = one.health.events.reconnects, two.health.events.reconnects
            group.cancel_scope.cancel()
    gaps = [each for each in plain if isinstance(each, Gap)]
    seen = {text_of(each) for each in plain if isinstance(each, UpdateEvent) and each.changes}
    lost = written.keys() - seen
    silent = [
        text
        for text in lost
        if not any(gap.since <= written[text][1] and written[text][0] <= gap.until for gap in gaps)
    ]
    print(f"{events} changes, sockets cut {sum(health)} times")
    print(
        f"  with a cursor: {events - len(set(complete))} lost, in order: {complete == [*written]}"
    )
    print(f"  without: {len(lost)} lost, {len(silent)} of them unannounced, {len(gaps)} gaps")
    return complete == list(written) and not silent


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
        "latency": lambda: latency(100 if quick else 1_000),
        "subscriptions": lambda: subscriptions(1_000 if quick else 10_000),
        "memory": lambda: memory(50_000 if quick else 1_000_000),
        "soak": lambda: soak(400 if quick else 4_000, 20 if quick else 200),
    }
    good = True
    for part in options.parts or parts:
        good = asyncio.run(parts[part]()) and good
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
