"""All errors of this package, in one tree. The class says what you can do next.

::

    FtrackJobsError
    ├── ConfigurationError         set what is missing, then start again
    ├── ArgumentError              correct the argument that it names; nothing was sent
    ├── MissingExtraError          install the extra that it names
    ├── SessionStateError          open the session, where it is used; or stop using it
    ├── TransportError             no complete response: the server may have acted; try again later
    │   ├── ConnectError           the request never left this machine: safe to repeat
    │   └── MalformedResponseError   the response is not from ftrack: look at the URL and the proxy
    ├── CommitUncertainError       a commit may have been applied: await its resolve()
    ├── ServerError                the server refused the request and applied nothing: change it
    │   ├── AuthenticationError    correct the user name or the API key
    │   ├── PermissionDeniedError  ask for the permission
    │   ├── ValidationError        correct the value, the attribute or the entity type
    │   ├── DuplicateEntryError    use the entity that exists already
    │   └── QuerySyntaxError       correct the query
    ├── JobStoppedError            somebody stopped the Job: go on with the next one
    ├── JobDeletedError            somebody deleted the Job: its end is not recorded anywhere
    ├── QueryParameterError        make placeholders and parameters of the query match
    ├── NoResultFoundError         handle that there is no such entity
    ├── MultipleResultsFoundError  make the criteria narrower
    ├── JobOwnedError              another session runs the Job: wait, take it over, or join it
    ├── EntityError                correct how the entity is used; nothing was recorded
    │   ├── NotLoadedError         await session.populate(...) first
    │   ├── UnknownAttributeError  correct the name of the attribute
    │   ├── UnknownEntityTypeError   correct the name of the entity type
    │   ├── ImmutableAttributeError  create a new entity instead
    │   ├── InvalidKeyError        give all parts of the key
    │   ├── InvalidValueError      give the attribute a value that it can have
    │   └── UnserialisableValueError   convert the value to one that JSON can hold
    └── TransferError              a file was not transferred; no incomplete file is left
        ├── FileChangedError       upload it when nothing writes to it any more
        └── UnsupportedLocationError   use the server location

The facts about an error are attributes, and ``str()`` makes a text of them. A text of the server
is kept unchanged.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Sequence
from datetime import datetime
from functools import partial

__all__ = [
    "ArgumentError",
    "AuthenticationError",
    "CommitUncertainError",
    "ConfigurationError",
    "ConnectError",
    "DuplicateEntryError",
    "EntityError",
    "FileChangedError",
    "FtrackJobsError",
    "ImmutableAttributeError",
    "InvalidKeyError",
    "InvalidValueError",
    "JobDeletedError",
    "JobOwnedError",
    "JobStoppedError",
    "MalformedResponseError",
    "MissingExtraError",
    "MultipleResultsFoundError",
    "NoResultFoundError",
    "NotLoadedError",
    "PermissionDeniedError",
    "QueryParameterError",
    "QuerySyntaxError",
    "ServerError",
    "SessionStateError",
    "TransferError",
    "TransportError",
    "UnknownAttributeError",
    "UnknownEntityTypeError",
    "UnserialisableValueError",
    "UnsupportedLocationError",
    "ValidationError",
]

#: Characters of a value that the text of an error shows.
_LONGEST_VALUE = 80

#: How like a known name a wrong one must be for a suggestion, from 0 to 1: "jobs" is like "Job".
_LIKENESS = 0.55

#: HTTP status code.
_TOO_MANY_REQUESTS = 429


class FtrackJobsError(Exception):
    """Base class of all errors that this package raises on purpose."""


class ConfigurationError(FtrackJobsError):
    """A setting that a session needs is missing or wrong.

    Attributes:
        problems: One sentence for each setting to correct.
    """

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__(problems)
        self.problems = tuple(problems)

    def __str__(self) -> str:
        return "the session is not configured: " + "; ".join(self.problems)


class ArgumentError(FtrackJobsError, TypeError, ValueError):
    """An argument of a function has a wrong type or value. Nothing was recorded or sent.

    It is a TypeError and a ValueError, so that code that expects either of them catches it.

    Attributes:
        argument: Name of the argument.
        expected: What it must be.
        given: What was given instead: a number, or the type of any other value.
    """

    def __init__(self, argument: str, expected: str, given: str) -> None:
        super().__init__(argument, expected, given)
        self.argument = argument
        self.expected = expected
        self.given = given

    def __str__(self) -> str:
        return f"{self.argument} must be {self.expected}, not {self.given}"


class MissingExtraError(FtrackJobsError, ImportError):
    """A part of the package was used whose optional dependencies are not installed.

    Attributes:
        extra: Name of the extra that installs them.
        package: The module that could not be imported.
    """

    def __init__(self, extra: str, package: str) -> None:
        super().__init__(extra, package)
        self.extra = extra
        self.package = package

    def __str__(self) -> str:
        return (
            f"{self.package} is not installed; it comes with an extra: "
            f'pip install "aioftrackjobs[{self.extra}]"'
        )


class SessionStateError(FtrackJobsError):
    """The session is not open, or belongs to another event loop, thread or process."""


class TransportError(FtrackJobsError):
    """No complete response arrived. The server may have acted on the request.

    Attributes:
        retry_after: Seconds to wait before the next attempt, if the server or a proxy said so.
        is_retryable: Whether another attempt may succeed.
    """

    retry_after: float | None = None
    is_retryable: bool = True


class ConnectError(TransportError):
    """The request never left this machine, so it is safe to repeat it."""


class MalformedResponseError(TransportError):
    """The response is not one of ftrack: it is HTML, for example, or incomplete.

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
        self.operations = tuple(operations)
        self._resolve = resolve

    async def resolve(self) -> None:
        """Find out what the server has applied, and send the rest: nothing is applied twice.

        Raises:
            CommitUncertainError: It is still unknown.
            ServerError: The server refused the rest, which is pending again.
            SessionStateError: The session is closed, or this error comes from another process.
        """
        if self._resolve is None:
            raise SessionStateError("this error has lost its session, because it was copied")
        await self._resolve()

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), (self.operations,)  # without the session

    def __str__(self) -> str:
        return (
            f"it is unknown whether a commit of {len(self.operations)} operation(s) was applied; "
            "await resolve() on this error, or commit again"
        )


