"""Metrics that are read rather than recorded: from the health of sessions, and from plain counts.

An instrument that records takes microseconds in each call, also for a commit of a farm. These cost
nothing until the SDK reads them, which it does in a thread of its own.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import suppress
from datetime import UTC, datetime
from threading import Lock

from opentelemetry.metrics import CallbackOptions, Meter, Observation

from aioftrackjobs.telemetry import CallOutcome, EventHubView, HealthView, ObservedSession

_OUTCOMES: tuple[CallOutcome, ...] = ("applied", "refused", "unsent", "uncertain")

#: Commits that are counted together.
_MOST = 1000


class SessionMetrics:
    """The sums over all open sessions of an observer.

    Args:
        meter: Makes the instruments.
        before_reading: Called before the SDK reads.
    """

    def __init__(self, meter: Meter, *, before_reading: Callable[[], None]) -> None:
        self._before_reading = before_reading
        self._lock = Lock()
        self._sessions: list[ObservedSession] = []
        self._ended = list[CallOutcome]()  # commits that are not yet in the counter
        self._commits = Counter[CallOutcome]()
        self._jobs = 0
        self._former_events = Counter[str]()  # of sessions that are closed

        gauges: tuple[tuple[str, str, str, Callable[[HealthView], float]], ...] = (
            (
                "ftrack.client.queue.size",
                "{commit}",
                "Commits that wait to be sent.",
                lambda health: health.commits_queued,
            ),
            (
                "ftrack.final_reports.pending",
                "{job}",
                "Final statuses in the journal that the server does not have.",
                lambda health: health.final_reports_pending,
            ),
            (
                "ftrack.journal.failing",
                "{session}",
                "Sessions whose journal cannot be written.",
                lambda health: health.journal == "failing",
            ),
            (
                "ftrack.events.lag",
                "{event}",
                "Events that wait for handlers and loops.",
                lambda health: health.events.lag,
            ),
            (
                "ftrack.events.disconnected",
                "{session}",
                "Sessions that listen to events, and are not connected.",
                lambda health: health.events.state not in ("off", "connected"),
            ),
        )
        for name, unit, text, read in gauges:
            meter.create_observable_gauge(name, [self._sum_of(read)], unit, text)
        ages: tuple[tuple[str, str, Callable[[HealthView], datetime | None]], ...] = (
            (
                "ftrack.client.queue.oldest",
                "Age of the oldest commit that has not ended.",
                lambda health: health.commits_since,
            ),
            (
                "ftrack.final_reports.oldest",
                "Age of the oldest final status that the server does not have.",
                lambda health: health.final_reports_since,
            ),
        )
        for name, text, since in ages:
            meter.create_observable_gauge(name, [self._age_of(since)], "s", text)
        meter.create_observable_counter(
            "ftrack.client.commits", [self._read_commits], "{commit}", "Commits by their outcome."
        )
        meter.create_observable_up_down_counter(
            "ftrack.jobs.running", [self._read_jobs], "{job}", "Jobs that run."
        )
        for name, text in (
            ("received", "Events that have arrived."),
            ("dropped", "Events that were dropped because too many waited."),
            ("reconnects", "Connections to the event hub after the first one."),
        ):
            meter.create_observable_counter(
                f"ftrack.events.{name}", [self._events_of(name)], "{event}", text
            )

    # What is counted

    def add(self, session: ObservedSession) -> None:
        """Read *session* from now on."""
        with self._lock:
            self._sessions.append(session)

    def remove(self, session: ObservedSession) -> None:
        """Keep the counts of *session*, and read it no more."""
        found: EventHubView | None = None
        with suppress(Exception):
            found = session.health.events
        with self._lock:
            if session in self._sessions:
                self._sessions.remove(session)
                for name in ("received", "dropped", "reconnects"):
                    self._former_events[name] += getattr(found, name, 0)

    def count_commit(self, outcome: CallOutcome) -> None:
        """Count a commit that has ended, together with others: a lock takes longer than this."""
        self._ended.append(outcome)
        if len(self._ended) >= _MOST:
            self._count_ended()

    def _count_ended(self) -> None:
        with self._lock:
            counted = self._ended[:]  # another thread may append meanwhile
            del self._ended[: len(counted)]
            self._commits.update(counted)

    def count_jobs(self, change: int) -> None:
        """Count a Job that has begun, or has ended."""
        with self._lock:
            self._jobs += change

    # What the SDK calls, in any thread

    def _healths(self) -> list[HealthView]:
        with self._lock:
            sessions = list(self._sessions)
        found: list[HealthView] = []
        for session in sessions:
            with suppress(Exception):  # it changes while this thread reads it
                found.append(session.health)
        return found

    def _sum_of(
        self, read: Callable[[HealthView], float]
    ) -> Callable[[CallbackOptions], Iterable[Observation]]:
        return lambda _: [Observation(sum(map(read, self._healths())))]

    def _age_of(
        self, read: Callable[[HealthView], datetime | None]
    ) -> Callable[[CallbackOptions], Iterable[Observation]]:
        def observe(_: CallbackOptions) -> Iterable[Observation]:
            now = datetime.now(UTC)
            since = [each for each in map(read, self._healths()) if each is not None]
            return [Observation(max((now - min(since, default=now)).total_seconds(), 0.0))]

        return observe

    def _read_commits(self, _: CallbackOptions) -> Iterable[Observation]:
        self._before_reading()
        self._count_ended()
        with self._lock:
            return [Observation(self._commits[each], {"outcome": each}) for each in _OUTCOMES]

    def _read_jobs(self, _: CallbackOptions) -> Iterable[Observation]:
        return [Observation(self._jobs)]

    def _events_of(self, name: str) -> Callable[[CallbackOptions], Iterable[Observation]]:
        def observe(_: CallbackOptions) -> Iterable[Observation]:
            present: int = sum(getattr(each.events, name) for each in self._healths())
            return [Observation(self._former_events[name] + present)]

        return observe
