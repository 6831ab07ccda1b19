"""The times that a session waits by itself, in one object, so that tests can shorten them."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Timings:
    """Times that are no part of the public API: users need not, and should not, tune them.

    Attributes:
        closing_grace: Seconds that closing waits for Jobs and requests in progress. What takes
            longer is cut off.
        closing_turns: Turns of the event loop in which a task that was just cancelled comes to
            report its end, before closing looks for Jobs that are still running.
        max_hold: Seconds for which a commit request that is in progress holds back the commits
            that are queued meanwhile, so that they share the next request. A request that takes
            longer holds back no more.
        batching_turns: Turns of the event loop for which a request waits before it takes what is
            queued: the tasks that one response has woken commit again within them. If nothing
            else happens, that takes microseconds.
    """

    closing_grace: float = 10.0
    closing_turns: int = 5
    max_hold: float = 0.25
    batching_turns: int = 3


#: The times that every session uses outside of tests.
DEFAULT_TIMINGS = Timings()
