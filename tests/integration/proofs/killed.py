"""A server that is killed and restarted while a session works on it."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import anyio
from anyio.to_thread import run_sync

from aioftrackjobs import AsyncSession, Job, JobStatus, job_context
from aioftrackjobs.models import parse_job_data
from aioftrackjobs.testing import ServerProcess

from .outcome import Outcome
from .secrets import KEY, SecretWatch

#: Tasks of each kind: those that run Jobs, and those that commit.
_WORKERS = 20
#: The server is killed within so many seconds after work went on.
_LONGEST_LIFE = 0.6
#: Acknowledgements after a restart that show that work goes on, and seconds they may take.
_SIGNS, _TIME_LIMIT = 20, 30.0


class Load:
    """Tasks that work on one session, and what was acknowledged to them."""

    def __init__(
        self, session: AsyncSession, outcome: Outcome, watch: SecretWatch, user_id: str
    ) -> None:
        self._session = session
        self._outcome = outcome
        self._watch = watch
        self._user_id = user_id
        self._stopped = False
        self._awaited = 0
        self._goes_on = anyio.Event()
        #: By name: status and number that a Job has; None if it was deleted.
        self.expected: dict[str, tuple[str, int] | None] = {}
        self.contents: dict[str, bytes] = {}
        self.acknowledged = 0

    def stop(self) -> None:
        """Let each task end after its current step."""
        self._stopped = True

    async def goes_on(self) -> bool:
        """Wait until work is acknowledged again; return whether it was, in time."""
        self._awaited = self.acknowledged + _SIGNS
        self._goes_on = anyio.Event()
        with anyio.move_on_after(_TIME_LIMIT):
            await self._goes_on.wait()
        return self._goes_on.is_set()

    def _acknowledge(self, name: str, state: tuple[str, int] | None) -> None:
        self.expected[name] = state
        self.acknowledged += 1
        if self.acknowledged >= self._awaited:
            self._goes_on.set()

    async def run_jobs(self, worker: int) -> None:
        """Run one Job after the other."""
        chance = random.Random(f"{self._outcome.seed}/jobs/{worker}")
        number = 0
        while not self._stopped:
            number += 1
            name = f"Job {worker}.{number}"
            fails, attaches = chance.random() < 0.2, chance.random() < 0.1
            try:
                async with job_context(
                    self._session, description=name, data={"number": number}, interval=0.05
                ) as job:
                    job.progress(0.5)
                    await anyio.sleep(chance.random() / 20)
                    if attaches:
                        content = chance.randbytes(50_000)
                        component = await job.attach(content, name="result.bin")
                        self.contents[component.id] = content
                    if fails:
                        job.fail("on purpose")
            except Exception as error:  # noqa: BLE001 - the client is to carry on by itself
                self._watch.see(error)
                self._outcome.violations.append(f"{name} was left by {error!r}")
            else:
                self._acknowledge(name, ("failed" if fails else "done", number))

    async def commit(self, worker: int) -> None:
        """Create, change and delete Jobs in plain commits."""
        chance = random.Random(f"{self._outcome.seed}/commits/{worker}")
        number = 0
        while not self._stopped:
            number += 1
            name = f"Plain {worker}.{number}"
            try:
                await self._commit_one(name, number, chance)
            except Exception as error:  # noqa: BLE001 - the client is to carry on by itself
                self._watch.see(error)
                self._outcome.violations.append(f"the commit of {name} ended by {error!r}")

    async def _commit_one(self, name: str, number: int, chance: random.Random) -> None:
        values = {"user_id": self._user_id, "status": JobStatus.QUEUED}
        async with self._session.unit_of_work():
            job = self._session.create(Job, {**values, "data": _data(name, number)})
        self._acknowledge(name, ("queued", number))
        if chance.random() < 0.5:
            async with self._session.unit_of_work():
                job["data"], job.status = _data(name, -number), JobStatus.DONE
            self._acknowledge(name, ("done", -number))
        if chance.random() < 0.25:
            async with self._session.unit_of_work():
                self._session.delete(job)
            self._acknowledge(name, None)


async def prove_kills(kills: int, seed: int, folder: Path) -> Outcome:
    """Kill the server *kills* times, and compare what it holds with what it acknowledged."""
    outcome = Outcome(f"{kills} times kill -9 and restart of the server under load", seed)
    chance = random.Random(seed)
    with SecretWatch(KEY) as watch, ServerProcess(folder / "server", api_key=KEY) as server:
        # A final status has ten seconds. If the server is away for longer, the journal has it.
        async with server.session(journal=folder / "journal") as session:
            user = await session.current_user()
            load = Load(session, outcome, watch, user.id)
            async with anyio.create_task_group() as group:
                for worker in range(_WORKERS):
                    group.start_soon(load.run_jobs, worker)
                    group.start_soon(load.commit, worker)
                await load.goes_on()
                for kill in range(1, kills + 1):
                    await anyio.sleep(chance.random() * _LONGEST_LIFE)
                    await run_sync(server.kill)
                    watch.search("the session's health", repr(session.health))
                    await run_sync(server.start)
                    if not await load.goes_on():
                        outcome.violations.append(f"after kill {kill} nothing was acknowledged")
                        break
                load.stop()
            await _empty(session, outcome)
        async with server.session() as session:
            await _check(session, load, outcome, folder)
        watch.search("the server's log", server.log)
    return outcome.finish(watch)


async def _empty(session: AsyncSession, outcome: Outcome) -> None:
    """Wait until the journal has delivered what it keeps."""
    with anyio.move_on_after(_TIME_LIMIT):
        while session.health.final_reports_pending:  # noqa: ASYNC110 - health is a snapshot
            await anyio.sleep(0.05)
    left = session.health.final_reports_pending
    outcome.require(
        not left, f"{left} final statuses wait in the journal although the server is back"
    )


def _data(name: str, number: int) -> str:
    return json.dumps({"description": name, "number": number})


async def _check(session: AsyncSession, load: Load, outcome: Outcome, folder: Path) -> None:
    found: dict[str, list[tuple[str, Any]]] = {}
    for job in await session.query("select id, status, data from Job").of(Job).all():
        data = parse_job_data(job["data"])
        name = data.get("base_description", data.get("description"))
        if isinstance(name, str) and name.startswith(("Job ", "Plain ")):
            found.setdefault(name, []).append((str(job.status), data["number"]))
    for name, state in load.expected.items():
        held, wanted = found.pop(name, []), [] if state is None else [state]
        outcome.require(held == wanted, f"{name} is {held}, and was acknowledged as {wanted}")
    outcome.require(not found, f"these were never acknowledged: {found}")
    for component_id, content in load.contents.items():
        path = await session.download(component_id, folder / component_id)
        outcome.require(path.read_bytes() == content, f"the file {component_id} is damaged")
    links = await session.query("select component_id from JobComponent").all()
    linked = [link["component_id"] for link in links]
    for component_id in load.contents:
        times = linked.count(component_id)
        outcome.require(times == 1, f"the file {component_id} is attached {times} times")
    outcome.figures |= {
        "acknowledged": load.acknowledged,
        "Jobs that must be there": sum(each is not None for each in load.expected.values()),
        "deleted, which must not": sum(each is None for each in load.expected.values()),
        "attachments": len(load.contents),
    }