class JobStoppedError(FtrackJobsError):
    """The block of a Job was cancelled because somebody stopped the Job, which has failed.

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
    """Somebody has deleted a Job while it was running, so that its end cannot be recorded.

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
        if self.expression is not None and self.expression not in self.detail:
            text += f"\n  in query: {self.expression}"
        if self.url is not None:
            text += f"\n  at {self.url}, which may be the wrong address"
        return text


class AuthenticationError(ServerError):
    """The API key is unknown, or it is not a key of the user."""


class PermissionDeniedError(ServerError):
    """The user does not have the permission for this."""


class ValidationError(ServerError):
    """A value, an attribute or an entity type is not allowed."""


class DuplicateEntryError(ServerError):
    """There is an entity with this key already."""


class QuerySyntaxError(ServerError):
    """The server could not parse a query.

    Attributes:
        line: Line of the mistake, from 1; None if the server does not say.
        column: Column of the mistake, from 1; None if the server does not say.
    """

    line: int | None = None
    column: int | None = None


class QueryParameterError(FtrackJobsError, ValueError):
    """The text of a query and its parameters, or the way it is used, do not match."""


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

    Attributes:
        expression: The query.
    """

    def __str__(self) -> str:
        return f"no result for: {self.expression}"


class MultipleResultsFoundError(_QueryResultError):
    """A query that must find one entity has found several.

    Attributes:
        expression: The query.
    """

    def __str__(self) -> str:
        return f"more than one result for: {self.expression}"


class JobOwnedError(FtrackJobsError):
    """Another session runs the Job, or is about to. Nothing was written to it.

    Only if two sessions begin the same Job at the same moment, the one that raises this has
    written to it, and the other one has overwritten that.

    Attributes:
        job_id: Id of the Job.
        host: Name of the host of its owner; None if the owner is not known, because somebody has
            run the Job and ended it since this session has claimed or begun it.
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
            return f"Job {self.job_id} was run by somebody else meanwhile; leave it alone"
        owner = f"process {self.pid} on {self.host}"
        if self.until is None:
            owner = f"another block of this session, in {owner}"
        else:
            owner += f", with a lease until {self.until:%Y-%m-%d %H:%M:%S %Z}"
        return (
            f"Job {self.job_id} belongs to {owner}; wait for its end, "
            "or pass join=True to work on it for its owner, or take_over=True to take it away"
        )


class EntityError(FtrackJobsError):
    """An entity was used in a way that is not possible. Nothing was recorded or sent."""


class _AttributeError(EntityError):
    """An attribute of an entity was used in a way that is not possible.

    Attributes:
        entity_type: Type of the entity.
        attribute: The name that was used.
    """

    def __init__(self, entity_type: str, attribute: str) -> None:
        super().__init__(entity_type, attribute)
        self.entity_type = entity_type
        self.attribute = attribute


class NotLoadedError(_AttributeError, AttributeError, KeyError):
    """An attribute was read that no response of the server has brought yet."""

    def __str__(self) -> str:
        variable = self.entity_type.lower()
        return (
            f"{self.entity_type}.{self.attribute} is not loaded; write: "
            f'await session.populate({variable}, "{self.attribute}")'
        )


