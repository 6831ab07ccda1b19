"""``aioftrackjobs discover`` and ``launch``: actions on an embedded server, without a browser."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import httpx
import typer

from aioftrackjobs.cli.arguments import RefusedError
from aioftrackjobs.config.settings import resolve_credentials

#: Seconds for the reply of an action: longer than the server itself waits.
_TIMEOUT = 30.0


def ask(path: str, **body: Any) -> Any:
    """Return the response of an embedded server to a request about actions.

    Raises:
        ConfigurationError: The server is not named.
        RefusedError: It is not there, does not know such requests, or refuses.
    """
    credentials = resolve_credentials()
    url = credentials.server_url
    headers = {"ftrack-user": credentials.api_user, "ftrack-api-key": credentials.api_key.reveal()}
    try:
        response = httpx.post(f"{url}/actions/{path}", json=body, headers=headers, timeout=_TIMEOUT)
        answer = response.json()
    except httpx.HTTPError as error:
        raise RefusedError(f"{url} does not respond: {error}") from None
    except ValueError:
        answer = None
    match response.status_code, answer:
        case httpx.codes.OK, dict():
            return answer
        case _, {"content": str(reason)}:
            raise RefusedError(reason)
    raise RefusedError(f"{url} is no embedded server of aioftrackjobs")


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
