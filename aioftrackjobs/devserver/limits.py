"""How much one request may ask for: enough for any client's work, and never the whole memory."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any, TypeAlias

from aioftrackjobs.devserver.api_errors import RequestError, ValidationError

_MIB = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Limits:
    """The limits of one server; none is known of a real one.

    Attributes:
        request: Bytes in the body of a ``POST /api``.
        answer: About the bytes of the answer to one, and of what is read for it.
        idle: Seconds that the next piece of a body may take, that of an upload or answer too.
        operations: Operations in a batch.
        expression: Characters in a query.
        listed: Entries of any list in an operation.
        upload: Bytes of one file.
        parts: Parts of one upload; the official JavaScript client's own limit.
        uploads: Uploads and parts of some that are received at once; others wait for their turn.
        patience: Seconds that one waits, or a big answer for room. Long, as the official
            JavaScript client never gives up nor repeats a part that is refused; one that is late
            is only late.

    Raises:
        ValueError: If one of them leaves no room for anything.
    """

    request: int = 32 * _MIB
    answer: int = 64 * _MIB
    idle: float = 30.0
    operations: int = 20_000
    expression: int = 512 * 1024
    listed: int = 20_000
    upload: int = 1024**4
    parts: int = 10_000
    uploads: int = 16
    patience: float = 300.0

    def __post_init__(self) -> None:
        for limit in fields(self):
            value = getattr(self, limit.name)
            if not value > 0:
                raise ValueError(f"the limit {limit.name!r} must be more than 0, not {value!r}")

    def check_batch(self, operations: list[Any]) -> None:
        """Check how much *operations* are.

        Raises:
            RequestError: If there are too many of them.
            ValidationError: If one of them holds too long a list.
        """
        if len(operations) > self.operations:
            raise RequestError(
                f"A request takes {self.operations} operations at most, not {len(operations)}.",
                status=413,
            )
        for operation in operations:
            self._check_lists(operation)

    def _check_lists(self, operation: Any) -> None:
        if not isinstance(operation, dict):
            return
        data = operation.get("entity_data")
        for holder in (operation, data if isinstance(data, dict) else {}):
            for name, value in holder.items():
                if isinstance(value, list) and len(value) > self.listed:
                    raise ValidationError(
                        f"'{name}' takes {self.listed} entries at most, not {len(value)}."
                    )

    def check_expression(self, expression: str) -> None:
        """Check the length of a query.

        Raises:
            ValidationError: If it is too long.
        """
        if len(expression) > self.expression:
            raise ValidationError(
                f"A query takes {self.expression} characters at most, not {len(expression)}."
            )

    def answer_too_big(self) -> ValidationError:
        """Return the refusal of a batch whose answer is too big."""
        return ValidationError(
            f"An answer takes {self.answer} bytes at most: ask for less, or for one page after the "
            "other, by 'offset' and 'limit' at the end of the query."
        )

    def too_big(self) -> RequestError:
        """Return the refusal of a body that is too big."""
        return RequestError(f"A request takes {self.request} bytes at most.", status=413)


#: Told of bytes as they come; raises an error when they are more than there may be.
Meter: TypeAlias = Callable[[int], None]


class NoRoomError(Exception):
    """The answer would be allowed, and there is no room for it as long as others hold theirs."""


class Budget:
    """Bytes that may be read for an answer, and that it may take itself.

    Both grow without end where a query has no limit, the second also where relations lead to
    the same entities again and again.
    """

    def __init__(self, size: int, exceeded: Callable[[], Exception]) -> None:
        self._size = size
        self._exceeded = exceeded

    def meter(self) -> Meter:
        """Return a meter for one step, which has all of the budget for itself."""
        left = self._size

        def spend(size: int) -> None:
            nonlocal left
            left -= size
            if left < 0:
                raise self._exceeded()

        return spend


def unmetered(_: int) -> None:
    """Let everything pass: a meter for what nobody asks for from outside."""
