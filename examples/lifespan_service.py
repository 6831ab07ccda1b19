"""A web service that transcodes in the background, with one session for its whole lifetime.

Set FTRACK_SERVER, FTRACK_API_USER and FTRACK_API_KEY, then:

    uvicorn lifespan_service:app
    curl -X POST localhost:8000/transcode --json '{"shot": "sh010"}'
    curl localhost:8000/jobs/<the id from the response>

FastAPI accepts the same lifespan and the same task group.
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
    """The objects that live as long as the service, as ``request.state`` of each request."""

    session: AsyncSession
    background: TaskGroup


@asynccontextmanager
async def lifespan(app: Starlette) -> AsyncIterator[State]:
    """Open the session when the service starts. When it stops, end its Jobs, then close it."""
    # The caller waits for a response, so retrying for a minute, the default, would be too long.
    retry = RetryPolicy(budget=2)
    async with AsyncSession(retry=retry) as session, anyio.create_task_group() as background:
        yield {"session": session, "background": background}
        # Jobs that still run end as failed ("cancelled"). Without this line, they could finish.
        background.cancel_scope.cancel()


async def start_transcode(request: Request) -> JSONResponse:
    """Start a Job in the background, and respond as soon as it is running."""
    try:
        shot = str((await request.json())["shot"])
    except (ValueError, KeyError, TypeError):
        return JSONResponse({"error": 'send {"shot": "sh010"}'}, status_code=400)
    session, background = request.state.session, request.state.background
    job_id = await background.start(transcode, session, shot)
    return JSONResponse({"job": job_id}, status_code=202, headers={"location": f"/jobs/{job_id}"})


async def transcode(session: AsyncSession, shot: str, *, task_status: TaskStatus[str]) -> None:
    """Transcode a shot as a Job, and report the id of the Job as soon as it is running."""
    started = False
    try:
        async with job_context(session, description=f"Transcode {shot}") as job:
            task_status.started(job.id)
            started = True
            async for _frame in job.track(range(50)):
                await anyio.sleep(0.02)  # instead of the work: await anyio.run_process([...])
            await job.attach(b"not really a movie", name=f"{shot}.mov")
    except Exception:
        if not started:
            raise  # there is no Job, so the request that waits for it fails
        logger.exception("the Job of %s failed", shot)  # an error must not end the other Jobs


async def show_job(request: Request) -> JSONResponse:
    """Return the status of a Job."""
    job = await request.state.session.get(Job, request.path_params["id"])
    if job is None:
        return JSONResponse({"error": "no such Job"}, status_code=404)
    return JSONResponse({"id": job.id, "status": job.status, "description": job.description})


async def bad_gateway(request: Request, error: Exception) -> JSONResponse:
    """Respond to an error of the ftrack server, or of the connection to it."""
    logger.error("%s %s: %s", request.method, request.url.path, error)
    return JSONResponse({"error": "the ftrack server has failed"}, status_code=502)


app = Starlette(
    routes=[
        Route("/transcode", start_transcode, methods=["POST"]),
        Route("/jobs/{id}", show_job),
    ],
    exception_handlers={FtrackJobsError: bad_gateway},
    lifespan=lifespan,
)
