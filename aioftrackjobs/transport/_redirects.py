"""Redirections of downloads: which are followed, and where a secret must not go.

A server redirects a download to a store, and signs the address. It must not redirect it to another
server together with the query of the request, which contains the API key.
"""

from __future__ import annotations

from dataclasses import replace
from urllib.parse import unquote

from aioftrackjobs.config.secret import Secret
from aioftrackjobs.errors import ConnectError, TransportError
from aioftrackjobs.protocol.headers import (
    REDIRECTIONS,
    decode_location,
    is_same_server,
    origin_of,
)
from aioftrackjobs.transport._base import Download, WireRequest

#: Redirections of one download that are followed, as many as common clients follow.
MOST_REDIRECTIONS = 20

#: Times that an address may have been quoted.
_QUOTED = 3


def redirected(
    request: WireRequest, response: Download, *secrets: Secret[str]
) -> WireRequest | None:
    """Return the request that follows *request*; None if the response does not redirect it.

    Raises:
        ConnectError: It redirects to what is no address.
        TransportError: One of *secrets* would go to another server, or leave TLS.
    """
    if response.status not in REDIRECTIONS or not response.headers.get("location"):
        return None
    target = Secret(decode_location(request.url, response.headers) or "")
    if not target.reveal():
        error: TransportError = ConnectError("the URL of a file is invalid")
        error.is_retryable = False
        raise error
    if _carries(target.reveal(), secrets) and not is_same_server(request.url, target.reveal()):
        places = origin_of(request.url), origin_of(target.reveal())
        error = TransportError(
            "{} redirects to {} with the API key in the address, which must not be sent there; "
            "correct the server URL if that is right".format(*places)
        )
        error.is_retryable = False
        raise error
    return replace(request, address=target)


def too_many_redirections(request: WireRequest) -> TransportError:
    """Return the error for a request that was redirected too often."""
    return TransportError(
        f"more than {MOST_REDIRECTIONS} redirections, the last to {origin_of(request.url)}"
    )


def _carries(target: str, secrets: tuple[Secret[str], ...]) -> bool:
    """Return whether one of *secrets* is in an address, also if it is quoted there."""
    for _ in range(_QUOTED):
        if any(secret.reveal() in target for secret in secrets if secret.reveal()):
            return True
        target = unquote(target)
    return False
