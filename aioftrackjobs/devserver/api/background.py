"""Work that goes on after the response, one piece after the other."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

logger: logging.Logger = logging.getLogger(__name__)

_NAME = "aioftrackjobs-devserver-background"

#: Is called with an event that is set when the server stops: then the work should end early.
Work = Callable[[threading.Event], None]


class Background:
    """A queue of work, and the thread that does it; there is none before there is work."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(1, _NAME)
        self.stopping: threading.Event = threading.Event()

    def start(self, work: Work) -> None:
        """Run *work* in the background, after all that was started before it."""
        self._pool.submit(self._run, work)

    def close(self) -> None:
        """Cancel all work and wait for its end; each piece is still called."""
        self.stopping.set()
        pool, self._pool = self._pool, ThreadPoolExecutor(1, _NAME)
        pool.shutdown()

    def cancel_all(self) -> None:
        """Cancel all work so far and wait for its end; new work may start then."""
        self.close()
        self.stopping.clear()

    def _run(self, work: Work) -> None:
        try:
            work(self.stopping)
        except Exception:
            logger.exception("work in the background failed")
