"""Which calls of ``ensure`` wait for which: those that may look for the same entity."""

from __future__ import annotations

import re
from collections.abc import Hashable, Mapping, Sequence
from datetime import UTC, date, datetime, time
from enum import Enum

import anyio

from aioftrackjobs.models import Entity
from aioftrackjobs.protocol.values import in_utc

_TIME_TEXT = r"\d{4}-\d\d-\d\d([T ]|$)"


class EnsureTurn:
    """One call of :func:`ensure`, for which calls that look for the same entity wait.

    Attributes:
        entity_type: The type of the entity.
        names: The attributes by which it is looked for.
        values: What it would be created with, in a form in which equal values are equal.
        ended: It has found or created its entity, or failed.
    """

    def __init__(
        self, model: type[Entity], wanted: Mapping[str, object], names: Sequence[str]
    ) -> None:
        self.entity_type: str = model.entity_type
        self.ended: anyio.Event = anyio.Event()
        defaults = {
            name: field.default
            for name, field in model.__pydantic_fields__.items()
            if isinstance(field.default, str)
        }
        self.values: dict[str, Hashable] = {
            _column(name): comparable(value) for name, value in {**defaults, **wanted}.items()
        }
        self.names: frozenset[str] = frozenset(map(_column, names))
        self.identity: frozenset[tuple[str, Hashable]] = self.identity_by(self.names)

    def identity_by(self, names: frozenset[str]) -> frozenset[tuple[str, Hashable]]:
        """Return the values of the attributes *names*, all of which it has."""
        return frozenset((name, self.values[name]) for name in names)


class EnsureTurns:
    """The calls of :func:`ensure` that have not ended, by the attributes that identify."""

    def __init__(self) -> None:
        self._groups: dict[
            tuple[str, frozenset[str]], dict[frozenset[tuple[str, Hashable]], list[EnsureTurn]]
        ] = {}

    def enter(self, turn: EnsureTurn) -> list[EnsureTurn]:
        """Begin *turn*, and return the earlier ones for which it must wait.

        These are the ones of which either would find the entity that the other one creates.
        """
        earlier: list[EnsureTurn] = []
        for (entity_type, names), group in self._groups.items():
            if entity_type != turn.entity_type:
                continue
            if names <= turn.values.keys():
                earlier += group.get(turn.identity_by(names), ())
            if names != turn.names:
                others = [each for turns in group.values() for each in turns]
                earlier += [each for each in others if turn.identity <= each.values.items()]
        own = self._groups.setdefault((turn.entity_type, turn.names), {})
        own.setdefault(turn.identity, []).append(turn)
        return earlier

    def end(self, turn: EnsureTurn) -> None:
        """End *turn*: those that wait for it go on."""
        turn.ended.set()
        group = self._groups[turn.entity_type, turn.names]
        group[turn.identity].remove(turn)
        if not group[turn.identity]:
            del group[turn.identity]
        if not group:
            del self._groups[turn.entity_type, turn.names]


def _column(name: str) -> str:
    """Return the name that a relation and its key have in common: ``user`` of ``user_id``."""
    return name.removesuffix("_id")


def comparable(value: object) -> Hashable:
    """Return *value* in a form in which values are equal that are equal to the server."""
    if isinstance(value, Entity):
        values = tuple(value for _, value in value.__ftrack_reference__().key)
        return values[0] if len(values) == 1 else values
    if isinstance(value, Enum):
        return comparable(value.value)
    if isinstance(value, str) and re.match(_TIME_TEXT, value):
        try:
            value = in_utc(datetime.fromisoformat(value))
        except ValueError:
            return value  # it only looks like a time
    if isinstance(value, date):
        moment = value if isinstance(value, datetime) else datetime.combine(value, time(), UTC)
        return moment.replace(microsecond=0)
    try:
        hash(value)
    except TypeError:
        return repr(value)
    return value
