"""Health: what a session waits for, and since when, for the monitoring of a daemon."""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Literal

from aioftrackjobs.connection import Connection
from aioftrackjobs.journal import JournalState

#: How long the delivery of a final status takes at most, if the server is healthy.
_DELIVERY = timedelta(seconds=10)


@dataclass(frozen=True, slots=True)
class EventHubHealth:
    """A snapshot of the event hub. All times are of this host's clock.

    Attributes:
        state: ``off`` if the program does not use it, else ``connecting``, ``connected``,
            ``refused`` if the server refuses the credentials, or ``closed``.
        problem: Why it is not connected.
        connected_since: When the present connection was made.
        last_heartbeat: When the server last sent a heartbeat.
        reconnects: Connections that were made after the first one.
        subscriptions: Subscriptions that exist.
        received: Events that have arrived.
        lag: Events that wait for handlers and loops.
        dropped: Events that were dropped because too many waited.
        pending: Events that wait to be sent, or to be acknowledged.
    """

    state: Literal["off", "connecting", "connected", "refused", "closed"] = "off"
    problem: str | None = None
    connected_since: datetime | None = None
    last_heartbeat: datetime | None = None
    reconnects: int = 0
    subscriptions: int = 0
    received: int = 0
    lag: int = 0
    dropped: int = 0
    pending: int = 0

    @property
    def is_good(self) -> bool:
        """Whether it is connected, or not used."""
        return self.state in ("off", "connected")


@dataclass(frozen=True, slots=True)
class Health:
    """A snapshot of what a session waits for. All times are of this host's clock.

    Example: ``session.health.final_reports_pending == 0``

    Attributes:
        commits_queued: Commits that wait to be sent.
        commits_sent: Commits that are being sent, or sent again.
        commits_uncertain: How many of those the server may or may not have applied.
        commits_since: When the oldest commit that has no outcome was queued.
        final_reports_pending: Final statuses in the journal that the server has not acknowledged.
        final_reports_since: When the Job of the oldest of them ended.
        journal: Whether there is a journal, and whether it can be written.
        journal_problem: Why it cannot be written.
        last_success: When the server last responded.
        last_failure: When a request last got no complete response.
        failing_since: When that began, if the server has not responded since.
        last_error: The latest failure.
        events: The event hub.
    """

    commits_queued: int
    commits_sent: int
    commits_uncertain: int
    commits_since: datetime | None
    final_reports_pending: int
    final_reports_since: datetime | None
    journal: JournalState
    journal_problem: str | None
    last_success: datetime | None
    last_failure: datetime | None
    failing_since: datetime | None
    last_error: str | None
    events: EventHubHealth = EventHubHealth()

    @property
    def is_good(self) -> bool:
        """Whether the server responds, no final status waits long, and what is used works.

        That is the journal, and the event hub.

        If many Jobs end, some final status is always being delivered: that is no problem.
        """
        since = self.final_reports_since
        is_late = since is not None and datetime.now(UTC) - since > _DELIVERY
        return self.failing_since is None and not is_late and self._tools_work

    @property
    def _tools_work(self) -> bool:
        return self.journal != "failing" and self.events.is_good


def check_health(connection: Connection, events: EventHubHealth = EventHubHealth()) -> Health:
    """Return a snapshot of what *connection* is waiting for.

    Args:
        connection: The connection of a session.
        events: Its event hub.
    """
    backlog, server, journal = connection.backlog(), connection.server_status, connection.journal
    reports = journal.pending_final_reports()
    since = backlog.since
    return Health(
        commits_queued=backlog.queued,
        commits_sent=backlog.sent,
        commits_uncertain=backlog.uncertain,
        commits_since=None
        if since is None
        else datetime.now(UTC) - timedelta(seconds=time.monotonic() - since),
        final_reports_pending=len(reports),
        final_reports_since=datetime.fromtimestamp(reports[0].since, UTC) if reports else None,
        journal=journal.state,
        journal_problem=journal.problem,
        last_success=server.last_success,
        last_failure=server.last_failure,
        failing_since=server.failing_since,
        last_error=server.last_error,
        events=events,
    )
