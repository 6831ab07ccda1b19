"""What a session is waiting for, and since when: a snapshot for those who watch a daemon."""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from aioftrackjobs.connection import Connection
from aioftrackjobs.journal import JournalState

#: How long a last word may take to a server that is well.
_ON_ITS_WAY = timedelta(seconds=10)


@dataclass(frozen=True, slots=True)
class Health:
    """How a session stands with its server. All times are of this host's clock.

    Attributes:
        commits_queued: Commits that wait to be sent.
        commits_sent: Commits under way, or tried again.
        commits_in_doubt: How many of those may or may not have been applied.
        commits_since: When the oldest commit that has no end was queued.
        final_reports_pending: Last words that the journal keeps because the server took none yet.
        last_words_since: When the oldest of them was said.
        journal: Whether there is a journal, and whether it can be written.
        journal_problem: Why it cannot.
        last_success: When the server last answered.
        last_failure: When a request last had no complete answer.
        failing_since: When that began, if there was no answer since.
        last_error: What the latest failure was.
    """

    commits_queued: int
    commits_sent: int
    commits_in_doubt: int
    commits_since: datetime | None
    final_reports_pending: int
    last_words_since: datetime | None
    journal: JournalState
    journal_problem: str | None
    last_success: datetime | None
    last_failure: datetime | None
    failing_since: datetime | None
    last_error: str | None

    @property
    def is_good(self) -> bool:
        """Whether the server answers, no last word waits long, and the journal, if any, works.

        Where many Jobs end, there is always a word on its way.
        """
        since = self.last_words_since
        is_late = since is not None and datetime.now(UTC) - since > _ON_ITS_WAY
        return self.failing_since is None and not is_late and self.journal != "failing"


def check_health(connection: Connection) -> Health:
    """Return a snapshot of what *connection* is waiting for."""
    waiting, contact, journal = connection.waiting(), connection.contact, connection.journal
    words = journal.pending_final_reports()
    since = waiting.since
    return Health(
        commits_queued=waiting.queued,
        commits_sent=waiting.sent,
        commits_in_doubt=waiting.in_doubt,
        commits_since=None
        if since is None
        else datetime.now(UTC) - timedelta(seconds=time.monotonic() - since),
        final_reports_pending=len(words),
        last_words_since=datetime.fromtimestamp(words[0].since, UTC) if words else None,
        journal=journal.state,
        journal_problem=journal.problem,
        last_success=contact.last_success,
        last_failure=contact.last_failure,
        failing_since=contact.failing_since,
        last_error=contact.last_error,
    )
