"""The event hub for plain threads: each event is handled in a thread of its own."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar

from aioftrackjobs.blocking._loop import call, in_thread
from aioftrackjobs.blocking._proxies import Proxy, mirrored
from aioftrackjobs.config.settings import require
from aioftrackjobs.events.hub import EventHub as AsyncEventHub

H = TypeVar("H", bound=Callable[..., Any])


class EventHub(Proxy, of=AsyncEventHub):
    def __init__(self, target: AsyncEventHub) -> None:
        super().__init__(target)
        self._handlers = dict[Callable[..., Any], list[Callable[..., Any]]]()

    def on(self, what: Any, **options: Any) -> Callable[[H], H]:
        for name in {"on_gap", "on_lag"} & options.keys():
            if callable(options[name]):
                options[name] = _handled_in_thread(options[name])
        register = self._call("on", what, **options)

        def add(function: H) -> H:
            is_async = inspect.iscoroutinefunction(function)
            require(not is_async, "the handler", "a plain function", function)
            handler = _handled_in_thread(function)
            call(register, handler)
            self._handlers.setdefault(function, []).append(handler)
            return function

        return add

    def off(self, function: Callable[..., Any]) -> None:
        require(function in self._handlers, "function", "a handler of this hub", function)
        for handler in self._handlers.pop(function):
            self._call("off", handler)


mirrored(EventHub.on, AsyncEventHub.on)


def _handled_in_thread(function: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(function)
    async def handle(event: Any) -> Any:
        return await in_thread(function, event)

    return handle
