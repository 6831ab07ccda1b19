"""A fresh embedded server on a real socket for each test, and a session on it.

The tests run on the client that a session opens for itself, on asyncio. Those marked
``every_loop`` run on trio too; those marked ``other_client`` in one more setting, which is not the
same for all of them; those marked ``every_client``, and with ``--clients=all`` all others, also on
clients of the caller's own. That client is made with httpx, as where httpx2 is not
installed; tests with respx run on both. The programs that tests start use httpx2.
"""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from dataclasses import dataclass
from inspect import iscoroutinefunction
from typing import Any, TypeVar
from zlib import crc32

import anyio
import ftrack_api
import pytest
from anyio.abc import SocketAttribute, SocketStream
from anyio.to_thread import run_sync
from respx.mocks import HTTPCoreMocker

from aioftrackjobs import AsyncSession
from aioftrackjobs.config.settings import Credentials
from aioftrackjobs.connection import Connection
from aioftrackjobs.devserver import ServerHandle

from .settings import (
    OWN_CLIENT,
    RESPX_SETTINGS,
    SETTINGS,
    AnyClient,
    Setting,
    connected,
    own_client,
)
from .waiting import until

T = TypeVar("T")

# respx knows the connections of httpx only. Those of httpx2 have the same methods.
HTTPCoreMocker.add_targets(
    "httpcore2._async.connection.AsyncHTTPConnection",
    "httpcore2._async.connection_pool.AsyncConnectionPool",
    "httpcore2._async.http_proxy.AsyncHTTPProxy",
)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run an async test in each setting that it is made for."""
    hypothesis = getattr(metafunc.function, "hypothesis", None)
    test = metafunc.function if hypothesis is None else hypothesis.inner_test
    everywhere = metafunc.config.getoption("clients") == "all" or any(
        metafunc.definition.iter_markers("every_client")
    )
    if everywhere:
        settings = list(SETTINGS)
    elif any(metafunc.definition.iter_markers("other_client")):
        number = crc32(metafunc.definition.nodeid.encode()) % (len(SETTINGS) - 1)
        settings = [SETTINGS[0], SETTINGS[1 + number]]
    elif any(metafunc.definition.iter_markers("every_loop")):
        settings = [each for each in SETTINGS if (each.client, each.library) == ("own", "httpx")]
    elif "respx_mock" in metafunc.fixturenames:
        settings = list(RESPX_SETTINGS)
    else:
        return
    if iscoroutinefunction(test):
        metafunc.parametrize("setting", settings, ids=str, indirect=True, scope="module")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    fit, unfit = list[pytest.Item](), list[pytest.Item]()
    for item in items:
        (fit if _fits(item) else unfit).append(item)
    if unfit:
        config.hook.pytest_deselected(items=unfit)
        items[:] = fit


def _fits(item: pytest.Item) -> bool:
    """Return whether a test is made for its setting."""
    setting = item.callspec.params.get("setting") if hasattr(item, "callspec") else None
    if not isinstance(setting, Setting):
        return True
    own_only = any(item.iter_markers("own_client")) or "respx_mock" in getattr(
        item, "fixturenames", ()
    )
    asyncio_only = any(item.iter_markers("asyncio_only"))
    return not (
        (own_only and setting.client != "own") or (asyncio_only and setting.backend != "asyncio")
    )


@pytest.fixture(scope="module")
def setting(request: pytest.FixtureRequest) -> Setting:
    return getattr(request, "param", SETTINGS[0])


@pytest.fixture(scope="module")
def anyio_backend(setting: Setting) -> str:
    return setting.backend


@pytest.fixture(autouse=True)
def clients(
    setting: Setting, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Give sessions that are given no client one of the setting's kind."""
    monkeypatch.setitem(sys.modules, OWN_CLIENT, own_client(setting.library))
    if setting.client != "own":
        request.getfixturevalue("given_clients")


@pytest.fixture
def can_upgrade(request: pytest.FixtureRequest, setting: Setting) -> None:
    if setting.client == "aiohttp" and "needs_no_upgrade" not in request.fixturenames:
        pytest.skip("httpx-aiohttp gives no connection away")


@pytest.fixture
def needs_no_upgrade() -> None:
    """Mark a test that runs on httpx-aiohttp, too."""


