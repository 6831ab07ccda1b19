"""What an HTTP client's errors mean: did the request leave this machine?

A client is the caller's, so its errors are told by the names of their classes: httpx2 has
classes of its own under the names of httpx, and neither it nor aiohttp may be installed.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import takewhile

#: Errors of httpx and httpx2 after which the request is known not to have left this machine.
_NEVER_LEFT = frozenset(
    {
        "ConnectError",
        "ConnectTimeout",
        "LocalProtocolError",
        "PoolTimeout",
        "ProxyError",
        "UnsupportedProtocol",
    }
)

#: The same of aiohttp. httpx-aiohttp 0.2 makes a ConnectTimeout of every ClientConnectionError,
#: also where the server hung up on a request that it had read: only the cause can be trusted.
_NEVER_LEFT_AIOHTTP = frozenset(
    {
        "ClientConnectorError",
        "ClientHttpProxyError",
        "ConnectionTimeoutError",
        "InvalidURL",
        "NonHttpUrlClientError",
    }
)


#: Errors that another attempt would only bring again.
_LASTING = frozenset(
    {
        "ClientConnectorCertificateError",
        "InvalidURL",
        "LocalProtocolError",
        "NonHttpUrlClientError",
        "SSLCertVerificationError",
        "UnsupportedProtocol",
    }
)


def lasts(error: BaseException) -> bool:
    """Tell whether another attempt would fail the same way: a bad address or certificate."""
    return any(type(each).__name__ in _LASTING for each in _chain(error))


def never_left(error: BaseException) -> bool:
    """Tell whether the request is known not to have left this machine."""
    origin = _origin(error)
    names = _NEVER_LEFT_AIOHTTP if _is_of(origin, "aiohttp") else _NEVER_LEFT
    return any(kind.__name__ in names for kind in type(origin).__mro__)


def describe(error: BaseException) -> str:
    """Return the name of *error*, and what it or, where it says nothing, its cause says.

    A time-out comes of a cancellation, which only tells of the event loop's own scopes.
    """
    origin = _origin(error)
    failures = takewhile(lambda each: isinstance(each, Exception), _chain(origin))
    said = next(filter(None, map(str, failures)), "")
    return f"{type(origin).__name__}: {said}" if said else type(origin).__name__


def _origin(error: BaseException) -> BaseException:
    """Return the error of aiohttp that httpx-aiohttp translated; else *error* itself."""
    cause = error.__cause__
    return cause if cause is not None and _is_of(cause, "aiohttp") else error


def _chain(error: BaseException) -> Iterator[BaseException]:
    seen: set[int] = set()
    following: BaseException | None = error
    while following is not None and id(following) not in seen:
        seen.add(id(following))
        yield following
        following = following.__cause__ or following.__context__


def _is_of(error: BaseException, package: str) -> bool:
    return any(kind.__module__.partition(".")[0] == package for kind in type(error).__mro__)
