"""What observers cost in a farm of small commits: ``telemetry.py [--rounds N] [--profile NAME]``.

Each of 100 tasks has Jobs of its own: created, changed ten times and set to done, with a commit for
each step, in a span of the program. All settings take turns in one process, in a random order, and
processor time is compared, so that what else runs on the machine changes little.

``floor`` has no observer: the program itself makes one bare span for each commit with the SDK, with
the same attributes and the same exporter. That is what spans cost without any of our code.
"""

from __future__ import annotations

import argparse
import asyncio
import cProfile
import json
import pstats
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median

from measuring import UPDATES
from opentelemetry import trace
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import (
    BatchSpanProcessor,
    SpanExporter,
    SpanExportResult,
)
from opentelemetry.sdk.trace.sampling import ParentBasedTraceIdRatio

from aioftrackjobs import AsyncSession, Job
from aioftrackjobs.integrations.opentelemetry import OpenTelemetryObserver
from aioftrackjobs.telemetry import ObservedCall, Observer

TASKS = 100
COMMITS = TASKS * (UPDATES + 2)
ATTRIBUTES = {
    "db.system.name": "ftrack",
    "db.operation.name": "BATCH",
    "server.address": "127.0.0.1",
    "server.port": 80,
}


class Nowhere(SpanExporter):
    """Takes spans, and sends them nowhere."""

    def export(self, spans: object) -> SpanExportResult:
        return SpanExportResult.SUCCESS


class Counting(Observer):
    """Counts commits."""

    commits = 0

    def call_settled(self, call: ObservedCall) -> None:
        self.commits += 1


def traced(ratio: float) -> TracerProvider:
    provider = TracerProvider(sampler=ParentBasedTraceIdRatio(ratio))
    provider.add_span_processor(BatchSpanProcessor(Nowhere()))
    return provider


METERS = MeterProvider([InMemoryMetricReader()])
#: The observer of each setting, and what the program traces its Jobs with.
SETTINGS: dict[str, tuple[Observer | None, trace.TracerProvider]] = {
    "off": (None, trace.NoOpTracerProvider()),
    "counting": (Counting(), trace.NoOpTracerProvider()),
    "metrics": (
        OpenTelemetryObserver(trace.NoOpTracerProvider(), METERS),
        trace.NoOpTracerProvider(),
    ),
    "metrics, no tracing set up": (OpenTelemetryObserver(None, METERS), trace.NoOpTracerProvider()),
}
for _ratio in (0.0, 0.01, 1.0):
    _provider = traced(_ratio)
    SETTINGS[f"metrics, {_ratio:.0%} of Jobs traced"] = (
        OpenTelemetryObserver(_provider, METERS),
        _provider,
    )
SETTINGS["floor: all Jobs traced by hand"] = (None, traced(1.0))


async def farm(setting: str, session: AsyncSession) -> float:
    """Return the seconds of processor time of all commits."""
    tracer = SETTINGS[setting][1].get_tracer("farm")
    is_floor = setting.startswith("floor")
    user = await session.current_user()

    async def commit(unit: object) -> None:
        if not is_floor:
            await unit.commit()
            return
        span = tracer.start_span("ftrack commit", None, trace.SpanKind.CLIENT, ATTRIBUTES)
        await unit.commit()
        span.set_attribute("ftrack.outcome", "applied")
        span.set_attribute("ftrack.requests", 1)
        span.end()

    async def work() -> None:
        with tracer.start_as_current_span("job"):
            async with session.unit_of_work() as unit:
                job = session.create(Job, {"user": user, "status": "running"})
                await commit(unit)
                for step in range(UPDATES):
                    job["data"] = f'{{"description": "step {step}"}}'
                    await commit(unit)
                job["status"] = "done"
                await commit(unit)

    begun = time.process_time()
    async with asyncio.TaskGroup() as group:
        for _ in range(TASKS):
            group.create_task(work())
    return time.process_time() - begun


async def measure(rounds: int, settings: list[str]) -> dict[str, list[float]]:
    found: dict[str, list[float]] = {setting: [] for setting in settings}
    sessions = {}
    for setting in settings:
        sessions[setting] = await AsyncSession(observer=SETTINGS[setting][0]).open()
    for number in range(-1, rounds):  # round -1 imports modules, and fills caches
        for setting in random.sample(settings, len(settings)):
            seconds = await farm(setting, sessions[setting])
            if number >= 0:
                found[setting].append(seconds)
    for session in sessions.values():
        await session.aclose()
    return found


@contextmanager
def stub() -> Iterator[dict[str, str]]:
    """Run a server that answers at once; yield the environment of its clients."""
    program = Path(__file__).with_name("async_stub.py")
    server = subprocess.Popen(
        [sys.executable, program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert server.stdout is not None
        made = json.loads(server.stdout.readline())
        yield {
            "FTRACK_SERVER": made["url"],
            "FTRACK_API_KEY": made["key"],
            "FTRACK_API_USER": made["user"],
        }
    finally:
        server.kill()
        server.wait()


def main() -> None:
    """Print a table, or a profile of one setting."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=20, metavar="N")
    parser.add_argument("--profile", choices=SETTINGS)
    options = parser.parse_args()
    with stub() as environment:
        import os

        os.environ.update(environment)
        if options.profile:
            profile = cProfile.Profile()
            profile.runcall(asyncio.run, measure(options.rounds, [options.profile]))
            pstats.Stats(profile).sort_stats("tottime").print_stats("telemetry|observed|_safe", 40)
            return
        found = asyncio.run(measure(options.rounds, list(SETTINGS)))
    print("| setting | µs a commit | more than off |\n| --- | --- | --- |")
    for setting, seconds in found.items():
        # In pairs: the turns of one round are next to each other.
        ratio = median(mine / off for mine, off in zip(seconds, found["off"], strict=True))
        each = median(seconds) / COMMITS * 1e6
        print(f"| {setting} | {each:.0f} | {(ratio - 1):+.0%} |")


if __name__ == "__main__":
    main()
