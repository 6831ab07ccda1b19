"""Observer: the interface of what watches a session, and the objects that it gets.

All methods do nothing, so that an observer has only those that it needs. They are called on
the event loop of the session, unless something else is said, and must neither block nor wait.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal, Protocol, TypeAlias, runtime_checkable

from aioftrackjobs.protocol.operations import Operation

#: How a call has ended. *Refused*: by the server. *Unsent*: it was not received, so that nothing
#: has changed. *Uncertain*: neither a response nor a query shows what the server has done.
CallOutcome: TypeAlias = Literal["applied", "refused", "unsent", "uncertain"]

#: How a block of ``job_context`` has ended. *Queued*: the Job is to be run again. *Left*: another
#: owner ends the Job, or it was deleted. *Not begun*: the Job could not begin.
JobOutcome: TypeAlias = Literal["done", "failed", "queued", "left", "not_begun"]


@dataclass(eq=False, slots=True)
class ObservedCall:
    """A commit, or another call of ftrack's API, from its submission to its end.

    Several commits may share a request, and one commit may need several requests.

    Attributes:
        action: "commit", or the kind of another call, such as "query".
        operations: The operations of a commit; none for another call.
        count: Number of operations.
        server_url: The server that it is for.
        queued_at: When it was submitted, as ``time.monotonic`` counts.
        attempts: Requests so far that have carried it.
        outcome: How it has ended; None before.
        error: Why it was not applied, or why that is not known.
        mark: Whatever the observer wants to keep with it.
    """

    action: str
    operations: Sequence[Operation]
    count: int
    server_url: str
    queued_at: float
    attempts: int = 0
    outcome: CallOutcome | None = None
    error: BaseException | None = None
    mark: Any = None


@dataclass(eq=False, slots=True)
class ObservedRequest:
    """One HTTP request to the API.

    Attributes:
        calls: What it carries: commits that share it, or one other call. None for a question of the
            package itself, such as what became of a commit.
        action: "commit", or the kind of its first operation, such as "query".
        count: Number of operations.
        size: Bytes of its body.
        server_url: The server that it is for.
        began_at: When it began, as ``time.monotonic`` counts.
        retry_after: Why the attempt before it has failed; None if it is the first.
        error: Why it has failed; None if it has not.
        mark: Whatever the observer wants to keep with it.
    """

    calls: Sequence[ObservedCall]
    action: str
    count: int
    size: int
    server_url: str
    began_at: float
    retry_after: BaseException | None = None
    error: BaseException | None = None
    mark: Any = None


@dataclass(eq=False, slots=True)
class ObservedJob:
    """A block of ``job_context``.

    Attributes:
        began_at: When it began, as ``time.monotonic`` counts.
        is_joined: Whether it works on the Job for its owner.
        id: The Job's id; None before the Job has begun.
        carrier: What the observer writes into the Job's ``data``, so that others find its trace.
        found: The same as an earlier owner or the creator of the Job has left it.
        outcome: How it has ended; None before.
        error: What the block was left by.
        mark: Whatever the observer wants to keep with it.
    """

    began_at: float
    is_joined: bool = False
    id: str | None = None
    carrier: Mapping[str, str] = field(default_factory=dict)
    found: Mapping[str, str] = field(default_factory=dict)
    outcome: JobOutcome | None = None
    error: BaseException | None = None
    mark: Any = None


@dataclass(eq=False, slots=True)
class ObservedTransfer:
    """An upload or a download that has ended.

    Attributes:
        direction: Which of them it was.
        size: Bytes that were moved; those that were moved again count once.
        seconds: How long it took.
        error: Why it has failed; None if it has not.
    """

    direction: Literal["upload", "download"]
    size: int
    seconds: float
    error: BaseException | None = None


class EventHubView(Protocol):
    """What :class:`EventHubHealth` shows of the event hub."""

    @property
    def state(self) -> Literal["off", "connecting", "connected", "refused", "closed"]:
        """Whether it is used, and connected."""
        ...

    @property
    def received(self) -> int:
        """Events that have arrived."""
        ...

    @property
    def lag(self) -> int:
        """Events that wait for handlers and loops."""
        ...

    @property
    def dropped(self) -> int:
        """Events that were dropped because too many waited."""
        ...

    @property
    def reconnects(self) -> int:
        """Connections that were made after the first one."""
        ...


class HealthView(Protocol):
    """What :class:`Health` shows of a session; it may be read in any thread."""

    @property
    def commits_queued(self) -> int:
        """Commits that wait to be sent."""
        ...

    @property
    def commits_sent(self) -> int:
        """Commits that are being sent, or sent again."""
        ...

    @property
    def commits_since(self) -> datetime | None:
        """When the oldest commit that has no outcome was queued."""
        ...

    @property
    def final_reports_pending(self) -> int:
        """Final statuses in the journal that the server has not acknowledged."""
        ...

    @property
    def final_reports_since(self) -> datetime | None:
        """When the Job of the oldest of them ended."""
        ...

    @property
    def journal(self) -> Literal["off", "working", "failing"]:
        """Whether there is a journal, and whether it can be written."""
        ...

    @property
    def events(self) -> EventHubView:
        """The event hub."""
        ...


class ObservedSession(Protocol):
    """What an observer sees of an :class:`AsyncSession`."""

    @property
    def server_url(self) -> str:
        """URL of the server."""
        ...

    @property
    def health(self) -> HealthView:
        """A snapshot of what it waits for; it may be taken in any thread."""
        ...


@runtime_checkable
class Observer(Protocol):
    """Watches sessions. Derive a class from it, and give one object to any number of sessions.

    Example:
        Count commits by their outcome::

            class Commits(Observer):
                def __init__(self) -> None:
                    self.ended = Counter[str]()

                def call_settled(self, call: ObservedCall) -> None:
                    if call.action == "commit":
                        self.ended[str(call.outcome)] += 1

            async with AsyncSession(observer=Commits()) as session:
                ...

    An error that it raises is logged once, and changes nothing else.
    """

    def session_opened(self, session: ObservedSession, /) -> None:
        """Called when a session is open."""
        return

    def session_closed(self, session: ObservedSession, /) -> None:
        """Called when a session is closed; not if its program ends without closing it."""
        return

    def carrier(self) -> Mapping[str, str]:
        """Return what lets another process go on with the present trace, as ``traceparent``.

        It is called in the context of the user's code.
        """
        return {}

    def call_queued(self, call: ObservedCall, /) -> None:
        """Called when a commit or another call is submitted, in the context of the caller."""
        return

    def call_settled(self, call: ObservedCall, /) -> None:
        """Called when its outcome is known, and the entities are up to date."""
        return

    def request_began(self, request: ObservedRequest, /) -> None:
        """Called before a request is sent; it is a retry if it has a :attr:`retry_after`."""
        return

    def request_ended(self, request: ObservedRequest, /) -> None:
        """Called when it was answered, or has failed."""
        return

    def job_began(self, job: ObservedJob, /) -> None:
        """Called when a block begins, in its context, and before the server knows of it.

        What it sets as :attr:`ObservedJob.carrier` becomes a part of the Job's ``data``.
        """
        return

    def job_found(self, job: ObservedJob, /) -> None:
        """Called when a Job that exists already was read, which has a :attr:`ObservedJob.found`."""
        return

    def job_running(self, job: ObservedJob, /) -> None:
        """Called when the Job runs, so that its id is known, and the block is entered."""
        return

    def job_ended(self, job: ObservedJob, /) -> None:
        """Called when its final status was delivered, or is kept by the journal."""
        return

    def transfer_ended(self, transfer: ObservedTransfer, /) -> None:
        """Called when an upload or a download has ended."""
        return

    def event_received(self, topic: str, /) -> None:
        """Called for each event that the event hub receives."""
        return

    def journal_changed(self, state: Literal["working", "failing"], /) -> None:
        """Called when the journal fails, or works again; in any thread."""
        return
