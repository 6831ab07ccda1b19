"""Arguments, and settings from the environment: checked here, and read by no other module."""

from __future__ import annotations

import math
import os
import socket
from collections.abc import Mapping
from contextlib import suppress
from inspect import iscoroutinefunction
from pathlib import Path
from typing import NamedTuple, cast
from urllib.parse import urlsplit

from aioftrackjobs.config.secret import Secret, reveal
from aioftrackjobs.errors import ArgumentError, ConfigurationError

#: Numbers from here on are too long to show.
_LONG = 10**15

#: Ports that a URL need not name, and addresses of this host.
_DEFAULT_PORTS, _LOOPBACK = {"http": 80, "https": 443}, ("127.0.0.1", "::1")

#: What the settings are called in the text of an error.
_NAMES = {"server_url": "server URL", "api_key": "API key", "api_user": "API user"}


class Credentials(NamedTuple):
    """A server, with the user and the key to use; the key is not shown in a repr.

    Attributes:
        server_url: Without a trailing slash.
        api_user: The user that acts.
        api_key: A personal or global API key.
    """

    server_url: str
    api_user: str
    api_key: Secret[str]


def resolve_credentials(
    server_url: str | None = None,
    api_key: str | Secret[str | None] | None = None,
    api_user: str | None = None,
    *,
    environment: Mapping[str, str] | None = None,
) -> Credentials:
    """Return credentials from the arguments first, then from the environment.

    Args:
        server_url: Overrides ``FTRACK_SERVER``.
        api_key: Overrides ``FTRACK_API_KEY`` and ``FTRACK_APIKEY``.
        api_user: Overrides ``FTRACK_API_USER``.
        environment: Used in place of ``os.environ``.

    Raises:
        ConfigurationError: Values are missing or invalid; the error lists all of them.

    Source:
        docs/protocol.md, section 8.4.
    """
    given = (server_url, api_key, api_user)
    credentials, problems = _resolve(*given, os.environ if environment is None else environment)
    if problems:
        raise ConfigurationError(problems)
    return credentials


def _resolve(
    server_url: object, api_key: object, api_user: object, env: Mapping[str, str]
) -> tuple[Credentials, list[str]]:
    """Return credentials, and what is wrong with them; raise no error, which would show *env*."""
    url, url_problems = _setting("server_url", server_url, env, "FTRACK_SERVER")
    key, key_problems = _setting("api_key", reveal(api_key), env, "FTRACK_API_KEY", "FTRACK_APIKEY")
    user, user_problems = _setting("api_user", api_user, env, "FTRACK_API_USER")
    url = url.rstrip("/")
    problems = [
        *(url_problems or _url_problems(url)),
        *(key_problems or _key_problems(key)),
        *(user_problems or _user_problems(user)),
    ]
    return Credentials(url, user, Secret(key)), problems


def _setting(
    argument: str, value: object, environment: Mapping[str, str], *variables: str
) -> tuple[str, list[str]]:
    """Return a setting without white space around it, and what is wrong with it.

    An argument that is given counts, also if it is empty: what a program passes by mistake must
    not become the server, the user or the key of the environment.
    """
    if value is not None:
        if not isinstance(value, str):
            return "", [f"the argument {argument} is no text, but of type {type(value).__name__}"]
        return value.strip(), [] if value.strip() else [f"the argument {argument} is empty"]
    for name in variables:
        if text := environment.get(name, "").strip():
            return text, []
    return "", [f"no {_NAMES[argument]} (argument {argument} or {variables[0]})"]


def server_identity(url: str) -> str:
    """Return what identifies the server at *url*, however that is spelled.

    The scheme is no part of it: a server that has both redirects from one to the other. All names
    of the loopback interface are one, ``localhost``.
    """
    parts = urlsplit(url)
    port = None if parts.port == _DEFAULT_PORTS.get(parts.scheme) else parts.port
    host = _host_of(parts.hostname or "")
    return f"{host}{'' if port is None else f':{port}'}{parts.path.rstrip('/')}"


def _host_of(name: str) -> str:
    """Return one spelling for all those of a host."""
    name = name.rstrip(".")
    with suppress(UnicodeError):
        name = name.encode("idna").decode()
    with suppress(OSError):  # also the short forms of an address
        name = socket.inet_ntop(socket.AF_INET, socket.inet_aton(name))
    with suppress(OSError):
        name = socket.inet_ntop(socket.AF_INET6, socket.inet_pton(socket.AF_INET6, name))
    return "localhost" if name in _LOOPBACK else name.lower()


def resolve_journal(
    path: str | os.PathLike[str] | None = None, *, environment: Mapping[str, str] | None = None
) -> Path | None:
    """Return the journal's file: *path*, else ``FTRACK_JOBS_JOURNAL``, else None.

    Raises:
        ConfigurationError: The path begins with the home directory of no user, or the current
            directory, to which it is relative, was deleted.
    """
    env = os.environ if environment is None else environment
    require(path is None or isinstance(path, str | os.PathLike), "journal", "a path", path)
    name = os.fspath(path) if path is not None else env.get("FTRACK_JOBS_JOURNAL", "").strip()
    return _absolute(os.fsdecode(name)) if name else None


def _absolute(name: str) -> Path:
    """Return a path that stays the same when the program changes its current directory."""
    try:
        return Path(name).expanduser().absolute()
    except (OSError, RuntimeError) as exc:
        raise ConfigurationError([f"the journal {name!r} is no usable path: {exc}"]) from exc


