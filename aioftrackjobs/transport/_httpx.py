"""Transport over ``httpx.AsyncClient``, or a client that is used like it."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Callable, Mapping
from contextlib import aclosing, asynccontextmanager, suppress
from typing import cast
from urllib.parse import urlsplit

from aioftrackjobs.errors import ConnectError, FtrackJobsError, TransportError
from aioftrackjobs.transport._base import Download, WireRequest, WireResponse
from aioftrackjobs.transport._bulk import is_bulky, iter_bulk
from aioftrackjobs.transport._client import ClientResponse, HttpClient
from aioftrackjobs.transport._failures import describe, lasts, never_left
from aioftrackjobs.transport._redaction import hide_secrets, redact


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
        if self._client.is_closed:
            closed = ConnectError("the HTTP client is closed")
            closed.is_passing = False
            raise closed
        body = request.body if isinstance(request.body, bytes | None) else _Body(request.body)
        try:
            outgoing = self._client.build_request(
                request.method, request.url, content=body, headers=_headers(request.headers)
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

    def _translate(self, exc: Exception, url: str) -> FtrackJobsError:
        """Return what an error of the client means for the caller.

        Never chain it: its request holds a URL and headers with secrets.
        """
        if isinstance(exc, FtrackJobsError):  # our own: it says what it means
            return exc
        if never_left(exc):
            error = ConnectError(f"cannot reach {_origin(url)}: {self._reason(exc)}")
            error.is_passing = not lasts(exc)
            return error
        return TransportError(f"no complete answer from {_origin(url)}: {self._reason(exc)}")

    def _reason(self, exc: Exception) -> str:
        return redact(describe(exc), *self._secrets)


class _Body:
    """Chunks to send, which keep the error that they break off with.

    aiohttp sends in a task of its own, and tells of such an error only in words of its own.
    """

    def __init__(self, chunks: AsyncIterable[bytes]) -> None:
        self._chunks = aiter(chunks)
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


class _HttpxDownload:
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

    async def chunks(self) -> AsyncGenerator[bytes, None]:
        try:
            async with aclosing(self._pieces()) as pieces:
                async for piece in pieces:
                    yield piece
        except Exception as exc:  # noqa: BLE001 - a caller's client may raise anything
            error = self._translate(exc)
        else:
            return
        raise error

    def _pieces(self) -> AsyncGenerator[bytes, None]:
        if self.size is not None and is_bulky(self._response, self.size):
            return iter_bulk(self._response, self.size)
        return cast("AsyncGenerator[bytes, None]", self._response.aiter_bytes())


def _headers(headers: Mapping[str, str | bytes]) -> list[tuple[bytes, bytes]]:
    return [
        # A server may name a file in a header: UTF-8 is what such servers read and write.
        (name.encode("ascii"), value if isinstance(value, bytes) else value.encode())
        for name, value in headers.items()
    ]


def _origin(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"
