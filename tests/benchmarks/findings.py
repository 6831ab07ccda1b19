"""The results of ``farm.py`` as tables: the figures of all peers, and which aims are met."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

#: The peers that the aims compare: client, and number of tasks, threads, promises or requests.
OURS_100 = ("ours", 100)
OURS_1000 = ("ours", 1_000)
OFFICIAL_32 = ("official", 32)
JAVASCRIPT_100 = ("javascript", 100)
BATCHES = ("raw", 10)


@dataclass(frozen=True, eq=False, slots=True)
class Peer:
    """A client with a number of tasks, which does the work.

    Attributes:
        client: The program that does the work.
        tasks: How many tasks, threads or promises it has.
        cycles: Life cycles that each task runs one after another, by latency.
        batch: Jobs whose life cycles share requests, if the requests are prepared.
    """

    title: str
    client: str
    tasks: int
    cycles: Mapping[int, int]
    batch: int | None = None


class Figures(NamedTuple):
    """What was measured of one peer at one latency.

    Attributes:
        rate: Operations a second.
        cpu: Processor time of the client for each operation, in seconds.
        memory: Its peak, in MiB.
        server: Share of its core that the server was busy.
    """

    rate: float
    cpu: float
    memory: float
    server: float


@dataclass(slots=True)
class Findings:
    """All results; a part that was not measured is empty.

    Attributes:
        server: Operations a second of the server alone, with requests from plain sockets.
        farm: By peer and latency.
        lone: Seconds of a commit, by latency and client.
        cold: Seconds, by workload and client.
        read: Seconds, by client.
        jobs: Seconds of many Jobs that run at once, by client.
        floors: As *farm*, of prototypes that keep fewer promises.
    """

    server: float | None
    farm: dict[tuple[Peer, int], Figures] = field(default_factory=dict)
    lone: dict[int, dict[str, float]] = field(default_factory=dict)
    cold: dict[str, dict[str, float]] = field(default_factory=dict)
    read: dict[str, float] = field(default_factory=dict)
    jobs: dict[str, float] = field(default_factory=dict)
    floors: dict[tuple[Peer, int], Figures] = field(default_factory=dict)


def _at(found: Mapping[tuple[Peer, int], Figures], latency: int) -> dict[tuple[str, int], Figures]:
    """Return the figures at a latency, by client and number of tasks."""
    return {
        (peer.client, peer.tasks): figures for (peer, at), figures in found.items() if at == latency
    }


def table(found: Mapping[tuple[Peer, int], Figures]) -> tuple[list[str], list[list[str]]]:
    """Return the head and the lines of the table of all peers."""
    latencies = list(dict.fromkeys(latency for _, latency in found))
    head = ["peer"]
    for latency in latencies:
        head += [f"{latency} ms: operations/s", "ours at 100 is", "CPU/operation", "server busy"]
    lines = []
    for peer in dict.fromkeys(peer for peer, _ in found):
        line = [peer.title]
        for latency in latencies:
            figures = found[peer, latency]
            ours = _at(found, latency).get(OURS_100)
            line += [
                f"{figures.rate:,.0f}",
                f"{ours.rate / figures.rate:.2f} x" if ours else "",
                f"{1e6 * figures.cpu:,.1f} us",
                f"{figures.server:.0%}",
            ]
        peak = max(found[peer, latency].memory for latency in latencies)
        lines.append([*line, f"{peak:.0f} MiB"])
    return [*head, "peak memory"], lines


def aims(findings: Findings) -> list[list[str]]:
    """Return the lines of the table of aims, for the aims that were measured."""
    return [*_rates(findings), *_seconds(findings)]


def _rates(findings: Findings) -> Iterator[list[str]]:
    fast, slow = _at(findings.farm, 0), _at(findings.farm, 50)
    for figures, ours, peer, title, least in (
        (fast, OURS_100, OFFICIAL_32, "0 ms, 100 tasks / official Python, 32 threads", 40),
        (fast, OURS_100, JAVASCRIPT_100, "0 ms, 100 tasks / JavaScript, 100 promises", 20),
        (slow, OURS_1000, OFFICIAL_32, "50 ms, 1 000 tasks / official Python, 32 threads", 20),
    ):
        if ours in figures and peer in figures:
            yield _at_least(title, figures[ours].rate, figures[peer].rate, least)
    if OURS_100 in slow:
        limit = 100 / 0.050
        yield _at_least("50 ms, 100 tasks / latency limit", slow[OURS_100].rate, limit, 0.95)
    if OURS_100 in fast and BATCHES in fast:
        own, other = 1e6 * fast[OURS_100].cpu, 1e6 * fast[BATCHES].cpu
        yield _at_most("CPU/operation, 0 ms, 100 tasks / prepared batches", own, other, 2.5, "us")


def _seconds(findings: Findings) -> Iterator[list[str]]:
    for title, seconds, peer, most in (
        *(
            (f"lone commit, {latency} ms / httpx", seconds, "raw", 1.3)
            for latency, seconds in findings.lone.items()
        ),
        ("import / httpx and pydantic", findings.cold.get("import", {}), "raw", 1.3),
        ("hello job, 50 ms / official Python", findings.cold.get("hello", {}), "official", 0.8),
        ("read / official Python", findings.read, "official", 0.04),
        ("read / JavaScript, plain objects", findings.read, "javascript", 0.5),
        ("1 000 Jobs, job_context / by hand, 32 threads", findings.jobs, "official", 1 / 20),
    ):
        if "ours" in seconds and peer in seconds:
            own, other = 1e3 * seconds["ours"], 1e3 * seconds[peer]
            yield _at_most(title, own, other, most, "ms")


def _at_least(title: str, own: float, other: float, least: float) -> list[str]:
    ratio = own / other
    shown = [f"{own:,.0f}/s", f"{other:,.0f}/s", f"{ratio:.3g}"]
    return [title, *shown, f">= {least:g}", _met(ratio >= least)]


def _at_most(title: str, own: float, other: float, most: float, unit: str) -> list[str]:
    ratio = own / other
    shown = [f"{own:.4g} {unit}", f"{other:.4g} {unit}", f"{ratio:.3g}"]
    return [title, *shown, f"<= {most:g}", _met(ratio <= most)]


def _met(is_met: bool) -> str:
    return "met" if is_met else "MISSED"
