"""Errors in the text of a query, explained for its author."""

from __future__ import annotations

import re
from collections.abc import Mapping
from difflib import get_close_matches
from importlib.resources import files
from typing import Any

from lark.exceptions import UnexpectedCharacters, UnexpectedInput, UnexpectedToken
from pydantic_core import from_json

from aioftrackjobs.devserver.api_errors import ParseError

_DATA = from_json(files(__package__).joinpath("errors.json").read_bytes())
#: What can be written, for terminals whose name does not show it.
_READABLE: Mapping[str, str] = _DATA["readable"]
#: Syntax of other query languages and common slips, with what to write instead.
_SLIPS = tuple((re.compile(text, re.IGNORECASE), remedy) for text, remedy in _DATA["slips"])
_NESTING = re.compile(r"""[()]|"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*'""", re.DOTALL)
_LONGEST_SHOWN = 2000
_LONGEST_TOKEN = 80


def explain(text: str, error: UnexpectedInput) -> ParseError:
    """Return the error for *text*: where it stops being a query, and what was expected there."""
    place: Any = error.pos_in_stream  # declared as None
    match error:
        case UnexpectedCharacters(char="'" | '"' as quote):
            return parse_error(text, place, "Unclosed quote", f"another {quote} after it.")
        case UnexpectedToken(token=token) if token.type == "$END":
            place, found = len(text), "end of the query"
        case UnexpectedToken(token=token):
            found = f"'{shown(token)}'"
        case _:
            found = f"'{text[place]}'"
    # The lexer alone accepts more: it does not know whether a parenthesis is open.
    accepted = error.interactive_parser.accepts()  # type: ignore[no-untyped-call]
    names = {_READABLE.get(name, f"'{name.lstrip('_').lower()}'") for name in accepted}
    wanted = ", ".join(sorted(names))
    return parse_error(
        text, place, f"Unexpected {found}", wanted + _hint(text, place, found, wanted)
    )


def too_deep(text: str) -> ParseError:
    """Return the error for criteria that are nested too deeply, at the deepest place."""
    depth, deepest, place = 0, 0, 0
    for token in _NESTING.finditer(text):
        depth += {"(": 1, ")": -1}.get(token[0], 0)
        if depth > deepest:
            deepest, place = depth, token.start()
    return parse_error(text, place, "The criteria are nested too deeply", "fewer levels.")


def parse_error(text: str, place: int, problem: str, wanted: str) -> ParseError:
    """Return the error for *text* with a *problem* at a *place* in it."""
    line, column = text.count("\n", 0, place) + 1, place - text.rfind("\n", 0, place)
    content = (
        f"Failed to parse: {shown(text, _LONGEST_SHOWN)}\n"
        f"{problem} at line {line}, column {column}: expected {wanted}"
    )
    return ParseError(content, line, column)


def shown(text: str, size: int = _LONGEST_TOKEN) -> str:
    """Return as much of *text* as an error message shows."""
    return text if len(text) <= size else f"{text[:size]}..."


def _hint(text: str, place: int, found: str, wanted: str) -> str:
    """Return the most likely correction, as the rest of a sentence."""
    for pattern, remedy in _SLIPS:
        # Clients send long lists: the text near the error is enough.
        near = pattern.finditer(text, max(0, place - 40), place + 40)
        if any(match.start() <= place <= match.end() for match in near):
            return f"; {remedy}"
    words = re.findall(r"'([a-z_]+)'", wanted)
    meant = get_close_matches(found.strip("'").lower(), words, n=1)
    if not meant and len(text[:place].split()) == 1:
        meant = get_close_matches(text.split()[0].lower(), ["select"])
    return f"; did you mean '{meant[0]}'?" if meant else "."
