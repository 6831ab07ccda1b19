"""What may go wrong on the way to a server and back, as values.

Each fault says what happens to one request. When that is, and to which requests, is said where
it is planned: :meth:`aioftrackjobs.devserver.Faults.inject`. *Applied* means the same for all:
whether the server does what it was asked to do before things go wrong.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, TypeAlias, get_args

RequestKind: TypeAlias = Literal["call", "upload", "download", "other"]
#: Names of the matchers that come with the server.
Named: TypeAlias = Literal["any", "calls", "reads", "writes", "uploads", "downloads"]

#: The actions of operations that change what a server holds.
WRITING = frozenset(
    {
        "create",
        "update",
        "delete",
        "complete_multipart_upload",
        "encode_media",
        "reset_remote",
    }
)


@dataclass(frozen=True, slots=True)
class SeenRequest:
    """One request, as far as matchers may want to know it; without credentials and signatures.

    Attributes:
        method: The HTTP method.
        path: Path without the signed part that addresses of uploads have.
        kind: A batch of operations, the upload of a file or a part, a download, or another one.
        operations: What a call asks for; empty for all else.
    """

    method: str
    path: str
    kind: RequestKind
    operations: tuple[Mapping[str, Any], ...] = field(default=(), repr=False)

    @property
    def writes(self) -> bool:
        """Whether it is a call that changes what the server holds."""
        return any(operation.get("action") in WRITING for operation in self.operations)

    def __str__(self) -> str:
        asked = (
            " ".join(str(operation.get(name, "")) for name in ("action", "entity_type")).strip()
            for operation in self.operations[:_SHOWN]
        )
        more = ", ..." if len(self.operations) > _SHOWN else ""
        shown = f" ({', '.join(asked)}{more})" if self.operations else ""
        return f"{self.method} {self.path}{shown}"


#: Operations of a request that its text shows.
_SHOWN = 3

Matcher: TypeAlias = Callable[[SeenRequest], bool]
#: Which requests a fault is for: the name of a matcher, or one of one's own.
On: TypeAlias = Named | Matcher

_MATCHERS: Mapping[str, Matcher] = {
    "any": lambda _: True,
    "calls": lambda request: request.kind == "call",
    "reads": lambda request: request.kind == "call" and not request.writes,
    "writes": lambda request: request.writes,
    "uploads": lambda request: request.kind == "upload",
    "downloads": lambda request: request.kind == "download",
}


def matcher_of(on: On) -> Matcher:
    """Return the matcher that *on* names, or is.

    Raises:
        ValueError: If there is none of that name.
    """
    if callable(on):
        return on
    try:
        return _MATCHERS[on]
    except KeyError:
        known = ", ".join(get_args(Named))
        raise ValueError(f"no requests are called {on!r}; there are: {known}") from None


@dataclass(frozen=True, slots=True)
class Fault:
    """Something that happens to one request; use one of the classes below.

    Attributes:
        name: What options call it.
        on: The requests it is for unless its plan says something else.
    """

    name: ClassVar[str]
    on: ClassVar[Named] = "any"


@dataclass(frozen=True, slots=True)
class Refuse(Fault):
    """The batch is refused, as a server refuses: nothing of it is done.

    Attributes:
        kind: Name of the error on the wire, which clients raise by.
        text: What the error says.
    """

    name: ClassVar[str] = "refuse"
    on: ClassVar[Named] = "calls"
    kind: str = "ServerError"
    text: str = "Refused by an injected fault."


@dataclass(frozen=True, slots=True)
class BadGateway(Fault):
    """A proxy answers in the server's place, with an error that is no JSON.

    Attributes:
        status: The HTTP status; 500 to 599.
        applied: Whether the server has done what it was asked to do.
    """

    name: ClassVar[str] = "bad-gateway"
    status: int = 502
    applied: bool = False

    def __post_init__(self) -> None:
        _check(500 <= self.status <= 599, "status must be from 500 to 599")


@dataclass(frozen=True, slots=True)
class HtmlPage(Fault):
    """A page for people comes instead of the answer, such as a proxy's login form.

    Attributes:
        status: The HTTP status.
        applied: Whether the server has done what it was asked to do.
    """

    name: ClassVar[str] = "html"
    status: int = 200
    applied: bool = False

    def __post_init__(self) -> None:
        _check(200 <= self.status <= 599, "status must be from 200 to 599")


@dataclass(frozen=True, slots=True)
class TooManyRequests(Fault):
    """The server asks to be left alone for a while: status 429 and the header ``Retry-After``.

    Attributes:
        retry_after: Seconds that it asks for.
    """

    name: ClassVar[str] = "too-many-requests"
    retry_after: int = 1

    def __post_init__(self) -> None:
        _check(self.retry_after >= 0, "retry_after must not be negative")


@dataclass(frozen=True, slots=True)
class Hang(Fault):
    """No answer comes, until the client gives up.

    Attributes:
        applied: Whether the server has done what it was asked to do.
    """

    name: ClassVar[str] = "hang"
    applied: bool = False


@dataclass(frozen=True, slots=True)
class Drop(Fault):
    """The connection is closed without an answer.

    Attributes:
        applied: Whether the server has done what it was asked to do.
    """

    name: ClassVar[str] = "drop"
    applied: bool = False


@dataclass(frozen=True, slots=True)
class Truncate(Fault):
    """The request is done, and the connection is closed in the midst of the answer.

    Attributes:
        kept: Share of the answer's bytes that arrives; 0 to less than 1.
    """

    name: ClassVar[str] = "truncate"
    kept: float = 0.5

    def __post_init__(self) -> None:
        _check(0 <= self.kept < 1, "kept must be from 0 to less than 1")


@dataclass(frozen=True, slots=True)
class Delay(Fault):
    """The request takes longer.

    It is done also if its client has given up meanwhile.

    Attributes:
        seconds: How much longer.
        applied: Whether the time passes after it is done, else before.
    """

    name: ClassVar[str] = "delay"
    seconds: float = 1.0
    applied: bool = False

    def __post_init__(self) -> None:
        _check(self.seconds >= 0, "seconds must not be negative")


@dataclass(frozen=True, slots=True)
class Throttle(Fault):
    """The bodies of request and answer pass slowly.

    Attributes:
        rate: Bytes a second.
    """

    name: ClassVar[str] = "throttle"
    rate: float = 65536.0

    def __post_init__(self) -> None:
        _check(self.rate > 0, "rate must be more than 0")


@dataclass(frozen=True, slots=True)
class Corrupt(Fault):
    """One byte of what is sent to the server arrives changed."""

    name: ClassVar[str] = "corrupt"
    on: ClassVar[Named] = "uploads"


@dataclass(frozen=True, slots=True)
class NotAtomic(Fault):
    """A batch that the server refuses keeps the operations before the refused one.

    It is about batches that are refused anyway, and waits for one. What is kept is what the
    server takes without the rest: it may be less where operations need later ones.
    """

    name: ClassVar[str] = "not-atomic"
    on: ClassVar[Named] = "writes"


@dataclass(frozen=True, slots=True)
class Restart(Fault):
    """The server is restarted: all connections with requests under way are closed.

    Those requests may be done or not. No new one is answered for a while.

    Attributes:
        seconds: How long.
    """

    name: ClassVar[str] = "restart"
    seconds: float = 0.2

    def __post_init__(self) -> None:
        _check(self.seconds >= 0, "seconds must not be negative")


@dataclass(frozen=True, slots=True)
class LosePower(Fault):
    """The server's process is killed, as by ``kill -9``; only for one that is a server's own.

    Attributes:
        applied: Whether the request has been done.
    """

    name: ClassVar[str] = "lose-power"
    applied: bool = False


def _check(holds: bool, problem: str) -> None:  # noqa: FBT001 - a condition, not a switch
    if not holds:
        raise ValueError(problem)


#: All of them, as options list them.
FAULTS: tuple[type[Fault], ...] = (
    Refuse,
    BadGateway,
    HtmlPage,
    TooManyRequests,
    Hang,
    Drop,
    Truncate,
    Delay,
    Throttle,
    Corrupt,
    NotAtomic,
    Restart,
    LosePower,
)


@dataclass(frozen=True, slots=True)
class Injected:
    """A fault that happened, and the request it happened to."""

    fault: Fault
    request: SeenRequest

    def __str__(self) -> str:
        return f"{self.fault} at {self.request}"
