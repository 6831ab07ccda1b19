"""What the journal keeps of a Job, or of an upload, and which session writes it."""

from __future__ import annotations

from typing import NamedTuple, TypeAlias

from aioftrackjobs.journal._process import Process

#: What an entry is about: "job", "upload" or "start", and its id.
Key: TypeAlias = tuple[str, str]


class Entry(NamedTuple):
    """What is known of a Job, or of an upload.

    Attributes:
        kind: "job", "upload", or "start" for a Job that is still to be created.
        id: The id of the Job, or of the component.
        holder: The session that it belonged to at first.
        since: When the entry was made; with a final report, when the Job ended.
        final_report: The final status and data of a Job as JSON; None while it runs. Of a start:
            what the Job is created with if the process dies.
        lost_host: The host of its process, if that has died.
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
        """What identifies the entry."""
        return self.kind, self.id


class Owner(NamedTuple):
    """The session that writes.

    Attributes:
        token: Identifies the owner.
        process: Its process.
        server_url: The server that its entries are about.
        api_user: The user that can change them there.
    """

    token: str
    process: Process
    server_url: str
    api_user: str
