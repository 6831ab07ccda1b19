"""Whether an entity has the values that it was sent, in whatever form the server gives them back.

Source:
    protocol.md, section 3.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import date, datetime, timedelta
from typing import Any

from aioftrackjobs.protocol.operations import Values
from aioftrackjobs.protocol.values import ENTITY_TYPE, VALUE_TYPE, decode_tagged, in_utc

#: What servers may cut from a time.
_FRACTION = timedelta(seconds=1)
#: What databases may cut from a number: they keep seven digits at least.
_DIGITS = 1e-6


def telling(values: Values) -> tuple[str, ...]:
    """Return the names of those *values* that tell whose an entity is.

    Those are scalars, times and references. For None, servers fill in a value of their own;
    collections and other containers grow by themselves.
    """
    return tuple(sorted(name for name, value in values.items() if _tells(value)))


def _tells(value: object) -> bool:
    if isinstance(value, Mapping):
        return VALUE_TYPE in value or ENTITY_TYPE in value
    return isinstance(value, (str, int, float))


def agrees(values: Values, row: Mapping[str, Any]) -> bool:
    """Tell whether the server's *row* has all of *values* that tell anything."""
    return all(name in row and _same(values[name], row[name]) for name in telling(values))


def _same(sent: Any, told: Any) -> bool:
    if isinstance(sent, Mapping) and ENTITY_TYPE in sent:  # a row may be of a subtype
        key = {name: value for name, value in sent.items() if name != ENTITY_TYPE}
        return isinstance(told, Mapping) and key.items() <= told.items()
    told, sent = _moment(told), _moment(sent)
    if isinstance(told, date):
        if isinstance(sent, str):  # as users of generic entities may write times
            sent = _moment({VALUE_TYPE: "datetime", "value": sent})
        return isinstance(sent, date) and _same_time(sent, told)
    if isinstance(sent, float) or isinstance(told, float):
        numbers = isinstance(sent, (int, float)) and isinstance(told, (int, float))
        return numbers and math.isclose(sent, told, rel_tol=_DIGITS)
    return bool(sent == told)


def _moment(value: Any) -> Any:
    return decode_tagged(value) if isinstance(value, Mapping) and VALUE_TYPE in value else value


def _same_time(one: date, other: date) -> bool:
    if isinstance(one, datetime) and isinstance(other, datetime):
        return abs(in_utc(one) - in_utc(other)) < _FRACTION
    days = [each.date() if isinstance(each, datetime) else each for each in (one, other)]
    return days[0] == days[1]
