"""Criteria of queries, built from attributes and Python's operators.

``Job.user.username == "maya"`` is a :class:`Condition` with the text ``user.username is "maya"``.
Values are quoted as parameters of a query are. Nothing here knows a schema: the server says which
attributes there are.

Source:
    docs/protocol.md, section 4.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import ClassVar, NoReturn

from aioftrackjobs.errors import QueryParameterError
from aioftrackjobs.protocol.query import membership, quote

_STEPS = re.compile(r"[A-Za-z_]\w*(\[[A-Za-z_]\w*\])?(\.[A-Za-z_]\w*(\[[A-Za-z_]\w*\])?)*")

_ORDER = re.compile(r"(?i)(\S+)(?:\s+(?:asc|ascending|desc|descending))?")


class Condition:
    """What rows have to meet: a comparison, or several, joined by ``&``, ``|`` and ``~``.

    Example: ``session.query(Job).where((Job.status == "done") | (Job.status == "failed"))``

    Python's ``and``, ``or`` and ``not`` cannot be given another meaning; they raise a TypeError
    that says what to write.

    Attributes:
        text: The condition as it stands in a query.
    """

    __slots__ = ("_is_single", "text")

    def __init__(self, text: str, *, is_single: bool = False) -> None:
        self.text: str = text
        self._is_single = is_single

    def __repr__(self) -> str:
        return f"Condition({self.text!r})"

    def __str__(self) -> str:
        return self.text

    def _as_part(self) -> str:
        return self.text if self._is_single else f"({self.text})"

    def __and__(self, other: Condition) -> Condition:
        return self._join("and", other)

    def __or__(self, other: Condition) -> Condition:
        return self._join("or", other)

    def _join(self, word: str, other: object) -> Condition:
        return Condition(f"{self._as_part()} {word} {checked_condition(other)._as_part()}")

    def __invert__(self) -> Condition:
        return Condition(f"not {self._as_part()}", is_single=True)

    def __bool__(self) -> NoReturn:
        raise TypeError(
            "a condition of a query is neither true nor false; join conditions by &, | and ~, with "
            "parentheses around each, and compare an attribute once: (a > 1) & (a < 5)"
        )


class Order:
    """A key to sort by, with its direction.

    Attributes:
        text: The key as it stands after ``order by``.
    """

    __slots__ = ("text",)

    def __init__(self, text: str) -> None:
        self.text: str = text

    def __repr__(self) -> str:
        return f"Order({self.text!r})"


class Attribute:
    """An attribute in a query, or the attribute of a related entity.

    ::

        Attribute("status").name == "done"  # status.name is "done"
        Attribute("status.name").in_(["done", "failed"])
        Attribute("assignments").any(Attribute("resource.username") == "maya")
        Attribute("created_at").descending()  # to sort by

    The attributes of a class are written with its name: ``Job.status == "done"``. Type checkers
    see the type of the value there, which has none of the methods below; for these, write
    ``Attribute(Job.created_at).descending()``.

    ``==``, ``!=``, ``<``, ``<=``, ``>`` and ``>=`` compare with a value; None stands for no value.
    An attribute whose name is that of a method here is an item: ``Attribute("x")["any"]``.

    Args:
        path: The names of the attributes, with dots between them; or an attribute of a class.

    Raises:
        QueryParameterError: The path is not such a text.
    """

    __slots__ = ("_path",)
    __hash__: ClassVar[None] = None  # type: ignore[assignment]

    _path: str

    def __init__(self, path: object) -> None:
        if isinstance(path, Attribute):
            path = path._path
        if not isinstance(path, str) or not _STEPS.fullmatch(path):
            raise QueryParameterError(
                f"{path!r} is no attribute; write names with dots between them: 'status.name'"
            )
        self._path = path

    def __repr__(self) -> str:
        return f"Attribute({self._path!r})"

    def __str__(self) -> str:
        return self._path

    def __getattr__(self, name: str) -> Attribute:
        if name.startswith("__"):  # of Python, such as those that copying looks for
            raise AttributeError(name)
        return Attribute(f"{self._path}.{name}")

    def __getitem__(self, name: str) -> Attribute:
        return Attribute(f"{self._path}.{name}")

    def __iter__(self) -> Iterator[Attribute]:  # or Python would ask for items without end
        raise TypeError(f"{self!r} has no items to iterate over; in a query, write .any(...)")

    def _compare(self, operator: str, value: object) -> Condition:
        if isinstance(value, (Attribute, Condition)):
            raise QueryParameterError(
                f"{self._path} can be compared with a value only, not with {value!r}"
            )
        return Condition(f"{self._path} {operator} {quote(value)}", is_single=True)

    def __eq__(self, value: object) -> Condition:  # type: ignore[override]
        return self._compare("is", value)

    def __ne__(self, value: object) -> Condition:  # type: ignore[override]
        return self._compare("is_not", value)

    def __lt__(self, value: object) -> Condition:
        return self._compare("<", value)

    def __le__(self, value: object) -> Condition:
        return self._compare("<=", value)

    def __gt__(self, value: object) -> Condition:
        return self._compare(">", value)

    def __ge__(self, value: object) -> Condition:
        return self._compare(">=", value)

    def in_(self, values: Iterable[object]) -> Condition:
        """Return the condition that the value is one of *values*; nothing is one of none."""
        return Condition(membership(self._path, "in", values), is_single=True)

    def not_in(self, values: Iterable[object]) -> Condition:
        """Return the condition that the value is none of *values*."""
        return Condition(membership(self._path, "not_in", values), is_single=True)

    def like(self, pattern: str) -> Condition:
        """Return the condition that the text matches *pattern*, where ``%`` is any text."""
        return self._compare("like", pattern)

    def not_like(self, pattern: str) -> Condition:
        """Return the condition that the text does not match *pattern*."""
        return self._compare("not_like", pattern)

    def has(self, condition: Condition | None = None) -> Condition:
        """Return the condition that the related entity exists, and meets *condition*."""
        return self._related("has", condition)

    def any(self, condition: Condition | None = None) -> Condition:
        """Return the condition that one of the related entities meets *condition*."""
        return self._related("any", condition)

    def _related(self, word: str, condition: Condition | None) -> Condition:
        if not (condition is None or isinstance(condition, Condition)):
            raise QueryParameterError(f"{word}() takes a condition, not {condition!r}")
        inner = "" if condition is None else condition.text
        return Condition(f"{self._path} {word} ({inner})", is_single=True)

    def ascending(self) -> Order:
        """Return the order by this attribute, the least value first."""
        return Order(self._path)

    def descending(self) -> Order:
        """Return the order by this attribute, the greatest value first."""
        return Order(f"{self._path} desc")


def checked_condition(value: object) -> Condition:
    """Return *value*, which is a condition.

    Raises:
        QueryParameterError: It is none, such as the result of a comparison that Python has made.
    """
    if isinstance(value, Condition):
        return value
    raise QueryParameterError(
        f"{value!r} is no condition; compare an attribute of a class, such as Job.status, or "
        "Attribute('status.name'), with a value"
    )


def joined(conditions: Iterable[Condition]) -> str:
    """Return the text of rows that meet all of *conditions*."""
    found = list(conditions)
    return found[0].text if len(found) == 1 else " and ".join(each._as_part() for each in found)


def order_key(value: object) -> str:
    """Return the text of a key to sort by: an attribute, with a direction or without, or a text.

    Raises:
        QueryParameterError: It is neither.
    """
    if isinstance(value, Order):
        return value.text
    if isinstance(value, str) and (match := _ORDER.fullmatch(value)):
        Attribute(match[1])
        return value
    return str(Attribute(value))
