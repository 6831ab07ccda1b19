"""Keeps secrets out of logs and texts.

ftrack's component URLs contain the API key, signed upload URLs contain a signature, and httpx logs
the URL of every request. A filter on its loggers removes the secrets, also if a user requests a URL
of ``Location.get_url``. Of the requests of this package, it removes all but the server from the
addresses of files: a store may sign an address in any part of it.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from aioftrackjobs.secret import Secret

_SECRET_PARAMETERS = re.compile(
    r"(?i)\b(api_?key|token|sig|signature|x-(?:amz|goog)-[\w-]+)=[^&\s\"'<>]*"
)
#: An address up to its server, and the rest of it.
_ADDRESS = re.compile(r"(?i)\b(https?://[^/?#\s\"'<>]+)[/?#][^\s\"'<>]*")
#: As the libraries of HTTP/2 log it: ``(b'ftrack-api-key', b'...')`` or ``ftrack-api-key: ...``.
_KEY_HEADER = re.compile(r"(?i)(ftrack-api-key['\"]?\s*[,:=]\s*b?['\"]?)[^'\",;)\s]+")
_LOCATION = re.compile(r"(?i)\b(location['\"]?, *b?['\"])[^'\"]*")
_COOKIES = re.compile(r"(?i)(set-cookie['\"]?, *b?['\"])[^'\"]*")
#: User name and password of a proxy, in its URL and in the repr of aiohttp's ``BasicAuth``.
_PROXY_USER = re.compile(r"(?<=://)[^\s/?#@'\"]+@")
_PASSWORD = re.compile(r"(?i)\b(password=)('[^']*'|\"[^\"]*\")")
_CLIENT_LOGGERS = (
    "httpx",
    "httpx2",
    *(
        f"{core}.{part}"
        for core in ("httpcore", "httpcore2")
        for part in ("http11", "http2", "proxy")
    ),
    "aiohttp.client",
    "h2.connection",
    "hpack.hpack",
    "hpack.table",
)

#: Whether the running code sends a request about a file.
_sends_file: ContextVar[bool] = ContextVar("aioftrackjobs_sends_file", default=False)


def redact(text: str, *secrets: Secret[str]) -> str:
    """Return *text* without secret URL parameters, passwords and any of *secrets*."""
    for secret in secrets:
        if secret.reveal():
            text = text.replace(secret.reveal(), "***")
    # Most texts contain neither, and the expressions take many times as long as these checks.
    if "://" in text:
        text = _PROXY_USER.sub("***@", text)
    if "=" in text:
        text = _SECRET_PARAMETERS.sub(r"\1=***", _PASSWORD.sub(r"\1***", text))
    return text


class _RedactingFilter(logging.Filter):
    """Removes secret URL parameters and cookies from log records."""

    def filter(self, record: logging.LogRecord) -> bool:
        message = record.getMessage()
        if _sends_file.get():
            redacted = _LOCATION.sub(r"\1***", _ADDRESS.sub(r"\1/***", message))
        else:
            redacted = redact(message)
        redacted = _KEY_HEADER.sub(r"\1***", _COOKIES.sub(r"\1***", redacted))
        if redacted != message:
            record.msg, record.args = redacted, ()
        return True


_FILTER = _RedactingFilter()


@contextmanager
def hiding_addresses() -> Iterator[None]:
    """Log no address that is requested in the block, or that a response redirects to."""
    token = _sends_file.set(True)
    try:
        yield
    finally:
        _sends_file.reset(token)


def hide_secrets() -> None:
    """Filter the logs of the HTTP clients; a second call has no effect."""
    for name in _CLIENT_LOGGERS:
        logging.getLogger(name).addFilter(_FILTER)
