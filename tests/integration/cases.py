"""Cases that share a test, because each of them would set up the same."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def case(name: object) -> Iterator[None]:
    """Add *name* to what pytest shows of an error inside."""
    try:
        yield
    except BaseException as exc:
        exc.add_note(f"in the case: {name}")
        raise
