"""Field types that several models share."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, TypeAlias
from uuid import uuid4

from pydantic import AfterValidator

from aioftrackjobs.protocol.values import in_utc


def new_id() -> str:
    """Return a random key, as clients make them (protocol.md, section 5.1, ``{uid}``)."""
    return str(uuid4())


#: A time, always aware and in UTC; one without a zone counts as UTC, as it does on the wire.
Moment: TypeAlias = Annotated[datetime, AfterValidator(in_utc)]

#: A value that the server computes, such as ``{"url": ...}``; its keys are not documented.
Computed: TypeAlias = dict[str, Any] | None
