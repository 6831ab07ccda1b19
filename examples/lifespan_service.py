"""A web service that transcodes in the background, with one session for its whole life.

Set FTRACK_SERVER, FTRACK_API_USER and FTRACK_API_KEY, then:

    uvicorn lifespan_service:app
    curl -X POST localhost:8000/transcode --json '{"shot": "sh010"}'
    curl localhost:8000/jobs/<the id from the answer>

FastAPI takes the same lifespan, and the same task group.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TypedDict

import anyio
from anyio.abc import TaskGroup, TaskStatus
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from aioftrackjobs import AsyncSession, FtrackJobsError, Job, RetryPolicy, job_context

logger = logging.getLogger(__name__)


class State(TypedDict):
    """What lives as long as the service, and is ``request.state`` in each request."""

    session: AsyncSession
    background: TaskGroup


@asynccontextmanager
async def lifespan(app: Starlette) -> AsyncIterator[State]:
    """Open the session when the service starts; when it stops, end the Jobs, then close it."""
    # Who called waits for an answer: trying again for the usual minute would be too long.
    retry = RetryPolicy(budget=2)
    async with AsyncSession(retry=retry) as session, anyio.create_task_group() as background:
        yield {"session": session, "background": background}
        # What still runs ends as failed, "cancelled". To let it finish, leave this line out.
        background.cancel_scope.cancel()


async def start_transcode(request: Request) -> JSONResponse:
    """Start a Job in the background, and answer as soon as it is running."""
    try:
        shot = str((await request.json())["shot"])
    except (ValueError, KeyError, TypeError):
        return JSONResponse({"error": 'send {"shot": "sh010"}'}, status_code=400)
    session, background = request.state.session, request.state.background
    job_id = await background.start(transcode, session, shot)
    return JSONResponse({"job": job_id}, status_code=202, headers={"location": f"/jobs/{job_id}"})


async def transcode(session: AsyncSession, shot: str, *, task_status: TaskStatus[str]) -> None:
    """Transcode a shot as a Job, and tell the Job's id as soon as there is one."""
    started = False
    try:
        async with job_context(session, description=f"Transcode {shot}") as job:
            task_status.started(job.id)
            started = True
            async for _frame in job.track(range(50)):
                await anyio.sleep(0.02)  # stands for the work: await anyio.run_process([...])
            await job.attach(b"not really a movie", name=f"{shot}.mov")
    except Exception:
        if not started:
            raise  # there is no Job: the request that waits for it gets the error
        logger.exception("the Job of %s failed", shot)  # an error here must not end the others


async def show_job(request: Request) -> JSONResponse:
    """Tell how a Job stands."""
    job = await request.state.session.get(Job, request.path_params["id"])
    if job is None:
        return JSONResponse({"error": "no such Job"}, status_code=404)
    return JSONResponse({"id": job.id, "status": job.status, "description": job.description})


async def bad_gateway(request: Request, error: Exception) -> JSONResponse:
    """Answer for an ftrack server that is away, or refuses."""
    logger.error("%s %s: %s", request.method, request.url.path, error)
    return JSONResponse({"error": "ftrack does not answer as it should"}, status_code=502)


app = Starlette(
    routes=[
        Route("/transcode", start_transcode, methods=["POST"]),
        Route("/jobs/{id}", show_job),
    ],
    exception_handlers={FtrackJobsError: bad_gateway},
    lifespan=lifespan,
)
