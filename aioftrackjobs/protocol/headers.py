"""HTTP headers: entity tags, digests and ranges of a body, dates, and when to retry.

Source:
    RFC 9110, sections 6.6.1, 8.8.3, 10.2.3 and 14.4; RFC 1864, 3230 and 9530.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from itertools import chain
from urllib.parse import urljoin, urlsplit, urlunsplit

from aioftrackjobs.config.secret import Secret, reveal

# Texts, which re compiles when a file is moved.
_MD5_TAG = r'(?i)(?:"([0-9a-f]{32})"|([0-9a-f]{32}))'
_CONTENT_RANGE = r"(?i)bytes (\d{1,19})-(\d{1,19})/(\d{1,19}|\*)"
_MD5_SIZE = 16

#: The years in which a date of a server may be: far enough from the ends of what Python can hold
#: that a lease or a pause can be added to it.
_YEARS = range(1970, 3000)

#: Redirections that keep the method and the body of a request.
REPEATABLE = (307, 308)
#: All redirections.
REDIRECTIONS = (301, 302, 303, *REPEATABLE)


def decode_location(url: str, headers: Mapping[str, str]) -> str | None:
    """Return where a response of *url* redirects to; None if it does not say it, or not validly."""
    location = headers.get("location", "").strip()
    try:
        target = urljoin(url, location)
        host, _ = urlsplit(target).hostname, urlsplit(target).port
    except ValueError:
        return None
    return target if location and host else None


def is_same_server(url: str, target: str) -> bool:
    """Return whether credentials for *url* may be sent to *target*: another address of its host.

    They may go to another port, and from http to https, but not from https to http, where everybody
    on the way could read them.
    """
    one, other = urlsplit(url), urlsplit(target)
    schemes = (one.scheme, other.scheme)
    return (
        schemes in (("http", "http"), ("http", "https"), ("https", "https"))
        and one.hostname == other.hostname
        and "@" not in other.netloc
    )


def without_query(url: str | Secret[str]) -> str:
    """Return *url* without what may be secret in it: query, fragment, user name and password."""
    parts = urlsplit(reveal(url))
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


def origin_of(url: str) -> str:
    """Return scheme, host and port of *url*."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"


def decode_etag(headers: Mapping[str, str]) -> str | None:
    """Return the entity tag without its quotes; None if there is none."""
    tag = headers.get("etag", "").strip().removeprefix("W/").strip('"')
    return tag or None


def decode_strong_etag(headers: Mapping[str, str]) -> str | None:
    """Return the entity tag for ``If-Range``; None if it is weak, so that the bytes may differ."""
    tag = headers.get("etag", "").strip()
    return tag if len(tag) > len('""') and tag[0] == tag[-1] == '"' else None


def decode_md5_etag(headers: Mapping[str, str]) -> str | None:
    """Return the MD5 digest, in hexadecimal, that is the entity tag; None if it is another kind.

    If an object store encrypts with a customer's keys, its tags only look like MD5 digests.
    """
    if headers.get("x-amz-server-side-encryption", "").startswith("aws:kms"):
        return None
    if "x-amz-server-side-encryption-customer-algorithm" in headers:
        return None
    match = re.fullmatch(_MD5_TAG, headers.get("etag", "").strip())
    return (match[1] or match[2]).lower() if match else None


def decode_content_md5(headers: Mapping[str, str], *, is_part: bool = False) -> bytes | None:
    """Return the MD5 digest of a whole file; None if no header contains one.

    Args:
        headers: Those of the response.
        is_part: Whether its body is a part of the file, so that some of them are about that.
    """
    encoded = None if is_part else headers.get("content-md5")
    names = ["x-goog-hash", "digest", "repr-digest"] + ([] if is_part else ["content-digest"])
    for entry in chain.from_iterable(headers.get(name, "").split(",") for name in names):
        kind, _, value = entry.strip().partition("=")
        encoded = value.strip(":") if kind.lower() == "md5" else encoded
    try:
        digest = base64.b64decode(encoded or "", validate=True)
    except (binascii.Error, ValueError):
        return None
    return digest if len(digest) == _MD5_SIZE else None


def decode_media_type(headers: Mapping[str, str]) -> str:
    """Return the type of a body in lower case, without parameters; empty if it is not known."""
    return headers.get("content-type", "").partition(";")[0].strip().lower()


def decode_content_range(headers: Mapping[str, str]) -> tuple[int, int | None] | None:
    """Return the offset of a part of a file, and the size of the whole, if that is known."""
    match = re.fullmatch(_CONTENT_RANGE, headers.get("content-range", "").strip())
    if match is None:
        return None
    return int(match[1]), None if match[3] == "*" else int(match[3])


def decode_retry_after(headers: Mapping[str, str], now: datetime) -> float | None:
    """Return the seconds to wait before the next attempt; None if the server does not say.

    A date is of the server's clock: it counts from the header ``Date``, or else from *now*.
    """
    value = headers.get("retry-after", "").strip()
    if value.isascii() and value.isdigit():
        return float(value)
    moment = _moment(value)
    if moment is None:
        return None
    return max(0.0, (moment - (decode_date(headers) or now)).total_seconds())


def decode_date(headers: Mapping[str, str]) -> datetime | None:
    """Return the server's time, in whole seconds; None if there is none (section 6.6.1).

    What is no date between the years 1970 and 3000 is none.
    """
    return _moment(headers.get("date", "").strip())


def _moment(text: str) -> datetime | None:
    from email.utils import parsedate_to_datetime  # late: it imports all of its package

    try:
        moment = parsedate_to_datetime(text)
        aware = moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
        moment = aware.astimezone(UTC)  # which may be in a year that there is not
    except Exception:  # noqa: BLE001 - a header may have anything in it
        return None
    return moment if moment.year in _YEARS else None
