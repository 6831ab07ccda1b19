"""Rows of the server as entities: one query brings thousands, so little is done for each."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

from aioftrackjobs.models._entity import Entity
from aioftrackjobs.models._state import Owner
from aioftrackjobs.protocol.values import ENTITY_TYPE

#: Decodes a value that is a list or a mapping; the others are stored as they are.
Decode: TypeAlias = Callable[[Any], Any]

# The state's slots. object.__setattr__ takes twice as long, as it looks at all base classes.
_set_owner, _set_remote, _set_local = (
    vars(Entity)[name].__set__ for name in ("_owner", "_remote", "_local")
)


class RowPlan:
    """What to do with the rows of one entity type, found out once for all of them.

    Args:
        model: The class of the type.

    Attributes:
        key_names: Attributes that make up the key.
        only_key: The attribute that is the key; None if it has several parts.
    """

    __slots__ = ("_make", "_model", "_readers", "key_names", "only_key")

    def __init__(self, model: type[Entity]) -> None:
        self.key_names = names = model.primary_key_attributes
        self.only_key = names[0] if len(names) == 1 else None
        self._model = model
        self._make = model.__new__
        self._readers = tuple(model.readers.items())

    def new_entity(self, owner: Owner | None) -> Entity:
        """Return an entity without values, which belongs to *owner*.

        A page of rows makes thousands, and the garbage collector visits each container in them
        again and again. So there are only these two; pydantic's own containers and the reference
        are made on first use.
        """
        entity = self._make(self._model)
        _set_owner(entity, owner)
        _set_remote(entity, {})
        _set_local(entity, {})
        return entity

    def load(self, entity: Entity, row: Mapping[str, Any], decode: Decode) -> None:
        """Store the values of the server's *row* in *entity*; local changes stay on top.

        Args:
            entity: The entity that the row describes. If it cannot be decoded, nothing is stored.
            row: Values by attribute, as they came over the wire.
            decode: Decodes a value that is a list or a mapping.
        """
        values = dict(row)
        values.pop(ENTITY_TYPE, None)
        for name, value in row.items():
            if type(value) is not str and (type(value) is dict or type(value) is list):
                values[name] = decode(value)
        for name, read in self._readers:
            if name in row:
                values[name] = read(row[name])
        if entity._remote:
            entity._remote.update(values)
        else:
            _set_remote(entity, values)
