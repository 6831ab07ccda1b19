"""Why a server cannot be started, or ends by itself."""

from __future__ import annotations

from collections.abc import Mapping

from aioftrackjobs.errors import FtrackJobsError

#: What the server could not do, for each option: about a named thing, and about none.
_PHRASES: Mapping[str, tuple[str, str]] = {
    "host": ("serve on {}", "serve"),
    "database": ("use the database {}", "use the database"),
    "storage": ("store files in {}", "make a temporary folder for files"),
    "schemas": ("serve the schema of {}", "serve these schemas"),
    "fixture": ("load the fixture {}", "load the fixture"),
    "faults": ("inject the fault {!r}", "inject the faults"),
    "credentials": ("send {} in an HTTP header", "send the credentials"),
}


class ServerStartError(FtrackJobsError):
    """The server cannot be started with one of its options; nothing of it stays.

    An API key is never part of the error.

    Attributes:
        option: ``host`` (with the port), ``database``, ``storage``, ``schemas``, ``fixture``,
            ``faults`` or ``credentials``.
        subject: What cannot be used: an address, the name of a file or of an entity type, the
            text of a fault, ``api_user`` or ``api_key``. None if it has no name.
        reason: What is wrong with it.
    """

    def __init__(self, option: str, subject: str | None, reason: str) -> None:
        super().__init__(option, subject, reason)
        self.option = option
        self.subject = subject
        self.reason = reason

    def __str__(self) -> str:
        named, unnamed = _PHRASES[self.option]
        phrase = unnamed if self.subject is None else named.format(self.subject)
        return f"cannot {phrase}: {self.reason}"


class ServerEndedError(FtrackJobsError):
    """The server ended although it was not stopped. Its cause is chained, and logged."""

    def __str__(self) -> str:
        return "the server ended by itself; its log says why"
