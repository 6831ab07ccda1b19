"""Every error of the package, in one tree; the class says what the caller may do next.

::

    FtrackJobsError
    ├── ConfigurationError         give what is missing, then start again
    ├── MissingExtraError          install the named extra
    ├── SessionStateError          open the session, or stop using it
    ├── TransportError             no complete answer: the server may have acted
    │   ├── ConnectError           never left this machine: safe to repeat
    │   └── MalformedResponseError   an answer came that is not ftrack's
    ├── CommitUncertainError       a commit was sent, its end is unknown
    ├── ServerError                the server answered, and refused: nothing was applied
    │   ├── AuthenticationError
    │   ├── PermissionDeniedError
    │   ├── ValidationError
    │   ├── DuplicateEntryError
    │   └── QuerySyntaxError
    ├── QueryParameterError        a query's placeholders and parameters do not fit
    ├── NoResultFoundError         one() or a look-up found nothing
    ├── MultipleResultsFoundError  one() found more than one
    ├── EntityError                wrong use of an entity, found before anything was sent
    │   ├── NotLoadedError
    │   ├── UnknownEntityTypeError
    │   ├── UnknownAttributeError
    │   ├── ImmutableAttributeError
    │   ├── InvalidKeyError
    │   └── UnserialisableValueError
    └── TransferError              a file did not travel; nothing half-done stays
        ├── FileChangedError
        └── UnsupportedLocationError

Facts are attributes, the text is made in ``__str__``. Text of the server is data: it is kept
as it came, never used as a format string and never searched to choose a branch.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Sequence

__all__ = [
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


#: HTTP status code.
_TOO_MANY = 429


def _suggest(name: str, known: Iterable[str]) -> str:
    """Return `` Did you mean ...?`` for the known name nearest to *name*, or nothing."""
    from difflib import get_close_matches  # only mistakes need it

    match = get_close_matches(name, list(known), n=1)
    return f" Did you mean {match[0]!r}?" if match else ""


class FtrackJobsError(Exception):
    """Base of every error this package raises on purpose."""


class ConfigurationError(FtrackJobsError):
    """What a session needs to reach a server is missing or unusable.

    Attributes:
        problems: One sentence for each thing to put right.
    """

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__(problems)
        self.problems = tuple(problems)

    def __str__(self) -> str:
        return "the session is not configured: " + "; ".join(self.problems)


class MissingExtraError(FtrackJobsError, ImportError):
    """A part of the package was used whose optional dependencies are not installed.

    Attributes:
        extra: Name of the extra that brings them.
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
    """The session is not open: not yet, or no longer."""


class TransportError(FtrackJobsError):
    """No complete answer came back. The server may have acted on the request.

    Attributes:
        retry_after: Seconds that the server, or a proxy, asks to be left alone for.
        is_retryable: Whether another attempt may succeed.
    """

    retry_after: float | None = None
    is_retryable: bool = True


class ConnectError(TransportError):
    """The request never left this machine, so repeating it is safe."""


class MalformedResponseError(TransportError):
    """An answer came back that is not ftrack's: HTML, cut off, or of the wrong length.

    Attributes:
        problem: What is wrong with it.
        status: HTTP status code.
        excerpt: The first characters of the body.
    """

    def __init__(self, problem: str, *, status: int, excerpt: str = "") -> None:
        super().__init__(problem)
        self.problem = problem
        self.status = status
        self.excerpt = excerpt

    def __str__(self) -> str:
        shown = f": {self.excerpt!r}" if self.excerpt else ""
        return f"HTTP {self.status}, {self.problem}{shown}"

    def __reduce__(self) -> tuple[object, ...]:
        return _rebuild_malformed, (self.problem, self.status, self.excerpt)


def _rebuild_malformed(problem: str, status: int, excerpt: str) -> MalformedResponseError:
    return MalformedResponseError(problem, status=status, excerpt=excerpt)


