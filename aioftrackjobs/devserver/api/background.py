"""Work that goes on after the answer, one piece after the other.

Its thread lives only while there is work: an idle server has none, so nothing waits for one.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable

logger = logging.getLogger(__name__)

#: Gets an event that says whether the server is stopping: then the work is to be given up.
Work = Callable[[threading.Event], None]


class Background:
    """A queue of work, and the thread that does it."""

    def __init__(self) -> None:
        self._waiting = deque[Work]()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self.stopping = threading.Event()

    def start(self, work: Work) -> None:
        """Have *work* done as soon as what was started before it is."""
        with self._lock:
            self._waiting.append(work)
            if self._thread is None:
                name = "aioftrackjobs-devserver-background"
                self._thread = threading.Thread(target=self._run, name=name)
                self._thread.start()

    def close(self) -> None:
        """Have all work given up, and wait for that; each piece still gets its turn."""
        self.stopping.set()
        with self._lock:
            thread = self._thread
        if thread is not None:
            thread.join()

    def give_up(self) -> None:
        """Have all work given up that there is so far, and wait for that."""
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
