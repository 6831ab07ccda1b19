"""Field types that several models share."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any, TypeAlias
from uuid import uuid4

from pydantic import AfterValidator


def new_id() -> str:
    """Return a random key, as clients make them (protocol.md, section 5.1, ``{uid}``)."""
    return str(uuid4())


def _zoned(moment: datetime) -> datetime:
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)


#: A time, always aware and in UTC; one without a zone counts as UTC, as it does on the wire.
Moment: TypeAlias = Annotated[datetime, AfterValidator(_zoned)]

#: A value that the server computes, such as ``{"url": ...}``; its keys are not documented.
Computed: TypeAlias = dict[str, Any] | None
