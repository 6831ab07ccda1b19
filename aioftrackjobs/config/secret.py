"""Secret: keeps a value out of everything that shows or saves variables.

Tracebacks with variables (``pytest -l``, ``rich``, Sentry) show the arguments and variables of each
function that an error has passed. So the API key, addresses that give access to files, and headers
are in a Secret everywhere in this package, and become text where a library sends them.
"""

from __future__ import annotations

from typing import Generic, NoReturn, Self, TypeVar

T = TypeVar("T")


class Secret(Generic[T]):
    """A value that is not shown if it is printed, logged or dumped by mistake."""

    __slots__ = ("_value",)

    def __init__(self, value: T) -> None:
        self._value = value

    def __repr__(self) -> str:
        return "<secret>"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and bool(self._value == other._value)

    def __hash__(self) -> int:
        return hash(self._value)

    def __reduce__(self) -> NoReturn:
        raise TypeError("a secret is not pickled, because the result would show it")

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, _: object) -> Self:
        return self

    def reveal(self) -> T:
        """Return the value; do not keep it in a variable of a function that can raise an error."""
        return self._value


def reveal(value: T | Secret[T]) -> T:
    """Return *value*, also if it is in a Secret."""
    return value.reveal() if isinstance(value, Secret) else value
