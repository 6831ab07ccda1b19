"""The addresses of the pages."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from aioftrackjobs.devserver.engine import Engine
from aioftrackjobs.devserver.pages.access import Access, Endpoint, Run, Visit
from aioftrackjobs.devserver.pages.action_pages import ActionPages
from aioftrackjobs.devserver.pages.job_pages import JobPages, start_json
from aioftrackjobs.devserver.pages.rendering import static_response
from aioftrackjobs.devserver.pages.streams import Streams
from aioftrackjobs.devserver.pages.traffic import Traffic
from aioftrackjobs.devserver.pages.traffic_pages import TrafficPages


class Pages:
    """The pages of *engine*.

    Args:
        engine: The server.
        run: Runs a function in the thread of the database, in its turn.

    Attributes:
        streams: Keep pages in browsers up to date.
        traffic: What clients send and receive.
        routes: All addresses; none of them is one of ftrack's.
    """

    def __init__(self, engine: Engine, run: Run) -> None:
        self.streams: Streams = Streams(engine.limits.page_streams)
        self._access = access = Access(engine, run)
        jobs = JobPages(engine, run, self.streams)
        self.traffic: Traffic = Traffic(self.streams)
        engine.observers.append(self.traffic.note_changes)
        traffic = TrafficPages(engine, self.streams, self.traffic)
        actions = ActionPages(engine, run, self.streams)
        self._start = access.to(jobs.start)
        self.routes: list[Route] = [
            Route("/", self._start_page),
            Route("/pages/static/{name}", _static),
            self._post("/pages/login", access.log_in, is_public=True),
            self._post("/pages/logout", access.log_out),
            Route("/pages/status", access.to(self._status)),
            Route("/pages/stream", access.to(jobs.stream)),
            Route("/pages/jobs/{job}", access.to(jobs.show)),
            self._post("/pages/jobs/{job}/stop", jobs.stop),
            self._post("/pages/lost", jobs.fail_lost),
            Route("/pages/requests", access.to(traffic.show)),
            Route("/pages/requests/stream", access.to(traffic.stream)),
            self._post("/pages/requests/faults", traffic.inject),
            self._post("/pages/requests/reset", traffic.reset),
            Route("/pages/actions", access.to(actions.show)),
            Route("/pages/actions/stream", access.to(actions.stream)),
            self._post("/pages/actions/discover", actions.discover),
            self._post("/pages/actions/launch", actions.launch),
            Route("/pages/files/{component}", access.to(jobs.file)),
        ]

    def _post(self, path: str, endpoint: Endpoint, *, is_public: bool = False) -> Route:
        return Route(path, self._access.to(endpoint, is_public=is_public), methods=["POST"])

    async def _start_page(self, request: Request) -> Response:
        if "text/html" not in request.headers.get("accept", ""):
            return start_json(str(request.base_url))
        return await self._start(request)

    async def _status(self, _: Visit) -> Response:
        """Say to a page whose stream has ended whether it may have another one."""
        self.streams.check()
        return Response(status_code=204)


async def _static(request: Request) -> Response:
    return static_response(request.path_params["name"]) or Response(status_code=404)
