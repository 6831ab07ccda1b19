"""The meaning of errors of HTTP clients, found without importing the clients."""

from __future__ import annotations

import ssl
from asyncio import CancelledError
from typing import TypeVar

import aiohttp
import httpx
import httpx2
import pytest
from aiohttp.client_reqrep import ConnectionKey

from aioftrackjobs.transport._client_errors import describe, is_permanent, was_not_sent

E = TypeVar("E", bound=BaseException)

KEY = ConnectionKey(
    "h", 80, is_ssl=False, ssl=True, proxy=None, proxy_auth=None, proxy_headers_hash=None
)


def caused(error: E, cause: BaseException) -> E:
    error.__cause__ = cause
    return error


class OfAUsers(httpx.ConnectError):
    """An error class of a transport that a caller wrote."""


@pytest.mark.parametrize(
    "error",
    [
        *(
            getattr(package, name)("no")
            for package in (httpx, httpx2)
            for name in (
                "ConnectError",
                "ConnectTimeout",
                "LocalProtocolError",
                "PoolTimeout",
                "ProxyError",
                "UnsupportedProtocol",
            )
        ),
        OfAUsers("no"),
        caused(
            httpx.ConnectTimeout(""), aiohttp.ClientConnectorError(KEY, OSError(111, "refused"))
        ),
        caused(httpx.ConnectTimeout(""), aiohttp.ClientConnectorDNSError(KEY, OSError(-2, "?"))),
        caused(httpx.ConnectTimeout(""), aiohttp.ClientProxyConnectionError(KEY, OSError(1, "?"))),
        caused(httpx.ConnectTimeout(""), aiohttp.ConnectionTimeoutError("connecting")),
        caused(httpx.UnsupportedProtocol(""), aiohttp.InvalidURL("ftp://h")),
    ],
    ids=lambda error: f"{type(error).__module__}.{type(error).__name__}-{error.__cause__!r:.30}",
)
def test_errors_before_a_request_leaves(error: Exception) -> None:
    assert was_not_sent(error)


@pytest.mark.parametrize(
    "error",
    [
        *(
            getattr(package, name)("no")
            for package in (httpx, httpx2)
            for name in ("ReadError", "ReadTimeout", "RemoteProtocolError", "WriteError")
        ),
        httpx2.StreamConsumed(),
        RuntimeError("a bug in a transport"),
        # httpx-aiohttp 0.2 raises all of these as ConnectTimeout.
        caused(httpx.ConnectTimeout(""), aiohttp.ServerDisconnectedError()),
        caused(httpx.ConnectTimeout(""), aiohttp.ClientOSError(104, "Connection reset by peer")),
        caused(httpx.ConnectTimeout(""), aiohttp.ClientConnectionResetError("closing")),
        caused(httpx.ReadTimeout(""), aiohttp.SocketTimeoutError("reading")),
        aiohttp.ClientPayloadError("broken off"),
    ],
    ids=lambda error: f"{type(error).__module__}.{type(error).__name__}-{error.__cause__!r:.30}",
)
def test_errors_after_which_the_server_may_have_it(error: Exception) -> None:
    assert not was_not_sent(error)


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (httpx.ReadError("gone"), "ReadError: gone"),
        (httpx2.ReadError(""), "ReadError"),
        (
            caused(httpx.ConnectError(""), caused(OSError(), ValueError("bad certificate"))),
            "ConnectError: bad certificate",
        ),
        (
            caused(httpx.ConnectTimeout("x"), aiohttp.ServerDisconnectedError("hung up")),
            "ServerDisconnectedError: hung up",
        ),
        (
            caused(
                httpx.ReadTimeout(""),
                caused(
                    TimeoutError(),
                    caused(CancelledError("via cancel scope 7f"), OSError("try later")),
                ),
            ),
            "ReadTimeout",
        ),
    ],
)
def test_an_error_is_described_by_the_first_text_of_its_chain(error: Exception, text: str) -> None:
    assert describe(error) == text


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (caused(httpx.ConnectError(""), ssl.SSLCertVerificationError("unknown authority")), True),
        (httpx.UnsupportedProtocol("ftp"), True),
        (httpx.ConnectError("refused"), False),
        (httpx.ReadTimeout("slow"), False),
    ],
)
def test_permanent_errors(error: Exception, *, expected: bool) -> None:
    assert is_permanent(error) is expected
