"""Attacks on uploads and downloads: pages in place of files, cut bodies, kills meanwhile."""

from __future__ import annotations

import signal
from typing import Any

import anyio

from aioftrackjobs import CommitUncertainError, FtrackJobsError

from .ground import Ground, hanging_counts, side_by_side
from .programs import Program
from .proxy import Exchange, forward, proxied
from .score import Score

PAGE = b"<!DOCTYPE html><html><title>Sign in</title><form action=/login></form></html>"


async def bad_downloads(ground: Ground) -> Score:  # noqa: C901 - a table of faults
    """A download gets a login page, a cut body without a length, or a refusal with status 200."""
    score, chance = Score(), ground.chance

    async def rule(exchange: Exchange) -> None:
        if exchange.method != "GET" or chance.random() < 0.4:
            await forward(exchange)
            return
        score.attempts += 1
        match chance.randrange(9):
            case 0:
                await exchange.reply_with(200, PAGE, "text/html")
            case 1:
                await exchange.raw(b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n" + PAGE)
                await exchange.drop()
            case 2 | 3:  # cut, and no length tells it
                answer = await exchange.send()
                head = "".join(
                    f"{name}: {text}\r\n"
                    for name, text in answer.headers.items()
                    if name in ("content-type", "etag", "date")
                )
                cut = answer.body[: chance.randrange(len(answer.body) + 1)]
                start = f"HTTP/1.1 {answer.status} OK\r\nconnection: close\r\n{head}\r\n"
                await exchange.raw(start.encode() + cut)
                await exchange.drop()
            case 4:
                await exchange.reply_with(200, {"exception": "ServerError", "content": "odd"})
            case 5:
                await exchange.reply_with(200, b"")
            case 6:
                await exchange.reply_with(200, b"the file of another component")
            case 7:
                await exchange.reply_with(206, b"part", content_range="bytes 5-8/9")
            case _:
                await exchange.reply_with(chance.choice((403, 429, 500, 502)), PAGE, "text/html")

    async with proxied(ground.server) as proxy:
        files = [chance.randbytes(chance.choice((1, 1_000, 300_000))) for _ in range(4)]
        async with ground.session(proxy) as session:
            made = [await session.create_component(data, name="a.bin") for data in files]
            proxy.rule = rule

            async def work(number: int) -> None:
                target = ground.folder / f"{number}.bin"
                resume = bool(number % 2)
                given: Any = made[number % 4] if number % 3 else made[number % 4].id
                try:
                    await session.download(given, target, resume=resume)
                except FtrackJobsError:
                    if target.exists():
                        score.note("false", "a download failed, and there is a file")
                    return
                if await anyio.Path(target).read_bytes() != files[number % 4]:
                    size = (await anyio.Path(target).stat()).st_size
                    score.note(
                        "lost", f"{size} bytes were returned for a file of {len(files[number % 4])}"
                    )

            async with hanging_counts(score, "a download"):
                await side_by_side(work, 24)
    score.operations = 24
    return score


async def bad_uploads(ground: Ground) -> Score:  # noqa: C901 - a table of faults
    """Uploads get pages, refusals and broken connections, while sending and while registering."""
    score, chance = Score(), ground.chance

    async def rule(exchange: Exchange) -> None:
        about = exchange.method == "PUT" or exchange.operations
        if not about or chance.random() < 0.7:
            await forward(exchange)
            return
        score.attempts += 1
        match chance.randrange(6):
            case 0:
                await exchange.reply_with(200, PAGE, "text/html")
            case 1:
                await exchange.send()
                await exchange.drop()
            case 2:
                await exchange.drop()
            case 3:
                await exchange.reply_with(
                    chance.choice((403, 404, 429, 500, 502)), PAGE, "text/html"
                )
            case 4 if exchange.operations:
                await exchange.refuse(chance.choice(("ServerError", "OperationalError")))
            case _:
                await exchange.send()
                await exchange.reply_with(502, PAGE, "text/html")

    registered: dict[str, bytes] = {}
    refused: set[str] = set()
    async with proxied(ground.server) as proxy:
        async with ground.session(proxy, journal=ground.folder / "uploads.sqlite") as session:
            proxy.rule = rule

            async def work(number: int) -> None:
                data = chance.randbytes(1_000 * (number + 1))
                key = f"{chance.getrandbits(128):032x}"
                key = "-".join((key[:8], key[8:12], "4" + key[13:16], "a" + key[17:20], key[20:]))
                try:
                    made = await session.create_component(data, {"id": key}, name="a.bin")
                    registered[made.id] = data
                except CommitUncertainError:
                    pass
                except FtrackJobsError:
                    refused.add(key)

            async with hanging_counts(score, "an upload"):
                await side_by_side(work, 16)
            proxy.rule = forward
            await anyio.sleep(1)
    score.operations = 16
    rows = await ground.server.rows("Component", [*registered, *refused])
    for key, data in registered.items():
        if key not in rows:
            score.note("lost", "a registered component is not there")
        elif await ground.server.file(key) != data:
            score.note("lost", "a registered component has another file, or none")
    for _ in refused & set(rows):
        score.note("false", "an upload that was reported as failed is registered")
    return score


_UPLOAD = """
async def main():
    async with AsyncSession(journal=sys.argv[2]) as session:
        print("ready", flush=True)
        await session.create_component(b"x" * 5000, name="a.bin")
"""


async def killed_registrations(ground: Ground) -> Score:
    """A process is killed while its registration hangs; the next session starts at once."""
    score, chance = Score(), ground.chance
    components: set[str] = set()

    async with proxied(ground.server) as proxy:

        async def work(number: int) -> None:
            journal = ground.folder / f"{number}.sqlite"
            held = anyio.Event()
            delay = chance.choice((0.0, 0.5, 1.5, 3.0))

            async def rule(exchange: Exchange) -> None:
                made = [
                    each["entity_key"][0]
                    for each in exchange.writes
                    if each["entity_type"] == "FileComponent" and each["action"] == "create"
                ]
                if made and not held.is_set():
                    components.update(made)
                    exchange.send_later(delay)  # the process is killed meanwhile
                    held.set()
                    await exchange.swallow()
                else:
                    await forward(exchange)

            proxy.rule = rule
            async with Program(ground, _UPLOAD, str(journal), url=proxy.url) as program:
                await program.line()
                with anyio.fail_after(20):
                    await held.wait()
                await anyio.sleep(chance.random() / 5)
                program.send(signal.SIGKILL)
                await program.ended()
            score.attempts += 1
            proxy.rule = forward
            async with ground.session(proxy, journal=journal):
                await anyio.sleep(delay + 4)

        async with hanging_counts(score, "the session after a kill"):
            for number in range(3):
                await work(number)
    score.operations = len(components)
    for component_id in await ground.server.rows("Component", sorted(components)):
        if await ground.server.file(component_id) is None:
            score.note("lost", "a registered component has lost its file")
    return score


KINDS = {
    "bad downloads": bad_downloads,
    "bad uploads": bad_uploads,
    "killed registrations": killed_registrations,
}
