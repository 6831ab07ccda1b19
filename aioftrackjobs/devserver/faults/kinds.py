"""The faults that can be injected between a client and the server.

A fault defines what happens to one request. :meth:`aioftrackjobs.devserver.Faults.inject` plans
when and to which requests. The setting ``applied`` means the same for all: whether the server runs
the request before the fault is injected.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any, ClassVar, Literal, TypeAlias, get_args

RequestKind: TypeAlias = Literal["call", "upload", "download", "other", "event", "heartbeat"]
#: Names of the matchers that come with the server.
Named: TypeAlias = Literal[
    "any", "calls", "reads", "writes", "uploads", "downloads", "events", "heartbeats"
]

#: The actions of operations that write.
WRITING = frozenset(
    {
        *("create", "update", "delete", "complete_multipart_upload", "encode_media"),
        *("reset_remote", "add_user_security_role", "grant_user_security_role_project"),
        *("remove_user_security_role", "revoke_user_security_role"),
        *("revoke_user_security_role_project", "update_user_security_role"),
    }
)


@dataclass(frozen=True, slots=True)
class SeenRequest:
    """One request for matchers, without credentials and signatures; or an event to be sent.

    Attributes:
        method: The HTTP method; ``SEND`` for events and heartbeats.
        path: Path without the signed part that addresses of uploads have; topic of an event.
        kind: A batch of operations, the upload of a file or a part, a download, or another one;
            an event that the hub sends to a client, or a heartbeat.
        operations: The operations of a batch; the event itself; empty for others.
    """

    method: str
    path: str
    kind: RequestKind
    operations: tuple[Mapping[str, Any], ...] = field(default=(), repr=False)

    @property
    def writes(self) -> bool:
        """Whether it is a batch that writes."""
        return any(operation.get("action") in WRITING for operation in self.operations)

    def __str__(self) -> str:
        shown = (
            " ".join(str(operation.get(name, "")) for name in ("action", "entity_type")).strip()
            for operation in self.operations[:_SHOWN]
        )
        more = ", ..." if len(self.operations) > _SHOWN else ""
        operations = f" ({', '.join(shown)}{more})" if self.operations else ""
        return f"{self.method} {self.path}{operations}"


#: Operations of a request that its text shows.
_SHOWN = 3

Matcher: TypeAlias = Callable[[SeenRequest], bool]
#: Which requests a fault is for: the name of a matcher, or a function.
On: TypeAlias = Named | Matcher

#: What the event hub sends, and clients do not request.
_SENT = frozenset({"event", "heartbeat"})

_MATCHERS: Mapping[str, Matcher] = {
    "any": lambda request: request.kind not in _SENT,
    "calls": lambda request: request.kind == "call",
    "reads": lambda request: request.kind == "call" and not request.writes,
    "writes": lambda request: request.writes,
    "uploads": lambda request: request.kind == "upload",
    "downloads": lambda request: request.kind == "download",
    "events": lambda request: request.kind == "event",
    "heartbeats": lambda request: request.kind == "heartbeat",
}


def matcher_of(on: On) -> Matcher:
    """Return the matcher *on*, or the one with this name."""
    if callable(on):
        return on
    try:
        return _MATCHERS[on]
    except KeyError:
        known = ", ".join(get_args(Named))
        raise ValueError(f"no requests are called {on!r}; there are: {known}") from None


@dataclass(frozen=True)
class Fault:
    """The base of all faults.

    Attributes:
        name: Its name in options; made from the name of the class, if not given.
        on: The requests it is for, unless its plan names others.
        kinds: Requests that it can be injected into; all but events and heartbeats if empty.
    """

    name: ClassVar[str]
    on: ClassVar[Named]
    kinds: ClassVar[frozenset[RequestKind]]

    def __init_subclass__(
        cls, *, name: str = "", on: Named = "any", kinds: Iterable[RequestKind] = ()
    ) -> None:
        cls.name = name or re.sub(r"(?<!^)(?=[A-Z])", "-", cls.__name__).lower()
        cls.on, cls.kinds = on, frozenset(kinds)

    def __post_init__(self) -> None:
        for setting in (each for each in fields(self) if each.metadata):
            least, less_than = setting.metadata["bounds"]
            if not least <= getattr(self, setting.name) < less_than:
                most = "" if less_than == math.inf else f", and less than {less_than}"
                raise ValueError(f"{setting.name} must be {least} or more{most}")

    def fits(self, request: SeenRequest) -> bool:
        """Return whether it can be injected into *request*."""
        return request.kind in self.kinds if self.kinds else request.kind not in _SENT


def _bounded(default: float, least: float, less_than: float = math.inf) -> Any:
    return field(default=default, metadata={"bounds": (least, less_than)})


@dataclass(frozen=True)
class Refuse(Fault, on="calls"):
    """The batch is refused with an error of the server, and nothing of it is done.

    Attributes:
        kind: Name of the error on the wire, which decides what clients raise.
        text: Text of the error.
    """

    kind: str = "ServerError"
    text: str = "Refused by an injected fault."


@dataclass(frozen=True)
class BadGateway(Fault):
    """A proxy responds in the server's place, with an error that is not JSON.

    Attributes:
        status: The HTTP status; 500 to 599.
    """

    status: int = _bounded(502, 500, 600)
    applied: bool = False


@dataclass(frozen=True)
class HtmlPage(Fault, name="html"):
    """An HTML page replaces the response, such as a proxy's login form.

    Attributes:
        status: The HTTP status.
    """

    status: int = _bounded(200, 200, 600)
    applied: bool = False


@dataclass(frozen=True)
class TooManyRequests(Fault):
    """The server limits the rate: status 429 and the header ``Retry-After``.

    Attributes:
        retry_after: Seconds in the header.
    """

    retry_after: int = _bounded(1, 0)


@dataclass(frozen=True)
class Hang(Fault):
    """No response comes, until the client gives up."""

    applied: bool = False


@dataclass(frozen=True)
class Drop(Fault, kinds=get_args(RequestKind)):
    """The connection is closed without a response; with *on* ``events``, in place of an event."""

    applied: bool = False


@dataclass(frozen=True)
class Truncate(Fault):
    """The request is run, and the connection is closed in the middle of the response.

    Attributes:
        kept: Share of the response's bytes that arrives; 0 to less than 1.
    """

    kept: float = _bounded(0.5, 0, 1)


@dataclass(frozen=True)
class Delay(Fault, kinds=get_args(RequestKind)):
    """The request takes longer; with *on* ``events``, an event and those after it.

    A request is run even if its client has disconnected meanwhile.

    Attributes:
        seconds: How much longer.
    """

    seconds: float = _bounded(1.0, 0)
    applied: bool = False


@dataclass(frozen=True)
class Throttle(Fault):
    """The bodies of request and response pass slowly.

    Attributes:
        rate: Bytes a second.
    """

    rate: float = _bounded(65536.0, 1)


@dataclass(frozen=True)
class Corrupt(Fault, on="uploads"):
    """One byte of the request's body arrives changed."""


