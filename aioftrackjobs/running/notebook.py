"""A running Job as a bar that moves, below the cell of a notebook."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import anyio

from aioftrackjobs.jobs.context import JobsContext

#: Seconds between two looks at the Job: as often as people see a difference.
_INTERVAL = 0.5


def show_live(jobs: JobsContext, html: Callable[[], str], is_running: Callable[[], bool]) -> None:
    """Show what *html* returns below the current cell, and show it again until the Job has ended.

    It needs IPython, which is there if anything asks for this.

    Args:
        jobs: The Jobs of the session, in whose background the display is kept up to date.
        html: Returns the bar as it is now.
        is_running: Whether the Job has not ended yet.
    """
    from IPython.display import HTML, display  # type: ignore[import-not-found, unused-ignore]

    first = html()
    handle: Any = display(HTML(first), display_id=True)
    if handle is None:  # no front end can show it
        return

    async def follow() -> None:
        shown = first
        with jobs.entities.connection.background.optional():
            while is_running():
                await anyio.sleep(_INTERVAL)
                if (current := html()) != shown:
                    shown = current
                    handle.update(HTML(shown))
        handle.update(HTML(html()))

    jobs.entities.connection.background.spawn(follow)
