"""Transport over ``httpx.AsyncClient``, or a client that is used like it."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from urllib.parse import urlsplit

from aioftrackjobs.errors import ConnectError, FtrackJobsError, TransportError
from aioftrackjobs.transport._base import DirectBody, Download, WireRequest, WireResponse
from aioftrackjobs.transport._client import ClientResponse, HttpClient
from aioftrackjobs.transport._failures import describe, lasts, never_left
from aioftrackjobs.transport._passing import (
    BodySender,
    SentBytes,
    is_of_connection,
    written_to,
)
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
        from aioftrackjobs.transport._download import HttpxDownload  # late, as it brings httpx

        async with self._exchange(request, follow_redirects=True) as response:
            yield HttpxDownload(response, lambda exc: self._translate(exc, request.url))

    @asynccontextmanager
    async def _exchange(
        self, request: WireRequest, *, follow_redirects: bool
    ) -> AsyncIterator[ClientResponse]:
        if self._client.is_closed:
            closed = ConnectError("the HTTP client is closed")
            closed.is_retryable = False
            raise closed
        body = request.body if isinstance(request.body, bytes | None) else _Body(request.body)
        try:
            outgoing = self._client.build_request(
                request.method, request.url, content=body, headers=_headers(request.headers)
            )
            following = written_to.set(body if isinstance(body, _Body) else None)
            try:
                response = await self._client.send(
                    outgoing, stream=True, follow_redirects=follow_redirects
                )
            finally:
                written_to.reset(following)
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
            error.is_retryable = not lasts(exc)
            return error
        return TransportError(f"no complete answer from {_origin(url)}: {self._reason(exc)}")

    def _reason(self, exc: Exception) -> str:
        return redact(describe(exc), *self._secrets)


class _Body:
    """Chunks to send, which keep the error that they break off with.

    aiohttp sends in a task of its own, and tells of such an error only in words of its own.

    Attributes:
        failure: That error.
        stream: What they are sent by, if that is a connection that takes them past h11.
    """

    def __init__(self, body: AsyncIterable[bytes]) -> None:
        self._body = body
        self._chunks = aiter(body)
        self.failure: Exception | None = None
        self.stream: BodySender | None = None
        self._is_sent = False

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        if self._is_sent:
            raise StopAsyncIteration
        try:
            if self.stream is not None and isinstance(self._body, DirectBody):
                await self.stream.send(self._body)
                self._is_sent = True
                return SentBytes(self._body.size)
            return await anext(self._chunks)
        except StopAsyncIteration:
            raise
        except Exception as exc:
            if not is_of_connection(exc):
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
