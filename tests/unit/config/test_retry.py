"""When something is tried again."""

import math
from collections.abc import Callable

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aioftrackjobs.config.retry import NO_RETRIES, Backoff, Pauses, RetryPolicy


class Time:
    """A clock that only sleeping moves."""

    def __init__(self) -> None:
        self.now = 100.0
        self.pauses: list[float] = []

    def __call__(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.pauses.append(seconds)
        self.now += seconds


def policy(time: Time, *, chance: float = 0.0, **settings: float) -> RetryPolicy:
    return RetryPolicy(clock=time, sleep=time.sleep, chance=lambda: chance, **settings)


async def test_pauses_double_up_to_the_longest() -> None:
    time = Time()
    backoff = policy(time, budget=100, first_delay=1, longest_delay=5).backoff()
    for _ in range(5):
        assert await backoff.pause()
    assert time.pauses == [1, 2, 4, 5, 5]


async def test_the_budget_ends_it_without_a_last_wait() -> None:
    time = Time()
    backoff = policy(time, budget=4, first_delay=1).backoff()
    assert [await backoff.pause() for _ in range(3)] == [True, True, False]
    assert time.pauses == [1, 2]


async def test_what_the_server_asks_for_is_never_cut_short() -> None:
    time = Time()
    backoff = policy(time, budget=60, first_delay=1, longest_delay=2).backoff()
    assert await backoff.pause(30)
    assert time.pauses == [30]
    assert not await backoff.pause(31)
    assert time.pauses == [30]


async def test_no_retries_means_one_attempt() -> None:
    assert not await NO_RETRIES.backoff().pause()


@given(st.floats(0, 1), st.floats(0, 1))
def test_jitter_takes_its_share_of_a_pause(jitter: float, chance: float) -> None:
    time = Time()
    backoff = policy(time, chance=chance, budget=100, first_delay=10, jitter=jitter).backoff()
    waiting = backoff.pause()
    with pytest.raises(StopIteration):
        waiting.send(None)
    assert 10 * (1 - jitter) - 1e-9 <= time.pauses[0] <= 10


@pytest.mark.parametrize(
    "make",
    [
        lambda: RetryPolicy(budget=-1),
        lambda: RetryPolicy(first_delay=-0.1),
        lambda: RetryPolicy(jitter=1.5),
    ],
)
def test_settings_that_make_no_sense_are_refused(make: Callable[[], RetryPolicy]) -> None:
    with pytest.raises(ValueError, match="retry policy"):
        make()


async def waiting(pauses: Pauses, backoff: Backoff, retry_after: float | None = None) -> float:
    """Return how long a pause took."""
    begun = anyio.current_time()
    assert await pauses.wait(backoff, retry_after)
    return anyio.current_time() - begun


LONG = RetryPolicy(budget=1000, first_delay=100, longest_delay=100)


async def test_a_reason_to_try_soon_ends_all_long_pauses() -> None:
    pauses = Pauses(expedited=0.01)
    took: list[float] = []

    async def wait() -> None:
        took.append(await waiting(pauses, LONG.backoff()))

    with anyio.fail_after(20):
        async with anyio.create_task_group() as group:
            for _ in range(3):
                group.start_soon(wait)
            await anyio.wait_all_tasks_blocked()
            assert not took
            pauses.shorten()
    assert len(took) == 3


async def test_an_expedited_block_has_no_long_pauses() -> None:
    pauses = Pauses(expedited=0.01)
    with anyio.fail_after(20), pauses.expedite():
        for _ in range(3):
            assert await waiting(pauses, LONG.backoff()) >= 0.005
    with anyio.move_on_after(0.05) as later:
        await waiting(pauses, LONG.backoff())
    assert later.cancelled_caught


async def test_expediting_cuts_no_pause_short_that_the_server_asked_for() -> None:
    pauses, time = Pauses(expedited=0.01), Time()
    with pauses.expedite():
        assert await pauses.wait(policy(time).backoff(), 30)
        pauses.shorten()
    assert time.pauses == [30]


async def test_a_success_ends_also_the_pauses_that_the_server_asked_for() -> None:
    pauses = Pauses(expedited=0.01)
    took: list[float] = []

    async def wait() -> None:
        took.append(await waiting(pauses, LONG.backoff(), 86_400))

    with anyio.fail_after(20):
        async with anyio.create_task_group() as group:
            group.start_soon(wait)
            await anyio.wait_all_tasks_blocked()
            pauses.shorten()
            await anyio.wait_all_tasks_blocked()
            assert not took
            pauses.shorten(also_asked=True)
    assert len(took) == 1


@pytest.mark.parametrize("asked", [60.5, 86_400, math.inf])
async def test_a_server_can_ask_for_a_minute_at_most(asked: float) -> None:
    time = Time()
    assert await policy(time, budget=1000).backoff().pause(asked)
    assert time.pauses == [60]


async def test_expediting_does_not_extend_the_budget() -> None:
    pauses = Pauses(expedited=0.01)
    with pauses.expedite():
        assert not await pauses.wait(NO_RETRIES.backoff())
