"""Arguments of subscriptions, checked before anything is sent."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, cast

from aioftrackjobs.config.settings import require
from aioftrackjobs.events.models import Event
from aioftrackjobs.protocol.subscription import SubscriptionSyntaxError, conjunction, parse


def selection_of(
    what: object, where: object
) -> tuple[str, type[Event] | None, Callable[[Any], bool] | None]:
    """Return expression, class and test for the arguments of a subscription."""
    kind: type[Event] | None = None
    if isinstance(what, type) and issubclass(what, Event):
        kind, expression = what, what.subscription
    else:
        require(isinstance(what, str), "what", "an expression, or a class of events", what)
        expression = cast("str", what)
    require_expression("what", expression)
    if where is None:
        return expression, kind, None
    if isinstance(where, str):
        require_expression("where", where)
        return conjunction(expression, where), kind, None
    require(callable(where), "where", "an expression, or a function", where)
    return expression, kind, cast("Callable[[Any], bool]", where)


def require_expression(argument: str, expression: str) -> None:
    """Raise ArgumentError unless *expression* is one of :mod:`.subscription`."""
    try:
        parse(expression)
    except SubscriptionSyntaxError as exc:
        problem = str(exc)
    else:
        return
    require(False, argument, f"an expression ({problem})", expression)  # noqa: FBT003


def metadata_of(subscriber: Mapping[str, Any] | None) -> Mapping[str, Any] | None:
    """Return what describes a subscriber, which is checked."""
    given: object = subscriber
    is_valid = given is None or (
        isinstance(given, Mapping) and all(isinstance(name, str) for name in given)
    )
    require(is_valid, "subscriber", "a mapping with texts as keys", subscriber)
    return subscriber
