"""What the errors of HTTP clients mean, and their texts without secrets.

The meaning of an error is found by the names of its classes, because the client belongs to the
caller: httpx2 has its own classes under the names of httpx, and it or aiohttp may not be installed.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import takewhile

#: Errors of httpx and httpx2 that are raised before the request leaves this machine.
_NOT_SENT = frozenset(
    {
        "ConnectError",
        "ConnectTimeout",
        "LocalProtocolError",
        "PoolTimeout",
        "ProxyError",
        "UnsupportedProtocol",
    }
)

#: The same of aiohttp. httpx-aiohttp 0.2 turns every ClientConnectionError into a ConnectTimeout,
#: even if the server has read the request and then closed the connection. So the cause decides.
_NOT_SENT_AIOHTTP = frozenset(
    {
        "ClientConnectorError",
        "ClientHttpProxyError",
        "ConnectionTimeoutError",
        "InvalidURL",
        "NonHttpUrlClientError",
    }
)

#: Errors that every further attempt would raise again.
_PERMANENT = frozenset(
    {
        "ClientConnectorCertificateError",
        "InvalidURL",
        "LocalProtocolError",
        "NonHttpUrlClientError",
        "SSLCertVerificationError",
        "UnsupportedProtocol",
    }
)

#: Errors whose text is, or quotes, what a server has sent in place of HTTP. It may repeat a secret
#: address.
_RAW = frozenset({"BadStatusLine", "UnknownProtocol"})
_QUOTING = frozenset({"ClientResponseError", "HttpProcessingError", "RemoteProtocolError"})
_QUOTED = r"""(?s)(?:bytearray\()?b?["'].*"""

_CERTIFICATES = "name a file with the certificates to trust in SSL_CERT_FILE or REQUESTS_CA_BUNDLE"
#: What to do about errors of TLS, by a part of their text.
_HINTS = {
    "local issuer certificate": _CERTIFICATES,
    "self-signed certificate": _CERTIFICATES,
    "WRONG_VERSION_NUMBER": "the server may speak http there, not https",
}


def is_permanent(error: BaseException) -> bool:
    """Return whether another attempt would fail, too: a bad address or certificate."""
    return any(type(each).__name__ in _PERMANENT for each in _chain(error))


def was_not_sent(error: BaseException) -> bool:
    """Return whether the request certainly did not leave this machine."""
    origin = _original(error)
    names = _NOT_SENT_AIOHTTP if is_of(origin, "aiohttp") else _NOT_SENT
    return any(kind.__name__ in names for kind in type(origin).__mro__)


def describe(error: BaseException) -> str:
    """Return the name of *error* and its text, or if it has none the text of its cause.

    A cancellation ends the search: its text only names a scope of the event loop.
    """
    origin = _original(error)
    failures = takewhile(lambda each: isinstance(each, Exception), _chain(origin))
    text = next(filter(None, map(str, failures)), "")
    if type(origin).__name__ in _RAW:
        text = ""
    elif any(kind.__name__ in _QUOTING for kind in type(origin).__mro__):
        text = re.sub(_QUOTED, "...", text)
    text += next((f"; {hint}" for part, hint in _HINTS.items() if part in text), "")
    return f"{type(origin).__name__}: {text}" if text else type(origin).__name__


def _original(error: BaseException) -> BaseException:
    """Return the error of aiohttp that httpx-aiohttp translated; else *error* itself."""
    cause = error.__cause__
    return cause if cause is not None and is_of(cause, "aiohttp") else error


def _chain(error: BaseException) -> Iterator[BaseException]:
    seen: set[int] = set()
    following: BaseException | None = error
    while following is not None and id(following) not in seen:
        seen.add(id(following))
        yield following
        following = following.__cause__ or following.__context__


def is_of(value: object, package: str) -> bool:
    """Return whether the class of *value*, or one that it extends, is of *package*."""
    return any(kind.__module__.partition(".")[0] == package for kind in type(value).__mro__)