@dataclass(frozen=True)
class NotAtomic(Fault, on="writes"):
    """A batch that the server refuses is applied up to the refused operation.

    It waits for a batch that the server refuses by itself. It applies what the server accepts
    without the rest, which may be less if operations need later ones.
    """


@dataclass(frozen=True)
class Restart(Fault):
    """The server is restarted: all connections with running requests are closed.

    Those requests may be done or not. New ones are dropped for a while.

    Attributes:
        seconds: How long new requests are dropped.
    """

    seconds: float = _bounded(0.2, 0)


@dataclass(frozen=True)
class Duplicate(Fault, on="events", kinds=("event",)):
    """An event is sent twice to one client."""


@dataclass(frozen=True)
class Reorder(Fault, on="events", kinds=("event",)):
    """An event is sent to one client after the next one, or with the next heartbeat."""


@dataclass(frozen=True)
class StopHeartbeats(Fault, on="heartbeats", kinds=("heartbeat",)):
    """One client gets no more heartbeats on its connection."""


@dataclass(frozen=True)
class LosePower(Fault):
    """The server's process is killed, as by ``kill -9``; only for a process of its own."""

    applied: bool = False


#: All of them, as options list them.
FAULTS: tuple[type[Fault], ...] = tuple(Fault.__subclasses__())


@dataclass(frozen=True, slots=True)
class Injected:
    """A fault that was injected, and its request."""

    fault: Fault
    request: SeenRequest

    def __str__(self) -> str:
        return f"{self.fault} at {self.request}"
