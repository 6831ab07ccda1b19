"""Running the server on a real socket, in a thread with an event loop of its own.

So a blocked or cancelled client never stalls the server, and code without an event loop can
use it as well.
"""

from __future__ import annotations

import logging
import signal
import socket
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, closing, contextmanager
from typing import Unpack

import anyio
from anyio.to_thread import run_sync

from aioftrackjobs.devserver.engine import Engine
from aioftrackjobs.devserver.errors import ServerEndedError
from aioftrackjobs.devserver.faults.middleware import FaultMiddleware
from aioftrackjobs.devserver.faults.plan import Faults
from aioftrackjobs.devserver.http.app import application_of
from aioftrackjobs.devserver.options import Options, ServerOptions
from aioftrackjobs.devserver.serving.address import bind, check_address, url_of
from aioftrackjobs.devserver.serving.handle import ServerHandle, handle_of
from aioftrackjobs.devserver.serving.uvicorn_server import UvicornServer, uvicorn_server

logger: logging.Logger = logging.getLogger(__name__)

DEFAULT_PORT = 8090
#: Bytes of a WebSocket's frame that are read for each character of the largest event, so that
#: events that are too big by a little are answered with an error.
_LARGEST_FRAME = 8


class _Runner:
    """A thread that makes, serves and takes down one server.

    The thread opens and closes everything that the server holds. So a caller that is cancelled
    at any point leaves no part of it behind, as long as it calls :meth:`stop` and waits for the
    end of :attr:`thread`.
    """

    def __init__(
        self,
        host: str,
        port: int,
        options: Options,
        faults: Faults | None = None,
        on_end: Callable[[], None] = lambda: None,
    ) -> None:
        self._address = (host, port)
        self._options = options
        self._faults = faults or Faults()
        self._on_end = on_end
        self._ready = threading.Event()
        self._stopping = False
        self._server: UvicornServer | None = None
        self._handle: ServerHandle | None = None
        self._start_error: BaseException | None = None  # why it never got ready
        self._failure: BaseException | None = None  # why it ended after that
        self.thread = threading.Thread(target=self._run, name="aioftrackjobs-devserver")

    def wait_ready(self) -> ServerHandle:
        """Return when the server accepts requests; raise why it never will."""
        self._ready.wait()
        if self._start_error is not None:
            raise self._start_error
        assert self._handle is not None  # noqa: S101 - made before a server gets ready
        return self._handle

    def stop(self) -> None:
        """Make the thread end, without waiting for it; at any time, any number of times."""
        # The flag before the server, and the server before the flag in _serve(): whichever
        # thread comes second sees what the first has written.
        self._stopping = True
        if self._server is not None:
            self._server.stop()

    def check_end(self) -> None:
        """Check that the thread has ended because it was stopped, and not by itself."""
        if isinstance(self._failure, ServerEndedError):
            raise self._failure
        if self._failure is not None:
            raise ServerEndedError from self._failure

    def _run(self) -> None:
        try:
            with closing(bind(*self._address)) as listener:
                engine = Engine(self._options)
                hosts = (self._address[0], *self._options.trusted_hosts)
                with closing(engine):
                    application = application_of(engine, hosts)
                    app, pages = FaultMiddleware(application, self._faults), application.state.pages
                    self._handle = handle_of(url_of(*listener.getsockname()[:2]), engine, app)
                    largest = engine.limits.event * _LARGEST_FRAME
                    self._server = uvicorn_server(pages.traffic.around(app), self._ready, largest)
                    self._server.begin_stop = pages.streams.close
                    self._server.interrupt = engine.interrupt
                    self._serve(self._server, listener)
        except BaseException as error:
            if self._ready.is_set():
                logger.exception("the server ended by itself")
                self._failure = error
            else:
                self._start_error = error
        finally:
            self._ready.set()
            self._on_end()

    def _serve(self, server: UvicornServer, listener: socket.socket) -> None:
        if not self._stopping:
            server.run(sockets=[listener])
            if not self._stopping:
                raise ServerEndedError


@asynccontextmanager
async def running(
    host: str = "127.0.0.1",
    port: int = 0,
    *,
    public: bool = False,
    faults: Faults | None = None,
    **options: Unpack[ServerOptions],
) -> AsyncIterator[ServerHandle]:
    """Run a server for the length of the block; by default nothing of it stays.

    Takes all :class:`~aioftrackjobs.devserver.ServerOptions`, such as ``database`` and
    ``fixture``. If the server ends before the block, an error says so at the end of the block,
    unless the block itself raises one.

    Args:
        host: Address to listen on.
        port: 0 for any free one.
        public: Allow a *host* that other machines reach; that needs an *api_key* too.
        faults: What goes wrong from the start; the handle has them in any case.
        options: See above.

    Raises:
        ServerStartError: If an option cannot be used.
    """
    check_address(host, port, public=public, api_key=options.get("api_key"))
    runner = _Runner(host, port, Options(**options), faults)
    runner.thread.start()
    try:
        yield await run_sync(runner.wait_ready)
    finally:
        runner.stop()
        await _ended(runner)
    runner.check_end()


async def _ended(runner: _Runner) -> None:
    """Wait for the end of a stopped server, even when the task is cancelled meanwhile.

    anyio's shield does not stop a task's own ``cancel()``, which ``asyncio.run`` calls after
    Ctrl-C: that cancellation is raised at the end. The server's grace bounds the wait.
    """
    cancelled: BaseException | None = None
    while runner.thread.is_alive():
        try:
            with anyio.CancelScope(shield=True):
                await run_sync(runner.thread.join)
        except anyio.get_cancelled_exc_class() as error:
            cancelled = error
    if cancelled is not None:
        raise cancelled


def serve(
    host: str = "127.0.0.1",
    port: int = DEFAULT_PORT,
    *,
    public: bool = False,
    faults: Faults | None = None,
    on_ready: Callable[[ServerHandle], None] | None = None,
    **options: Unpack[ServerOptions],
) -> None:
    """Serve until SIGINT or SIGTERM; for programs, from their main thread.

    Takes what :func:`running` takes, and calls *on_ready* once when the first request can be
    served.

    Raises:
        ServerStartError: If an option cannot be used.
        ServerEndedError: If the server ends although it was not stopped.
    """
    check_address(host, port, public=public, api_key=options.get("api_key"))
    stopped = threading.Event()
    runner = _Runner(host, port, Options(**options), faults, on_end=stopped.set)
    with _signals_set(stopped):
        runner.thread.start()
        try:
            handle = runner.wait_ready()
            if on_ready is not None:
                on_ready(handle)
            stopped.wait()
        finally:
            runner.stop()
            runner.thread.join()
        runner.check_end()


@contextmanager
def _signals_set(event: threading.Event) -> Iterator[None]:
    """Make SIGINT and SIGTERM set *event* inside the block, instead of ending the program."""
    previous = {
        number: signal.signal(number, lambda *_: event.set())
        for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
