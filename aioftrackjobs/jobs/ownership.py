"""Who owns a Job, and until when: the lease in the Job's ``data``.

The time of a lease is the time of the server, so that the clocks of hosts need not agree. This
module is pure: it does no I/O and reads no clock. :mod:`aioftrackjobs.jobs.leases` renews leases.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, NamedTuple

from aioftrackjobs.journal import Process

#: The key of the lease in a Job's data.
LEASE = "lease"

#: Seconds that a lease lasts by default, and that are added to it because clocks may differ.
LEASE_SECONDS, CLOCK_GRACE = 180.0, 60.0

#: Seconds that a lease can last: its end must be a time.
LONGEST_LEASE = 1e9


class Lease(NamedTuple):
    """A claim to a Job.

    Attributes:
        holder: Names the session that owns the Job.
        process: The process of that session.
        until: When the lease ends unless its owner renews it.
    """

    holder: str
    process: Process
    until: datetime

    def encode(self) -> dict[str, Any]:
        """Return the lease as a Job's data hold it."""
        until = self.until.isoformat(timespec="seconds")
        return {"holder": self.holder, **self.process._asdict(), "until": until}

    @classmethod
    def of(cls, data: Mapping[str, Any]) -> Lease | None:
        """Return the lease in a Job's *data*; None if there is none, or it cannot be read."""
        match data.get(LEASE):
            case {"holder": str() as holder, "until": str() as text}:
                process, until = Process.decode(data[LEASE]), _read_time(text)
                if process is not None and until is not None:
                    return cls(holder, process, until)
        return None

    def is_over(self, now: datetime, grace: float) -> bool:
        """Return whether the Job has no owner any more: it is dead, or the lease has ended.

        An owner whose process lives loses the Job as well when the lease ends. It may only be cut
        off from the server, but it may also have given up the Job, and another host cannot see
        the difference.

        Args:
            now: The time of the server.
            grace: Seconds by which clocks may differ.
        """
        if (now - self.until).total_seconds() > grace:
            return True
        return self.process.is_alive() is False


def _read_time(text: str) -> datetime | None:
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        return None
    return time if time.tzinfo is not None else None
