"""Transport over ``httpx.AsyncClient``, or a client that is used like it.

What an error means is read from the names of its classes: the client is the caller's. httpx2 has
classes of its own under the names of httpx, and neither it nor aiohttp may be installed.
"""

from __future__ import annotations

from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    AsyncIterator,
    Callable,
    Iterator,
    Mapping,
)
from contextlib import aclosing, asynccontextmanager, suppress
from itertools import takewhile
from typing import cast
from urllib.parse import urlsplit

from anyio.to_thread import run_sync

from aioftrackjobs.errors import ConnectError, FtrackJobsError, TransportError
from aioftrackjobs.transport._base import (
    ClientResponse,
    Download,
    HttpClient,
    WireRequest,
    WireResponse,
    Write,
)
from aioftrackjobs.transport._redaction import hide_secrets, redact

#: Bytes of a download that are written at once.
_BLOCK = 1024 * 1024

#: Errors of httpx and httpx2 after which the request is known not to have left this machine.
_NEVER_LEFT = frozenset(
    {
        "ConnectError",
        "ConnectTimeout",
        "LocalProtocolError",
        "PoolTimeout",
        "ProxyError",
        "UnsupportedProtocol",
    }
)

#: The same of aiohttp. httpx-aiohttp 0.2 makes a ConnectTimeout of every ClientConnectionError,
#: also where the server hung up on a request that it had read: only the cause can be trusted.
_NEVER_LEFT_AIOHTTP = frozenset(
    {
        "ClientConnectorError",
        "ClientHttpProxyError",
        "ConnectionTimeoutError",
        "InvalidURL",
        "NonHttpUrlClientError",
    }
)


#: Errors that another attempt would only bring again.
_LASTING = frozenset(
    {
        "ClientConnectorCertificateError",
        "InvalidURL",
        "LocalProtocolError",
        "NonHttpUrlClientError",
        "SSLCertVerificationError",
        "UnsupportedProtocol",
    }
)


class HttpxTransport:
    """Transport over a client that the caller owns and closes.

    Args:
        client: An ``httpx.AsyncClient`` on any httpx transport, or one that is used like it.
        secrets: Texts that must never show in an error.
    """

    def __init__(self, client: HttpClient, *, secrets: tuple[str, ...] = ()) -> None:
        self._client = client
        self._secrets = secrets
        hide_secrets()

    async def send(self, request: WireRequest) -> WireResponse:
        """Send *request*, and return its whole answer; redirections are for the caller to see."""
        async with self._exchange(request, follow_redirects=False) as response:
            try:
                body = await response.aread()
            except Exception as exc:  # noqa: BLE001 - a caller's client may raise anything
                error = self._translate(exc, request.url)
            else:
                return WireResponse(response.status_code, body, dict(response.headers))
        raise error

    @asynccontextmanager
    async def stream(self, request: WireRequest) -> AsyncIterator[Download]:
        """Send *request*, follow redirects, and give access to its answer as it arrives."""
        async with self._exchange(request, follow_redirects=True) as response:
            yield _HttpxDownload(response, lambda exc: self._translate(exc, request.url))

    @asynccontextmanager
    async def _exchange(
        self, request: WireRequest, *, follow_redirects: bool
    ) -> AsyncIterator[ClientResponse]:
        body = request.body if isinstance(request.body, bytes | None) else _Body(request.body)
        try:
            headers = _headers(request.headers)
            self._require_open()
            outgoing = self._client.build_request(
                request.method, request.url, content=body, headers=headers
            )
            response = await self._client.send(
                outgoing, stream=True, follow_redirects=follow_redirects
            )
        except Exception as exc:  # noqa: BLE001 - a caller's client may raise anything
            own = body.failure if isinstance(body, _Body) else None
            error = own or self._translate(exc, request.url)
        else:
            try:
                yield response
            finally:
                await response.aclose()
            return
        finally:
            if isinstance(body, _Body):
                await body.aclose()
        raise error  # outside the handler, so that not even its context holds httpx's error

    def _require_open(self) -> None:
        if self._client.is_closed:
            error = ConnectError("the HTTP client is closed")
            error.is_retryable = False
            raise error

    def _translate(self, exc: Exception, url: str) -> FtrackJobsError:
        """Return what an error of the client means for the caller.

        Never chain it: its request holds a URL and headers with secrets.
        """
        if isinstance(exc, FtrackJobsError):  # our own: it says what it means
            return exc
        if never_left_machine(exc):
            error = ConnectError(f"cannot reach {_origin(url)}: {self._reason(exc)}")
            error.is_retryable = not is_lasting(exc)
            return error
        return TransportError(f"no complete answer from {_origin(url)}: {self._reason(exc)}")

    def _reason(self, exc: Exception) -> str:
        return redact(describe(exc), *self._secrets)


