"""The state of an entity: its owner, the server's values and the local changes.

An entity keeps its state in private attributes. The functions of this module are the only code
outside the class that reads or writes them, so that an entity has no public methods but those
that users need. The entity and its owner are described by protocols, because the module of the
class imports this one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Literal, Protocol, TypedDict

from aioftrackjobs.background import SafeLogger
from aioftrackjobs.errors import NotLoadedError
from aioftrackjobs.protocol.operations import NOT_SET

logger = SafeLogger(__name__)


class Owner(Protocol):
    """What an entity belongs to: it records changes, and knows the entity types."""

    def record_update(self, entity: Any, name: str, value: object) -> None:
        """Record that *name* was set to *value*.

        Raises:
            UnserialisableValueError: The value cannot be sent to the server.
        """
        ...

    def record_reset(self, entity: Any, name: str) -> Any:
        """Record that the local change of *name* was taken back.

        Returns:
            The local value that another task has recorded, which stays; else ``NOT_SET``.
        """
        ...

    def load_missing(self, entity: Any, name: str) -> None:
        """Load *name*, which no response has brought yet, if the session does so by itself."""
        ...

    def attributes_of(self, entity_type: str) -> tuple[str, ...]:
        """Return the attributes that the server's schemas list; empty if they are not loaded."""
        ...

    def relations_of(self, entity_type: str) -> frozenset[str]:
        """Return the attributes that hold entities, as far as the server's schemas are loaded."""
        ...

    def mapping_of(self, entity: Any, name: str) -> Any:
        """Return the metadata or the custom attributes of *entity*; None if it keeps none."""
        ...

    def redact(self, text: str) -> str:
        """Return *text* without secrets."""
        ...

    def component_url(self, component_id: str, size: int | None = None) -> str:
        """Return the URL of a component's file, or of its thumbnail. It contains the API key."""
        ...

    def wait_for_job(self, job: Any, timeout: float | None, /) -> Any:
        """Return the state of *job* when it has ended, or after some seconds."""
        ...

    def files_of(self, location: Any, /) -> Any:
        """Return what moves files to and from *location*."""
        ...


class Stateful(Protocol):
    """What this module needs of an entity.

    Attributes:
        readers: See :class:`Entity`.
        empty_at_first: See :class:`Entity`.
        _owner: None while the entity is detached.
        _remote: Values as the server has sent or applied them.
        _local: Values that were set here and not applied yet. A read prefers them.
    """

    readers: ClassVar[Mapping[str, Callable[[Any], Any]]]
    empty_at_first: ClassVar[frozenset[str]]
    _owner: Owner | None
    _remote: dict[str, Any]
    _local: dict[str, Any]


class Change(TypedDict):
    """One value that :meth:`Entity.merge` changed.

    Example: ``[each["name"] for each in job.merge(other)]``
    """

    type: Literal["remote_attribute", "local_attribute"]
    name: str
    old_value: Any
    new_value: Any


# Ownership


def attach(entity: Stateful, owner: Owner | None) -> None:
    """Give *entity* an *owner* and an empty state."""
    put = object.__setattr__
    put(entity, "_owner", owner)
    put(entity, "_remote", {})
    put(entity, "_local", {})


def adopt(entity: Stateful, owner: Owner) -> dict[str, Any]:
    """Make *owner* the owner of a detached *entity*, and return the entity's values."""
    object.__setattr__(entity, "_owner", owner)
    return dict(entity._local)


def detach(entity: Stateful) -> None:
    """Take the owner away from *entity*: its changes are not recorded any more."""
    object.__setattr__(entity, "_owner", _GONE)


def owner_of(entity: Stateful) -> Owner | None:
    """Return the owner of *entity*; None if it is detached."""
    return entity._owner or None


class _Gone:
    """Stands for the owner of what was deleted or never created: it warns, and records nothing.

    Another task may still hold such an entity, and commit its changes in good faith.
    """

    def __bool__(self) -> bool:
        return False

    def record_update(self, entity: Any, name: str, value: object) -> None:
        logger.warning(
            "%(entity)r was deleted, or its creation was rolled back: its new %(attribute)s "
            "is not recorded",
            entity=entity,
            attribute=name,
        )

    def record_reset(self, entity: Any, name: str) -> Any:
        return NOT_SET

    def load_missing(self, entity: Any, name: str) -> None:
        pass

    def attributes_of(self, entity_type: str) -> tuple[str, ...]:
        return ()

    def relations_of(self, entity_type: str) -> frozenset[str]:
        return frozenset()

    def mapping_of(self, entity: Any, name: str) -> Any:
        return None

    def redact(self, text: str) -> str:
        return text

    def component_url(self, component_id: str, size: int | None = None) -> str:
        raise NotImplementedError  # a location is not asked without an owner

    def wait_for_job(self, job: Any, timeout: float | None, /) -> Any:
        raise NotImplementedError  # a Job does not wait without an owner

    def files_of(self, location: Any, /) -> Any:
        raise NotImplementedError  # nor does a location move files


