"""A session's link to its server: credentials, HTTP client, host task and dispatcher."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any

import anyio
import httpx

from aioftrackjobs._version import __version__
from aioftrackjobs.config import Credentials
from aioftrackjobs.dispatch import Dispatcher, Outcome, Settle, Ticket
from aioftrackjobs.errors import SessionStateError
from aioftrackjobs.host import Host
from aioftrackjobs.protocol.upload import component_url
from aioftrackjobs.protocol.values import JSONValue
from aioftrackjobs.protocol.wire import API_PATH
from aioftrackjobs.transport import HttpxTransport, Transport, open_client, redact

#: Seconds that closing waits for requests under way; what takes longer is cut off.
_CLOSING_GRACE = 10.0


class Connection:
    """Opens on entry, closes on exit; nothing touches the network before the first call.

    Args:
        credentials: Server, user and key.
        timeout: Seconds for each of connecting, sending and waiting for more of an answer.
        client: A client to use, and not to close; None to open one.
        strict_api: Whether to ask the server for real HTTP status codes.
    """

    def __init__(
        self,
        credentials: Credentials,
        *,
        timeout: float,
        client: httpx.AsyncClient | None,
        strict_api: bool,
    ) -> None:
        self._credentials = credentials
        self._timeout = timeout
        self._given_client = client
        self._own_client: httpx.AsyncClient | None = None
        self._strict_api = strict_api
        self._host = Host()
        self._open: tuple[Dispatcher, Transport] | None = None
        self._closed = False

    async def __aenter__(self) -> Connection:
        if self._open is not None or self._closed:
            raise SessionStateError("a session can be opened only once; make a new one")
        key = self._credentials.api_key.get_secret_value()
        if self._given_client is None:
            self._own_client = open_client(self._credentials.server_url, self._timeout)
        client = self._given_client or self._own_client
        if client is None:
            raise AssertionError("one of the two clients is there")
        transport = HttpxTransport(client, secrets=(key,))
        url = self._credentials.server_url + API_PATH
        dispatcher = Dispatcher(
            transport,
            self._host,
            url=url,
            headers=self._headers(key),
            redact=lambda text: redact(text, key),
        )
        await self._host.start()
        self._open = dispatcher, transport
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._open is None:
            return
        (dispatcher, _), self._open, self._closed = self._open, None, True
        with anyio.CancelScope(shield=True):
            with anyio.move_on_after(_CLOSING_GRACE):
                await dispatcher.drain()
            dispatcher.abandon()
            try:
                await self._host.aclose()
            finally:
                if self._own_client is not None:
                    await self._own_client.aclose()

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
    def host(self) -> Host:
        """Where background work runs."""
        return self._host

    @property
    def transport(self) -> Transport:
        """What sends requests that are no API calls: uploads and downloads."""
        return self._require_open()[1]

    def submit(self, operations: Sequence[Mapping[str, JSONValue]], settle: Settle) -> Ticket:
        """Queue an API call; *settle* hears of its end in any case."""
        return self._require_open()[0].submit(operations, settle)

    async def wait(self, ticket: Ticket) -> Outcome:
        """Wait for the end of a call; a cancelled wait withdraws it if it was not sent."""
        return await self._require_open()[0].wait(ticket)

    async def call(self, operations: Sequence[Mapping[str, JSONValue]]) -> list[Any]:
        """Send *operations*, and return one undecoded result for each."""
        return await self._require_open()[0].call(operations)

    def component_url(self, action: str, component_id: str) -> str:
        """Return the address to ``get`` or ``remove`` a component at. It carries the API key."""
        server, user, key = (
            self._credentials.server_url,
            self._credentials.api_user,
            self._credentials.api_key.get_secret_value(),
        )
        return component_url(server, action, component_id, user, key)

    def require_open(self) -> None:
        """Raise SessionStateError unless the session is open."""
        self._require_open()

    def _require_open(self) -> tuple[Dispatcher, Transport]:
        if self._open is not None:
            return self._open
        if self._closed:
            raise SessionStateError("the session is closed; open a new one")
        raise SessionStateError(
            "the session is not open; write: async with AsyncSession(...) as session:"
        )
