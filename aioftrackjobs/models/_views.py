"""How an entity looks outside: its short text, and its values as plain ones.

The short text, ``<User 17 "maya">``, stands in logs, in errors and at a prompt. It never fails, as
it is needed where something else has failed, and is never long.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Protocol

from pydantic import SerializationInfo

from aioftrackjobs.protocol.values import ENTITY_TYPE, Referable

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


def dump(entity: Any, info: SerializationInfo) -> dict[str, Any]:
    """Return what pydantic's ``model_dump`` returns for *entity* with the options of *info*."""
    plain = _as_plain(entity)
    included = plain.keys() if info.include is None else set(info.include)
    excluded = _excluded_names(info.exclude)
    return {
        name: value for name, value in plain.items() if name in included and name not in excluded
    }


def _excluded_names(exclude: Any) -> set[Any]:
    """Return the names that pydantic's *exclude* leaves out as a whole, not in part."""
    if isinstance(exclude, Mapping):
        return {name for name, part in exclude.items() if part in (True, ...)}
    return set(exclude or ())


def _as_plain(entity: Any, path: tuple[Any, ...] = ()) -> dict[str, Any]:
    """Return the loaded values of *entity* as plain ones.

    Entities may refer to each other in a cycle. One that is on the *path* from the outermost
    entity becomes a reference: its type and its key.
    """
    reference = {ENTITY_TYPE: entity.entity_type}
    if any(entity is outer for outer in path):
        keys = entity.primary_key_attributes
        return reference | {name: entity._current(name) for name in keys}
    inner = (*path, entity)
    return reference | {name: _plain_value(entity._current(name), inner) for name in entity}


def _plain_value(value: Any, path: tuple[Any, ...]) -> Any:
    match value:
        case Referable():  # an entity
            return _as_plain(value, path)
        case tuple() | list():
            return [_plain_value(item, path) for item in value]
        case Mapping():
            return {name: _plain_value(item, path) for name, item in value.items()}
        case _:
            return value
