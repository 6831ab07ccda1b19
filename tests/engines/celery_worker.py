"""A worker of Celery, as a process of its own, and its tasks: `BROKER` is the URL of Redis."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

from celery import Celery
from celery.exceptions import Ignore

from aioftrackjobs.blocking import Session, current_job
from aioftrackjobs.integrations.celery import FtrackTask

from . import simulated_host  # noqa: F401 - before a session knows its host


class FarmTask(FtrackTask):
    abstract = True
    ftrack_session = Session()
    redelivered_within = 3600


app: Any = Celery("farm", broker=os.environ["BROKER"], task_cls=FarmTask)
app.conf.update(
    broker_connection_retry_on_startup=True,
    # Redis delivers again what was not acknowledged for so long, and looks as often.
    broker_transport_options={
        "visibility_timeout": float(os.environ.get("VISIBILITY", "3600")),
        "unacked_restore_limit": 100,
    },
    task_acks_late=True,
    task_reject_on_worker_lost=True,
    worker_prefetch_multiplier=1,
)


@app.task(name="bake", ftrack_job="Bake {0}")
def bake(shot: str, seconds: float = 0) -> str:
    job = current_job()
    for _ in job.track(range(10)):
        time.sleep(seconds / 10)
    return job.id


@app.task(name="flaky", bind=True, max_retries=2)
def flaky(self: Any) -> str:
    job = current_job()
    job.attach(b"log", name=f"attempt{self.request.retries}.txt")
    if self.request.retries < 2:
        raise self.retry(exc=OSError("no license"), countdown=0)
    return job.id


@app.task(name="autoretried", autoretry_for=(OSError,), max_retries=1, default_retry_delay=0)
def autoretried() -> None:
    raise OSError("no license")


@app.task(name="ignored")
def ignored() -> None:
    raise Ignore


@app.task(name="broken")
def broken() -> None:
    raise ValueError("no cache")


@app.task(name="soft", soft_time_limit=1)
def soft() -> None:
    time.sleep(50)


@app.task(name="hard", time_limit=1, acks_late=False)
def hard() -> None:
    time.sleep(50)


@app.task(name="killed")
def killed(path: str) -> None:
    """Kill the process of the first attempt."""
    mark = Path(path)
    if not mark.exists():
        mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    options = ["--concurrency", os.environ.get("CONCURRENCY", "2"), "--loglevel", "WARNING"]
    app.worker_main(["worker", *options, "--without-gossip", "--without-mingle"])