_GONE = _Gone()


def forget_reference(entity: Stateful) -> None:
    """Drop the cached reference to *entity*, because its key or the key of its type changed."""
    object.__setattr__(entity, "_reference", None)


# Values of the server


def remote_value(entity: Stateful, name: str, default: Any = None) -> Any:
    """Return the latest value of *name* that came from the server, without local changes."""
    return entity._remote.get(name, default)


def current_value(entity: Stateful, name: str) -> Any:
    """Return the value of *name* that a read shows: the local one, else the remote one."""
    return entity._local[name] if name in entity._local else entity._remote.get(name)


def put_local(entity: Stateful, name: str, value: Any) -> None:
    """Store a local value that is not to be recorded."""
    entity._local[name] = value


def load_missing(entity: Any, name: str) -> Any:
    """Return a value that no response has brought yet, if the owner of *entity* loads it.

    Raises:
        NotLoadedError: It does not.
        UnknownAttributeError: The type has no such attribute.
    """
    error: Exception = entity._missing(name)
    can_load = isinstance(error, NotLoadedError) and entity._remote and not name.startswith("_")
    if can_load and entity._owner:
        entity._owner.load_missing(entity, name)
        if name in entity:
            return entity._current(name)
        error = entity._missing(name)  # the type may be known by now
    raise error


# Changes that the server has applied


def settle(entity: Stateful, values: Mapping[str, Any]) -> None:
    """Make *values*, which the server has applied, the remote values of *entity*.

    A local value stays only if it was changed again after its value was recorded.
    """
    remote, local = entity._remote, entity._local
    for name, value in values.items():
        remote[name] = value
        if name in local and (local[name] is value or same(local[name], value)):
            del local[name]


def settle_created(entity: Stateful) -> None:
    """Note which attributes of an *entity* that was created have no value yet.

    The response leaves out attributes without a value (docs/protocol.md, section 3.6).
    """
    for name in entity.empty_at_first:
        entity._remote.setdefault(name, None)
    object.__setattr__(entity, "_is_own", True)


def was_created_here(entity: Stateful) -> bool:
    """Return whether the session has created *entity*, so that queries may not show it."""
    is_own: bool = getattr(entity, "_is_own", False)
    return is_own


def settle_late(entity: Stateful, name: str, value: Any) -> None:
    """Settle *value*, which the server applied before the remote value known by now, if any."""
    if name in entity._remote:
        forget_local(entity, name, value)
    else:
        settle(entity, {name: value})


def forget_local(entity: Stateful, name: str, value: Any) -> None:
    """Drop the local value of *name* if it still is the *value* that was recorded."""
    if name in entity._local and same(entity._local[name], value):
        del entity._local[name]


def change_locally(entity: Stateful, name: str, value: Any) -> None:
    """Make *value* the local value of *name*, which is recorded already."""
    entity._local[name] = value


def same(one: Any, other: Any) -> bool:
    """Return whether two recorded values are equal and of one type: 1 is neither 1.0 nor True."""
    return one is other or (type(one) is type(other) and bool(one == other))


# Copies


def merge_into(target: Any, source: Stateful) -> list[Change]:
    """Copy the values of *source* to *target*: remote ones as remote, local ones as changes."""
    changes: list[Change] = []
    for name, value in source._remote.items():
        old = target._remote.get(name)
        if name not in target._remote or old != value:
            target._remote[name] = value
            if name in target.primary_key_attributes:
                forget_reference(target)
            changes.append(
                Change(type="remote_attribute", name=name, old_value=old, new_value=value)
            )
    for name, value in source._local.items():
        old = target._current(name)
        if old != value:
            target[name] = value
            changes.append(
                Change(type="local_attribute", name=name, old_value=old, new_value=value)
            )
    return changes
