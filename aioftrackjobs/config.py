"""Settings from arguments or the environment, which no other module reads."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

from aioftrackjobs.errors import ConfigurationError


class Secret:
    """A text that is not shown if it is printed, logged or dumped by mistake."""

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text

    def __repr__(self) -> str:
        return "<secret>"

    def reveal(self) -> str:
        """Return the text."""
        return self._text


class Credentials(NamedTuple):
    """A server, with the user and the key to use; the key is not shown in a repr.

    Attributes:
        server_url: Without a trailing slash.
        api_user: The user that acts.
        api_key: A personal or global API key.
    """

    server_url: str
    api_user: str
    api_key: Secret


def resolve_credentials(
    server_url: str | None = None,
    api_key: str | None = None,
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
    env = os.environ if environment is None else environment
    url = (server_url or env.get("FTRACK_SERVER", "")).strip().rstrip("/")
    key = (api_key or env.get("FTRACK_API_KEY") or env.get("FTRACK_APIKEY", "")).strip()
    user = (api_user or env.get("FTRACK_API_USER", "")).strip()
    problems = [*_url_problems(url), *_key_problems(key), *_user_problems(user)]
    if problems:
        raise ConfigurationError(problems)
    return Credentials(url, user, Secret(key))


def resolve_journal(
    path: str | os.PathLike[str] | None = None, *, environment: Mapping[str, str] | None = None
) -> Path | None:
    """Return the journal's file: *path*, else ``FTRACK_JOBS_JOURNAL``, else None.

    Raises:
        ConfigurationError: The path begins with the home directory of nobody, or the current
            directory, to which it is relative, was deleted.
    """
    env = os.environ if environment is None else environment
    name = os.fspath(path) if path is not None else env.get("FTRACK_JOBS_JOURNAL", "").strip()
    return _absolute(os.fsdecode(name)) if name else None


def _absolute(name: str) -> Path:
    """Return a path that stays the same when the program changes its current directory."""
    try:
        return Path(name).expanduser().absolute()
    except (OSError, RuntimeError) as exc:
        raise ConfigurationError([f"the journal {name!r} is no usable path: {exc}"]) from exc


def _url_problems(url: str) -> list[str]:
    if not url:
        return ["no server URL (argument server_url or FTRACK_SERVER)"]
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    if not usable or parts.query or parts.fragment:
        return ["the server URL must look like https://studio.ftrackapp.com"]
    if parts.username or parts.password:
        return ["the server URL must not hold a user name or password"]
    return []


def _key_problems(key: str) -> list[str]:
    if not key:
        return ["no API key (argument api_key or FTRACK_API_KEY)"]
    if not key.isascii() or not key.isprintable():
        return ["the API key holds characters that cannot stand in an HTTP header"]
    return []


def _user_problems(user: str) -> list[str]:
    if not user:
        return ["no API user (argument api_user or FTRACK_API_USER)"]
    if not user.isprintable():
        return ["the API user holds characters that cannot stand in an HTTP header"]
    return []
