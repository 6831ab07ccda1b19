"""The pages about Jobs: the list, kept up to date; one Job; its files; what can be done."""

from __future__ import annotations

import codecs
from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlencode

import anyio
from anyio.to_thread import run_sync
from pydantic_core import from_json, to_json
from starlette.background import BackgroundTask
from starlette.responses import FileResponse, RedirectResponse, Response

from aioftrackjobs.devserver.api_errors import EntityNotFoundError, RequestError
from aioftrackjobs.devserver.engine import Engine
from aioftrackjobs.devserver.pages import jobs
from aioftrackjobs.devserver.pages.access import Run, Visit
from aioftrackjobs.devserver.pages.job_feed import JobFeed
from aioftrackjobs.devserver.pages.rendering import html
from aioftrackjobs.devserver.pages.stops import Stops
from aioftrackjobs.devserver.pages.streams import Streams
from aioftrackjobs.protocol.query import quote_list

if TYPE_CHECKING:
    from markupsafe import Markup

WHAT = "An ftrack server for development and tests, by aioftrackjobs."
NEXT = (
    "Set FTRACK_SERVER to this address, and FTRACK_API_USER and FTRACK_API_KEY to what the server "
    "printed when it started. Then any ftrack client can use it."
)
#: Ends of the names of files that are shown as text, how many are, and bytes of one that are.
_TEXTS = (".txt", ".log", ".json", ".csv", ".md", ".yml", ".yaml", ".xml", ".py", ".ini")
_MOST_READ, _SHOWN = 10, 64 * 1024
#: What keeps a file of a Job from doing anything in the page's name, if a browser shows it.
_FILE_HEADERS = {"Content-Security-Policy": "default-src 'none'; sandbox"}


