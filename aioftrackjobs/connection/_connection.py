"""The wiring of a session: HTTP client, API client, dispatcher, background tasks and journal."""

from __future__ import annotations

import math
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Unpack

import anyio.lowlevel

from aioftrackjobs._version import __version__
from aioftrackjobs.background import BackgroundTasks, SafeLogger
from aioftrackjobs.commit.api_client import ApiClient, ServerStatus
from aioftrackjobs.commit.dispatcher import Backlog, Dispatcher
from aioftrackjobs.commit.request import Manner
from aioftrackjobs.config.retry import RetryPolicy
from aioftrackjobs.config.secret import Secret
from aioftrackjobs.config.settings import Credentials
from aioftrackjobs.config.timings import DEFAULT_TIMINGS, Timings
from aioftrackjobs.errors import SessionStateError
from aioftrackjobs.journal import Journal
from aioftrackjobs.protocol.values import JSONValue
from aioftrackjobs.protocol.wire import API_PATH
from aioftrackjobs.transport import (
    Bounds,
    Headers,
    HttpClient,
    HttpxTransport,
    OwnTransport,
    Transport,
    redact,
)
from aioftrackjobs.transport.limits import TransferLimiter

if TYPE_CHECKING:
    from aioftrackjobs.telemetry import SafeObserver

logger = SafeLogger(__name__)

_LOOP_ENDED = (
    "the session was closed when the event loop ended in which it was opened; open one session in "
    "each event loop: async with AsyncSession(...) as session, inside of what asyncio.run() runs"
)


#: Seconds that a request in a thread may take to connect, and to wait for data.
_THREAD_TIMEOUT = 10.0


