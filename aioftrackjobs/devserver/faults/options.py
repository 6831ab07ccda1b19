"""Faults as the text of options, one line each.

::

    NAME[-before|-after][:WHEN ...][:SETTING=VALUE ...]

    drop-after:0.1                   close about each tenth connection without a response
    refuse:3x:kind=ValidationError   refuse the next three batches
    delay:0.2:seconds=0.5:on=writes  let a fifth of the commits take half a second longer
    drop:0.2:1x                      the same share of requests, but one at most
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import fields
from difflib import get_close_matches
from typing import Any, cast

from aioftrackjobs.devserver.errors import ServerStartError
from aioftrackjobs.devserver.faults.kinds import FAULTS, Fault, Named
from aioftrackjobs.devserver.faults.plan import Faults

#: Converts the text of a setting, by the name of its type.
_READ: Mapping[str, Any] = {
    "bool": lambda text: {"true": True, "false": False}[text.lower()],
    "float": float,
    "int": int,
    "str": str,
}


def _names() -> dict[str, tuple[type[Fault], dict[str, bool]]]:
    """Return the names of faults in options, with the settings that each name implies."""
    names: dict[str, tuple[type[Fault], dict[str, bool]]] = {}
    for kind in FAULTS:
        names[kind.name] = kind, {}
        if any(setting.name == "applied" for setting in fields(kind)):
            names[f"{kind.name}-before"] = kind, {"applied": False}
            names[f"{kind.name}-after"] = kind, {"applied": True}
    return names


def plan_faults(faults: Faults, options: Iterable[str]) -> None:
    """Plan the faults of *options*, in their order.

    Raises:
        ServerStartError: If one of them is wrong; it says what is.
    """
    for option in options:
        try:
            _plan(faults, option)
        except ValueError as error:
            raise ServerStartError("faults", option, str(error)) from None


def _plan(faults: Faults, option: str) -> None:
    name, *rest = option.split(":")
    names = _names()
    if name not in names:
        near = get_close_matches(name, names, n=1)
        hint = f"did you mean {near[0]}?" if near else f"there are: {', '.join(names)}"
        raise ValueError(f"there is no fault {name!r}; {hint}")
    kind, settings = names[name]
    when: dict[str, Any] = {}
    while rest and "=" not in rest[0]:
        when |= _when(rest.pop(0))
    given = dict(_setting(kind, text) for text in rest)
    on = cast("Named | None", given.pop("on", None))
    faults.inject(kind(**{**settings, **given}), on=on, **when)


def _when(text: str) -> dict[str, Any]:
    try:
        return {"times": int(text[:-1])} if text.endswith("x") else {"probability": float(text)}
    except ValueError:
        raise ValueError(
            f"{text!r} is neither a probability, such as 0.1, nor a number of times, such as 3x"
        ) from None


def _setting(kind: type[Fault], text: str) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    known = {setting.name: str(setting.type) for setting in fields(kind)} | {"on": "str"}
    if not equals or name not in known:
        raise ValueError(f"{text!r} is not a setting of it; there are: {', '.join(known)}")
    try:
        return name, _READ[known[name]](value)
    except (KeyError, ValueError):
        raise ValueError(f"{name} cannot be {value!r}") from None
