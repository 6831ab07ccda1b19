"""The same for blocking code: sessions and Jobs in plain threads, without an event loop to run.

::

    from aioftrackjobs.blocking import job_context

    with job_context(description="Bake sh010") as job:
        for frame in job.track(frames):
            bake(frame)
        job.attach("report.pdf")

Everything is as in the async classes, without ``await``; see docs/blocking.md.
"""

from typing import Any

from aioftrackjobs.blocking._jobs import (
    JobBlock,
    RunningJob,
    Stage,
    current_job,
    job_context,
    recover,
    run_command,
)
from aioftrackjobs.blocking._session import Query, Session, UnitOfWork, default_session
from aioftrackjobs.blocking._signals import shutdown_on_signals
from aioftrackjobs.models import Job, Location

__all__ = [
    "EventHub",
    "Job",
    "JobBlock",
    "Location",
    "Query",
    "RunningJob",
    "Session",
    "Stage",
    "UnitOfWork",
    "current_job",
    "default_session",
    "job_context",
    "recover",
    "run_command",
    "shutdown_on_signals",
]


def __getattr__(name: str) -> Any:
    if name == "EventHub":
        from aioftrackjobs.blocking._events import EventHub  # late: few programs listen

        return EventHub
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
