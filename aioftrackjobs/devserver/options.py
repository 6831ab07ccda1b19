"""What a server is made from, whichever way it is run."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from aioftrackjobs.devserver.limits import Limits
from aioftrackjobs.devserver.seed.fixtures import FixtureSource

DEFAULT_API_USER = "developer"


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What :func:`~aioftrackjobs.devserver.running` and its like take, which say what each is."""

    database: str | Path | None = None
    storage: str | Path | None = None
    schemas: Iterable[Mapping[str, Any]] | None = None
    api_user: str = DEFAULT_API_USER
    api_key: str | None = field(default=None, repr=False)
    global_api_key: str | None = field(default=None, repr=False)
    limits: Limits | None = None
    empty: bool = False
    fixture: FixtureSource | None = None
