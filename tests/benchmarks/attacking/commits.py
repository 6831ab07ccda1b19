"""Attacks on commits: refused deletes and questions, odd answers, and requests that arrive late."""

from __future__ import annotations

import gzip
import json
from typing import Any

import anyio

from aioftrackjobs import AsyncSession, CommitUncertainError, Entity, FtrackJobsError

from .ground import Ground, hanging_counts, side_by_side
from .proxy import Exchange, Proxy, Rule, forward, proxied
from .score import Score
from .servers import Answer


async def end_of(session: AsyncSession, proxy: Proxy) -> str:
    """Commit; return "applied", "not applied" or "unknown". What is unknown is resolved calmly."""
    try:
        await session.commit()
    except CommitUncertainError as error:
        rule, proxy.rule = proxy.rule, forward
        try:
            await error.resolve()
        except CommitUncertainError:
            return "unknown"
        except FtrackJobsError:
            return "not applied"
        finally:
            proxy.rule = rule
    except FtrackJobsError:
        return "not applied"
    return "applied"


async def refused_deletes(ground: Ground) -> Score:  # noqa: C901 - a table of faults
    """Deletes, and the questions about them, are refused in all ways, by the server or a proxy."""
    score, chance = Score(), ground.chance
    ids = await ground.server.create_jobs(60)

    async def rule(exchange: Exchange) -> None:
        deletes = [each for each in exchange.operations if each["action"] == "delete"]
        about = deletes or (exchange.operations if exchange.is_query else [])
        if not about or chance.random() < 0.45:
            await forward(exchange)
            return
        score.attempts += 1
        match chance.randrange(7):
            case 0:
                await exchange.refuse("ServerError")
            case 1:
                await exchange.refuse("PermissionError", "you may not read this")
            case 2:
                await exchange.reply_with(403, b"<h1>Forbidden</h1>", "text/html")
            case 3:
                await exchange.send()
                await exchange.drop()
            case 4:
                await exchange.drop()
            case 5 if exchange.is_query:  # hidden entities
                results = [{"action": "query", "data": []} for _ in exchange.operations]
                await forward(exchange) if chance.random() < 0.8 else await exchange.reply_with(
                    503, json.dumps(results).encode()
                )
            case _:
                await exchange.send()
                await exchange.reply_with(502, b"<h1>Bad Gateway</h1>", "text/html")

    async with proxied(ground.server) as proxy:

        async def work(number: int) -> None:
            part = ids[number * 5 : number * 5 + 5]
            async with ground.session(proxy) as session:
                jobs = [await session.get("Job", each) for each in part]
                proxy.rule = rule
                for key, job in zip(part, jobs, strict=True):
                    assert job is not None
                    session.delete(job)
                    ends[key] = await end_of(session, proxy)
                    session.rollback()

        ends: dict[str, str] = {}
        async with hanging_counts(score, "a commit of deletes"):
            # One session after the other, because questions before the deletes must be answered.
            for number in range(12):
                proxy.rule = forward
                await work(number)
        await anyio.sleep(0.2)
    there = await ground.server.rows("Job", ids)
    score.operations = len(ends)
    for key, end in ends.items():
        if end == "applied" and key in there:
            score.note("lost", "a delete that was reported as done was not applied")
        elif end == "not applied" and key not in there:
            score.note("false", "a delete that was reported as not applied was applied")
    return score


def odd(answer: Answer, earlier: list[Any]) -> dict[str, Any]:
    """Return what a server may answer that mixes up or loses results, by its name."""
    results = json.loads(answer.body)
    options: dict[str, Any] = {
        "null": None,
        "nulls": [None] * len(results),
        "lists": [[] for _ in results],
        "objects": [{} for _ in results],
        "texts": ["done"] * len(results),
        "true": [True] * len(results),
        "true data": [{"action": each.get("action"), "data": True} for each in results],
        "doubled": results * 2,
        "nothing": [],
        "one less": results[:-1],
        "one more": [*results, results[-1]],
        "other actions": [{**each, "action": "query"} for each in results],
        "other keys": [_with_key(each, "0" * 36) for each in results],
        "another call": earlier[-1] if earlier else [],
        "not a list": {"data": results},
        "a number": 7,
    }
    if len(results) > 1:
        options["shuffled"] = [*results[1:], results[0]]
        options["the first twice"] = [results[0]] * len(results)
    return options


