"""Trying again: for how long, how often, and after which pauses (design.md, idea 4).

Who tries again knows that it is safe; this module only knows when.
"""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import anyio


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """Exponential back-off with jitter, within a budget of time.

    A pause of a session is cut short, to a second, when the server answers something else, and
    while a Job's last word waits for it.

    Attributes:
        budget: Seconds from the first attempt to the beginning of the last; 0 for one attempt.
        first_delay: Seconds before the second attempt; each further pause is twice as long.
        longest_delay: Seconds that a pause takes at most, unless the server asks for more.
        jitter: Share of a pause that is left to chance, so that many clients do not return at
            the same moment: 0.5 makes it 50 to 100 % of its length.
        clock: Tells the time in seconds.
        sleep: Waits for a number of seconds.
        chance: Returns a number from 0 to 1.
    """

    budget: float = 60.0
    first_delay: float = 0.1
    longest_delay: float = 5.0
    jitter: float = 0.5
    clock: Callable[[], float] = anyio.current_time
    sleep: Callable[[float], Awaitable[None]] = anyio.sleep
    chance: Callable[[], float] = random.random

    def __post_init__(self) -> None:
        if min(self.budget, self.first_delay, self.longest_delay) < 0 or not 0 <= self.jitter <= 1:
            raise ValueError("a retry policy has no negative times, and a jitter from 0 to 1")

    def patience(self) -> Backoff:
        """Return what keeps the count for one piece of work, which begins now."""
        return Backoff(self)


#: Seconds that a pause lasts when there is a reason to try soon.
_HURRIED = 1.0

#: One attempt, and no other.
NO_RETRIES = RetryPolicy(budget=0)


class Backoff:
    """What is left of a policy's budget for one piece of work."""

    def __init__(self, policy: RetryPolicy) -> None:
        self._policy = policy
        self._end = policy.clock() + policy.budget
        self._delay = policy.first_delay
        self._pauses = 0

    @property
    def is_begun(self) -> bool:
        """Whether there was a pause already."""
        return self._pauses > 0

    async def pause(self, asked: float | None = None) -> bool:
        """Wait until another attempt is due.

        Args:
            asked: Seconds that the server asked to be left alone for, which is never cut short.

        Returns:
            Whether there is another attempt. If the budget allows none, at once.
        """
        policy = self._policy
        delay = self._delay * (1 - policy.jitter * policy.chance())
        self._delay = min(2 * self._delay, policy.longest_delay)
        pause = max(delay, asked or 0.0)
        if policy.clock() + pause > self._end:
            return False
        self._pauses += 1
        await policy.sleep(pause)
        return True


class Pauses:
    """The pauses of a session, which are cut short when there is a reason to try soon.

    Who has waited long for a server that is back need not wait for the end of a long pause; and
    where somebody waits for a limited time only, many attempts are to fit into it. A pause that
    the server asked for is never cut short.
    """

    def __init__(self) -> None:
        self._begun: dict[anyio.CancelScope, float] = {}
        self._hurries = 0

    async def take(self, patience: Backoff, asked: float | None = None) -> bool:
        """Do as :meth:`Backoff.pause`, unless the pause is cut short: then try again."""
        if asked:
            return await patience.pause(asked)
        with anyio.CancelScope() as pause:
            self._begun[pause] = anyio.current_time()
            if self._hurries:
                self.shorten()
            try:
                return await patience.pause()
            finally:
                del self._begun[pause]
        return True

    def shorten(self) -> None:
        """Let no pause that has begun last any longer than the shortest that is long."""
        for pause, begun in self._begun.items():
            pause.deadline = min(pause.deadline, begun + _HURRIED)

    @contextmanager
    def expedite(self) -> Iterator[None]:
        """Let no pause be long until the end of the block."""
        self._hurries += 1
        self.shorten()
        try:
            yield
        finally:
            self._hurries -= 1
