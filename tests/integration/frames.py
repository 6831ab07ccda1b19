"""Searches what a tool that prints local variables shows of an exception.

Such tools are ``pytest -l``, ``rich``, Sentry, and ``traceback`` with ``capture_locals``. They
print the variables of each frame, also in libraries, and what lists and mappings in them contain.
"""

from __future__ import annotations

import traceback
from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

#: Frames in tests have their secrets from the test itself.
_TESTS = str(Path(__file__).parents[1])


def leaks(error: BaseException, *secrets: str) -> list[str]:
    """Return where an exception and all that it refers to show one of *secrets*."""
    return [
        f"{place} shows {secret}"
        for place, text in _shown(error)
        for secret in secrets
        if secret in text
    ]


def number_of_frames(error: BaseException) -> int:
    """Return how many frames :func:`leaks` searches, to tell that it finds something."""
    return sum(1 for each in _related(error) for _ in _frames(each))


def _shown(error: BaseException) -> Iterator[tuple[str, str]]:
    for each in _related(error):
        kind = type(each).__name__
        yield f"str({kind})", str(each)
        yield f"repr({kind})", repr(each)
        yield f"attributes of {kind}", repr(vars(each)) + repr(each.args)
        for code, variables in _frames(each):
            for name, value in variables.items():
                yield f"{kind}: {name} in {code}", " ".join(_texts(value))
        if all(_is_ours(frame) for frame, _ in traceback.walk_tb(each.__traceback__)):
            shown = traceback.TracebackException.from_exception(each, capture_locals=True)
            yield f"traceback of {kind}", "".join(shown.format(chain=False))


def _frames(error: BaseException) -> Iterator[tuple[str, Mapping[str, Any]]]:
    for frame, _ in traceback.walk_tb(error.__traceback__):
        if _is_ours(frame):
            yield getattr(frame.f_code, "co_qualname", frame.f_code.co_name), dict(frame.f_locals)


def _is_ours(frame: Any) -> bool:
    return not frame.f_code.co_filename.startswith(_TESTS)


def _related(error: BaseException) -> list[BaseException]:
    """Return the error, its causes and contexts, and the members of groups."""
    found: list[BaseException] = []
    left = [error]
    while left:
        each = left.pop()
        if not any(each is other for other in found):
            found.append(each)
            left += [other for other in (each.__cause__, each.__context__) if other is not None]
            left += getattr(each, "exceptions", ())
    return found


def _texts(value: object, depth: int = 0) -> Iterator[str]:
    """Give the repr of a value, and of what it contains, as such tools do."""
    yield repr(value)
    if depth > 4:
        return
    if isinstance(value, BaseException):
        yield repr(value.args)
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield repr(key)
            yield from _texts(item, depth + 1)
    elif isinstance(value, list | tuple | set | frozenset):
        for item in value:
            yield from _texts(item, depth + 1)
    elif is_dataclass(value) and not isinstance(value, type):
        for field in fields(value):
            if field.repr and type(value).__repr__.__qualname__.endswith("__create_fn__.<locals>"):
                yield from _texts(getattr(value, field.name), depth + 1)
