"""Entities, rows of a query and Jobs in a notebook: small tables, and a progress bar.

The texts are those of other people, so that all of them are escaped. No attribute is fetched.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from html import escape
from typing import Any

from aioftrackjobs.protocol.values import Referable

#: Rows and columns of a table, and characters of a value, that are shown.
_MOST_ROWS, _MOST_COLUMNS, _LONGEST = 50, 12, 200

#: Colours of the bar of a Job, by its status.
_COLOURS = {"done": "#2e9f5b", "failed": "#d2443c"}


def entity_html(entity: Any) -> str:
    """Return a table with the loaded attributes of *entity*, and their values."""
    rows = "".join(
        f"<tr><th style='text-align:left'>{escape(name)}</th><td>{_cell(entity, name)}</td></tr>"
        for name in entity
    )
    return f"<table><caption>{escape(entity.entity_type)}</caption>{rows}</table>"


def rows_html(entities: Sequence[Any]) -> str:
    """Return a table with a row for each of the *entities*, and a column for each attribute."""
    shown = entities[:_MOST_ROWS]
    names = list(dict.fromkeys(name for each in shown for name in each))[:_MOST_COLUMNS]
    head = "".join(f"<th>{escape(name)}</th>" for name in names)
    body = "".join(
        f"<tr>{''.join(f'<td>{_cell(each, name)}</td>' for name in names)}</tr>" for each in shown
    )
    more = len(entities) - len(shown)
    note = f"<p>and {more} more</p>" if more else ""
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>{note}"


def bar_html(status: str, text: str | None, fraction: float | None) -> str:
    """Return the progress bar of a Job, with its status and its text.

    Args:
        status: The status.
        text: What the jobs menu shows.
        fraction: How far it is, from 0 to 1; None if that is not known.
    """
    share = 1.0 if status == "done" else (fraction or 0.0)
    colour = _COLOURS.get(status, "#3b7dd8")
    bar = (
        "<div style='width:20em;height:.7em;background:#8884;border-radius:.35em;overflow:hidden'>"
        f"<div style='width:{100 * share:.0f}%;height:100%;background:{colour}'></div></div>"
    )
    label = escape(text or "")[:_LONGEST]
    return f"<div>{bar}<small><b>{escape(status)}</b> {label}</small></div>"


def _cell(entity: Any, name: str) -> str:
    text = _text_of(entity._current(name))
    owner = entity._owner
    text = text if not owner else owner.redact(text)
    return escape(text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…")


def _text_of(value: Any) -> str:
    match value:
        case None:
            return ""
        case datetime():
            return value.isoformat(sep=" ", timespec="seconds")
        case Referable():
            return repr(value)
        case Mapping() | str():
            return str(value)
        case Iterable():
            members = list(value)
            is_related = bool(members) and isinstance(members[0], Referable)
            return f"{len(members)} entities" if is_related else str(members)
        case _:
            return str(value)
