"""Attacks on Jobs in this process: at their final status, and by one value that is bad."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import anyio

from aioftrackjobs import AsyncSession, FtrackJobsError, RetryPolicy, RunningJob, job_context

from .ground import Ground, hanging_counts, side_by_side
from .proxy import Exchange, Proxy, Rule, forward, proxied
from .score import Score

#: Retries as a session has them.
PATIENT = RetryPolicy()


class OnPurposeError(Exception):
    """The work fails, because the attack wants it to."""


async def run_jobs(
    ground: Ground,
    score: Score,
    proxy: Proxy,
    rule: Rule,
    count: int,
    block: Callable[[RunningJob, int], Any] | None = None,
    seconds: float = 10.0,
    **options: Any,
) -> None:
    """Run Jobs in one session, while *rule* applies; count those that end differently.

    Args:
        ground: Where.
        score: What counts.
        proxy: Before the server.
        rule: What happens to requests once all Jobs have begun.
        count: How many Jobs.
        block: Awaited in each Job. Every third Job fails.
        seconds: How long after the session the final status may need.
        options: Of the session.
    """
    expected: dict[str, str] = {}
    begun = anyio.Event()

    async def work(number: int) -> None:
        try:
            async with job_context(session, description=f"{number}", interval=0.1) as job:
                expected[job.id] = "failed" if number % 3 == 0 else "done"
                if len(expected) == count:
                    proxy.rule = rule
                    begun.set()
                await begun.wait()
                job.progress(0.5)
                await anyio.sleep(ground.chance.random() / 2)
                if block is not None:
                    await block(job, number)
                if number % 3 == 0:
                    raise OnPurposeError(f"{number}")
        except (OnPurposeError, FtrackJobsError):
            pass

    proxy.rule = forward
    options = {"retry": PATIENT, **options}
    async with hanging_counts(score, "a session with Jobs"):
        async with ground.session(proxy, **options) as session:
            await side_by_side(work, count)
            await ground.check_ended(score, expected, seconds)
    score.operations += len(expected)


class Once:
    """A rule that does something to the first request with the final status of each Job."""

    def __init__(self, score: Score, act: Callable[[Exchange], Any]) -> None:
        self._score = score
        self._act = act
        self._seen: set[str] = set()

    async def __call__(self, exchange: Exchange) -> None:
        keys = {
            each["entity_key"][0]
            for each in exchange.writes
            if each.get("entity_data", {}).get("status") in ("done", "failed")
        }
        if keys - self._seen:
            self._seen |= keys
            self._score.attempts += 1
            await self._act(exchange)
        else:
            await forward(exchange)


async def refused_ends(ground: Ground) -> Score:
    """One refusal, page or redirection at the final status of each Job."""
    score, chance = Score(), ground.chance

    async def act(exchange: Exchange) -> None:
        status = chance.choice(
            (200, 302, 400, 401, 403, 404, 405, 408, 409, 413, 425, 429, 500, 503)
        )
        if chance.random() < 0.3:
            await exchange.send()
        if chance.random() < 0.5:
            kind = chance.choice(
                ("OperationalError", "ServerError", "PermissionError", "ValidationError")
            )
            error = {"exception": kind, "content": "an odd refusal", "error_code": None}
            await exchange.reply_with(status, error)
        else:
            page = b"<html><h1>Maintenance</h1></html>"
            await exchange.reply_with(status, page, "text/html", location="/login")

    async with proxied(ground.server) as proxy:
        for _ in range(3):
            await run_jobs(ground, score, proxy, Once(score, act), 8)
    return score


async def unstorable_texts(ground: Ground) -> Score:
    """The server refuses what contains a character that it cannot store, or is too long."""
    score, chance = Score(), ground.chance
    texts = (
        "🎬 cut",
        "nul \0 byte",
        "x" * 80_000,
        "lone \ud800 surrogate",
        "影" * 30_000,
        "\x1b[31m",
    )

    async def rule(exchange: Exchange) -> None:
        texts = [text for each in exchange.writes for text in _texts(each)]
        if any(len(text) > 60_000 or any(map(_is_odd, text)) for text in texts):
            score.attempts += 1
            await exchange.refuse("OperationalError", "Incorrect string value for column 'data'")
        else:
            await forward(exchange)

    async def block(job: RunningJob, number: int) -> None:
        job.progress(0.7, chance.choice(texts))
        await anyio.sleep(0.3)
        if number % 3 == 0:
            raise OnPurposeError(chance.choice(texts))

    async with proxied(ground.server) as proxy:
        await run_jobs(ground, score, proxy, rule, 9, block)
    return score


def _texts(value: Any) -> Iterator[str]:
    """Give all texts in what an operation writes, also of JSON in a text."""
    if isinstance(value, dict):
        for each in value.values():
            yield from _texts(each)
    elif isinstance(value, str):
        yield value
        if value.startswith("{"):
            with suppress(ValueError):
                yield from _texts(json.loads(value))


def _is_odd(letter: str) -> bool:
    return ord(letter) > 0xFFFF or letter in "\0\x1b" or 0xD800 <= ord(letter) < 0xE000


async def swallowed_requests(ground: Ground) -> Score:
    """A firewall swallows one request for each final status, and some others."""
    score, chance = Score(), ground.chance

    async def act(exchange: Exchange) -> None:
        if chance.random() < 0.5:
            await exchange.send()
        await exchange.swallow()

    async with proxied(ground.server) as proxy:
        await run_jobs(ground, score, proxy, Once(score, act), 9)
    return score


async def occupied_session(ground: Ground) -> Score:
    """Slow reads occupy the session while its Jobs end."""
    score = Score()

    async def rule(exchange: Exchange) -> None:
        if exchange.is_query and "Location" in exchange.operations[0]["expression"]:
            score.attempts += 1
            await anyio.sleep(25)
        await forward(exchange)

    async with proxied(ground.server) as proxy:
        reads = anyio.create_task_group()

        async def read_slowly(session: AsyncSession) -> None:
            with suppress(FtrackJobsError):
                await session.query("Location").all()

        expected: dict[str, str] = {}
        begun = anyio.Event()

        async def work(session: AsyncSession, number: int) -> None:
            try:
                async with job_context(session, description=f"{number}") as job:
                    expected[job.id] = "done" if number % 2 else "failed"
                    if len(expected) == 8:
                        begun.set()
                    await anyio.sleep(1.0)
                    if number % 2 == 0:
                        raise OnPurposeError
            except (OnPurposeError, FtrackJobsError):
                pass

        async with hanging_counts(score, "a session with slow reads"):
            async with ground.session(proxy, retry=PATIENT) as session, reads:
                await session.query("Job limit 1").all()
                proxy.rule = rule
                async with anyio.create_task_group() as group:
                    for number in range(8):
                        group.start_soon(work, session, number)
                    await begun.wait()
                    for _ in range(16):
                        reads.start_soon(read_slowly, session)
                await ground.check_ended(score, expected, 1.0)
                reads.cancel_scope.cancel()
        score.operations = len(expected)
    return score


async def long_pauses(ground: Ground) -> Score:
    """A server asks once for a pause of a day, and is well again at once."""
    score, chance = Score(), ground.chance

    async def act(exchange: Exchange) -> None:
        pause = chance.choice(("86400", "1e9", "Fri, 31 Dec 2100 23:59:59 GMT", "9" * 400))
        await exchange.reply_with(chance.choice((429, 503)), b"slow down", retry_after=pause)

    async with proxied(ground.server) as proxy:
        ended = anyio.Event()
        async with anyio.create_task_group() as group:

            async def use() -> None:
                async with ground.session(proxy) as session:
                    while not ended.is_set():
                        with anyio.move_on_after(1):
                            with suppress(FtrackJobsError):
                                await session.query("Location").all()
                        await anyio.sleep(0.2)

            group.start_soon(use)
            journal = ground.folder / "pauses.sqlite"
            await run_jobs(ground, score, proxy, Once(score, act), 6, None, 30, journal=journal)
            ended.set()
    return score


async def odd_dates(ground: Ground) -> Score:
    """Responses have dates that no clock shows."""
    score, chance = Score(), ground.chance
    dates = (
        "Fri, 31 Dec 9999 23:59:59 GMT",
        "Fri, 31 Dec 9999 23:59:59 -1200",
        "Mon, 01 Jan 0001 00:00:00 +1400",
        "Sat, 30 Nov 2026 25:61:61 GMT",
        "Sat, 30 Nov 2026 00:00:00 +9999",
        "yesterday",
        "",
        "\u00ff\u00fe",
        "Thu, 01 Jan 1970 00:00:00 GMT",
    )

    async def rule(exchange: Exchange) -> None:
        answer = await exchange.send()
        score.attempts += 1
        answer.headers["date"] = chance.choice(dates)  # type: ignore[index]
        await exchange.reply(answer)

    async def block(_: RunningJob, __: int) -> None:
        await anyio.sleep(1.5)

    async with proxied(ground.server) as proxy:
        await run_jobs(ground, score, proxy, rule, 9, block)
    return score


class Raising:
    """A value that can be neither shown nor compared."""

    def __str__(self) -> str:
        raise LookupError("no text")

    __repr__ = __str__

    def __eq__(self, _: object) -> bool:
        raise LookupError("no comparison")

    def __hash__(self) -> int:
        raise LookupError("no hash")

    def __bool__(self) -> bool:
        raise LookupError("neither true nor false")

    def __float__(self) -> float:
        raise LookupError("no number")


async def raising_values(ground: Ground) -> Score:
    """Values of a program raise errors when they are read, in one Job of many."""
    score, chance = Score(), ground.chance

    async def block(job: RunningJob, number: int) -> None:
        if number % 2:
            return
        values: tuple[Any, ...] = (Raising(), float("nan"), 10**400, b"\xff", object(), "\ud800")
        for _ in range(4):
            score.attempts += 1
            try:
                if chance.random() < 0.5:
                    job.progress(0.5, chance.choice(values))
                else:
                    job.progress(chance.choice(values))
            except Exception:  # noqa: BLE001 - it may be refused at once
                pass
            await anyio.sleep(0.12)

    async with proxied(ground.server) as proxy:
        await run_jobs(ground, score, proxy, forward, 12, block)
    return score


def _nested() -> BaseException:
    error: Exception = ValueError("innermost")
    for _ in range(3_000):
        error = ExceptionGroup("group", [error])
    return error


def _chained() -> BaseException:
    error: Exception = ValueError("first")
    for number in range(5_000):
        following = ValueError(f"{number}")
        following.__cause__ = error
        error = following
    return error


def _circular() -> BaseException:
    one, other = ValueError("one"), ValueError("other")
    one.__context__, other.__context__ = other, one
    return one


def _odd_syntax_error() -> BaseException:
    error = SyntaxError("odd")
    error.text, error.lineno, error.offset = b"bytes", "no number", object()  # type: ignore[assignment]
    error.filename, error.end_offset = Raising(), -(10**20)  # type: ignore[assignment]
    return error


def _odd_notes() -> BaseException:
    error = ValueError("notes")
    error.__notes__ = Raising()  # type: ignore[assignment]
    return error


class TextlessError(Exception):
    """An error whose text cannot be had."""

    def __str__(self) -> str:
        raise LookupError("no text")

    __repr__ = __str__


ERRORS: tuple[Callable[[], BaseException], ...] = (
    _nested,
    _chained,
    _circular,
    _odd_syntax_error,
    _odd_notes,
    TextlessError,
    lambda: ValueError("x" * 20_000_000),
    lambda: ExceptionGroup("many", [TextlessError() for _ in range(50)]),
    lambda: type("E🎬 \n", (Exception,), {})("odd name"),
    lambda: KeyError(Raising()),
    lambda: OSError(Raising(), Raising(), Raising()),
    lambda: UnicodeDecodeError("utf-8", b"\xff", 0, 1, "why"),
)


async def odd_errors(ground: Ground) -> Score:
    """Blocks end by errors that cannot be formatted: these come out, and the Jobs have failed."""
    score = Score()
    expected: dict[str, str] = {}
    async with proxied(ground.server) as proxy, ground.session(proxy, retry=PATIENT) as session:
        async with hanging_counts(score, "a Job with an odd error"):
            for make in ERRORS:
                score.attempts += 1
                error = make()
                caught: BaseException | None = None
                try:
                    async with job_context(session) as job:
                        expected[job.id] = "failed"
                        raise error
                except BaseException as exc:
                    if isinstance(exc, anyio.get_cancelled_exc_class()):
                        raise
                    caught = exc
                if caught is not error:
                    score.note("false", f"{type(error).__name__} became {type(caught).__name__}")
                del caught, error
            await ground.check_ended(score, expected)
    score.operations = len(expected)
    return score


async def outages(ground: Ground) -> Score:
    """The server is away for some seconds while Jobs end; it gets what waits when it is back."""
    score = Score()
    expected: dict[str, str] = {}
    async with proxied(ground.server) as proxy:

        async def work(number: int) -> None:
            try:
                async with job_context(session, description=f"{number}", grace=1.0) as job:
                    expected[job.id] = "done" if number % 2 else "failed"
                    await anyio.sleep(1 + ground.chance.random() * 2)
                    if number % 2 == 0:
                        raise OnPurposeError
            except (OnPurposeError, FtrackJobsError):
                pass

        async def go_away() -> None:
            score.attempts += 1
            await anyio.sleep(1)
            proxy.is_away = True
            await anyio.sleep(4)
            proxy.is_away = False

        journal = ground.folder / "outage.sqlite"
        async with hanging_counts(score, "a session over an outage"):
            async with ground.session(proxy, retry=PATIENT, journal=journal) as session:
                async with anyio.create_task_group() as group:
                    group.start_soon(go_away)
                    await side_by_side(work, 10)
                await ground.check_ended(score, expected, 40)
    score.operations = len(expected)
    return score


async def deleted_job(ground: Ground) -> Score:
    """Someone deletes one of many Jobs: the others end as they should, with no more requests."""
    score, number_of_jobs, seconds = Score(), 100, 4.0
    expected: dict[str, str] = {}
    begun, goes_on = anyio.Event(), anyio.Event()

    async with proxied(ground.server) as proxy:

        async def work(_: int) -> None:
            try:
                async with job_context(session, interval=1.0) as job:
                    expected[job.id] = "done"
                    if len(expected) == number_of_jobs:
                        begun.set()
                    while not goes_on.is_set():
                        job.progress(0.5, "still at work")
                        await anyio.sleep(0.1)
            except FtrackJobsError:
                pass

        async def attack() -> None:
            await begun.wait()
            await anyio.sleep(1)
            before = proxy.requests
            await anyio.sleep(seconds)
            usual = proxy.requests - before
            key = ground.chance.choice(sorted(expected))
            score.attempts += 1
            delete = {"action": "delete", "entity_type": "Job", "entity_key": [key]}
            await ground.server.ask([delete])
            del expected[key]
            await anyio.sleep(2)
            before = proxy.requests
            await anyio.sleep(seconds)
            more = proxy.requests - before
            if more > 2 * usual + 4:
                score.note("left", f"{usual} requests became {more} in {seconds:g} s")
            goes_on.set()

        async with hanging_counts(score, "a session with a deleted Job"):
            async with ground.session(proxy, retry=PATIENT) as session:
                async with anyio.create_task_group() as group:
                    group.start_soon(attack)
                    await side_by_side(work, number_of_jobs)
                await ground.check_ended(score, expected)
    score.operations = number_of_jobs
    return score


KINDS = {
    "refused final statuses": refused_ends,
    "unstorable texts": unstorable_texts,
    "swallowed requests": swallowed_requests,
    "occupied session": occupied_session,
    "long pauses": long_pauses,
    "odd dates": odd_dates,
    "raising values": raising_values,
    "odd errors": odd_errors,
    "outages": outages,
    "deleted Jobs": deleted_job,
}
