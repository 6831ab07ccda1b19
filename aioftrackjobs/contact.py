"""What a session's requests tell of its server: whether it answers, and what time it is there."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta

from aioftrackjobs.protocol.headers import decode_date
from aioftrackjobs.retry import Pauses

#: The header tells seconds, and is a while on its way.
_PRECISION = timedelta(seconds=2)


class Contact:
    """Keeps the latest news of the server.

    Attributes:
        last_success: When it last answered, by the clock of this host.
        last_failure: When it last did not.
        failing_since: The first failure since it last answered; None while it answers.
        last_error: What the latest failure was.
        ahead: By how much the server's clock is ahead of this host's, as far as it has told.
        on_step: Called when that turns out to be another, with by how much: a clock was set.
        pauses: Of those who wait for another attempt; its answers cut them short.
    """

    def __init__(self) -> None:
        self.last_success: datetime | None = None
        self.last_failure: datetime | None = None
        self.failing_since: datetime | None = None
        self.last_error: str | None = None
        self.ahead = timedelta(0)
        self._told: tuple[datetime, float] | None = None  # its clock, and when it was that
        self.on_step: Callable[[timedelta], None] = lambda _: None
        self.pauses = Pauses()

    def note_answer(self, headers: Mapping[str, str]) -> None:
        """Note that the server answered; its header ``Date`` tells its clock."""
        self.last_success, self.failing_since = datetime.now(UTC), None
        self.pauses.shorten()
        date = decode_date(headers)
        if date is not None:
            self._told = date, time.monotonic()
            self._set_ahead(date - self.last_success)

    def _set_ahead(self, ahead: timedelta) -> None:
        """Keep a difference of clocks that is more than the header's precision, and no noise."""
        change = abs(ahead - self.ahead)
        if change > _PRECISION:
            self.ahead = ahead
            self.on_step(change)

    def note_failure(self, error: str) -> None:
        """Note that no complete answer came."""
        self.last_failure, self.last_error = datetime.now(UTC), error
        self.failing_since = self.failing_since or self.last_failure

    def server_time(self) -> datetime:
        """Return the time of the server; while it has not told, that of this host.

        Never less than what it told and the time since: a lease that is written after this host's
        clock was put back would be over, until the next answer shows that it was.
        """
        now = datetime.now(UTC) + self.ahead
        if self._told is None:
            return now
        date, at = self._told
        return max(now, date + timedelta(seconds=time.monotonic() - at))