class _HttpxDownload:
    """A download of httpx, or of a client that is used like it.

    Args:
        response: Its body has not been read.
        translate: Returns what an error of the client means.
    """

    def __init__(
        self, response: ClientResponse, translate: Callable[[Exception], FtrackJobsError]
    ) -> None:
        self._response = response
        self._translate = translate
        self.status = response.status_code
        self.headers: Mapping[str, str] = dict(response.headers)
        length = self.headers.get("content-length", "")
        encoded = "content-encoding" in self.headers or "transfer-encoding" in self.headers
        self.size = int(length) if length.isdigit() and not encoded else None

    async def save(self, write: Write, note: Callable[[], object]) -> None:
        """Give the body to *write* in blocks, in worker threads."""
        block: list[bytes | memoryview] = []
        gathered = 0
        error: FtrackJobsError | None = None
        found = cast("AsyncGenerator[bytes, None]", self._response.aiter_bytes())
        async with aclosing(found) as pieces:
            while True:
                try:
                    piece = await anext(pieces, None)
                except Exception as exc:  # noqa: BLE001 - a caller's client may raise anything
                    piece, error = None, self._translate(exc)
                if piece is not None:
                    block.append(piece)
                    gathered += len(piece)
                if block and (piece is None or gathered >= _BLOCK):
                    await run_sync(write, block)
                    block, gathered = [], 0
                note()
                if piece is None:
                    break
        if error is not None:
            raise error


class _Body:
    """Chunks to send, which keep the error that they break off with.

    aiohttp sends in a task of its own, and tells of such an error only in words of its own.

    Attributes:
        failure: That error.
    """

    def __init__(self, body: AsyncIterable[bytes]) -> None:
        self._chunks = aiter(body)
        self.failure: Exception | None = None

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        try:
            return await anext(self._chunks)
        except StopAsyncIteration:
            raise
        except Exception as exc:
            self.failure = exc
            raise

    async def aclose(self) -> None:
        """Close chunks that were not all sent; trio warns of generators that nobody closes."""
        if isinstance(self._chunks, AsyncGenerator):
            with suppress(RuntimeError):  # aiohttp's task is in the midst of it, and ends it
                await self._chunks.aclose()


def _headers(headers: Mapping[str, str | bytes]) -> list[tuple[bytes, bytes]]:
    return [
        # A server may name a file in a header: UTF-8 is what such servers read and write.
        (name.encode("ascii"), value if isinstance(value, bytes) else value.encode())
        for name, value in headers.items()
    ]


def _origin(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"


# What errors mean


def is_lasting(error: BaseException) -> bool:
    """Return whether another attempt would fail the same way: a bad address or certificate."""
    return any(type(each).__name__ in _LASTING for each in _chain(error))


def never_left_machine(error: BaseException) -> bool:
    """Return whether the request is known not to have left this machine."""
    origin = _original(error)
    names = _NEVER_LEFT_AIOHTTP if _is_of(origin, "aiohttp") else _NEVER_LEFT
    return any(kind.__name__ in names for kind in type(origin).__mro__)


def describe(error: BaseException) -> str:
    """Return the name of *error*, and what it or, where it says nothing, its cause says.

    A time-out comes of a cancellation, which only tells of the event loop's own scopes.
    """
    origin = _original(error)
    failures = takewhile(lambda each: isinstance(each, Exception), _chain(origin))
    said = next(filter(None, map(str, failures)), "")
    return f"{type(origin).__name__}: {said}" if said else type(origin).__name__


def _original(error: BaseException) -> BaseException:
    """Return the error of aiohttp that httpx-aiohttp translated; else *error* itself."""
    cause = error.__cause__
    return cause if cause is not None and _is_of(cause, "aiohttp") else error


def _chain(error: BaseException) -> Iterator[BaseException]:
    seen: set[int] = set()
    following: BaseException | None = error
    while following is not None and id(following) not in seen:
        seen.add(id(following))
        yield following
        following = following.__cause__ or following.__context__


def _is_of(error: BaseException, package: str) -> bool:
    return any(kind.__module__.partition(".")[0] == package for kind in type(error).__mro__)
