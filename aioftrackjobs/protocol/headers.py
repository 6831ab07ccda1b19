"""What HTTP headers say about the bytes they go with, and about trying again.

Source:
    RFC 9110, sections 6.6.1, 8.8.3, 10.2.3 and 14.4; RFC 1864.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping
from datetime import UTC, datetime

_MD5_TAG = re.compile(r'(?:"([0-9a-f]{32})"|([0-9a-f]{32}))', re.IGNORECASE)
_CONTENT_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+|\*)", re.IGNORECASE)
_MD5_SIZE = 16


def decode_etag(headers: Mapping[str, str]) -> str | None:
    """Return the entity tag without its quotes; None if there is none."""
    tag = headers.get("etag", "").strip().removeprefix("W/").strip('"')
    return tag or None


def decode_strong_etag(headers: Mapping[str, str]) -> str | None:
    """Return the entity tag as it goes into ``If-Range``; None if it does not vouch for bytes."""
    tag = headers.get("etag", "").strip()
    return tag if len(tag) > len('""') and tag[0] == tag[-1] == '"' else None


def decode_md5_etag(headers: Mapping[str, str]) -> str | None:
    """Return the MD5 digest, in hexadecimal, that is the entity tag; None if it is another kind.

    Object stores that encrypt with keys of a customer give a tag that only looks like one.
    """
    if headers.get("x-amz-server-side-encryption", "").startswith("aws:kms"):
        return None
    if "x-amz-server-side-encryption-customer-algorithm" in headers:
        return None
    match = _MD5_TAG.fullmatch(headers.get("etag", "").strip())
    return (match[1] or match[2]).lower() if match else None


def decode_content_md5(headers: Mapping[str, str]) -> bytes | None:
    """Return the MD5 digest of a whole body; None if no header tells one."""
    told = headers.get("content-md5")
    for entry in headers.get("x-goog-hash", "").split(","):
        kind, _, value = entry.strip().partition("=")
        told = value if kind == "md5" else told
    try:
        digest = base64.b64decode(told or "", validate=True)
    except (binascii.Error, ValueError):
        return None
    return digest if len(digest) == _MD5_SIZE else None


def decode_content_range(headers: Mapping[str, str]) -> tuple[int, int | None] | None:
    """Return where a part of a file begins, and how long the whole is, if that is known."""
    match = _CONTENT_RANGE.fullmatch(headers.get("content-range", "").strip())
    if match is None:
        return None
    return int(match[1]), None if match[3] == "*" else int(match[3])


def decode_retry_after(headers: Mapping[str, str], now: datetime) -> float | None:
    """Return the seconds that the server asks to be left alone for; None if it does not ask.

    A date is the server's: it counts from the one that the answer bears, or else from *now*.
    """
    told = headers.get("retry-after", "").strip()
    if told.isascii() and told.isdigit():
        return float(told)
    moment = _moment(told)
    if moment is None:
        return None
    return max(0.0, (moment - (decode_date(headers) or now)).total_seconds())


def decode_date(headers: Mapping[str, str]) -> datetime | None:
    """Return the server's time, to the second; None if it does not tell (section 6.6.1)."""
    return _moment(headers.get("date", "").strip())


def _moment(text: str) -> datetime | None:
    from email.utils import parsedate_to_datetime  # late: with all of its package

    try:
        moment = parsedate_to_datetime(text)
    except ValueError:
        return None
    return moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
