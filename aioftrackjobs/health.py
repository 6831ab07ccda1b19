"""Health: what a session waits for, and since when, for the monitoring of a daemon."""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from aioftrackjobs.connection import Connection
from aioftrackjobs.journal import JournalState

#: How long the delivery of a final status takes at most, if the server is healthy.
_DELIVERY = timedelta(seconds=10)


@dataclass(frozen=True, slots=True)
class Health:
    """A snapshot of what a session waits for. All times are of this host's clock.

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

    @property
    def is_good(self) -> bool:
        """Whether the server responds, no final status waits long, and the journal, if any, works.

        If many Jobs end, some final status is always being delivered: that is no problem.
        """
        since = self.final_reports_since
        is_late = since is not None and datetime.now(UTC) - since > _DELIVERY
        return self.failing_since is None and not is_late and self.journal != "failing"


def check_health(connection: Connection) -> Health:
    """Return a snapshot of what *connection* is waiting for."""
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
    )