class Connection:
    """Opens on entry, closes on exit; it sends nothing before the first call.

    Args:
        credentials: Server, user and key.
        timeout: Seconds for each of connecting, sending and waiting for more of a response.
        client: A client to use, and not to close; None to open one.
        strict_api: Whether to ask the server for real HTTP status codes.
        group_commit: Whether commits may share a request.
        retry: When to repeat what is safe to repeat.
        journal: File with the work that this host still has to report; None for no journal.
        transfers: Uploads and downloads in progress at once.
        timings: Times that tests shorten.
        transport: Sends the requests in place of a client; not to be closed.
        observer: What watches the session.

    Attributes:
        background: Runs what must survive the caller's cancellation.
        server_status: What the responses say about the server.
        dispatcher: Sends API calls.
        api: Makes the API calls of the dispatcher; there is none before the connection is opened.
        journal: What this host has not yet reported.
        observer: What watches the session; None for nothing.
        transfer_limiter: Limits the uploads and downloads that run at the same time.
        closing_grace: Seconds that closing waits for requests in progress.
        is_closing: Whether closing has begun, so that calls of users are refused.
        end_jobs: Ends the Jobs that still run when the session closes, in limited time.
        start_events: Starts the event hub when the session opens, if the program uses it.
        end_events: Ends the event hub and its handlers when the session closes, in limited time,
            before the Jobs end.
    """

    api: ApiClient

    def __init__(
        self,
        credentials: Credentials,
        *,
        timeout: float,
        client: HttpClient | None,
        strict_api: bool,
        group_commit: bool,
        retry: RetryPolicy,
        journal: Path | None = None,
        transfers: int = 8,
        timings: Timings = DEFAULT_TIMINGS,
        transport: Transport | None = None,
        observer: SafeObserver | None = None,
    ) -> None:
        self.credentials = credentials
        self.retry = retry
        self.observer = observer
        self.timings = timings
        self.closing_grace: float = timings.closing_grace
        self._timeout = timeout
        self._given_client = client
        self._given_transport = transport
        self._own_transport: OwnTransport | None = None
        self._strict_api = strict_api
        self.background: BackgroundTasks = BackgroundTasks(self._clean_up, self.redact)
        self.server_status: ServerStatus = ServerStatus(expedited_pause=timings.expedited_pause)
        make_dispatcher: Callable[..., Dispatcher] = Dispatcher
        self._make_api: Callable[..., ApiClient] = ApiClient
        if observer is not None:
            from aioftrackjobs.commit.observed import ObservedApiClient, ObservedDispatcher

            shown = observer, credentials.server_url
            make_dispatcher = partial(ObservedDispatcher, *shown)
            self._make_api = partial(ObservedApiClient, *shown)
        self.dispatcher: ObservedDispatcher | Dispatcher = make_dispatcher(
            self.background,
            retry=retry,
            pauses=self.server_status.pauses,
            group_commit=group_commit,
            timeout=timeout,
            timings=timings,
        )
        self.journal: Journal = Journal(
            journal,
            server_url=credentials.server_url,
            api_user=credentials.api_user,
            timings=timings,
            note_change=None if observer is None else observer.journal_changed,
        )
        self.transfer_limiter: TransferLimiter = TransferLimiter(transfers)
        self._transport: Transport | None = None  # while it is open
        self._reserved: Transport | None = None  # for urgent requests
        self._transfers = transfers
        self._closing = False
        self.is_closing: bool = False
        self.end_jobs: Callable[[], Coroutine[Any, Any, None]] = anyio.lowlevel.checkpoint
        self.start_events: Callable[[], None] = lambda: None
        self.end_events: Callable[[], Coroutine[Any, Any, None]] = anyio.lowlevel.checkpoint

    async def __aenter__(self) -> Connection:
        self._require_new()
        await self.journal.require_usable()
        self._require_new()  # another task may open it meanwhile
        key = self.credentials.api_key
        server_url = self.credentials.server_url
        api_url = server_url + API_PATH
        # Connecting and waiting for the response may take the time-out each.
        bounds = Bounds(2 * self._longest_wait(), self.timings.response_size)
        transport: Transport
        reserved: Transport
        if self._given_transport is not None:
            transport = reserved = self._given_transport
        elif self._given_client is None:
            # Late, as it imports httpx: a session with a client of another kind needs none of it.
            from aioftrackjobs.transport.client import open_transport

            transport = self._own_transport = open_transport(
                server_url,
                api_url=api_url,
                timeout=self._timeout,
                bounds=bounds,
                reserved_seconds=self.timings.reserved_limit,
                secrets=(key,),
                transfers=self._transfers,
            )
            reserved = transport.reserved
        else:
            transport = HttpxTransport(self._given_client, secrets=(key,), bounds=bounds)
            bounds = replace(bounds, seconds=self.timings.reserved_limit)
            reserved = HttpxTransport(self._given_client, secrets=(key,), bounds=bounds)
        self.api, reserved_api = (
            self._make_api(
                each,
                url=api_url,
                headers=self._headers(key),
                redact=self.redact,
                server_status=self.server_status,
            )
            for each in (transport, reserved)
        )
        await self.background.start()
        self.journal.start(self.background.new_waiter, self.background.spawn)
        self.dispatcher.open(self.api, reserved_api)
        self._transport, self._reserved = transport, reserved
        self.start_events()
        return self

    def _longest_wait(self) -> float:
        """Return the time-out; that of a caller's client if that is longer."""
        timeout = getattr(self._given_client, "timeout", None)
        wait = getattr(timeout, "read", self._timeout)
        return math.inf if wait is None else max(self._timeout, wait)

    def _require_new(self) -> None:
        if self.background.event_loop is not None:
            raise SessionStateError("a session can be opened only once; make a new one")

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._transport is None and not self._closing:
            return
        try:
            self.background.require_here()
        except SessionStateError as exc:
            if error is None:
                raise
            logger.warning(
                "the session is not closed here: %(error)s", error=exc
            )  # `error` says more
            return
        self._closing = True
        await self.background.aclose(self._wind_down)

    async def _wind_down(self) -> None:
        """End all Jobs, and let requests end for a limited time."""
        for _ in range(self.timings.closing_turns):
            await anyio.lowlevel.checkpoint()  # cancelled tasks begin to end only now
        with self.background.surviving("the end of the event hub"):
            await self.end_events()
        self.is_closing = True
        with self.background.surviving("the end of the Jobs"):
            await self.end_jobs()
        with anyio.move_on_after(self.closing_grace) as scope:
            with anyio.move_on_after(self.timings.closing_wait) as waiting:
                await self.background.wait_released()
            if not waiting.cancelled_caught:
                with (
                    anyio.move_on_after(self.timings.closing_wait),
                    self.background.surviving("the look for late writes"),
                ):
                    await self.dispatcher.late_writes.look()
            else:
                with self.background.surviving("the end of the Jobs"):
                    await self.end_jobs()  # of blocks that were just being entered
                self.background.stop_optional()
                self.dispatcher.withdraw_all()
                await self.background.wait_released()
        self.dispatcher.withdraw_all()
        with anyio.move_on_after(min(self.closing_grace, self.timings.closing_linger)) as lingering:
            await self.dispatcher.drain()
        if scope.cancelled_caught or lingering.cancelled_caught:
            logger.warning("the session closes while requests are in progress")
        self._transport = None
        self.dispatcher.abandon()

    async def _clean_up(self) -> None:
        """Close what is ours, also if the program ends without closing its session."""
        why = None if self._closing else _LOOP_ENDED
        self.dispatcher.abandon(why)  # no worker is left: its callers must not wait for ever
        self._transport, self._closing = None, True
        try:
            if self._own_transport is not None:
                await self._own_transport.aclose()
        finally:
            await self.journal.aclose()

    def redact(self, text: str) -> str:
        """Return *text* without the API key, and without other secrets."""
        return redact(text, self.credentials.api_key)

    def _headers(self, key: Secret[str]) -> Headers:
        """Return the headers of API calls, and of no others: uploads go to other servers.

        Source:
            docs/protocol.md, section 1.2.
        """
        return {
            "accept": "application/json",
            "accept-encoding": "gzip, deflate",  # which are decoded here, up to a largest size
            "cache-control": "no-store",  # some proxies keep responses to POST, too
            "content-type": "application/json",
            "user-agent": self.user_agent,
            "ftrack-user": self.credentials.api_user.encode(),
            "ftrack-api-key": key,
            "ftrack-strict-api": "true" if self._strict_api else "false",
        }

    @property
    def user_agent(self) -> str:
        """The name of this program, as servers log it."""
        return f"aioftrackjobs/{__version__}"

    def backlog(self) -> Backlog:
        """Return the number of commits that have not ended. May be called in any thread."""
        return self.dispatcher.backlog()

    @property
    def transport(self) -> Transport:
        """What sends requests that are no API calls: uploads and downloads.

        Raises:
            SessionStateError: The session is not open.
        """
        self.dispatcher.require_open()
        assert self._transport is not None  # noqa: S101 - for type checkers
        return self._transport

    @property
    def reserved_transport(self) -> Transport:
        """The same with connections of its own, for requests that must not wait for others.

        Raises:
            SessionStateError: The session is not open.
        """
        if self._reserved is None or self._transport is None:
            raise SessionStateError("the session is not open")
        return self._reserved

    async def call(
        self, operations: Sequence[Mapping[str, JSONValue]], **manner: Unpack[Manner]
    ) -> list[Any]:
        """Send *operations* in some manner, and return one undecoded result for each."""
        return await self.dispatcher.call(operations, **manner)

    def call_in_thread(self, operations: Sequence[Mapping[str, JSONValue]]) -> list[Any]:
        """Send *operations* as :meth:`call` does, but in any thread, which this blocks.

        Raises:
            FtrackJobsError: There is no complete response, or the server refused.
        """
        from aioftrackjobs.transport.client import send_in_thread  # late: few sessions need it

        timeout = min(self._timeout, _THREAD_TIMEOUT)
        return self.api.call_in_thread(lambda request: send_in_thread(request, timeout), operations)

    @property
    def may_call_in_thread(self) -> bool:
        """Whether :meth:`call_in_thread` reaches the server as the session does.

        A client of the caller's cannot be used in another thread, and may take another way.
        """
        return self._own_transport is not None

    def component_url(self, action: str, component_id: str, size: int | None = None) -> Secret[str]:
        """Return the URL to ``get``, ``remove`` or show a component, which contains the API key."""
        from aioftrackjobs.protocol.upload import component_url  # late: many never move a file

        server_url, api_user, api_key = self.credentials
        return component_url(server_url, action, component_id, api_user, api_key, size)

    def require_open(self, *, anywhere: bool = False) -> None:
        """Raise SessionStateError unless the session is open, and is not being closed.

        Args:
            anywhere: Do not mind if this is another event loop, thread or process.
        """
        if (refusal := self.dispatcher.refusal) is not None:
            raise SessionStateError(refusal)
        if not anywhere:
            self.dispatcher.require_here()
        if self.is_closing:
            raise SessionStateError("the session is being closed; open a new one")
