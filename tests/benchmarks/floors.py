"""Group commit without this package, in three steps: ``floors.py STEP farm TASKS CYCLES``.

Each step adds one promise, in as few lines as it can be kept while nothing goes wrong. Refusals,
lost responses, cancellations, order and types are left out. So the figures are floors: what a
promise costs at least, in Python and over httpx.

- ``grouped``: commits that arrive during a request share the next one. A Job is its id.
- ``mapped``: a Job is an object with the server's values and local ones; there is one for each id.
- ``units``: changes are recorded, and a unit of work folds, commits and settles them.
"""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any
from uuid import uuid4
from weakref import WeakValueDictionary

import httpx
from measuring import UPDATES, Memory, Stopwatch, account, report

#: Turns of the event loop in which the tasks that a response has woken commit again.
_TURNS = 3


class Grouping:
    """Sends operations, many in one request, and gives each its result."""

    def __init__(self, client: httpx.AsyncClient) -> None:
        self._client = client
        self._waiting: list[tuple[dict[str, Any], asyncio.Future[Any]]] = []
        self._task: asyncio.Task[None] | None = None

    def send(self, operation: dict[str, Any]) -> asyncio.Future[Any]:
        """Queue *operation*; the future gets its result."""
        future = asyncio.get_running_loop().create_future()
        self._waiting.append((operation, future))
        if self._task is None:
            self._task = asyncio.create_task(self._run())
        return future

    async def _run(self) -> None:
        while self._waiting:
            for _ in range(_TURNS):
                await asyncio.sleep(0)
            group, self._waiting = self._waiting, []
            body = json.dumps([operation for operation, _ in group])
            response = await self._client.post("/api", content=body)
            for (_, future), result in zip(group, json.loads(response.content), strict=True):
                future.set_result(result)
        self._task = None


class Entity:
    """The values of a Job: those of the server, and local ones in front of them."""

    def __init__(self, key: str) -> None:
        self.key = key
        self.remote: dict[str, Any] = {"id": key}
        self.local: dict[str, Any] = {}

    def settle(self, values: dict[str, Any], row: dict[str, Any]) -> None:
        """Take over what was sent, and what the server has added."""
        self.remote.update(values)
        self.remote.update(row)
        for name, value in values.items():
            if self.local.get(name) is value:
                del self.local[name]


class Unit:
    """A unit of work: what was recorded, folded into one operation for each Job."""

    def __init__(self, grouping: Grouping) -> None:
        self._grouping = grouping
        self._recorded: list[tuple[str, Entity, dict[str, Any]]] = []

    def create(self, entity: Entity, **values: Any) -> None:
        """Record that *entity* is created."""
        entity.local.update(values)
        self._recorded.append(("create", entity, {"id": entity.key, **values}))

    def update(self, entity: Entity, **values: Any) -> None:
        """Record new values of *entity*."""
        entity.local.update(values)
        self._recorded.append(("update", entity, values))

    async def commit(self) -> None:
        """Send what was recorded, and settle it."""
        taken, self._recorded = self._recorded, []
        folded: dict[str, tuple[str, Entity, dict[str, Any]]] = {}
        for action, entity, values in taken:
            first = folded.get(entity.key)
            if first is None:
                folded[entity.key] = action, entity, dict(values)
            else:
                first[2].update(values)
        sent = [
            (entity, values, self._grouping.send(operation(action, entity.key, values)))
            for action, entity, values in folded.values()
        ]
        for entity, values, future in sent:
            entity.settle(values, (await future)["data"])


def operation(action: str, key: str, values: dict[str, Any]) -> dict[str, Any]:
    """Return an operation in its wire form."""
    data = {"__entity_type__": "Job", **values}
    return {"action": action, "entity_type": "Job", "entity_key": [key], "entity_data": data}


async def grouped(grouping: Grouping, user_id: str) -> None:
    """Run a life cycle with dictionaries."""
    key = str(uuid4())
    values = {"id": key, "user_id": user_id, "status": "running"}
    await grouping.send(operation("create", key, values))
    for step in range(UPDATES):
        text = f'{{"description": "step {step}"}}'
        await grouping.send(operation("update", key, {"data": text}))
    await grouping.send(operation("update", key, {"status": "done"}))


_known: WeakValueDictionary[str, Entity] = WeakValueDictionary()


async def mapped(grouping: Grouping, user_id: str) -> None:
    """Run a life cycle with one object for the Job, and no record of its changes."""

    async def send(action: str, **values: Any) -> None:
        job.local.update(values)
        result = await grouping.send(operation(action, job.key, values))
        job.settle(values, result["data"])

    key = str(uuid4())
    job = _known[key] = Entity(key)
    await send("create", id=key, user_id=user_id, status="running")
    for step in range(UPDATES):
        await send("update", data=f'{{"description": "step {step}"}}')
    await send("update", status="done")


async def units(grouping: Grouping, user_id: str) -> None:
    """Run a life cycle with a unit of work."""
    key, unit = str(uuid4()), Unit(grouping)
    job = _known[key] = Entity(key)
    unit.create(job, user_id=user_id, status="running")
    await unit.commit()
    for step in range(UPDATES):
        unit.update(job, data=f'{{"description": "step {step}"}}')
        await unit.commit()
    unit.update(job, status="done")
    await unit.commit()


async def farm(step: str, tasks: int, cycles: int) -> None:
    """Run the life cycles of one step."""
    life_cycle = {"grouped": grouped, "mapped": mapped, "units": units}[step]
    url, key, user = account()
    headers = {"ftrack-user": user, "ftrack-api-key": key, "content-type": "application/json"}
    async with httpx.AsyncClient(base_url=url, headers=headers, timeout=60) as client:
        grouping, user_id = Grouping(client), str(uuid4())

        async def work() -> None:
            for _ in range(cycles):
                await life_cycle(grouping, user_id)

        memory, watch = Memory(), Stopwatch()
        async with asyncio.TaskGroup() as group:
            for _ in range(tasks):
                group.create_task(work())
        report({**watch.read(), **memory.read()})


if __name__ == "__main__":
    asyncio.run(farm(sys.argv[1], *map(int, sys.argv[3:5])))
