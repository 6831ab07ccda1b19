"""A relation to many entities, as a list whose changes are recorded."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, MutableMapping, MutableSequence
from typing import Any, SupportsIndex, overload


class Collection(MutableSequence[Any]):
    """A view of one attribute of an entity: reading sees its current value, a change replaces it.

    Each change records the complete new list, which is what travels (protocol.md, section 3.4).
    """

    __slots__ = ("_entity", "_name")

    def __init__(self, entity: MutableMapping[str, Any], name: str) -> None:
        self._entity = entity
        self._name = name

    @property
    def _items(self) -> tuple[Any, ...]:
        items: tuple[Any, ...] = self._entity._current(self._name)  # type: ignore[attr-defined]
        return items or ()

    def _replace(self, items: list[Any]) -> None:
        self._entity[self._name] = items

    def is_of(self, entity: object, name: str) -> bool:
        """Tell whether this is a view of the attribute *name* of *entity*."""
        return self._entity is entity and self._name == name

    def __len__(self) -> int:
        return len(self._items)

    def __iter__(self) -> Iterator[Any]:
        return iter(self._items)

    @overload
    def __getitem__(self, index: SupportsIndex) -> Any: ...
    @overload
    def __getitem__(self, index: slice) -> list[Any]: ...
    def __getitem__(self, index: SupportsIndex | slice) -> Any:
        if isinstance(index, slice):
            return list(self._items[index])
        return self._items[index]

    def __setitem__(self, index: SupportsIndex | slice, value: Any) -> None:
        items = list(self._items)
        items[index] = value
        self._replace(items)

    def __delitem__(self, index: SupportsIndex | slice) -> None:
        items = list(self._items)
        del items[index]
        self._replace(items)

    def insert(self, index: SupportsIndex, value: Any) -> None:
        """Insert *value* before *index*, and record the new list."""
        items = list(self._items)
        items.insert(index, value)
        self._replace(items)

    # What MutableSequence makes of one change for each item is one change here.

    def extend(self, values: Iterable[Any]) -> None:
        """Append *values*, and record the new list once."""
        self._replace([*self._items, *values])

    def clear(self) -> None:
        """Record an empty list."""
        self._replace([])

    def reverse(self) -> None:
        """Reverse the order, and record the new list once."""
        self._replace(list(reversed(self._items)))

    def __eq__(self, other: object) -> bool:
        if isinstance(other, (Collection, list, tuple)):
            return self._items == tuple(other)
        return NotImplemented

    __hash__ = None  # type: ignore[assignment]  # a list in all but name

    def __repr__(self) -> str:
        return repr(list(self._items))
