"""A session's link to its server: credentials, HTTP client, host task and dispatcher."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import anyio.lowlevel

from aioftrackjobs._version import __version__
from aioftrackjobs.background import BackgroundTasks
from aioftrackjobs.commit.api_client import ApiClient, ServerStatus
from aioftrackjobs.commit.dispatcher import Dispatcher, Waiting
from aioftrackjobs.config import Credentials
from aioftrackjobs.errors import SessionStateError
from aioftrackjobs.journal import Journal
from aioftrackjobs.protocol.upload import component_url
from aioftrackjobs.protocol.values import JSONValue
from aioftrackjobs.protocol.wire import API_PATH
from aioftrackjobs.retry import RetryPolicy
from aioftrackjobs.timings import DEFAULT_TIMINGS, Timings
from aioftrackjobs.transport import (
    HttpClient,
    HttpxTransport,
    OwnTransport,
    Transport,
    redact,
)
from aioftrackjobs.transport.limits import TransferLimiter

logger = logging.getLogger(__name__)


class Connection:
    """Opens on entry, closes on exit; nothing touches the network before the first call.

    Attributes:
        api: Makes the API calls, once it is open; :attr:`dispatcher` says when.

    Args:
        credentials: Server, user and key.
        timeout: Seconds for each of connecting, sending and waiting for more of an answer.
        client: A client to use, and not to close; None to open one.
        strict_api: Whether to ask the server for real HTTP status codes.
        group_commit: Whether commits may share a request.
        retry: When to try again what may be repeated.
        journal: What this host owes the server; None for no journal.
        transfers: How many may be under way at once.
        timings: Times that tests shorten.
        transport: Sends the requests in place of a client; not to be closed.
    """

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
    ) -> None:
        self._credentials = credentials
        self._timeout = timeout
        self._given_client = client
        self._given_transport = transport
        self._own_transport: OwnTransport | None = None
        self._strict_api = strict_api
        self._retry = retry
        self._host = BackgroundTasks(self._clean_up)
        self.timings = timings
        self.closing_grace = timings.closing_grace
        self.contact = ServerStatus()
        #: What sends API calls.
        self.dispatcher = Dispatcher(
            self._host,
            retry=retry,
            pauses=self.contact.pauses,
            group_commit=group_commit,
            timings=timings,
        )
        self.journal = Journal(
            journal,
            server_url=credentials.server_url,
            api_user=credentials.api_user,
            timings=timings,
        )
        #: Limits the uploads and downloads that run at the same time.
        self.transfer_limiter = TransferLimiter(transfers)
        self.api: ApiClient
        self._transport: Transport | None = None  # while it is open
        self._transfers = transfers
        self._closing = False

    async def __aenter__(self) -> Connection:
        if self._transport is not None or self._closing:
            raise SessionStateError("a session can be opened only once; make a new one")
        key = self._credentials.api_key.reveal()
        server_url = self._credentials.server_url
        api_url = server_url + API_PATH
        transport: Transport
        if self._given_transport is not None:
            transport = self._given_transport
        elif self._given_client is None:
            # Late, as it imports httpx: a session with a client of another kind needs none of it.
            from aioftrackjobs.transport.client import open_transport

            transport = self._own_transport = open_transport(
                server_url,
                api_url=api_url,
                timeout=self._timeout,
                secrets=(key,),
                transfers=self._transfers,
            )
        else:
            transport = HttpxTransport(self._given_client, secrets=(key,))
        self.api = ApiClient(
            transport,
            url=api_url,
            headers=self._headers(key),
            redact=lambda text: redact(text, key),
            contact=self.contact,
        )
        await self._host.start()
        self.journal.start(self._host.new_waiter, self._host.spawn)
        self.dispatcher.open(self.api)
        self._transport = transport
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._transport is None and not self._closing:
            return
        self._closing = True
        await self._host.aclose(self._wind_down)

    async def _wind_down(self) -> None:
        """Let what is under way come to its end, for a while; Jobs that end have a last word."""
        with anyio.move_on_after(self.closing_grace) as scope:
            for _ in range(self.timings.closing_turns):
                await anyio.lowlevel.checkpoint()  # cancelled tasks begin to end only now
            await self._host.released()
            await self.dispatcher.drain()
        if scope.cancelled_caught:
            logger.warning("the session closes while Jobs or requests are under way")
        self._transport = None
        self.dispatcher.abandon()

    async def _clean_up(self) -> None:
        """Close what is ours, also where the program ends without closing its session."""
        self.dispatcher.abandon()  # no worker of it is left: nobody may wait in vain
        self._transport, self._closing = None, True
        try:
            if self._own_transport is not None:
                await self._own_transport.aclose()
        finally:
            await self.journal.aclose()

    def _headers(self, key: str) -> Mapping[str, str | bytes]:
        """Return the headers of API calls, and of no others: uploads go to foreign servers.

        Source:
            protocol.md, section 1.2.
        """
        return {
            "accept": "application/json",
            "content-type": "application/json",
            "user-agent": f"aioftrackjobs/{__version__}",
            "ftrack-user": self._credentials.api_user.encode(),
            "ftrack-api-key": key,
            "ftrack-strict-api": "true" if self._strict_api else "false",
        }

    @property
    def credentials(self) -> Credentials:
        """Server, user and key."""
        return self._credentials

    @property
    def retry(self) -> RetryPolicy:
        """When to try again what may be repeated."""
        return self._retry

    def waiting(self) -> Waiting:
        """Tell what has not come to its end."""
        return self.dispatcher.waiting()

    @property
    def host(self) -> BackgroundTasks:
        """Where background work runs."""
        return self._host

    @property
    def transport(self) -> Transport:
        """What sends requests that are no API calls: uploads and downloads."""
        self.require_open()
        assert self._transport is not None  # noqa: S101 - for type checkers
        return self._transport

    async def call(self, operations: Sequence[Mapping[str, JSONValue]]) -> list[Any]:
        """Send *operations*, and return one undecoded result for each."""
        return await self.dispatcher.call(operations)

    def component_url(self, action: str, component_id: str) -> str:
        """Return the address to ``get`` or ``remove`` a component at. It carries the API key."""
        server, user, key = (
            self._credentials.server_url,
            self._credentials.api_user,
            self._credentials.api_key.reveal(),
        )
        return component_url(server, action, component_id, user, key)

    def require_open(self) -> None:
        """Raise SessionStateError unless the session is open."""
        self.dispatcher.require_open()
