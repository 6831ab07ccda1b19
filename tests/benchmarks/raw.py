"""The workloads with plain httpx, written by hand: the cost without entities and their state.

Requests and files are the same, but there are no entities, no classes of errors and no identity
map. A workload that is about one of these has no function here.
"""

import sys

from measuring import (
    CHUNK,
    LIFE_CYCLES,
    MAX_CONCURRENT,
    PAGE,
    READING,
    UPDATES,
    Laps,
    Memory,
    Stopwatch,
    account,
    moment,
    report,
)


def _client():
    import httpx

    url, key, user = account()
    headers = {"ftrack-user": user, "ftrack-api-key": key, "content-type": "application/json"}
    return httpx.AsyncClient(base_url=url, headers=headers, timeout=60)


async def _call(client, *operations):
    import json

    response = await client.post("/api", content=json.dumps(operations))
    return json.loads(response.content)


def _create(user_id: str, job_id: str, **values: str):
    data = {"__entity_type__": "Job", "id": job_id, "user_id": user_id, **values}
    return {"action": "create", "entity_type": "Job", "entity_key": [job_id], "entity_data": data}


def _update(job_id: str, **values: str):
    data = {"__entity_type__": "Job", **values}
    return {"action": "update", "entity_type": "Job", "entity_key": [job_id], "entity_data": data}


async def _user_id(client) -> str:
    expression = f'select id from User where username is "{account()[2]}" limit 2'
    (result,) = await _call(client, {"action": "query", "expression": expression})
    return result["data"][0]["id"]


async def hello() -> None:
    from uuid import uuid4

    async with _client() as client:
        user_id = await _user_id(client)
        data = '{"description": "hello"}'
        await _call(client, _create(user_id, str(uuid4()), status="running", data=data))
        report(moment())


async def life_cycles() -> None:
    from uuid import uuid4

    async with _client() as client:
        user_id = await _user_id(client)
        watch = Stopwatch()
        for _ in range(LIFE_CYCLES):
            job_id = str(uuid4())
            await _call(client, _create(user_id, job_id, status="running"))
            for step in range(UPDATES):
                await _call(client, _update(job_id, data=f'{{"description": "step {step}"}}'))
            await _call(client, _update(job_id, status="done"))
        report(watch.read())


async def farm(tasks: str, cycles: str, batch: str) -> None:
    """Send prepared requests: the life cycles of a batch of Jobs, with one step in each request."""
    import asyncio
    import json
    from uuid import uuid4

    async with _client() as client:
        user_id = await _user_id(client)
        jobs = [str(uuid4()) for _ in range(int(batch))]
        texts = [f'{{"description": "step {step}"}}' for step in range(UPDATES)]
        steps = [
            [_create(user_id, job, status="running") for job in jobs],
            *([_update(job, data=text) for job in jobs] for text in texts),
            [_update(job, status="done") for job in jobs],
        ]
        bodies = [json.dumps(step, separators=(",", ":")).encode() for step in steps]
        free = asyncio.Semaphore(MAX_CONCURRENT)

        async def work() -> None:
            for _ in range(int(cycles)):
                for body in bodies:
                    async with free:
                        response = await client.post("/api", content=body)
                    response.raise_for_status()

        memory, watch = Memory(), Stopwatch()
        async with asyncio.TaskGroup() as group:
            for _ in range(int(tasks)):
                group.create_task(work())
        report({**watch.read(), **memory.read()})


async def lone(commits: str) -> None:
    import json
    from uuid import uuid4

    async with _client() as client:
        job_id = str(uuid4())
        await _call(client, _create(await _user_id(client), job_id, status="running"))
        operation = _update(job_id, data='{"description": "step 0"}')
        body = json.dumps([operation], separators=(",", ":")).encode()
        laps = Laps()
        for _ in range(int(commits)):
            await client.post("/api", content=body)
            laps.end()
        report(laps.read())


async def read() -> None:
    async with _client() as client:
        await _user_id(client)
        memory, watch = Memory(), Stopwatch()
        jobs, users, offset = [], {}, 0
        while offset is not None:
            expression = f"{READING} offset {offset} limit {PAGE}"
            (result,) = await _call(client, {"action": "query", "expression": expression})
            jobs += result["data"]
            offset = result["metadata"]["next"]["offset"]
        for job in jobs:
            if "username" in job["user"]:
                users[job["user"]["id"]] = job["user"]["username"]
        names = {(job["status"], users[job["user"]["id"]]) for job in jobs}
        report({**watch.read(), **memory.read(), "found": len(names)})


async def upload(path: str) -> None:
    import base64
    import hashlib
    import os
    from uuid import uuid4

    async with _client() as client:
        await _user_id(client)
        memory, watch = Memory(), Stopwatch()
        with open(path, "rb") as file:  # noqa: ASYNC230, PTH123
            digest = hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False))
            operation = {
                "action": "get_upload_metadata",
                "component_id": str(uuid4()),
                "file_name": "benchmark",
                "file_size": os.fstat(file.fileno()).st_size,
                "checksum": base64.b64encode(digest.digest()).decode(),
            }
            (target,) = await _call(client, operation)
            file.seek(0)

            async def chunks():
                while chunk := file.read(CHUNK):
                    yield chunk

            response = await client.put(target["url"], content=chunks(), headers=target["headers"])
            response.raise_for_status()
        report({**watch.read(), **memory.read()})


async def download(component_id: str, path: str) -> None:
    url, key, user = account()
    async with _client() as client:
        await _user_id(client)
        memory, watch = Memory(), Stopwatch()
        query = {"id": component_id, "username": user, "apiKey": key}
        async with client.stream("GET", f"{url}/component/get", params=query) as response:
            response.raise_for_status()
            with open(path, "wb") as file:  # noqa: ASYNC230, PTH123
                async for chunk in response.aiter_raw():
                    file.write(chunk)
        report({**watch.read(), **memory.read()})


def importing() -> None:
    watch = Stopwatch()
    import httpx  # noqa: F401
    import pydantic

    pydantic.BaseModel  # noqa: B018  # pydantic imports its parts lazily
    report(watch.read())


if __name__ == "__main__":
    name, *arguments = sys.argv[1:]
    if name == "importing":
        importing()
    else:
        import asyncio

        asyncio.run(globals()[name](*arguments))
