"""shutdown_on_signals for plain threads: SIGTERM or Ctrl-C ends all Jobs, and the program."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager

from aioftrackjobs.blocking._loop import current_loop
from aioftrackjobs.blocking._proxies import target_of
from aioftrackjobs.blocking._session import Session
from aioftrackjobs.config.settings import require, require_seconds
from aioftrackjobs.running.signals import EXIT_BY_SIGNAL, Watchdog, signals_to_handle
from aioftrackjobs.session import jobs_of


def shutdown_on_signals(session: Session, *, grace: float = 10.0) -> AbstractContextManager[None]:
    """End the block, and all running Jobs of *session*, when SIGTERM or SIGINT arrives.

    The main thread gets a ``SystemExit`` where it is, as it gets ``KeyboardInterrupt`` by Ctrl-C;
    other threads get a ``CancelledError`` in the call that they wait in, or in the next one. Each
    Job fails with the signal as its reason, and the process exits with 128 plus the number of the
    signal. After *grace* seconds, or at a second signal, the process exits at once. Jobs that have
    not ended by then are left to the journal, or to :func:`recover`.

    Enter it in the main thread. On Windows it does nothing. A signal that is ignored when the block
    is entered stays ignored.

    Example:
        A daemon that ends its Jobs when it is stopped::

            with Session() as session, shutdown_on_signals(session):
                serve(session)

    Args:
        session: A session of blocking code.
        grace: Seconds from the signal to the end of the process, at most.

    Raises:
        ArgumentError: An argument has a wrong type or value.
        SystemExit: After a signal.
    """
    require(isinstance(session, Session), "session", "a blocking Session", session)
    require_seconds("grace", grace)
    return _block(session, grace)


@contextmanager
def _block(session: Session, grace: float) -> Iterator[None]:
    active, thread = jobs_of(target_of(session)).active, current_loop()
    caller = thread.callers.of_this_thread()

    def note(number: signal.Signals) -> None:
        active.shutdown_reason = f"stopped by {number.name}"
        raise SystemExit(EXIT_BY_SIGNAL + number)

    def cancel_others() -> None:
        active.shutdown_deadline = asyncio.get_running_loop().time() + grace
        active.cancel_all(keep={id(caller.task)})  # which the SystemExit ends

    def notify() -> None:
        if not thread.is_over:
            thread.loop.call_soon_threadsafe(cancel_others)

    if not (numbers := signals_to_handle()):
        yield
        return
    with Watchdog(numbers, grace, note, notify) as watchdog:
        yield
    if watchdog.signal is not None:  # and the block has kept the error to itself
        raise SystemExit(EXIT_BY_SIGNAL + watchdog.signal)
