"""The session's side of an entity: whose it is, what the server said, what was applied.

Entities keep their state in private attributes; these functions are the only others to touch
them, so that the public methods of an entity are those that users need.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from aioftrackjobs.protocol.values import ENTITY_TYPE

if TYPE_CHECKING:
    from aioftrackjobs.models._entity import Entity
    from aioftrackjobs.models._owner import Owner


def attach(entity: Entity, owner: Owner | None) -> None:
    """Give *entity* the state that we keep in it, empty; pydantic's comes when it is asked for.

    A page of rows makes thousands of entities: each container in them is one that the garbage
    collector visits again and again. Their references are made when they are asked for.
    """
    put = object.__setattr__
    put(entity, "_owner", owner)
    put(entity, "_remote", {})
    put(entity, "_local", {})


def adopt(entity: Entity, owner: Owner) -> dict[str, Any]:
    """Make *owner* hear of the changes of a detached *entity*, and return its values."""
    entity._owner = owner
    return dict(entity._local)


def owner_of(entity: Entity) -> Owner | None:
    """Return what hears of the changes of *entity*; None if it is detached."""
    return entity._owner


def forget_reference(entity: Entity) -> None:
    """Make the reference to *entity* anew: its key, or what its type's key is, has changed."""
    object.__setattr__(entity, "_reference", None)


def detach(entity: Entity) -> None:
    """Let the changes of *entity* be recorded nowhere from now on."""
    entity._owner = None


def load(entity: Entity, row: Mapping[str, Any], decode: Callable[[Any], Any]) -> None:
    """Take over what the server's *row* says of *entity*; local changes stay on top."""
    values = dict(row)  # in one go; few values need another form
    values.pop(ENTITY_TYPE, None)
    for name, value in row.items():
        if type(value) is dict or type(value) is list:
            values[name] = decode(value)
    for name, read in entity.readers.items():
        if name in row:
            values[name] = read(row[name])
    if entity._remote:
        entity._remote.update(values)
    else:  # as with most
        object.__setattr__(entity, "_remote", values)


def remote_value(entity: Entity, name: str, default: Any = None) -> Any:
    """Return what the server said last of *name*, local changes left aside; else *default*."""
    return entity._remote.get(name, default)


def settle(entity: Entity, name: str, value: Any) -> None:
    """Make *value*, which the server has applied, the remote one.

    A local value stays only if it was changed again after *value* was recorded.
    """
    entity._remote[name] = value
    local = entity._local
    if name in local and (local[name] is value or same(local[name], value)):
        del local[name]


def settle_late(entity: Entity, name: str, value: Any) -> None:
    """Settle *value*, which the server applied before whatever is known of *name* by now."""
    if name in entity._remote:
        forget_local(entity, name, value)
    else:
        settle(entity, name, value)


def forget_local(entity: Entity, name: str, value: Any) -> None:
    """Drop the local value of *name* if it still is the *value* that was recorded."""
    if name in entity._local and same(entity._local[name], value):
        del entity._local[name]


def same(one: Any, other: Any) -> bool:
    """Tell whether two recorded values are the same one, not merely equal across types."""
    return one is other or (type(one) is type(other) and bool(one == other))
