"""The short text of an entity, in logs, errors and at a prompt: ``<User 17 "maya">``.

It never fails, as it is needed where something else has failed, and is never long.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Protocol

#: Characters of one value that are shown.
_LONGEST = 40

#: What people call an entity, by the first of these attributes that is loaded.
_NAMES = ("name", "username", "label", "subject", "title", "content", "key")


class Labelled(Protocol):
    """What this module needs of an entity; see :class:`Entity`."""

    entity_type: ClassVar[str]
    primary_key_attributes: ClassVar[tuple[str, ...]]
    _owner: Any

    def _current(self, name: str) -> Any: ...


def short_repr(entity: Labelled, label: Sequence[str]) -> str:
    """Return the type and the key of *entity*, and its *label*."""
    key = [_key_part(entity._current(name)) for name in entity.primary_key_attributes]
    text = " ".join([entity.entity_type, *key, *label])
    return f"<{text if entity._owner is None else entity._owner.redact(text)}>"


def label_parts(entity: Labelled) -> list[str]:
    """Return status and name of an entity of any type, as far as they are loaded."""
    keys = entity.primary_key_attributes
    names = (entity._current(name) for name in _NAMES if name not in keys)
    return [*texts_of(entity._current("status")), *names_of(*names)]


def texts_of(status: object) -> list[str]:
    """Return the text of a *status*, which is a word or an entity; none if there is none."""
    if isinstance(status, str):
        return [_line(str(status))]
    current = getattr(type(status), "_current", None)
    return [] if current is None else names_of(current(status, "name"))


def names_of(*names: object) -> list[str]:
    """Return the first of *names* that is a text, in quotes; none if there is none."""
    found = next((each for each in names if isinstance(each, str) and each), None)
    return [] if found is None else [f'"{_line(found)}"']


def _key_part(value: object) -> str:
    return _line(value) if isinstance(value, str) else "(no key)"


def _line(text: str) -> str:
    """Return the beginning of *text* in one line."""
    line = " ".join(text[: 4 * _LONGEST].split())
    return line if len(line) <= _LONGEST else f"{line[: _LONGEST - 1]}…"
