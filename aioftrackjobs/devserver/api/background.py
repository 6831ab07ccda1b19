"""Work that goes on after the response, one piece after the other.

Its thread lives only while there is work: an idle server has none, so no exit waits for one.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable

logger = logging.getLogger(__name__)

#: Is called with an event that is set when the server stops: then the work should end early.
Work = Callable[[threading.Event], None]


class Background:
    """A queue of work, and the thread that does it."""

    def __init__(self) -> None:
        self._waiting = deque[Work]()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self.stopping = threading.Event()

    def start(self, work: Work) -> None:
        """Run *work* in the background, after all that was started before it."""
        with self._lock:
            self._waiting.append(work)
            if self._thread is None:
                name = "aioftrackjobs-devserver-background"
                self._thread = threading.Thread(target=self._run, name=name)
                self._thread.start()

    def close(self) -> None:
        """Cancel all work and wait for its end; each piece is still called."""
        self.stopping.set()
        with self._lock:
            thread = self._thread
        if thread is not None:
            thread.join()

    def cancel_all(self) -> None:
        """Cancel all work so far and wait for its end; new work may start then."""
        self.close()
        self.stopping.clear()

    def _run(self) -> None:
        while True:
            with self._lock:
                if not self._waiting:
                    self._thread = None
                    return
                work = self._waiting.popleft()
            try:
                work(self.stopping)
            except Exception:
                logger.exception("work in the background failed")
