"""A relation to many entities, as a list whose changes are recorded."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, MutableMapping, MutableSequence
from typing import Any, ClassVar, SupportsIndex, overload

#: Items that are shown, and characters of them.
_SHOWN, _LONGEST = 3, 120


class Collection(MutableSequence[Any]):
    """A view of one attribute of an entity, which behaves like a list.

    It always shows the current value of the attribute. Each change sets the attribute to a new
    list, because a commit sends complete lists (docs/protocol.md, section 3.4)::

        version["task_links"].append(link)
        await session.commit()
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
        """Return whether this is the view of the attribute *name* of *entity*."""
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
        """Insert *value* before *index*."""
        items = list(self._items)
        items.insert(index, value)
        self._replace(items)

    # MutableSequence would record one change for each item. These record one for all.

    def extend(self, values: Iterable[Any]) -> None:
        """Append *values*."""
        self._replace([*self._items, *values])

    def clear(self) -> None:
        """Remove all items."""
        self._replace([])

    def reverse(self) -> None:
        """Reverse the order of the items."""
        self._replace(list(reversed(self._items)))

    def __eq__(self, other: object) -> bool:
        if isinstance(other, (Collection, list, tuple)):
            return self._items == tuple(other)
        return NotImplemented

    __hash__: ClassVar[None] = None  # type: ignore[assignment]  # mutable, as a list is

    def __repr__(self) -> str:
        items = self._items
        more = len(items) - _SHOWN
        return f"{list(items[:_SHOWN])!r:.{_LONGEST}}" + (f" and {more} more" if more > 0 else "")
