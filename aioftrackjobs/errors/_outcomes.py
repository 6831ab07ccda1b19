"""Results of requests, transfers and Jobs other than success."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime
from functools import partial

from aioftrackjobs.errors._usage import FtrackJobsError, SessionStateError

#: HTTP status code.
_TOO_MANY_REQUESTS = 429


class TransportError(FtrackJobsError):
    """No complete response arrived. The server may have acted on the request.

    Example: ``except TransportError as error: print(error.is_retryable)``

    Attributes:
        retry_after: Seconds to wait before the next attempt, if the server or a proxy said so.
        is_retryable: Whether another attempt may succeed.
    """

    retry_after: float | None = None
    is_retryable: bool = True


class ConnectError(TransportError):
    """The request never left this machine, so it is safe to repeat it.

    Example: ``except ConnectError: await session.commit()``
    """


class MalformedResponseError(TransportError):
    """The response is not one of ftrack: it is HTML, for example, or incomplete.

    Example: ``except MalformedResponseError as error: print(error.status, error.excerpt)``

    Attributes:
        problem: What is wrong with it.
        status: HTTP status code.
        excerpt: The first characters of the body.
        url: The address that it came from; empty if that is not known.
    """

    def __init__(self, problem: str, *, status: int, excerpt: str = "", url: str = "") -> None:
        super().__init__(problem)
        self.problem = problem
        self.status = status
        self.excerpt = excerpt
        self.url = url

    def __str__(self) -> str:
        source = f" from {self.url}" if self.url else ""
        shown = f": {self.excerpt!r}" if self.excerpt else ""
        return f"HTTP {self.status}{source}, {self.problem}{shown}"

    def __reduce__(self) -> tuple[object, ...]:
        # Pickle and copy call a class with positional arguments only.
        make = partial(type(self), status=self.status, excerpt=self.excerpt, url=self.url)
        return make, (self.problem,), self.__dict__


class EventTimeoutError(TransportError, TimeoutError):
    """An event was not sent, not acknowledged, or got no reply in time.

    Example: ``except EventTimeoutError as error: print(error.topic, error.was_sent)``

    Attributes:
        topic: The topic of the event.
        seconds: The time-out.
        was_sent: Whether it was sent, so that others may have got it.
        problem: Why the event hub is not connected; None if it is.
    """

    def __init__(
        self, topic: str, seconds: float, *, was_sent: bool, problem: str | None = None
    ) -> None:
        super().__init__(topic, seconds)
        self.topic = topic
        self.seconds = seconds
        self.was_sent = was_sent
        self.problem = problem

    def __str__(self) -> str:
        what = "got no response" if self.was_sent else "could not be sent"
        text = f"the event {self.topic!r} {what} within {self.seconds:g} s"
        return f"{text}: {self.problem}" if self.problem else text

    def __reduce__(self) -> tuple[object, ...]:
        make = partial(type(self), was_sent=self.was_sent, problem=self.problem)
        return make, (self.topic, self.seconds), self.__dict__


class EventQueueFullError(FtrackJobsError):
    """A subscription with ``overflow="raise"`` was too slow, and events were dropped.

    Example: ``except EventQueueFullError as error: print(error.count, error.limit)``

    Attributes:
        expression: The subscription.
        limit: Events that may wait.
        count: Events that were dropped.
    """

    def __init__(self, expression: str, limit: int, count: int) -> None:
        super().__init__(expression, limit, count)
        self.expression = expression
        self.limit = limit
        self.count = count

    def __str__(self) -> str:
        return (
            f"{self.count} event(s) of the subscription {self.expression!r} were dropped, because "
            f"{self.limit} waited; handle them faster, or give it a longer queue"
        )


class CommitUncertainError(FtrackJobsError):
    """A commit was sent, but no complete response says whether it was applied.

    The session has retried for as long as its *retry* allows. The operations are not pending any
    more, so that nothing is sent twice by accident. :meth:`resolve` or the next commit settles
    them::

        try:
            await session.commit()
        except CommitUncertainError as error:
            await anyio.sleep(60)
            await error.resolve()

    Attributes:
        operations: The operations of the commit.
    """

    def __init__(
        self,
        operations: Sequence[object],
        resolve: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        super().__init__(operations)
        self.operations: tuple[object, ...] = tuple(operations)
        self._resolve = resolve

    async def resolve(self) -> None:
        """Find out what the server has applied, and send the rest: nothing is applied twice.

        Raises:
            CommitUncertainError: It is still unknown.
            ServerError: The server refused the rest, which is pending again.
            SessionStateError: The session is closed, or this error comes from another process.
        """
        if self._resolve is None:
            raise SessionStateError("a copy of this error has no session; resolve the original")
        await self._resolve()

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), (self.operations,)  # without the session

    def __str__(self) -> str:
        return (
            f"it is unknown whether a commit of {len(self.operations)} operation(s) was applied; "
            "await resolve() on this error, or commit again"
        )


class JobStoppedError(FtrackJobsError):
    """The block of a Job was cancelled by a stop request for the Job, which has failed.

    Example: ``except JobStoppedError as error: print(error.by, error.reason)``

    Attributes:
        job_id: The Job.
        by: Who stopped it; None if that is not known.
        reason: Why; None if that is not known.
    """

    def __init__(self, job_id: str, by: str | None = None, reason: str | None = None) -> None:
        super().__init__(job_id, by, reason)
        self.job_id = job_id
        self.by = by
        self.reason = reason

    def __str__(self) -> str:
        text = "stopped" if self.by is None else f"stopped by {self.by}"
        return text if self.reason is None else f"{text}: {self.reason}"


class JobDeletedError(FtrackJobsError):
    """A Job was deleted while it was running, so that its end cannot be recorded.

    Example: ``except JobDeletedError as error: print(error.job_id)``

    Attributes:
        job_id: The Job.
    """

    def __init__(self, job_id: str) -> None:
        super().__init__(job_id)
        self.job_id = job_id

    def __str__(self) -> str:
        return f"Job {self.job_id} was deleted while it was running"


class ServerError(FtrackJobsError):
    """The server refused the request. It applied nothing of it.

    Example: ``except ServerError as error: print(error.kind, error.detail)``

    Attributes:
        kind: Error class as the server names it, e.g. ``"ValidationError"``.
        detail: The server's own text, unchanged.
        status: HTTP status code; 200 for an error in the body of a response (without *strict_api*).
        code: The server's ``error_code``, mostly None.
        expression: The query that was refused, if it was a query.
        retry_after: Seconds to wait before the next attempt, if the server or a proxy said so.
        url: The address that was called, if the error suggests that it is the wrong one.
    """

    retry_after: float | None = None
    url: str | None = None
    _shows_query = True

    @property
    def is_retryable(self) -> bool:
        """Whether another attempt may succeed, because there were only too many requests."""
        return self.status == _TOO_MANY_REQUESTS

    def __init__(
        self,
        kind: str,
        detail: str,
        *,
        status: int = 200,
        code: str | None = None,
        expression: str | None = None,
    ) -> None:
        super().__init__(kind, detail)
        self.kind = kind
        self.detail = detail
        self.status = status
        self.code = code
        self.expression = expression

    def __str__(self) -> str:
        text = f"{self.kind}: {self.detail}"
        if self._shows_query and self.expression and self.expression not in self.detail:
            text += f"\n  in query: {self.expression}"
        if self.url is not None:
            text += f"\n  at {self.url}, which may be the wrong address"
        return text


class AuthenticationError(ServerError):
    """The API key is unknown, or it is not a key of the user.

    Example: ``except AuthenticationError: sys.exit("look at FTRACK_API_KEY")``
    """

    _shows_query = False  # any other one would have been refused, too


class PermissionDeniedError(ServerError):
    """The user does not have the permission for this.

    Example: ``except PermissionDeniedError as error: print(error.detail)``
    """


class ValidationError(ServerError):
    """A value, an attribute or an entity type is not allowed.

    Example: ``except ValidationError as error: print(error.detail)``
    """


class DuplicateEntryError(ServerError):
    """There is an entity with this key already.

    Example: ``except DuplicateEntryError: user = await session.get(User, user_id)``
    """


class QuerySyntaxError(ServerError):
    """The server could not parse a query.

    Example: ``except QuerySyntaxError as error: print(error.line, error.column)``

    Attributes:
        line: Line of the mistake, from 1; None if the server does not say.
        column: Column of the mistake, from 1; None if the server does not say.
    """

    line: int | None = None
    column: int | None = None


class _QueryResultError(FtrackJobsError):
    """A query has found too few or too many entities.

    Attributes:
        expression: The query.
    """

    def __init__(self, expression: str) -> None:
        super().__init__(expression)
        self.expression = expression


class NoResultFoundError(_QueryResultError):
    """A query that must find one entity has found none.

    Example: ``except NoResultFoundError as error: print(error.expression)``

    Attributes:
        expression: The query.
    """

    def __str__(self) -> str:
        return f"no result for: {self.expression}"


class MultipleResultsFoundError(_QueryResultError):
    """A query that must find one entity has found several.

    Example: ``except MultipleResultsFoundError as error: print(error.expression)``

    Attributes:
        expression: The query.
    """

    def __str__(self) -> str:
        return f"more than one result for: {self.expression}"


class CommandFailedError(FtrackJobsError):
    """A command that ran as a Job, or as a part of one, has failed.

    Example: ``except CommandFailedError as error: print(error.exit_code, error.reason)``

    Attributes:
        command: The name of the program.
        exit_code: As a shell reports it: 128 plus its number after a signal, 127 if there is no
            such program, 126 if it cannot be executed.
        reason: What it said, in one line.
    """

    def __init__(self, command: str, exit_code: int, reason: str) -> None:
        super().__init__(command, exit_code, reason)
        self.command = command
        self.exit_code = exit_code
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.command}: {self.reason}"


class JobOwnedError(FtrackJobsError):
    """Another session runs the Job, or is about to. Nothing was written to it.

    Example: ``except JobOwnedError as error: print(error.host, error.pid)``

    Only if two sessions begin the same Job at the same moment, the one that raises this has
    written to it, and the other one has overwritten that.

    Attributes:
        job_id: Id of the Job.
        host: Name of the host of its owner; None if the owner is not known, because another
            session has run and ended the Job since this session has claimed or begun it.
        pid: Process id of its owner on that host.
        holder: Names the session of its owner, as in the lease.
        until: When the lease ends unless the owner renews it; None if the owner is another block
            of this session.
    """

    def __init__(
        self,
        job_id: str,
        host: str | None = None,
        pid: int | None = None,
        holder: str | None = None,
        until: datetime | None = None,
    ) -> None:
        super().__init__(job_id, host, pid, holder, until)
        self.job_id = job_id
        self.host = host
        self.pid = pid
        self.holder = holder
        self.until = until

    def __str__(self) -> str:
        if self.host is None:
            return f"Job {self.job_id} was run by another session meanwhile; leave it alone"
        owner = f"process {self.pid} on {self.host}"
        if self.until is None:
            owner = f"another block of this session, in {owner}"
        else:
            owner += f", with a lease until {self.until:%Y-%m-%d %H:%M:%S %Z}"
        return (
            f"Job {self.job_id} belongs to {owner}; wait for its end, "
            "or pass join=True to work on it for its owner, or take_over=True to take it away"
        )


class TransferError(FtrackJobsError):
    """A file could not be uploaded or downloaded.

    Example: ``except TransferError: await session.download(component, "plate.exr", resume=True)``
    """


class FileChangedError(TransferError):
    """A file grew, shrank or vanished while it was uploaded.

    Example: ``except FileChangedError: await job.attach(path)``
    """


class _ComponentsError(TransferError):
    """What a location has, or does not have.

    Attributes:
        location: What names the location.
        component_ids: Ids of the components, or of their members.
    """

    _verb = ""

    def __init__(self, location: str, component_ids: tuple[str, ...]) -> None:
        super().__init__(location, component_ids)
        self.location = location
        self.component_ids = component_ids

    def __str__(self) -> str:
        return f"{self.location} {self._verb} {', '.join(self.component_ids)}"


class ComponentInLocationError(_ComponentsError):
    """The location has a component already that was to be added. Nothing was done.

    Example: ``except ComponentInLocationError: path = await disk.get_filesystem_path(component)``
    """

    _verb = "already has"


class ComponentNotInLocationError(_ComponentsError):
    """The location does not have a component. Nothing was done.

    Example: ``except ComponentNotInLocationError as error: print(error.component_ids)``
    """

    _verb = "does not have"


class MissingFileError(TransferError):
    """A location has a component, but its file is not on the disk.

    Example: ``except MissingFileError: await disk.remove_component(component)``
    """


class UnsupportedLocationError(TransferError):
    """This package cannot store files in the location, or load files from it.

    Example: ``await session.create_component("a.exr", location=another_location)``
    """
