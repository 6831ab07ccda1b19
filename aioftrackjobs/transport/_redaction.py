"""Keeps secrets out of logs and texts.

ftrack's component URLs carry the API key, signed upload URLs a signature, and httpx logs every
URL it requests. A filter on its logger takes the secrets out, for our requests and for those
that a user makes with ``Location.get_url``.
"""

from __future__ import annotations

import logging
import re

_SECRET_PARAMETERS = re.compile(
    r"(?i)\b(api_?key|token|sig|signature|x-(?:amz|goog)-[\w-]+)=[^&\s\"'<>]*"
)
_COOKIES = re.compile(r"(?i)(set-cookie['\"]?, *b?['\"])[^'\"]*")
#: User name and password of a proxy: in its URL, and in the repr of what aiohttp makes of them.
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
)


def redact(text: str, *secrets: str) -> str:
    """Return *text* without secret URL parameters, without passwords and any of *secrets*."""
    for secret in secrets:
        if secret:
            text = text.replace(secret, "***")
    # Most texts have neither, and to search them costs many times as much.
    if "://" in text:
        text = _PROXY_USER.sub("***@", text)
    if "=" in text:
        text = _SECRET_PARAMETERS.sub(r"\1=***", _PASSWORD.sub(r"\1***", text))
    return text


class _RedactingFilter(logging.Filter):
    """Takes secret URL parameters and cookies out of log records."""

    def filter(self, record: logging.LogRecord) -> bool:
        message = record.getMessage()
        redacted = _COOKIES.sub(r"\1***", redact(message))
        if redacted != message:
            record.msg, record.args = redacted, ()
        return True


_FILTER = _RedactingFilter()


def hide_secrets() -> None:
    """Filter what the HTTP clients log; calling it again changes nothing."""
    for name in _CLIENT_LOGGERS:
        logging.getLogger(name).addFilter(_FILTER)
