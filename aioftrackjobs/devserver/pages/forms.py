"""The forms of actions: their fields, as replies have them, and what a user enters."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from datetime import date
from typing import Any, TypeAlias

Item: TypeAlias = dict[str, Any]

#: Kinds of fields that have no value to enter.
_SHOWN_ONLY = frozenset({"label"})


def form_in(reply: object) -> dict[str, Any] | None:
    """Return the form in the reply of an action; None if it has none."""
    items = reply.get("items") if isinstance(reply, Mapping) else reply
    if not isinstance(items, list) or not items:
        return None
    fields = [_field(each) for each in items if isinstance(each, dict)]
    title = reply.get("title") if isinstance(reply, Mapping) else None
    return {"title": str(title or "Options"), "items": fields} if fields else None


def _field(item: Item) -> Item:
    """Return an item with all that a page shows of it, and under the same names."""
    name, kind = item.get("name"), item.get("type")
    options = item.get("data")
    return {
        "name": name if isinstance(name, str) else "",
        "type": kind if isinstance(kind, str) else "text",
        "label": _text(item.get("label") or name),
        "value": item.get("value"),
        "data": [_option(each) for each in options] if isinstance(options, list) else [],
        "multi_select": item.get("multi_select") is True,
        "empty_text": _text(item.get("empty_text")),
    }


def _option(option: object) -> dict[str, Any]:
    if isinstance(option, dict):
        value = option.get("value")
        return {"label": _text(option.get("label", value)), "value": value}
    return {"label": _text(option), "value": option}


def entered(
    form: Mapping[str, Any], read: Callable[[str], Sequence[str]]
) -> tuple[dict[str, Any], dict[str, Any], list[str]]:
    """Return what a user has entered into a form.

    Args:
        form: The form, as :func:`form_in` returns it.
        read: Returns the texts that the browser sends for the field of a number.

    Returns:
        The values by name, the form filled with what was entered, and what is wrong with it.
    """
    values, items, errors = dict[str, Any](), list[Item](), list[str]()
    for number, item in enumerate(form["items"]):
        if item["type"] in _SHOWN_ONLY or not item["name"]:
            items.append(item)
            continue
        texts = read(f"field-{number}")
        try:
            value = _value_of(item, texts)
        except ValueError as error:
            value = texts[-1] if texts else None
            errors.append(f"{item['label'] or item['name']}: {error}.")
        values[item["name"]] = value
        items.append({**item, "value": value})
    return values, {**form, "items": items}, errors


def _value_of(item: Item, texts: Sequence[str]) -> Any:
    """Return the value of a field, of the type that ftrack's web interface sends.

    Raises:
        ValueError: If it is no value of this kind of field.
    """
    text = texts[-1] if texts else ""
    match item["type"]:
        case "boolean":
            return bool(texts)
        case "number":
            return _number(text)
        case "date":
            return _date(text)
        case "enumerator":
            chosen = [_chosen(item, each) for each in texts if each]
            return chosen if item["multi_select"] else chosen[-1] if chosen else None
        case _:
            return text.replace("\r\n", "\n")


def _number(text: str) -> float | None:
    if not text.strip():
        return None
    try:
        number = float(text.strip().replace(",", "."))
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise ValueError(f"'{text}' is no number")
    return int(number) if number.is_integer() else number


def _date(text: str) -> str | None:
    if not text.strip():
        return None
    try:
        return date.fromisoformat(text.strip()).isoformat()
    except ValueError:
        raise ValueError(f"'{text}' is no date, such as 2026-11-30") from None


def _chosen(item: Item, text: str) -> Any:
    options = item["data"]
    if not text.isdecimal() or int(text[:9]) >= len(options):
        raise ValueError("this is none of the options")
    return options[int(text[:9])]["value"]


def _text(value: object) -> str:
    return value if isinstance(value, str) else "" if value is None else str(value)