@pytest.fixture
async def given_clients(
    setting: Setting, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[list[AnyClient]]:
    """The clients that were given to sessions: none of these may close one."""
    given: list[AnyClient] = []

    def connect(credentials: Credentials, **options: Any) -> Connection:
        if options["client"] is None:
            # The servers here have no certificates, and loading those of authorities takes long.
            client = setting.make_client(timeout=options["timeout"], verify=False)
            given.append(client)
            options["client"] = client
        return Connection(credentials, **options)

    monkeypatch.setattr("aioftrackjobs.session.Connection", connect)
    yield given
    assert [client for client in given if client.is_closed] == [], "a caller's client was closed"
    for client in given:
        await client.aclose()


@pytest.fixture
async def session(server: ServerHandle) -> AsyncIterator[AsyncSession]:
    """An open session."""
    async with connected(server) as opened:
        yield opened


@pytest.fixture
async def other(server: ServerHandle) -> AsyncIterator[AsyncSession]:
    """A second session, which shares nothing with the first one."""
    async with connected(server) as opened:
        yield opened


class Official:
    """The unmodified official Python client, in a worker thread: it blocks."""

    def __init__(self, server: ServerHandle) -> None:
        self._server = server

    async def run(self, flow: Callable[[Any], T]) -> T:
        """Run *flow* with an official session of its own, and return what it returns."""

        def run() -> T:
            session = ftrack_api.Session(
                server_url=self._server.url,
                api_key=self._server.api_key,
                api_user=self._server.api_user,
                schema_cache_path=False,
                plugin_paths=[],
            )
            try:
                return flow(session)
            finally:
                session.close()

        return await run_sync(run)


@pytest.fixture
def official(server: ServerHandle) -> Official:
    return Official(server)


@dataclass
class Fault:
    """What a :class:`FaultProxy` does to requests; to each one once, *times* in all.

    Attributes:
        about: Bytes in the head of a request, or in the beginning of its body, that select it.
        sent: Break the connection after so many bytes of the request were sent.
        received: Break the connection after so many bytes of the response were received.
        when: Not before this is true. A client may lose what it has not read by then.
        response: Status line and headers of a response that the proxy sends instead of the server.
        damage: Overwrite the body of the request.
        then: Called when the fault happens.
    """

    about: bytes
    times: int = 1
    sent: int | None = None
    received: int | None = None
    when: Callable[[], object] = lambda: True
    response: bytes | None = None
    damage: bool = False
    then: Callable[[], object] = lambda: None


_LAST_HEADERS = b"\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"


class FaultProxy:
    """A proxy between client and server, on real sockets, with planned faults.

    Attributes:
        heads: The head of each request that it has received.
        faults: The planned faults.
    """

    def __init__(self, port: int) -> None:
        self._port = port
        self.url = ""
        self.heads: list[bytes] = []
        self.faults: list[Fault] = []

    def plan(self, about: bytes, **what: Any) -> None:
        """Plan a fault, with the attributes of :class:`Fault`."""
        self.faults.append(Fault(about, **what))

    def requests(self, about: bytes) -> list[bytes]:
        """Return the heads of the requests that begin with *about*."""
        return [head for head in self.heads if head.startswith(about)]

    async def handle(self, client: SocketStream) -> None:
        """Forward both directions, until one side closes its connection or a fault is due."""
        with suppress(anyio.BrokenResourceError, anyio.ClosedResourceError):
            async with client, await anyio.connect_tcp("127.0.0.1", self._port) as server:
                await _Exchange(self, client, server).run()

    def due(self, data: bytes) -> Fault | None:
        """Return the fault that is due for a request, and count it."""
        for fault in self.faults:
            if fault.times and fault.about in data:
                fault.times -= 1
                return fault
        return None


class _Exchange:
    def __init__(self, proxy: FaultProxy, client: SocketStream, server: SocketStream) -> None:
        self._proxy, self._client, self._server = proxy, client, server
        self._fault: Fault | None = None
        self._sent = self._received = 0

    async def run(self) -> None:
        async with anyio.create_task_group() as group:
            group.start_soon(self._forward, group.cancel_scope)
            group.start_soon(self._back, group.cancel_scope)

    async def _forward(self, scope: anyio.CancelScope) -> None:
        with suppress(anyio.BrokenResourceError):
            async for data in self._client:
                if data.startswith((b"GET ", b"PUT ", b"POST ")):
                    self._proxy.heads.append(data.partition(b"\r\n\r\n")[0])
                    self._fault = None
                if self._fault is None and (fault := self._proxy.due(data)):
                    self._fault, self._sent, self._received = fault, 0, 0
                    if fault.response is not None:
                        await self._client.send(fault.response + _LAST_HEADERS)
                        async for _ in self._client:
                            pass  # unread data would reset the connection
                        break
                self._sent += len(data)
                if self._is_due(self._sent, "sent"):
                    break
                if self._fault is not None and self._fault.damage and b"HTTP/1.1" not in data:
                    data = bytes(len(data))
                await self._server.send(data)
        self._end(scope)

    async def _back(self, scope: anyio.CancelScope) -> None:
        with suppress(anyio.BrokenResourceError):
            async for data in self._server:
                self._received += len(data)
                if self._fault is not None and self._is_due(self._received, "received"):
                    await until(self._fault.when)
                    break
                await self._client.send(data)
        self._end(scope)

    def _is_due(self, count: int, way: str) -> bool:
        limit = getattr(self._fault, way, None)
        return limit is not None and count >= limit

    def _end(self, scope: anyio.CancelScope) -> None:
        if self._fault is not None:
            self._fault.then()
        scope.cancel()


@pytest.fixture
async def proxy(server: ServerHandle) -> AsyncIterator[FaultProxy]:
    port = int(server.url.rpartition(":")[2])
    passing = FaultProxy(port)
    async with (
        await anyio.create_tcp_listener(local_host="127.0.0.1") as listener,
        anyio.create_task_group() as serving,
    ):
        passing.url = f"http://127.0.0.1:{listener.extra(SocketAttribute.local_port)}"
        serving.start_soon(listener.serve, passing.handle)
        yield passing
        serving.cancel_scope.cancel()
