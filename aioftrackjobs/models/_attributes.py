"""Attributes of entity classes in queries: ``Job.status == "done"``."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel

from aioftrackjobs.errors import EntityError
from aioftrackjobs.protocol.criteria import Attribute

if TYPE_CHECKING:
    # Private in pydantic, but there is no other name for the class of models.
    from pydantic._internal._model_construction import ModelMetaclass
else:
    ModelMetaclass = type(BaseModel)


class _ClassesInTheMaking(threading.local):
    count = 0


_in_the_making = _ClassesInTheMaking()


class EntityMeta(ModelMetaclass):
    """The class of entity classes, whose declared fields are attributes for queries."""

    def __new__(mcs, *args: Any, **kwargs: Any) -> type:
        # While pydantic makes a class, it asks whether there are defaults of these names.
        _in_the_making.count += 1
        try:
            return super().__new__(mcs, *args, **kwargs)
        finally:
            _in_the_making.count -= 1

    if not TYPE_CHECKING:  # which see the fields

        def __getattr__(cls, name: str) -> Attribute:  # noqa: N805 - it is a class
            is_field = not name.startswith("_") and name in cls.__pydantic_fields__
            if is_field and not _in_the_making.count:
                return Attribute(name)
            return super().__getattr__(name)


def require_entity_type(model: Any) -> None:
    """Raise an EntityError if *model*, a class of entities, declares no entity type."""
    if model.entity_type == "Entity":
        raise EntityError(
            f"{model.__name__} has no entity type; declare one in the class: "
            'entity_type: ClassVar[str] = "Task"'
        )
