"""What clients say in the headers of a batch (protocol reference, section 1.2)."""

from __future__ import annotations

from collections.abc import Mapping

_TRUE = frozenset({"1", "true"})


def is_strict(headers: Mapping[str, str]) -> bool:
    """Return whether real HTTP status codes are wanted."""
    return headers.get("ftrack-strict-api", "").strip().lower() in _TRUE


def options_in(headers: Mapping[str, str]) -> set[str]:
    """Return the options that are on; both documented separators are taken."""
    options = set()
    for part in headers.get("ftrack-api-options", "").split(";"):
        name, _, value = part.replace("=", ":").partition(":")
        if value.strip().lower() in _TRUE:
            options.add(name.strip())
    return options
