"""Credentials and options in the headers of a batch (protocol reference, section 1.2)."""

from __future__ import annotations

from collections.abc import Mapping

from starlette.requests import Request

from aioftrackjobs.devserver.api.request import Caller
from aioftrackjobs.devserver.auth.credentials import Credentials

_TRUE = frozenset({"1", "true"})


def is_strict(headers: Mapping[str, str]) -> bool:
    """Return whether the client wants real HTTP status codes."""
    return headers.get("ftrack-strict-api", "").strip().lower() in _TRUE


def _options_in(headers: Mapping[str, str]) -> set[str]:
    """Return the options that are on; both documented separators are accepted."""
    options = set()
    for part in headers.get("ftrack-api-options", "").split(";"):
        name, _, value = part.replace("=", ":").partition(":")
        if value.strip().lower() in _TRUE:
            options.add(name.strip())
    return options


def caller_of(request: Request, credentials: Credentials) -> Caller:
    """Return the sender of a batch, with its wishes for the response.

    Raises:
        InvalidCredentialsError: If the headers do not have the key of a user.
    """
    headers = request.headers
    identity = credentials.check(headers.get("ftrack-user"), headers.get("ftrack-api-key"))
    options = _options_in(headers)
    return Caller(
        identity,
        str(request.base_url),
        denormalize="denormalize" in options,
        strict="strict" in options or is_strict(headers),
    )