def _url_problems(url: str) -> list[str]:
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    if not usable or "?" in url or "#" in url or not _is_plain(url) or "\\" in url:
        return ["the server URL must look like https://studio.ftrackapp.com"]
    if "@" in parts.netloc:
        return ["the server URL must not hold a user name or password"]
    return []


def _is_plain(text: str) -> bool:
    """Return whether *text* has no space, line break or other character that is not shown."""
    return text.isprintable() and " " not in text


def _key_problems(key: str) -> list[str]:
    if not key.isascii() or not key.isprintable():
        return ["the API key holds characters that cannot stand in an HTTP header"]
    return []


def _user_problems(user: str) -> list[str]:
    if not user.isprintable():
        return ["the API user holds characters that cannot stand in an HTTP header"]
    return []


# Arguments of public functions. Most are right, and these checks take well under a microsecond.


def require(is_valid: bool, argument: str, expected: str, value: object) -> None:  # noqa: FBT001
    """Raise ArgumentError unless *is_valid*.

    Args:
        is_valid: Whether *argument* may be *value*.
        argument: Name of the argument.
        expected: What it must be.
        value: What it is; of texts and objects, only the type is shown, or what is wrong with any
            text of that kind.
    """
    if not is_valid:
        raise ArgumentError(argument, expected, _show(value))


def _show(value: object) -> str:
    """Return what *value* is, without a call of its methods, which may raise anything."""
    kind = type(value)
    if value is None or kind is bool or kind is float or (kind is int and abs(value) < _LONG):  # type: ignore[arg-type]
        return repr(value)
    if isinstance(value, str):
        return _problem_of_text(value) or f"a value of type {type_name(value)}"
    return f"a value of type {type_name(value)}"


def type_name(value: object) -> str:
    """Return the name of the type of *value*, whatever its metaclass says."""
    name: str = type.__dict__["__name__"].__get__(type(value))
    return name


def _problem_of_text(value: str) -> str | None:
    """Return what is wrong with *value* as a name or an id of any kind; None if nothing is."""
    text = str.__str__(value)
    if not text.strip():
        return "a text of blanks" if text else "empty"
    if "\0" in text:
        return "a text with the character NUL"
    try:
        text.encode()
    except UnicodeEncodeError:
        return "a text with half of a surrogate pair"
    return None


def is_id(value: object) -> bool:
    """Return whether *value* is a text that may be an id or a name: see ``_problem_of_text``."""
    return isinstance(value, str) and _problem_of_text(value) is None


def require_seconds(
    argument: str, value: object, *, above: bool = False, most: float = math.inf
) -> None:
    """Raise ArgumentError unless *value* is a number of seconds.

    Args:
        argument: Name of the argument.
        value: Its value.
        above: Refuse 0.
        most: The highest value.
    """
    is_valid = isinstance(value, int | float) and not isinstance(value, bool)
    if is_valid:
        number = cast("float", value)
        is_valid = (number > 0 if above else number >= 0) and number <= most
    limits = "above 0" if above else "0 or more"
    if most != math.inf:
        limits += f", at most {most:.0f}"
    require(is_valid, argument, f"a number of seconds, {limits}", value)


def require_flag(argument: str, value: object) -> None:
    """Raise ArgumentError unless *value* is True or False: the text "false" would count as true."""
    require(isinstance(value, bool), argument, "True or False", value)


def require_text(argument: str, value: object, *, optional: bool = False) -> None:
    """Raise ArgumentError unless *value* is a text, or None if *optional*."""
    require((optional and value is None) or isinstance(value, str), argument, "a text", value)


def require_name(
    argument: str, value: object, expected: str = "a text", *, optional: bool = False
) -> None:
    """Raise ArgumentError unless *value* is a text that is not empty, or None if *optional*."""
    if value is not None or not optional:
        is_valid = isinstance(value, str) and bool(value.strip())
        require(is_valid, argument, f"{expected} that is not empty", value)


def require_count(argument: str, value: object, *, least: int = 1) -> None:
    """Raise ArgumentError unless *value* is a whole number, and *least* or above."""
    is_valid = isinstance(value, int) and not isinstance(value, bool) and value >= least
    require(is_valid, argument, f"a whole number above {least - 1}", value)


def require_path(argument: str, value: object) -> None:
    """Raise ArgumentError unless *value* is a path."""
    try:  # a name may contain what no file system accepts
        is_path = isinstance(value, str | os.PathLike) and b"\0" not in os.fsencode(value)
    except UnicodeEncodeError:
        is_path = False
    require(is_path and value != "", argument, "a path", value)


def require_values(argument: str, value: object, *, optional: bool = True) -> None:
    """Raise ArgumentError unless *value* is a mapping with texts as keys."""
    if value is None and optional:
        return
    expected = "a mapping of attributes to values"
    require(isinstance(value, Mapping), argument, expected, value)
    for name in value:  # type: ignore[attr-defined]
        if type(name) is not str:
            require(isinstance(name, str), f"each key of {argument}", "a text", name)


def require_callback(argument: str, value: object) -> None:
    """Raise ArgumentError unless *value* is a function that is called and not awaited, or None."""
    is_async = iscoroutinefunction(value) or iscoroutinefunction(getattr(value, "__call__", None))  # noqa: B004
    is_valid = value is None or (callable(value) and not is_async)
    require(is_valid, argument, "a function that is no coroutine function", value)
