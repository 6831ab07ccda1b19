"""What the journal keeps of a Job, or of an upload, and who writes it."""

from __future__ import annotations

from typing import NamedTuple, TypeAlias

from aioftrackjobs.journal._process import Process

#: What an entry is about: "job" or "upload", and its id.
Key: TypeAlias = tuple[str, str]


class Entry(NamedTuple):
    """What is known of a Job, or of an upload.

    Attributes:
        kind: "job" or "upload".
        id: Of the Job, or of the component.
        holder: The session that it belonged to at first.
        since: When that was; of a last word, when it was said.
        word: The last word of a Job as JSON; None while it has none.
        lost_host: Where its process died, if it did.
        lost_at: When that process was last known to live.
    """

    kind: str
    id: str
    holder: str
    since: float
    final_report: str | None = None
    lost_host: str | None = None
    lost_at: float | None = None

    @property
    def key(self) -> Key:
        """What it is known by."""
        return self.kind, self.id


class Owner(NamedTuple):
    """The session that writes.

    Attributes:
        token: Names it.
        process: Where it is.
        server_url: What its entries are about.
        api_user: Who can do something about them.
    """

    token: str
    process: Process
    server_url: str
    api_user: str
