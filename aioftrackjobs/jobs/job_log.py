"""JobLog: what the code of one block logs, as ``job_context(attach_log=True)`` attaches it.

A context variable says to which Job a record belongs. Tasks and ``asyncio.to_thread`` inherit it,
so that records of all code that the block runs are found, whatever logger they come from. One
handler at the root logger serves all blocks of the process; it is there only while there are any.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable
from contextvars import ContextVar
from threading import Lock

#: Characters of the records that are kept at the beginning of a log, and at its end.
_FIRST, _LAST = 64 * 1024, 192 * 1024

#: Characters of one record.
_LONGEST = 16 * 1024

_FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"

_current: ContextVar[JobLog | None] = ContextVar("aioftrackjobs_job_log", default=None)


class JobLog:
    """Keeps the beginning and the end of what is logged from :meth:`start` to :meth:`stop`.

    A block inside of another one logs for both.
    """

    def __init__(self) -> None:
        self._outer: JobLog | None = None
        self._lock = Lock()
        # The lock protects the following: records come from any thread.
        self._first: list[str] = []
        self._first_size = 0
        self._last = deque[str]()
        self._last_size = 0
        self._dropped = 0
        self._is_on = False

    def start(self) -> None:
        """Keep what is logged in the present context, and in contexts that are copied from it."""
        self._outer, self._is_on = _current.get(), True
        _current.set(self)
        _handler.enter()

    def stop(self) -> None:
        """Keep nothing more."""
        if self._is_on:
            self._is_on = False
            if _current.get() is self:  # not in another context, where a generator is closed
                _current.set(self._outer)
            _handler.leave()

    def add(self, text: str) -> None:
        """Keep one record, here and in the logs of the blocks around."""
        if len(text) > _LONGEST:
            text = f"{text[:_LONGEST]}…"
        log: JobLog | None = self
        while log is not None:
            if log._is_on:
                log._keep(text)
            log = log._outer

    def _keep(self, text: str) -> None:
        with self._lock:
            if not self._last and self._first_size + len(text) <= _FIRST:
                self._first.append(text)
                self._first_size += len(text)
                return
            self._last.append(text)
            self._last_size += len(text)
            while self._last_size > _LAST:
                self._last_size -= len(self._last.popleft())
                self._dropped += 1

    def text(self, redact: Callable[[str], str]) -> str:
        """Return what is kept, one record after the other; empty if nothing was logged.

        Args:
            redact: Removes secrets.
        """
        with self._lock:
            left_out = [f"[{self._dropped} records are left out]"] if self._dropped else []
            lines = [*self._first, *left_out, *self._last]
        return redact("\n".join(lines))


class _Handler(logging.Handler):
    """Gives each record to the log of the Job whose code it comes from."""

    def __init__(self) -> None:
        super().__init__()
        self.setFormatter(logging.Formatter(_FORMAT))
        self._entered = 0

    def enter(self) -> None:
        """Add it to the root logger for one more block."""
        with _installing:
            self._entered += 1
            if self._entered == 1:
                logging.getLogger().addHandler(self)

    def leave(self) -> None:
        """Remove it after the last block."""
        with _installing:
            self._entered -= 1
            if not self._entered:
                logging.getLogger().removeHandler(self)

    def emit(self, record: logging.LogRecord) -> None:
        """Keep *record* if its code runs in a block whose log is kept."""
        log = _current.get()
        if log is not None:
            try:
                log.add(self.format(record))
            except Exception:  # noqa: BLE001 - an argument of the program's may raise anything
                self.handleError(record)
        # A program without any handler sees warnings on its standard error; this one is none.
        last = logging.lastResort
        if last is not None and record.levelno >= last.level and self._is_alone(record):
            last.handle(record)

    def _is_alone(self, record: logging.LogRecord) -> bool:
        """Return whether no other handler gets *record*."""
        logger: logging.Logger | None = logging.getLogger(record.name)
        while logger is not None:
            if any(each is not self for each in logger.handlers):
                return False
            logger = logger.parent if logger.propagate else None
        return True


_installing = Lock()
_handler = _Handler()
