"""The pictures of the terminal in the documentation: `nox -s pictures` takes them anew."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import httpx
from anyio.to_thread import run_sync

from aioftrackjobs.devserver import ServerHandle
from tests.devserver.caller import Caller
from tests.sample_jobs import add_sample_jobs

from .screens import draw, screen

_WIDTH = 100


async def test_pictures_of_jobs_are_taken(
    server: ServerHandle, command: Callable[..., Any], ftrack: dict[str, str], pictures: Path
) -> None:
    async with httpx.AsyncClient(base_url=server.url, timeout=30) as http:
        await add_sample_jobs(server, Caller(http, server.api_user, server.api_key))
    (failed,) = server.inspector.find('select id from Job where data like "%sh030%"')
    env = {**ftrack, "COLUMNS": str(_WIDTH), "FORCE_COLOR": "1", "TERM": "xterm-256color"}

    for words in (("jobs", "-n", "12"), ("show", failed["id"][:8])):
        ended = await run_sync(partial(command, *words, env=env))
        assert ended.code == 0
        picture = draw(" ".join(["aioftrackjobs", *words]), screen(ended.out.rstrip()), _WIDTH)
        (pictures / f"terminal-{words[0]}.svg").write_text(picture, "utf-8")

        assert "sh030" in picture
        assert "url(" not in picture.replace("url(#", ""), "nothing is fetched from elsewhere"
