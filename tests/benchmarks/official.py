"""The workloads with the official client: ``official.py WORKLOAD [ARGUMENT ...]``.

They use the client as its own tutorial does: unmodified, without plugins, with a warm schema cache.
"""

import sys

from measuring import (
    CHUNK,
    COMMITS,
    LIFE_CYCLES,
    READING,
    UPDATES,
    Memory,
    Stopwatch,
    account,
    moment,
    report,
)


def open_session():
    import ftrack_api

    # `run.py` has set the folder of the schema cache in the environment.
    return ftrack_api.Session(*account(), plugin_paths=[])


def hello() -> None:
    session = open_session()
    user = session.query(f'User where username is "{session.api_user}"').one()
    session.create("Job", {"user": user, "status": "running", "data": '{"description": "hello"}'})
    session.commit()
    report(moment())


def life_cycles() -> None:
    session = open_session()
    user = session.query(f'User where username is "{session.api_user}"').one()
    watch = Stopwatch()
    for _ in range(LIFE_CYCLES):
        job = session.create("Job", {"user": user, "status": "running"})
        session.commit()
        for step in range(UPDATES):
            job["data"] = f'{{"description": "step {step}"}}'
            session.commit()
        job["status"] = "done"
        session.commit()
    report(watch.read())


def farm(threads: str, cycles: str) -> None:
    """Open a session for each thread: threads with one session send each other's operations."""
    from concurrent.futures import ThreadPoolExecutor

    sessions = [open_session() for _ in range(int(threads))]
    name = sessions[0].api_user
    users = [each.query(f'User where username is "{name}"').one() for each in sessions]

    def work(session, user) -> None:
        for _ in range(int(cycles)):
            job = session.create("Job", {"user": user, "status": "running"})
            session.commit()
            for step in range(UPDATES):
                job["data"] = f'{{"description": "step {step}"}}'
                session.commit()
            job["status"] = "done"
            session.commit()

    memory, watch = Memory(), Stopwatch()
    with ThreadPoolExecutor(int(threads)) as pool:
        for ended in [pool.submit(work, *each) for each in zip(sessions, users, strict=True)]:
            ended.result()
    report({**watch.read(), **memory.read()})


def many(jobs: str) -> None:
    """Run Jobs in 32 threads, each with two reports, as programs do by hand."""
    import json
    from concurrent.futures import ThreadPoolExecutor
    from queue import SimpleQueue

    sessions: SimpleQueue = SimpleQueue()
    for _ in range(32):
        session = open_session()
        name = session.api_user
        sessions.put((session, session.query(f'User where username is "{name}"').one()))

    def work(_: int) -> None:
        session, user = sessions.get()
        data = {"description": "x"}
        job = session.create("Job", {"user": user, "status": "running", "data": json.dumps(data)})
        session.commit()
        for step in range(2):
            job["data"] = json.dumps({"description": f"x ({50 * step} %)"})
            session.commit()
        job["status"] = "done"
        session.commit()
        sessions.put((session, user))

    watch = Stopwatch()
    with ThreadPoolExecutor(32) as pool:
        list(pool.map(work, range(int(jobs))))
    report(watch.read())


def commit(held: str) -> None:
    session = open_session()
    jobs = session.query(f"{READING} limit {held}").all()
    assert len(jobs) == int(held)
    jobs[0]["status"] = "queued"
    session.commit()
    watch = Stopwatch()
    for number in range(COMMITS):
        jobs[0]["status"] = ("running", "done")[number % 2]
        session.commit()
    report(watch.read(share=COMMITS))


def read() -> None:
    session = open_session()
    session.query(f'User where username is "{session.api_user}"').one()
    memory, watch = Memory(), Stopwatch()
    jobs = session.query(READING).all()
    names = {(job["status"], job["user"]["username"]) for job in jobs}
    report({**watch.read(), **memory.read(), "found": len(names)})


def upload(path: str) -> None:
    session = open_session()
    location = session.query('Location where name is "ftrack.server"').one()
    memory, watch = Memory(), Stopwatch()
    component = session.create_component(path, {"name": "benchmark"}, location)
    report({**watch.read(), **memory.read()}, component=component["id"])


def download(component_id: str, path: str) -> None:
    """Copy from the location's accessor, as the client does to add to another location."""
    session = open_session()
    location = session.query('Location where name is "ftrack.server"').one()
    memory, watch = Memory(), Stopwatch()
    source = location.accessor.open(component_id)
    with open(path, "wb") as target:  # noqa: PTH123
        while chunk := source.read(CHUNK):
            target.write(chunk)
    source.close()
    report({**watch.read(), **memory.read()})


def importing() -> None:
    watch = Stopwatch()
    import ftrack_api  # noqa: F401

    report(watch.read())


if __name__ == "__main__":
    name, *arguments = sys.argv[1:]
    globals()[name](*arguments)
