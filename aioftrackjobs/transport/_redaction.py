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

from aioftrackjobs.config.secret import Secret

# Texts, which re compiles when it first needs them: most sessions never do.
_PARAMETERS = r"(?i)\b(api_?key|token|sig|signature|x-(?:amz|goog)-[\w-]+)=[^&\s\"'<>]*"
#: An address up to its server, and the rest of it.
_ADDRESS = r"(?i)\b(https?://[^/?#\s\"'<>]+)[/?#][^\s\"'<>]*"
#: As the libraries of HTTP/2 log it: ``(b'ftrack-api-key', b'...')`` or ``ftrack-api-key: ...``.
_KEY_HEADER = r"(?i)(ftrack-api-key['\"]?\s*[,:=]\s*b?['\"]?)[^'\",;)\s]+"
_LOCATION = r"(?i)\b(location['\"]?, *b?['\"])[^'\"]*"
_COOKIES = r"(?i)(set-cookie['\"]?, *b?['\"])[^'\"]*"
#: User name and password of a proxy, in its URL and in the repr of aiohttp's ``BasicAuth``.
_PROXY_USER = r"(?<=://)[^\s/?#@'\"]+@"
_BASIC_AUTH = r"(?i)\b(password=)('[^']*'|\"[^\"]*\")"
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
        text = re.sub(_PROXY_USER, "***@", text)
    if "=" in text:
        text = re.sub(_BASIC_AUTH, r"\1***", text)
        text = re.sub(_PARAMETERS, r"\1=***", text)
    return text


class _RedactingFilter(logging.Filter):
    """Removes secret URL parameters and cookies from log records."""

    def filter(self, record: logging.LogRecord) -> bool:
        message = record.getMessage()
        if _sends_file.get():
            redacted = re.sub(_ADDRESS, r"\1/***", message)
            redacted = re.sub(_LOCATION, r"\1***", redacted)
        else:
            redacted = redact(message)
        redacted = re.sub(_COOKIES, r"\1***", redacted)
        redacted = re.sub(_KEY_HEADER, r"\1***", redacted)
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
