"""When a request is repeated: for how long, how often, and after which pauses.

Whether it is safe to repeat a request is decided elsewhere; this module only knows when.
"""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import anyio

from aioftrackjobs.errors import ArgumentError


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """Exponential back-off with jitter, within a budget of time.

    Example: ``AsyncSession(retry=RetryPolicy(budget=300))``

    A pause of a session is cut short, to one second, when the server responds to another request,
    and while the final status of a Job waits to be sent. A server may ask for a longer pause, of a
    minute at most; that is cut short when it carries out another request.

    Attributes:
        budget: Seconds from the first attempt to the beginning of the last; 0 for one attempt.
        first_delay: Seconds before the second attempt; each further pause is twice as long.
        longest_delay: Seconds that a pause takes at most, unless the server asks for more.
        jitter: Share of a pause that is random, so that many clients do not return at the same
            moment: 0.5 makes a pause 50 to 100 % of its length.
        clock: Returns the time in seconds.
        sleep: Waits for a number of seconds.
        chance: Returns a number from 0 to 1.
    """

    budget: float = 60.0
    first_delay: float = 0.1
    longest_delay: float = 5.0
    jitter: float = 0.5
    # Factories, so that help() shows no addresses of functions.
    clock: Callable[[], float] = field(default_factory=lambda: anyio.current_time, repr=False)
    sleep: Callable[[float], Awaitable[None]] = field(
        default_factory=lambda: anyio.sleep, repr=False
    )
    chance: Callable[[], float] = field(default_factory=lambda: random.random, repr=False)

    def __post_init__(self) -> None:
        for name in ("clock", "sleep", "chance"):
            if not callable(getattr(self, name)):
                raise ArgumentError(name, "a function", "another value")
        for name in ("budget", "first_delay", "longest_delay", "jitter"):
            value, is_share = getattr(self, name), name == "jitter"
            is_number = isinstance(value, int | float) and not isinstance(value, bool)
            if not is_number or not value >= 0 or (is_share and value > 1):
                limits = "0 to 1" if is_share else "0 seconds or more"
                expected = f"a number in a retry policy, {limits}"
                given = repr(value) if is_number else f"a value of type {type(value).__name__}"
                raise ArgumentError(name, expected, given)

    def backoff(self, began: float | None = None) -> Backoff:
        """Return the back-off of one piece of work, which begins now, or has *began* earlier."""
        return Backoff(self, self.clock() if began is None else began)


#: One attempt, and no other.
NO_RETRIES = RetryPolicy(budget=0)


#: Seconds that a server can make a pause longer. It may ask for a day, and be well a moment later.
LONGEST_ASKED = 60.0


class Backoff:
    """What is left of a policy's budget for one piece of work."""

    def __init__(self, policy: RetryPolicy, began: float) -> None:
        self._policy = policy
        self._end = began + policy.budget
        self._delay = policy.first_delay
        self._pauses = 0

    @property
    def is_begun(self) -> bool:
        """Whether there was a pause already."""
        return self._pauses > 0

    async def pause(self, retry_after: float | None = None) -> bool:
        """Wait until another attempt is due.

        Args:
            retry_after: Seconds for which the server asked not to be called; a minute counts.

        Returns:
            Whether there is another attempt. If the budget allows none, at once.
        """
        policy = self._policy
        delay = self._delay * (1 - policy.jitter * policy.chance())
        self._delay = min(2 * self._delay, policy.longest_delay)
        pause = max(delay, min(retry_after or 0.0, LONGEST_ASKED))
        if policy.clock() + pause > self._end:
            return False
        self._pauses += 1
        await policy.sleep(pause)
        return True


class Pauses:
    """The pauses between attempts of one session, which share the reasons to end them early.

    If the server responds again, no request should wait for the end of a long pause. If a caller
    can wait for a limited time only, as for the final status of a Job, many attempts should fit
    into that time. A pause that the server asked for is cut short only when it carries out another
    request: then it does not mean it any more.

    Args:
        expedited: Seconds that a pause takes at most when there is a reason to try soon.
    """

    def __init__(self, expedited: float = 1.0) -> None:
        self._expedited = expedited
        # When each ends if there is a reason to try soon, and whether the server has asked for it.
        self._begun: dict[anyio.CancelScope, tuple[float, bool]] = {}
        self._expediting = 0  # blocks that are inside expedite()

    async def wait(
        self, backoff: Backoff, retry_after: float | None = None, *, least: float = 0.0
    ) -> bool:
        """Do as :meth:`Backoff.pause`; a pause that is cut short is followed by an attempt.

        Args:
            backoff: What is left of the attempts.
            retry_after: Seconds for which the server asked not to be called.
            least: Seconds to which it can be cut short, if they are more than usual.
        """
        with anyio.CancelScope() as pause:
            soon = anyio.current_time() + max(self._expedited, least)
            self._begun[pause] = soon, bool(retry_after)
            if self._expediting:
                self.shorten()
            try:
                return await backoff.pause(retry_after)
            finally:
                del self._begun[pause]
        return True

    def shorten(self, *, also_asked: bool = False) -> None:
        """Let no pause that has begun take longer than the expedited time in all.

        Args:
            also_asked: Also those that the server asked for.
        """
        for pause, (soon, is_asked) in self._begun.items():
            if also_asked or not is_asked:
                pause.deadline = min(pause.deadline, soon)

    @contextmanager
    def expedite(self) -> Iterator[None]:
        """Let no pause take longer than the expedited time until the end of the block."""
        self._expediting += 1
        self.shorten()
        try:
            yield
        finally:
            self._expediting -= 1
