"""Blocking methods made of the async ones: their types, docstrings and arguments are the same.

A type checker infers the blocking method from the async one that it is made of::

    class Session:
        populate = blocking(AsyncSession.populate)  # returns when the coroutine has ended
        rollback = in_loop(AsyncSession.rollback)  # runs in the event loop, awaits nothing
"""

from __future__ import annotations

import inspect
import re
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from functools import wraps
from types import TracebackType
from typing import TYPE_CHECKING, Any, Concatenate, Generic, ParamSpec, TypeVar, cast, overload

from aioftrackjobs.blocking._loop import LoopThread, call, call_last_step, current_loop
from aioftrackjobs.errors import SessionStateError

P = ParamSpec("P")
T = TypeVar("T")
A = TypeVar("A")
M = TypeVar("M", bound=Callable[..., Any])

_END = object()


class Method(Generic[P, T]):
    """What a type checker sees of a method; at run time, it is a function."""

    if TYPE_CHECKING:

        @overload
        def __get__(self, instance: None, owner: type) -> Callable[Concatenate[Any, P], T]: ...
        @overload
        def __get__(self, instance: object, owner: type) -> Callable[P, T]: ...
        def __get__(self, instance: object, owner: type) -> Any: ...


def blocking(
    method: Callable[Concatenate[Any, P], Coroutine[Any, Any, T]],
) -> Method[P, T]:
    """Return a method that calls the async *method* of the target, and waits for its end."""
    return cast("Method[P, T]", _mirrored(method, call))


def begun_here(
    method: Callable[Concatenate[Any, P], Coroutine[Any, Any, T]],
) -> Method[P, T]:
    """Do as :func:`blocking` for a *method* that looks at its caller's stack when it is called."""
    return cast("Method[P, T]", _mirrored(method, _call_begun_here))


def in_loop(method: Callable[Concatenate[Any, P], T]) -> Method[P, T]:
    """Return a method that calls *method* of the target in the event loop."""
    return cast("Method[P, T]", _mirrored(method, call))


def directly(method: Callable[Concatenate[Any, P], T]) -> Method[P, T]:
    """Return a method that calls *method* of the target, which any thread may call."""
    return cast("Method[P, T]", _mirrored(method, _call_here))


def mirrors(original: object) -> Callable[[M], M]:
    """Return a decorator for what is written by hand: it gives it the docstring of *original*."""

    def document(function: M) -> M:
        function.__doc__ = blocking_text(original.__doc__)
        return function

    return document


def _mirrored(method: Callable[..., Any], how: Callable[..., Any]) -> Callable[..., Any]:
    name = method.__name__

    @wraps(method, updated=())
    def mirrored(self: Any, /, *args: Any, **kwargs: Any) -> Any:
        return how(getattr(self._target(), name), *args, **kwargs)

    return documented(mirrored, method)


def documented(mirrored: M, original: Callable[..., Any]) -> M:
    """Give *mirrored* the docstring and the signature of *original*, without what is async."""
    mirrored.__doc__ = blocking_text(original.__doc__)
    signature = inspect.signature(original)
    returned = re.sub(r"^Coroutine\[Any, Any, (.*)\]$", r"\1", str(signature.return_annotation))
    mirrored.__signature__ = signature.replace(return_annotation=returned)  # type: ignore[attr-defined]
    return mirrored


def blocking_text(text: str | None) -> str | None:
    """Return a docstring with its examples as they are in blocking code."""
    if text is None:
        return None
    text = re.sub(r"\bawait (?=[a-z_]+[.(])|\basync (?=with\b|for\b)", "", text)
    return text.replace("AsyncSession", "Session").replace("coroutine function", "function")


def _call_here(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    return function(*args, **kwargs)


def _call_begun_here(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    coroutine = function(*args, **kwargs)
    try:
        return call(lambda: coroutine)
    except SessionStateError:
        coroutine.close()  # it may not have begun
        raise


class Rows(Iterator[T]):
    """An async iterator, for a ``for`` loop in any thread."""

    def __init__(self, rows: AsyncIterator[T]) -> None:
        self._rows = rows

    def __next__(self) -> T:
        row = call(_next, self._rows)
        if row is _END:
            raise StopIteration
        return cast("T", row)


class Block(AbstractContextManager[T], Generic[A, T]):
    """A block of an async context manager, for ``with``.

    Args:
        block: The async context manager.
        make: Makes what the block is given of what the async block is given.
    """

    _loop: LoopThread

    def __init__(self, block: AbstractAsyncContextManager[A], make: Callable[[A], T]) -> None:
        self._block, self._make = block, make

    def __enter__(self) -> T:
        self._loop = current_loop()
        return self._make(call(self._block.__aenter__))

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> bool | None:
        if self._loop is current_loop():
            return call_last_step(self._block.__aexit__, kind, error, trace)
        if error is None:
            raise SessionStateError("this block belongs to the process that forked, not to this")
        return None  # as when a forked process exits


async def _next(rows: AsyncIterator[Any]) -> Any:
    try:
        return await anext(rows)
    except StopAsyncIteration:
        return _END