class CommitUncertainError(FtrackJobsError):
    """A commit was sent, and no complete answer says whether it was applied.

    The session has tried again for as long as it may. The operations are not pending any more,
    so that nothing is silently sent twice: :meth:`resolve`, or the next commit, settles them.

    Attributes:
        operations: What the commit carried.
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
        """Ask the server what it has done, and send the rest: each operation is applied once.

        Raises:
            CommitUncertainError: Still nobody knows.
            ServerError: The server refused the rest, which is pending again.
            SessionStateError: The session is closed, or the error has left its process.
        """
        if self._resolve is None:
            raise SessionStateError("this error does not know its session any more")
        await self._resolve()

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), (self.operations,)

    def __str__(self) -> str:
        return (
            f"the end of a commit of {len(self.operations)} operation(s) is unknown: it was sent "
            "and may have been applied; await resolve() on this error, or commit again"
        )


class ServerError(FtrackJobsError):
    """The server answered, and refused. Nothing of the request was applied.

    Attributes:
        kind: Error class as the server names it, e.g. ``"ValidationError"``.
        detail: The server's own text, unchanged.
        status: HTTP status code; 200 for a refusal that a non-strict server reports in its body.
        code: The server's ``error_code``, mostly None.
        expression: The query that was refused, where it was one.
        retry_after: Seconds that the server, or a proxy, asks to be left alone for.
    """

    retry_after: float | None = None

    @property
    def is_retryable(self) -> bool:
        """Whether another attempt may succeed: all that is wrong is that too many came."""
        return self.status == _TOO_MANY

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
        return text

    def __reduce__(self) -> tuple[object, ...]:
        return _rebuild_server_error, (type(self), self.args, self.__dict__)


def _rebuild_server_error(
    cls: type[ServerError], args: tuple[str, str], facts: dict[str, object]
) -> ServerError:
    error = cls(*args)
    error.__dict__.update(facts)
    return error


class AuthenticationError(ServerError):
    """User name and API key do not belong together, or the key is unknown."""


class PermissionDeniedError(ServerError):
    """The user may not do this."""


class ValidationError(ServerError):
    """A value, an attribute or an entity type is not allowed."""


class DuplicateEntryError(ServerError):
    """There is already an entity with this key."""


class QuerySyntaxError(ServerError):
    """The server could not parse a query.

    Attributes:
        line: Line of the fault, from 1, where the server tells.
        column: Column of the fault, from 1, where the server tells.
    """

    line: int | None = None
    column: int | None = None


class QueryParameterError(FtrackJobsError, ValueError):
    """A query text and its parameters do not fit together."""


class _QueryResultError(FtrackJobsError):
    """A query found another number of entities than was asked for.

    Attributes:
        expression: The query.
    """

    def __init__(self, expression: str) -> None:
        super().__init__(expression)
        self.expression = expression


class NoResultFoundError(_QueryResultError):
    """A query that must find one entity found none."""

    def __str__(self) -> str:
        return f"no result for: {self.expression}"


class MultipleResultsFoundError(_QueryResultError):
    """A query that must find one entity found more."""

    def __str__(self) -> str:
        return f"more than one result for: {self.expression}"


class EntityError(FtrackJobsError):
    """An entity was used in a way that its type does not allow; nothing was recorded."""


class _AttributeUseError(EntityError):
    """An attribute of an entity was used in a way it cannot be.

    Attributes:
        entity_type: Type of the entity.
        attribute: The name that was used.
    """

    def __init__(self, entity_type: str, attribute: str) -> None:
        super().__init__(entity_type, attribute)
        self.entity_type = entity_type
        self.attribute = attribute


class NotLoadedError(_AttributeUseError, AttributeError, KeyError):
    """An attribute was read that no answer of the server has brought yet."""

    def __str__(self) -> str:
        variable = self.entity_type.lower()
        return (
            f"{self.entity_type}.{self.attribute} is not loaded; write: "
            f'await session.populate({variable}, "{self.attribute}")'
        )


class UnknownAttributeError(_AttributeUseError, AttributeError, KeyError):
    """The entity type has no such attribute."""

    def __init__(self, entity_type: str, attribute: str, known: Iterable[str] = ()) -> None:
        super().__init__(entity_type, attribute)
        self._hint = _suggest(attribute, known)

    def __str__(self) -> str:
        return f"{self.entity_type} has no attribute {self.attribute!r}.{self._hint}"


class ImmutableAttributeError(_AttributeUseError):
    """An attribute that is part of an entity's key, or read-only, was changed."""

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
        self._hint = _suggest(entity_type, known)

    def __str__(self) -> str:
        return f"the server has no entity type {self.entity_type!r}.{self._hint}"


class InvalidKeyError(EntityError, ValueError):
    """A primary key has the wrong number of parts, or an empty one.

    Attributes:
        entity_type: Type of the entity.
        attributes: The attributes that make up its key, in order.
    """

    def __init__(self, entity_type: str, attributes: Sequence[str], given: object) -> None:
        super().__init__(entity_type, attributes, given)
        self.entity_type = entity_type
        self.attributes = tuple(attributes)
        self.given = given

    def __str__(self) -> str:
        names = ", ".join(self.attributes)
        return f"the key of {self.entity_type} is ({names}), not {self.given!r}"


class UnserialisableValueError(EntityError, TypeError):
    """A value cannot travel to the server.

    Attributes:
        path: Where it stands, e.g. ``Job.data.frames[3]``.
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
    """A file grew, shrank or vanished while it was read for an upload."""


class UnsupportedLocationError(TransferError):
    """This package cannot move files into or out of the location."""
