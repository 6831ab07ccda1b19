"""Who runs a Job, and until when that holds: the lease in its ``data``.

The owner renews it for as long as it lives, in the time of the server, so that the clocks of hosts
need not agree. Pure: no I/O, no clock.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, NamedTuple

from aioftrackjobs.journal._process import Process

#: The key in a Job's data.
LEASE = "lease"

#: Seconds that a lease lasts if nothing else is said, and after it for clocks that differ.
LEASE_SECONDS, CLOCK_GRACE = 180.0, 60.0

#: How many renewals there are in the life of a lease.
RENEWALS = 3


class Lease(NamedTuple):
    """A claim to a Job.

    Attributes:
        holder: Names the session that holds it.
        process: Where that session is.
        until: When it runs out unless it is renewed.
    """

    holder: str
    process: Process
    until: datetime

    def encode(self) -> dict[str, Any]:
        """Return it as it stands in a Job's data."""
        until = self.until.isoformat(timespec="seconds")
        return {"holder": self.holder, **self.process.encode(), "until": until}

    @classmethod
    def of(cls, data: Mapping[str, Any]) -> Lease | None:
        """Return the lease in a Job's *data*; None if there is none that can be read."""
        match data.get(LEASE):
            case {"holder": str() as holder, "until": str() as text}:
                process, until = Process.decode(data[LEASE]), _moment(text)
                if process is not None and until is not None:
                    return cls(holder, process, until)
        return None

    def is_over(self, now: datetime, grace: float) -> bool:
        """Tell whether nobody holds it: its owner is dead, or it ran out *grace* seconds ago.

        Whose process lives loses it too when it runs out: it may be cut off, but it may as well
        have given up its Job, and it looks the same from any other host.

        Args:
            now: The time of the server.
            grace: Seconds by which clocks may differ.
        """
        if (now - self.until).total_seconds() > grace:
            return True
        return self.process.is_alive() is False


def _moment(text: str) -> datetime | None:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    return moment if moment.tzinfo is not None else None
