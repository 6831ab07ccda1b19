"""``aioftrackjobs discover`` and ``launch``: actions on an embedded server, without a browser."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import httpx
import typer

from aioftrackjobs.cli.arguments import ServerOptions

#: Seconds for the reply of an action: longer than the server itself waits.
_TIMEOUT = 30.0


def ask(server: ServerOptions, path: str, **body: Any) -> Any:
    """Return the response of an embedded server to a request about actions.

    Raises:
        typer.BadParameter: If the server is not named, not there, or does not know such requests.
        typer.Exit: If it refuses.
    """
    url = server.server_url or os.environ.get("FTRACK_SERVER")
    user = server.api_user or os.environ.get("FTRACK_API_USER")
    key = server.api_key or os.environ.get("FTRACK_API_KEY")
    if not (url and user and key):
        raise typer.BadParameter("name --server, --api-user and --api-key, or set the variables")
    headers = {"ftrack-user": user, "ftrack-api-key": key}
    try:
        response = httpx.post(f"{url}/actions/{path}", json=body, headers=headers, timeout=_TIMEOUT)
        answer = response.json()
    except httpx.HTTPError as error:
        raise typer.BadParameter(f"{url} does not respond: {error}") from None
    except ValueError:
        raise typer.BadParameter(f"{url} is no embedded server of aioftrackjobs") from None
    if response.status_code != httpx.codes.OK:
        typer.echo(answer["content"], err=True)
        raise typer.Exit(1)
    return answer


def selection_of(texts: Sequence[str]) -> list[list[str]]:
    """Return the entities of arguments such as ``Task:9c1f...``.

    Raises:
        typer.BadParameter: If one of them is none.
    """
    pairs = [text.split(":", 1) for text in texts]
    for pair in pairs:
        if len(pair) != 2 or not all(pair):
            raise typer.BadParameter(f"{':'.join(pair)!r} is not TYPE:ID, such as Task:9c1f")
    return pairs


def values_of(texts: Sequence[str]) -> dict[str, str] | None:
    """Return the values of options such as ``frames=1001-1010``; None if there are none.

    Raises:
        typer.BadParameter: If one of them is none.
    """
    for text in texts:
        if "=" not in text:
            raise typer.BadParameter(f"{text!r} is not NAME=VALUE", param_hint="--value")
    return dict(text.split("=", 1) for text in texts) or None