class JobPages:
    """The pages about the Jobs of *engine*."""

    def __init__(self, engine: Engine, run: Run, streams: Streams) -> None:
        self._engine = engine
        self._run = run
        self._streams = streams
        self._feed = JobFeed(engine, run, streams)
        self._stops = Stops(engine, run, streams, self._feed)
        self._rendering = anyio.CapacityLimiter(1)  # several would take the time of all requests
        self._rows: dict[str, tuple[tuple[Any, ...], Markup]] = {}

    async def start(self, visit: Visit) -> Response:
        """Show the Jobs to browsers; say to others what this server is."""
        request = visit.request
        await self._feed.ready()
        position = self._feed.position
        wanted = jobs.Filter.of(request.query_params)
        some = self._some(wanted)
        found, has_older = await self._run(jobs.rows, self._engine, wanted, some)
        tools = await self._tools(wanted)
        page = partial(
            visit.page,
            "jobs.html",
            rendered=await self._rendered(found),
            older=urlencode({**wanted.query(), "start": wanted.start + jobs.MOST_ROWS})
            if has_older
            else "",
            most=jobs.MOST_ROWS,
            next=NEXT,
            base_url=str(request.base_url).rstrip("/"),
            stream=f"/pages/stream?{urlencode(wanted.query() | {'since': position})}",
            failed=_count(request.query_params.get("lost", "")),
            **tools,
        )
        return await run_sync(page, limiter=self._rendering)

    async def stream(self, visit: Visit) -> Response:
        """Send the rows that change."""
        request = visit.request
        wanted = jobs.Filter.of(request.query_params)
        position = request.headers.get("last-event-id") or request.query_params.get("since", "")

        async def step(position: str) -> tuple[str, Mapping[str, Any] | None]:
            await self._feed.ready()
            ids, now_at = self._feed.since(position), self._feed.position
            if ids is not None and not ids:
                return now_at, None
            return now_at, await self._update(wanted, ids, visit.token)

        return self._streams.respond(step, position)

    async def _update(
        self, wanted: jobs.Filter, ids: set[str] | None, token: str
    ) -> Mapping[str, Any]:
        """Return what is new for a page: of some Jobs, or of all."""
        some = self._some(wanted)
        if ids is not None:
            some = ids if some is None else ids & some
        found, _ = await self._run(jobs.rows, self._engine, wanted, some)
        tools = await self._tools(wanted)
        gone = (ids or set()) - {job.id for job in found}
        return {
            "rows": await self._rendered(found),
            "gone": [f"job-{each}" for each in sorted(gone)],
            "is_all": ids is None,
            "parts": [html("rows.html", "job_tools", **tools, token=token)],
        }

    async def _rendered(self, found: list[jobs.JobRow]) -> list[Markup]:
        """Return the rows of Jobs in HTML; those of other pages are used again."""
        alive = self._alive(found)

        def render() -> list[Markup]:
            if len(self._rows) > 2 * jobs.MOST_ROWS:
                self._rows.clear()
            rendered: list[Markup] = []
            for job in found:
                shown = (job, job.state, alive.get(job.id))
                known, row = self._rows.get(job.id, (None, None))
                if row is None or known != shown:
                    row = html("rows.html", "job_row", job=job, alive_at=shown[2])
                    self._rows[job.id] = shown, row
                rendered.append(row)
            return rendered

        return await run_sync(render, limiter=self._rendering)

    def _some(self, wanted: jobs.Filter) -> set[str] | None:
        """Return the ids among which the Jobs of a filter are; None for all."""
        return set(self._feed.lost()) if wanted.status == "lost" else None

    async def _tools(self, wanted: jobs.Filter) -> dict[str, Any]:
        names: dict[str, str] = await self._run(self._user_names, self._feed.users())
        ids = {name: own_id for own_id, name in names.items()}
        user_id = ids.get(wanted.user, "") if wanted.user else None
        users = sorted({*ids, wanted.user} - {""}, key=str.casefold)
        counts = self._feed.counts(user_id)
        links = {status: urlencode(wanted.query(status=status)) for status in ("", *jobs.STATUSES)}
        return {"wanted": wanted, "users": users, "counts": counts, "links": links}

    def _user_names(self, ids: list[str]) -> dict[str, str]:
        if not ids:
            return {}
        query = f"select id, username from User where id in {quote_list(ids)}"
        found = from_json(self._engine.query(query))[0]["data"]
        return {user["id"]: user["username"] for user in found}

    def _alive(self, found: list[jobs.JobRow]) -> dict[str, Any]:
        known = self._feed.jobs
        return {job.id: known[job.id].alive_at for job in found if job.id in known}

    async def show(self, visit: Visit) -> Response:
        """Show one Job."""
        return await self._job_page(visit, visit.request.path_params["job"])

    async def _job_page(
        self, visit: Visit, job_id: str, status: int = 200, **values: Any
    ) -> Response:
        await self._feed.ready()
        job = await self._run(jobs.row, self._engine, job_id)
        read, rest = job.attachments[:_MOST_READ], job.attachments[_MOST_READ:]
        files = [await self._file_of(each) for each in read]
        files += [{**each, "text": None} for each in rest]
        return visit.page(
            "job.html",
            status,
            job=job,
            files=files,
            alive_at=self._alive([job]).get(job_id),
            **{"reason": "", "error": "", **values},
        )

    async def _file_of(self, attachment: Mapping[str, Any]) -> dict[str, Any]:
        """Return an attachment, with its beginning if it is a text."""
        text = None
        if attachment["name"].lower().endswith(_TEXTS):
            try:
                path, _ = await self._run(self._engine.file_of, attachment["id"])
                text = await run_sync(_beginning, path)
            except (EntityNotFoundError, OSError):
                text = None  # it is not on this server
        return {**attachment, "text": text}

    async def stop(self, visit: Visit) -> Response:
        """Request that a Job stops."""
        job_id, reason = visit.request.path_params["job"], visit.field("reason")
        try:
            is_kept = await self._stops.write(visit.user, job_id, reason)
        except RequestError as error:
            return await self._job_page(
                visit, job_id, error.status, reason=reason, error=error.content
            )
        response = _to_job(job_id)
        if is_kept:
            response.background = BackgroundTask(self._stops.keep, visit.user, job_id, reason)
        return response

    async def fail_lost(self, visit: Visit) -> Response:
        """Fail the Jobs that are running and whose lease has ended: one, or all of a user."""
        await self._feed.ready()
        job_id, user = visit.field("job"), visit.field("user")
        wanted = jobs.Filter(user=user, status="lost")
        lost = [job_id] if job_id else self._feed.lost()
        count = await self._run(jobs.fail_lost, self._engine, visit.user, wanted, lost)
        if job_id:
            return _to_job(job_id)
        query = urlencode({**wanted.query(status=""), "lost": count})
        return RedirectResponse(f"/?{query}", 303)

    async def file(self, visit: Visit) -> Response:
        """Send a file of a Job, to be saved."""
        path, name = await self._run(self._engine.file_of, visit.request.path_params["component"])
        return FileResponse(
            path, media_type="application/octet-stream", filename=name, headers=_FILE_HEADERS
        )


def _to_job(job_id: str) -> Response:
    return RedirectResponse(f"/pages/jobs/{quote(job_id, safe='')}", 303)


def start_json(base_url: str) -> Response:
    """Say to programs what this server is."""
    url = base_url.rstrip("/")
    content = {"server": WHAT, "next": NEXT, "url": url, "api": "/api"}
    return Response(to_json(content), media_type="application/json")


def _beginning(path: Any) -> str:
    with path.open("rb") as file:
        content = file.read(_SHOWN + 1)
    text = codecs.decode(content[:_SHOWN], "utf-8", "replace")
    return f"{text}\n… (the rest is in the file)" if len(content) > _SHOWN else text


def _count(text: str) -> int | None:
    return int(text) if text.isascii() and text.isdecimal() and len(text) < 9 else None