def _with_key(result: Any, key: str) -> Any:
    if isinstance(result.get("data"), dict):
        return {**result, "data": {**result["data"], "id": key}}
    return result


async def odd_answers(ground: Ground) -> Score:
    """The answer to a commit is not that of its operations; it was applied, or not."""
    score, chance = Score(), ground.chance
    earlier: list[Any] = []

    async def rule(exchange: Exchange) -> None:
        if not exchange.writes or chance.random() < 0.4:
            await forward(exchange)
            return
        score.attempts += 1
        is_applied = chance.random() < 0.5
        if is_applied:
            answer = await exchange.send()
            if not isinstance(json.loads(answer.body), list):
                await exchange.reply(answer)
                return
        else:  # it is not applied, and a cache or a mixed-up server says something
            kind = exchange.writes[0]["action"]
            made = [{"action": kind, "data": {"id": "x"}} for _ in exchange.operations]
            answer = Answer(200, {}, json.dumps(made).encode())
        # An answer to another delete is no other than the right one.
        is_lie = not is_applied and any(each["action"] == "delete" for each in exchange.writes)
        options = odd(answer, [] if is_lie else earlier)
        for name in ("true data", "other keys", "shuffled", "the first twice") if is_lie else ():
            options.pop(name, None)
        earlier.append(json.loads(answer.body))
        await exchange.reply_with(200, options[chance.choice(sorted(options))])

    await _run_jobs(ground, score, rule)
    return score


async def refused_responses(ground: Ground) -> Score:
    """A filter refuses the response to a commit that was applied, or was not; or it is garbled."""
    score, chance = Score(), ground.chance

    async def rule(exchange: Exchange) -> None:
        if not exchange.writes or chance.random() < 0.5:
            await forward(exchange)
            return
        score.attempts += 1
        body = (await exchange.send()).body if chance.random() < 0.6 else b"[]"
        if chance.random() < 0.6:
            status = chance.choice((302, 303, 304, 307, 401, 403, 404, 407, 418, 423, 451))
            page = b"" if status == 304 else b"<h1>Blocked</h1>"
            await exchange.reply_with(status, page, "text/html", location="file:///etc/passwd")
            return
        packed = gzip.compress(body)
        coded = {"gzip": (packed[:-9], packed[:-8] + bytes(8), body), "x-none": (body[::-1],)}
        coding = chance.choice(sorted(coded))
        data = chance.choice(coded[coding])
        await exchange.reply_with(200, data, content_encoding=coding)

    await _run_jobs(ground, score, rule)
    return score


async def _run_jobs(ground: Ground, score: Score, rule: Rule) -> None:
    """Create, change and delete Jobs behind a proxy with this *rule*; compare with the server."""
    wanted: dict[str, str] = {}  # the acknowledged state of each Job: a status, or "none"
    open_ends: set[str] = set()

    async with proxied(ground.server) as proxy:

        async def work(number: int) -> None:
            async with ground.session(proxy) as session:
                user = await ground.server.user_id()
                for _ in range(4):
                    data = {"status": "queued", "user_id": user, "data": "{}", "type": "api_job"}
                    job = session.create("Job", data)
                    if not await _settle(session, proxy, job, "queued", wanted, open_ends):
                        continue
                    job["status"] = "running"
                    if not await _settle(session, proxy, job, "running", wanted, open_ends):
                        continue
                    if number % 2:
                        session.delete(job)
                        await _settle(session, proxy, job, "none", wanted, open_ends)

        async with hanging_counts(score, "a commit behind a proxy"):
            proxy.rule = rule
            await side_by_side(work, 10)
    await _compare(ground, score, wanted, open_ends)


async def _settle(
    session: AsyncSession,
    proxy: Proxy,
    job: Entity,
    status: str,
    wanted: dict[str, str],
    open_ends: set[str],
) -> bool:
    """Commit, and note the state that is acknowledged; return whether it is applied."""
    key = str(job["id"])
    before = wanted.get(key, "none")
    end = await end_of(session, proxy)
    wanted[key] = status if end == "applied" else before
    if end == "unknown":
        open_ends.add(key)
    if end != "applied":
        session.rollback()
    return end == "applied"


