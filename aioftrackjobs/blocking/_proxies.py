"""Blocking classes made of the async ones: each public member is there, with its text and types.

A method of a blocking class calls that of the async object, waits for what it returns, and makes
of that what plain threads can use: rows for ``for``, and blocks for ``with``. So a new method of an
async class needs no line here. Type checkers read ``__init__.pyi``, which is written from these
classes by ``tests/typing/blocking_stub.py``.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import AsyncIterator, Callable, Collection, Coroutine, Iterator
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from functools import wraps
from types import TracebackType
from typing import Any, ClassVar, TypeVar

from aioftrackjobs.blocking._loop import LoopThread, call, call_last_step, current_loop
from aioftrackjobs.errors import SessionStateError

F = TypeVar("F", bound=Callable[..., Any])

#: The blocking class of each async one.
_proxies = dict[type, type["Proxy"]]()

_END = object()

#: What async code writes, and what blocking code has in its place.
_TEXTS = (
    (r"``for`` or ``async for``", "``for``"),
    (r"``async with`` or ``with``", "``with``"),
    (r"\ban ``async ", "a ``"),
    (r"\bawait (?=[a-z_]+[.(])|\basync (?=with\b|for\b|def\b)", ""),
    (r"\bAsyncSession\b", "Session"),
    (r"\bcoroutine function", "function"),
)
_TYPES = (
    (r"\bAsyncSession\b", "Session"),
    (r"^Coroutine\[Any, Any, (.*)\]$", r"\1"),
    (r"\bAbstractAsyncContextManager\b", "AbstractContextManager"),
    (r"\bAsyncIterator\b", "Iterator"),
    (r"^JobWatch$", "Iterator[JobState]"),
    (r"^ReplyStream$", "Iterator[Event]"),
    (r"^EventStream\[(\w+)\]$", r"AbstractContextManager[Iterator[\1 | Gap | Lagged]]"),
)


class Proxy:
    """An object for plain threads in front of an async one.

    A class says of which async class it is, and writes only what is not the same::

        class Query(Proxy, of=AsyncQuery): ...

    Args:
        target: The async object.
    """

    #: Whether methods run in the event loop, or are called where they are and awaited there.
    _runs_in_loop: ClassVar[bool] = True

    def __init_subclass__(
        cls, *, of: type | None = None, only: Collection[str] = (), without: Collection[str] = ()
    ) -> None:
        super().__init_subclass__()
        if of is None:
            return
        _proxies[of] = cls
        cls.__doc__ = cls.__doc__ or blocking_text(of.__doc__)
        for name in only or dir(of):
            if name.startswith("_") or name in without:
                continue
            original, written = getattr(of, name), getattr(cls, name, None)
            if written is not None:  # by hand
                written.__doc__ = written.__doc__ or blocking_text(original.__doc__)
            elif isinstance(original, property):
                setattr(cls, name, _property(name, original))
            else:
                setattr(cls, name, _method(name, original))

    def __init__(self, target: Any) -> None:
        self._async = target

    def _target(self) -> Any:
        """Return the async object."""
        return self._async

    def __repr__(self) -> str:
        return repr(self._target())

    def _call(self, name: str, /, *args: Any, **kwargs: Any) -> Any:
        given = [_plain(each) for each in args]
        named = {key: _plain(each) for key, each in kwargs.items()}
        method = getattr(self._target(), name)
        if self._runs_in_loop:
            return presented(call(method, *given, **named))
        result = method(*given, **named)
        return presented(awaited(result) if isinstance(result, Coroutine) else result)

    def _read(self, name: str) -> Any:
        target = self._target()
        if self._runs_in_loop:
            return presented(call(lambda: getattr(target, name)))
        return presented(getattr(target, name))


def _method(name: str, original: Callable[..., Any]) -> Callable[..., Any]:
    def method(self: Proxy, /, *args: Any, **kwargs: Any) -> Any:
        return self._call(name, *args, **kwargs)

    return mirrored(method, original)


def _property(name: str, original: property) -> property:
    def read(self: Proxy) -> Any:
        return self._read(name)

    def write(self: Proxy, value: Any) -> None:
        setattr(self._target(), name, value)

    assert original.fget is not None  # noqa: S101 - no property is only written
    setter = None if original.fset is None else write
    return property(mirrored(read, original.fget), setter)


def presented(value: Any) -> Any:
    """Return what blocking code gets in the place of *value*, which an async method returned."""
    for kind in type(value).__mro__:
        if kind in _proxies:
            return _proxies[kind](value)
    if isinstance(value, AbstractAsyncContextManager):
        return Block(value)
    return Rows(value) if isinstance(value, AsyncIterator) else value


def _plain(value: Any) -> Any:
    return target_of(value) if isinstance(value, Proxy) else value


def target_of(proxy: Any) -> Any:
    """Return the async object of a blocking one."""
    return proxy._target()


def awaited(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """Return what *coroutine* returns in the event loop."""
    try:
        return call(lambda: coroutine)
    except SessionStateError:
        coroutine.close()  # it may not have begun
        raise


class Rows(Iterator[Any]):
    """An async iterator, for a ``for`` loop in any thread."""

    def __init__(self, rows: AsyncIterator[Any]) -> None:
        self._rows = rows

    def __next__(self) -> Any:
        row = call(_next, self._rows)
        if row is _END:
            raise StopIteration
        return row


async def _next(rows: AsyncIterator[Any]) -> Any:
    return await anext(rows, _END)


class Block(AbstractContextManager[Any]):
    """A block of an async context manager, for ``with``."""

    _loop: LoopThread

    def __init__(self, block: AbstractAsyncContextManager[Any]) -> None:
        self._block = block

    def __enter__(self) -> Any:
        self._loop = current_loop()
        entered: Any = call(self._block.__aenter__)
        return Rows(entered) if isinstance(entered, AsyncIterator) else presented(entered)

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


# Texts and types


def mirrored(function: F, original: Callable[..., Any]) -> F:
    """Give *function* the name, the docstring and the signature of *original* in blocking code."""
    wraps(original, updated=())(function)
    function.__doc__ = blocking_text(original.__doc__)
    function.__signature__ = blocking_signature(original)  # type: ignore[attr-defined]
    return function


def blocking_signature(original: Callable[..., Any]) -> inspect.Signature:
    """Return the signature of *original* without what is async."""
    signature = inspect.signature(original)
    parameters = [
        each.replace(annotation=re.sub(*_TYPES[0], str(each.annotation)))
        if each.annotation is not each.empty
        else each
        for each in signature.parameters.values()
    ]
    returned = str(signature.return_annotation)
    for pattern, replacement in _TYPES:
        returned = re.sub(pattern, replacement, returned)
    return signature.replace(parameters=parameters, return_annotation=returned)


def blocking_text(text: str | None) -> str | None:
    """Return a docstring with its examples as they are in blocking code."""
    for pattern, replacement in _TEXTS if text else ():
        text = re.sub(pattern, replacement, text or "")
    return text
