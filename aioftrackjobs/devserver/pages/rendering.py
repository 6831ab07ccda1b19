"""Pages from templates. Each value is escaped: nothing that a Job holds becomes HTML."""

from __future__ import annotations

import hashlib
import json
from datetime import UTC, datetime
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from starlette.responses import HTMLResponse, Response

from aioftrackjobs.errors import MissingExtraError

if TYPE_CHECKING:
    from jinja2 import Environment
    from markupsafe import Markup

_UNITS = ((86400.0, "d"), (3600.0, "h"), (60.0, "min"), (1.0, "s"))
_SIZES = ("B", "KB", "MB", "GB", "TB")
_MEDIA_TYPES = {"css": "text/css", "js": "text/javascript", "svg": "image/svg+xml"}


@cache
def _environment() -> Environment:
    try:
        from jinja2 import Environment, PackageLoader, StrictUndefined
    except ImportError as error:
        raise MissingExtraError("server", "jinja2") from error

    environment = Environment(
        loader=PackageLoader("aioftrackjobs.devserver.pages"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"ago": ago, "size": size, "moment": moment, "pretty": pretty}
    environment.globals |= {"now": lambda: datetime.now(UTC), "static": static_path}
    return environment


def html(template: str, macro: str, **values: Any) -> Markup:
    """Return a part of a page: the macro of a template, with *values* as its arguments."""
    found: Markup = getattr(_environment().get_template(template).module, macro)(**values)
    return found


def html_response(template: str, status: int, **values: Any) -> Response:
    """Return the response with a page."""
    return HTMLResponse(_environment().get_template(template).render(values), status)


def ago(time: datetime | None, now: datetime | None = None) -> str:
    """Return the length of the time since *time*, or until then: ``12 s``, ``3 min``."""
    if time is None:
        return ""
    seconds = abs(((now or datetime.now(UTC)) - time).total_seconds())
    length, unit = next((each for each in _UNITS if seconds >= each[0]), _UNITS[-1])
    return f"{int(seconds / length)} {unit}"


def moment(time: datetime | None) -> str:
    """Return a time in words of the server, for people: ``2026-11-30 21:05:00 UTC``."""
    return "" if time is None else f"{time.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"


def size(count: int | None) -> str:
    """Return a number of bytes for people: ``1.2 MB``."""
    number, unit = float(count or 0), 0
    while number >= 1000 and unit < len(_SIZES) - 1:
        number, unit = number / 1000, unit + 1
    return (
        f"{number:.0f} {_SIZES[unit]}"
        if unit == 0 or number >= 10
        else (f"{number:.1f} {_SIZES[unit]}")
    )


def pretty(value: Any) -> str:
    """Return a JSON value in lines."""
    return json.dumps(value, indent=2, ensure_ascii=False, default=str)


@cache
def _static(name: str) -> tuple[bytes, str, str] | None:
    """Return a file of the pages, its type, and a tag of its content."""
    kind = _MEDIA_TYPES.get(name.rpartition(".")[2])
    path = files(__package__).joinpath("static", name)
    if kind is None or not name.replace(".", "").isalnum() or not path.is_file():
        return None
    content = path.read_bytes()
    return content, kind, hashlib.sha256(content).hexdigest()[:16]


def static_path(name: str) -> str:
    """Return the address of a file; it changes with the content, so that browsers may keep it."""
    found = _static(name)
    return f"/pages/static/{name}?{found[2] if found else ''}"


def static_response(name: str) -> Response | None:
    """Return the response with a file of the pages; None if there is none of that name."""
    found = _static(name)
    if found is None:
        return None
    headers = {"Cache-Control": "max-age=31536000, immutable"}
    return Response(found[0], media_type=found[1], headers=headers)