async def _compare(
    ground: Ground, score: Score, wanted: dict[str, str], open_ends: set[str]
) -> None:
    """Note each Job whose acknowledged state, unless its end is open, is not the server's."""
    found = await ground.server.statuses(list(wanted))
    score.operations = len(wanted)
    for key, status in wanted.items():
        if key not in open_ends and found.get(key, "none") != status:
            score.note("lost", f"acknowledged: {status}, on the server: {found.get(key, 'none')}")


async def late_requests(ground: Ground) -> Score:
    """A request is applied after its time-out, when its repetition and a newer commit are done."""
    score, chance = Score(), ground.chance
    limit = 1.0

    async def rule(exchange: Exchange) -> None:
        if exchange.writes and chance.random() < 0.15:
            score.attempts += 1
            # It reaches the server a little after the client has given up.
            exchange.send_later(limit + chance.uniform(0.05, 1.5))
            await exchange.swallow()
        else:
            await forward(exchange)

    ids = await ground.server.create_jobs(30)
    wanted: dict[str, str] = {}
    async with proxied(ground.server) as proxy:

        async def work(number: int) -> None:
            async with ground.session(proxy, timeout=limit) as session:
                job = await session.get("Job", ids[number])
                assert job is not None
                for step in range(4):
                    job["data"] = json.dumps({"description": f"step {step}"})
                    if await end_of(session, proxy) == "applied":
                        wanted[ids[number]] = str(job["data"])
                    session.rollback()
                await anyio.sleep(limit + 3)  # the session looks again after the time-out

        async with hanging_counts(score, "a commit that was late"):
            proxy.rule = rule
            await side_by_side(work, len(ids))
    rows = await ground.server.rows("Job", ids)
    score.operations = 4 * len(ids)
    for key, data in wanted.items():
        if rows[key]["data"] != data:
            score.note("lost", f"acknowledged: {data}, on the server: {rows[key]['data']}")
    return score


async def endless_answers(ground: Ground) -> Score:
    """The answer drips, has endless 1xx, or is much too big: the commit ends all the same."""
    score, chance = Score(), ground.chance

    async def rule(exchange: Exchange) -> None:
        if not exchange.writes or chance.random() < 0.3:
            await forward(exchange)
            return
        score.attempts += 1
        if chance.random() < 0.7:
            await exchange.send()
        match chance.randrange(4):
            case 0:
                await exchange.raw(b"HTTP/1.1 200 OK\r\ncontent-length: 100000\r\n\r\n[")
                while True:
                    await anyio.sleep(0.3)
                    await exchange.raw(b" ")
            case 1:
                while True:
                    await exchange.raw(b"HTTP/1.1 102 Processing\r\n\r\n")
                    await anyio.sleep(0.05)
            case 2:
                for letter in b"HTTP/1.1 200 OK\r\nx-slow: " + b"x" * 10_000:
                    await exchange.raw(bytes([letter]))
                    await anyio.sleep(0.3)
            case _:
                await exchange.raw(b"HTTP/1.1 200 OK\r\ncontent-length: 4000000000\r\n\r\n[")
                while True:
                    await exchange.raw(b" " * 1_000_000)

    wanted: dict[str, str] = {}
    open_ends: set[str] = set()
    async with proxied(ground.server) as proxy:

        async def work(_: int) -> None:
            async with ground.session(proxy, timeout=1.0) as session:
                user = await ground.server.user_id()
                data = {"status": "queued", "user_id": user, "data": "{}", "type": "api_job"}
                job = session.create("Job", data)
                await _settle(session, proxy, job, "queued", wanted, open_ends)

        async with hanging_counts(score, "a commit with an endless answer"):
            proxy.rule = rule
            await side_by_side(work, 6)
    await _compare(ground, score, wanted, open_ends)
    return score


KINDS = {
    "refused deletes and questions": refused_deletes,
    "odd answers": odd_answers,
    "refused responses": refused_responses,
    "late requests": late_requests,
    "endless answers": endless_answers,
}
