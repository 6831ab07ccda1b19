"""Who owns a Job, and until when: the lease in the Job's ``data``.

The time of a lease is the time of the server, so that the clocks of hosts need not agree. This
module is pure: it does no I/O and reads no clock. :mod:`aioftrackjobs.jobs.leases` renews leases.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, NamedTuple

from aioftrackjobs.errors import JobOwnedError
from aioftrackjobs.journal import Process

#: The key of the lease in a Job's data.
LEASE = "lease"

#: The key that a session writes which takes a Job over: from whom, and when. It stays after the
#: end, so that the former owner sees it at its next read, however late.
TAKEN_OVER = "taken_over"

#: The statuses in which a Job may have an owner.
_QUEUED, _RUNNING = "queued", "running"

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
        is_claim: Whether its owner is about to run the Job, which is still queued. A session
            that runs a Job ignores a claim, which was written too late.
    """

    holder: str
    process: Process
    until: datetime
    is_claim: bool = False

    def encode(self) -> dict[str, Any]:
        """Return the lease as a Job's data hold it."""
        until = self.until.isoformat(timespec="seconds")
        encoded = {"holder": self.holder, **self.process._asdict(), "until": until}
        return {**encoded, "claim": True} if self.is_claim else encoded

    @classmethod
    def of(cls, data: Mapping[str, Any]) -> Lease | None:
        """Return the lease in a Job's *data*; None if there is none, or it cannot be read."""
        match data.get(LEASE):
            case {"holder": str() as holder, "until": str() as text}:
                process, until = Process.decode(data[LEASE]), _read_time(text)
                if process is not None and until is not None:
                    return cls(holder, process, until, data[LEASE].get("claim") is True)
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


def owner_of(status: object, data: Mapping[str, Any], now: datetime) -> Lease | None:
    """Return the lease of a Job's owner at *now*, the time of the server; None if it has none.

    A Job that is done or failed has no owner, whatever lease its last one has left. A queued Job
    may be claimed, and a running one may be run by a program that writes no leases.
    """
    lease = Lease.of(data)
    if lease is None or status not in (_QUEUED, _RUNNING) or lease.is_over(now, 0.0):
        return None
    return lease


def is_owned_by_other(
    data: Mapping[str, Any], holder: str, now: datetime, former: str | None = None
) -> bool:
    """Return whether the Job that *holder* runs has been taken over by another session.

    Args:
        data: What the server holds now.
        holder: Names the session that has run the Job until now.
        now: The time of the server.
        former: Names the session that *holder* has taken the Job from, if any. A write of that one
            may arrive late, with its lease, and does not mean that it has taken the Job back.
    """
    match data.get(LEASE):
        case {"holder": found} if found == holder:  # nearly always
            return False
    lease, note = Lease.of(data), data.get(TAKEN_OVER)
    is_named = isinstance(note, Mapping) and note.get("holder") == holder
    if lease is not None and not lease.is_claim:
        is_late = lease.holder == former and not is_named
        return not (is_late or lease.is_over(now, 0.0))
    return is_named  # the new owner has ended the Job


def takeover_note(former: Lease | None, now: datetime) -> dict[str, Any] | None:
    """Return what a Job's data hold under :data:`TAKEN_OVER`; None if it was not run before."""
    if former is None:
        return None
    return {"holder": former.holder, "at": now.isoformat(timespec="seconds")}


def owned_error(job_id: str, owner: Lease | None) -> JobOwnedError:
    """Return the error about a Job of *owner*; None if it has run and ended the Job meanwhile."""
    if owner is None:
        return JobOwnedError(job_id)
    process = owner.process
    return JobOwnedError(job_id, process.host, process.pid, owner.holder, owner.until)


def _read_time(text: str) -> datetime | None:
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        return None
    return time if time.tzinfo is not None else None