class UnknownAttributeError(_AttributeError, AttributeError, KeyError):
    """The entity type has no such attribute."""

    def __init__(self, entity_type: str, attribute: str, known: Iterable[str] = ()) -> None:
        super().__init__(entity_type, attribute)
        self._hint = _suggestion(attribute, known)

    def __str__(self) -> str:
        return f"{self.entity_type} has no attribute {self.attribute!r}.{self._hint}"


class ImmutableAttributeError(_AttributeError):
    """An attribute was changed that is read-only, or a part of the key of its entity."""

    def __str__(self) -> str:
        return f"{self.entity_type}.{self.attribute} cannot be changed"


class UnknownEntityTypeError(EntityError):
    """The server has no such entity type.

    Attributes:
        entity_type: The name that was used.
    """

    def __init__(self, entity_type: str, known: Iterable[str] = ()) -> None:
        super().__init__(entity_type)
        self.entity_type = entity_type
        self._hint = _suggestion(entity_type, known)

    def __str__(self) -> str:
        return f"the server has no entity type {self.entity_type!r}.{self._hint}"


class InvalidKeyError(EntityError, ValueError):
    """A primary key has the wrong number of parts, or an empty part.

    Attributes:
        entity_type: Type of the entity.
        attributes: The attributes of its key, in the order of the schema.
        given: What was given as the key.
    """

    def __init__(self, entity_type: str, attributes: Sequence[str], given: object) -> None:
        super().__init__(entity_type, attributes, given)
        self.entity_type = entity_type
        self.attributes = tuple(attributes)
        self.given = given

    def __str__(self) -> str:
        names = ", ".join(self.attributes)
        return f"the key of {self.entity_type} is ({names}), not {self.given!r}"


class InvalidValueError(_AttributeError, ValueError):
    """An attribute of an entity cannot have a value.

    Attributes:
        entity_type: Type of the entity.
        attribute: Name of the attribute.
        value: The value, if it is a text, a number or None; else a text that says what it is.
        reason: What values the attribute can have.
        allowed: These values, if there are only some.
    """

    def __init__(
        self,
        entity_type: str,
        attribute: str,
        value: object,
        reason: str,
        allowed: Sequence[str] = (),
    ) -> None:
        super().__init__(entity_type, attribute)
        is_plain = value is None or isinstance(value, str | bool | float) or _is_short(value)
        self.value = value if is_plain else f"a value of type {type(value).__name__}"
        self.reason = reason
        self.allowed = tuple(allowed)
        self.args = (entity_type, attribute, self.value, reason, self.allowed)
        self._shown = _shortened(repr(self.value)) if is_plain else str(self.value)

    def __str__(self) -> str:
        hint = _suggestion(self.value, self.allowed)
        text = f"{self.entity_type}.{self.attribute} cannot be {self._shown}: {self.reason}"
        return f"{text}.{hint}" if hint else text

    def hide(self, redact: Callable[[str], str]) -> None:
        """Remove what *redact* removes from the texts of this error."""
        if isinstance(self.value, str):
            self.value = redact(self.value)
        self._shown = redact(self._shown)
        self.args = (*self.args[:2], self.value, *self.args[3:])


class UnserialisableValueError(EntityError, TypeError):
    """A value cannot be sent to the server: JSON cannot hold it, or it is a time without a zone.

    Attributes:
        path: Where the value is, e.g. ``Job.data.frames[3]``.
        type_name: Name of its Python type.
    """

    def __init__(self, path: str, type_name: str) -> None:
        super().__init__(path, type_name)
        self.path = path
        self.type_name = type_name

    def __str__(self) -> str:
        return f"{self.path}: a value of type {self.type_name} cannot be sent to ftrack"


class TransferError(FtrackJobsError):
    """A file could not be uploaded or downloaded."""


class FileChangedError(TransferError):
    """A file grew, shrank or vanished while it was uploaded."""


class UnsupportedLocationError(TransferError):
    """This package cannot store files in the location, or load files from it."""


def _is_short(value: object) -> bool:
    """Return whether it is a whole number that is not too long to be shown."""
    return isinstance(value, int) and value.bit_length() < _LONGEST_VALUE


def _shortened(text: str) -> str:
    return text if len(text) <= _LONGEST_VALUE else f"{text[: _LONGEST_VALUE - 1]}…"


def _suggestion(name: object, known: Iterable[str]) -> str:
    """Return `` Did you mean ...?`` with the known name that is most like *name*, or nothing."""
    from difflib import get_close_matches  # takes 2 ms to import, and only mistakes need it

    if not isinstance(name, str):  # what is no name is like none
        return ""
    names = list(known)
    match = [
        *get_close_matches(name, names, 1, _LIKENESS),
        *get_close_matches(name.lower(), names, 1, _LIKENESS),
    ]
    return f" Did you mean {match[0]!r}?" if match else ""
