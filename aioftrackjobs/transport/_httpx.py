"""Transport over ``httpx.AsyncClient``, or a client with the same interface."""

from __future__ import annotations

import math
from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    AsyncIterator,
    Callable,
    Iterator,
    Mapping,
)
from contextlib import aclosing, asynccontextmanager, contextmanager, suppress
from functools import partial
from types import TracebackType
from typing import Any, cast

import anyio
from anyio.to_thread import run_sync

from aioftrackjobs.config.secret import Secret, reveal
from aioftrackjobs.errors import (
    ConnectError,
    FtrackJobsError,
    MalformedResponseError,
    TransportError,
)
from aioftrackjobs.protocol.headers import origin_of
from aioftrackjobs.transport._base import (
    ClientResponse,
    Download,
    Headers,
    HttpClient,
    Upgraded,
    WireRequest,
    WireResponse,
    Write,
)
from aioftrackjobs.transport._bounds import (
    CODINGS,
    NO_BOUNDS,
    SLOWEST_CALL,
    SLOWEST_FILE,
    STEP,
    Body,
    Bounds,
    ExceededError,
)
from aioftrackjobs.transport._client_errors import describe, is_of, is_permanent, was_not_sent
from aioftrackjobs.transport._departure import AnnouncedBody, Trace
from aioftrackjobs.transport._redaction import hide_secrets, hiding_addresses, redact
from aioftrackjobs.transport._redirects import (
    MOST_REDIRECTIONS,
    redirected,
    too_many_redirections,
)
from aioftrackjobs.transport._upgrade import (
    SWITCHING_PROTOCOLS,
    UpgradedResponse,
    cannot_upgrade,
    uses_http2,
)

#: Bytes of a download that are written at once.
_BLOCK = 1024 * 1024


class HttpxTransport:
    """Transport over a client that the caller owns and closes.

    Args:
        client: An ``httpx.AsyncClient`` on any httpx transport, or a client with its interface.
        secrets: Texts that must never appear in an error.
        bounds: What a request and its response may take.
    """

    def __init__(
        self,
        client: HttpClient,
        *,
        secrets: tuple[Secret[str], ...] = (),
        bounds: Bounds = NO_BOUNDS,
    ) -> None:
        self._client = client
        self._bounds = bounds
        self._uses_aiohttp = is_of(getattr(client, "_transport", None), "httpx_aiohttp")
        self._secrets = secrets
        hide_secrets()

    async def send(self, request: WireRequest) -> WireResponse:
        """Send *request*, and return its whole response; no redirection is followed."""
        is_call = isinstance(request.body, bytes)
        allowance = Allowance(self._bounds.seconds, SLOWEST_CALL if is_call else SLOWEST_FILE)
        if isinstance(request.body, bytes):
            allowance.add(len(request.body))
        async with self._exchange(request, allowance) as response:
            error: FtrackJobsError
            if not is_call:  # after a file has been sent
                allowance = Allowance(self._bounds.seconds, SLOWEST_CALL)
            try:
                with allowance.limit():
                    body = await self._read(response, allowance)
            except ExceededError as exc:
                error = MalformedResponseError(
                    f"the response is not read to its end, because {exc}",
                    status=response.status_code,
                    url=origin_of(request.url),
                )
                error.is_retryable = False
            except Exception as exc:  # noqa: BLE001 - a caller's client may raise anything
                error = self._translate(exc, request)
            else:
                return WireResponse(response.status_code, body, dict(response.headers))
        raise error

    async def _read(self, response: ClientResponse, allowance: Allowance) -> bytes:
        """Return the decoded body, which has a largest size."""
        coding = response.headers.get("content-encoding", "").strip().lower()
        coding = "" if coding == "identity" else coding
        is_read = getattr(response, "is_stream_consumed", False)  # as that of a mock may be
        if hasattr(response, "aiter_raw") and not is_read and coding in ("", *CODINGS):
            found = response.aiter_raw()
        else:  # the client decodes it, in pieces whose size it chooses
            found, coding = response.aiter_bytes(), ""
        body = Body(self._bounds.size, coding)
        async with aclosing(cast("AsyncGenerator[bytes, None]", found)) as pieces:
            async for piece in pieces:
                body.add(piece)
                allowance.add(len(piece))
        return body.content()

    @asynccontextmanager
    async def stream(self, request: WireRequest) -> AsyncIterator[Download]:
        """Send *request*, follow redirections, and give its response before the body is read."""
        origin = origin_of(request.url)
        for _ in range(1 + MOST_REDIRECTIONS):
            is_foreign = origin_of(request.url) != origin
            allowance = Allowance(self._bounds.seconds, SLOWEST_FILE)
            async with self._exchange(request, allowance, is_foreign=is_foreign) as response:
                translate = partial(self._translate, request=request)
                found = _HttpxDownload(response, translate, allowance)
                following = redirected(request, found, *self._secrets)
                if following is None:
                    yield found
                    return
            request = following
        raise too_many_redirections(request)

    @asynccontextmanager
    async def upgrade(self, request: WireRequest) -> AsyncIterator[Upgraded]:
        """Send *request* for another protocol, and give the connection; see `UpgradingTransport`.

        The client keeps the connection open until the end of the block, whatever time that takes.
        """
        if self._uses_aiohttp:
            raise cannot_upgrade("a client of httpx-aiohttp cannot give its connection away")
        allowance = Allowance(self._bounds.seconds, SLOWEST_CALL)
        response = await self._begin(request, allowance, is_foreign=False)
        is_permanent_error = isinstance(response, ConnectError) and not response.is_retryable
        if is_permanent_error and uses_http2(self._client):
            raise cannot_upgrade("the client speaks HTTP/2 with the server")
        if isinstance(response, Exception):
            raise response
        try:
            yield await self._upgraded(response, allowance, request)
        finally:
            with anyio.CancelScope(shield=True), suppress(Exception):
                await response.aclose()

    async def _upgraded(
        self, response: ClientResponse, allowance: Allowance, request: WireRequest
    ) -> Upgraded:
        status, headers = response.status_code, dict(response.headers)
        extensions: Mapping[str, Any] = getattr(response, "extensions", {})
        stream = extensions.get("network_stream")
        if extensions.get("http_version") in (b"HTTP/2", b"HTTP/3"):
            raise cannot_upgrade("the client speaks HTTP/2 with the server")
        if stream is None:  # httpcore gives it with every response
            raise cannot_upgrade("the transport of the client gives no connection away")
        if status == SWITCHING_PROTOCOLS:
            return UpgradedResponse(status, headers, stream)
        try:
            with allowance.limit():
                body = await self._read(response, allowance)
        except Exception as exc:  # noqa: BLE001 - a caller's client may raise anything
            failure = self._translate(exc, request)
        else:
            text = redact(body[:200].decode(errors="replace"), *self._secrets)
            return UpgradedResponse(status, headers, None, text)
        raise failure

    @asynccontextmanager
    async def _exchange(
        self, request: WireRequest, allowance: Allowance, *, is_foreign: bool = False
    ) -> AsyncIterator[ClientResponse]:
        response = await self._begin(request, allowance, is_foreign=is_foreign)
        if isinstance(response, Exception):  # outside a handler, without httpx's error as context
            raise response
        try:
            yield response
        finally:
            await response.aclose()

    async def _begin(
        self, request: WireRequest, allowance: Allowance, *, is_foreign: bool
    ) -> ClientResponse | Exception:
        """Return the response when its headers have arrived, or an error, which is not raised here.

        The frames of this error would be those of the client, with addresses and headers.

        Args:
            request: What to send.
            allowance: The time for it.
            is_foreign: Whether it was redirected to a server that must not get the authentication
                of the client.
        """
        body: bytes | AnnouncedBody | _Body | None
        trace: Trace | None = None
        if not isinstance(request.body, bytes | None):
            body = _Body(request.body, allowance)
        elif request.departure is None or request.body is None:
            body = request.body
        elif self._uses_aiohttp:
            body = AnnouncedBody(request.body, request.departure)
        else:
            body, trace = request.body, Trace(request.departure)
        try:
            with allowance.limit():
                if self._client.is_closed:
                    return _closed()
                anonymous: dict[str, Any] = {}
                if is_foreign and getattr(self._client, "auth", None) is not None:
                    anonymous = {"auth": None}
                send = self._client.send(
                    self._build(request, body, trace, is_foreign=is_foreign),
                    stream=True,
                    follow_redirects=False,
                    **anonymous,
                )
                if request.method == "POST":  # an API call, whose address is no secret
                    return await send
                with hiding_addresses():
                    return await send
        except Exception as exc:  # noqa: BLE001 - a caller's client may raise anything
            own = body.failure if isinstance(body, AnnouncedBody | _Body) else None
            return own or self._translate(exc, request)
        finally:
            if isinstance(body, _Body):
                await body.aclose()
            if trace is not None:
                await trace.aclose()

    def _build(
        self, request: WireRequest, body: Any, trace: Trace | None, *, is_foreign: bool
    ) -> Any:
        """Return *request* as the client sends it; its caller must not keep it in a variable."""
        headers = encoded(request.headers)
        if isinstance(body, AnnouncedBody):
            headers.append((b"content-length", str(len(body)).encode()))
        built = self._client.build_request(
            request.method, reveal(request.address), content=body, headers=headers
        )
        if trace is not None and isinstance(getattr(built, "extensions", None), dict):
            built.extensions["trace"] = trace
        if is_foreign:
            built.headers.pop("authorization", None)
        return built

    def _translate(self, exc: Exception, request: WireRequest) -> FtrackJobsError:
        """Return our error for an error of the client.

        Never chain the two: the request of the client's error has secrets in its URL and headers.
        """
        if isinstance(exc, FtrackJobsError):  # our own, which has passed through the client
            return exc.with_traceback(None)
        place = origin_of(request.url)
        if isinstance(exc, ExceededError):
            return TransportError(f"no complete response from {place}: {exc}")
        if was_not_sent(exc):
            error = ConnectError(f"cannot reach {place}: {self._reason(exc)}")
            error.is_retryable = not is_permanent(exc)
            return error
        return TransportError(f"no complete response from {place}: {self._reason(exc)}")

    def _reason(self, exc: Exception) -> str:
        return redact(describe(exc), *self._secrets)


def _closed() -> ConnectError:
    error = ConnectError("the HTTP client is closed")
    error.is_retryable = False
    return error


def encoded(headers: Headers) -> list[tuple[bytes, bytes]]:
    """Return *headers* with text in UTF-8, in which servers expect the name of a file."""
    return [
        (name.encode("ascii"), value if isinstance(value, bytes) else reveal(value).encode())
        for name, value in headers.items()
    ]


class Allowance:
    """The time that is left for one exchange. It passes inside of :meth:`limit` only.

    Args:
        seconds: As in :class:`Bounds`.
        rate: Bytes a second by which it grows.
    """

    def __init__(self, seconds: float, rate: float) -> None:
        self._seconds, self._rate = seconds, rate
        self._left = seconds
        self._scope: anyio.CancelScope | None = None

    def add(self, moved: int) -> None:
        """Grow, because so many bytes were moved, or are about to be."""
        if self._scope is None:
            self._left += moved / self._rate
        else:
            self._scope.deadline += moved / self._rate

    def renew(self, moved: int = 0) -> None:
        """Begin again, and grow: all that came before took no longer than it may."""
        self._left = self._seconds + moved / self._rate
        if self._scope is not None:
            self._scope.deadline = anyio.current_time() + self._left

    @contextmanager
    def limit(self) -> Iterator[None]:
        """End the block when no time is left.

        Raises:
            ExceededError: It was ended.
        """
        with anyio.CancelScope(deadline=anyio.current_time() + self._left) as scope:
            self._scope = scope
            try:
                yield
            finally:
                self._scope, self._left = None, scope.deadline - anyio.current_time()
        if scope.cancelled_caught:
            raise ExceededError(f"it takes longer than {self._seconds:g} s")

    @contextmanager
    def suspend(self) -> Iterator[None]:
        """Let no time pass in the block, inside of :meth:`limit`: this side has to do something."""
        scope = self._scope
        if scope is None:
            yield
            return
        left, scope.deadline = scope.deadline - anyio.current_time(), math.inf
        try:
            yield
        finally:
            scope.deadline = anyio.current_time() + left


class _HttpxDownload:
    """A response whose body has not been read.

    Args:
        response: The response of the client.
        translate: Returns our error for an error of the client.
        allowance: Time for the next bytes.
    """

    def __init__(
        self,
        response: ClientResponse,
        translate: Callable[[Exception], FtrackJobsError],
        allowance: Allowance,
    ) -> None:
        self._response = response
        self._translate = translate
        self._allowance = allowance
        self._moved = 0  # since the allowance was renewed
        self._is_complete = False
        self._failure: FtrackJobsError | None = None
        self.status = response.status_code
        self.headers: Mapping[str, str] = dict(response.headers)
        length = self.headers.get("content-length", "")
        encoded = "content-encoding" in self.headers or "transfer-encoding" in self.headers
        self.size = int(length) if length.isdigit() and not encoded else None

    async def save(self, write: Write, note: Callable[[], object]) -> None:
        """Give the body to *write* in blocks, in worker threads."""
        found = cast("AsyncGenerator[bytes, None]", self._response.aiter_bytes())
        async with aclosing(found) as pieces:
            while self._failure is None and not self._is_complete:
                block: list[bytes | memoryview] = []
                try:
                    with self._allowance.limit():
                        await self._receive(pieces, block, note)
                except ExceededError as exc:
                    self._failure = self._translate(exc)
                if block:
                    await run_sync(write, block)
                    note()
        if self._failure is not None:
            raise self._failure

    async def _receive(
        self,
        pieces: AsyncIterator[bytes],
        block: list[bytes | memoryview],
        note: Callable[[], object],
    ) -> None:
        """Fill *block* with what arrives."""
        gathered = 0
        while gathered < _BLOCK:
            try:
                piece = await anext(pieces)
            except StopAsyncIteration:
                self._is_complete = True
                return
            except Exception as exc:  # noqa: BLE001 - a caller's client may raise anything
                self._failure = self._translate(exc)
                return
            block.append(piece)
            gathered += len(piece)
            self._moved += len(piece)
            if self._moved >= STEP:
                self._allowance.renew()
                self._moved = 0
            note()


class _Body:
    """Chunks to send.

    Args:
        body: The chunks.
        allowance: Time for sending each of them; none passes while one is made.

    Attributes:
        failure: The error that the chunks ended with, without the frames of the client that it
            passes through. aiohttp reads the chunks in its own task, and raises a different error,
            which does not refer to this one.
    """

    def __init__(self, body: AsyncIterable[bytes], allowance: Allowance) -> None:
        self._chunks = aiter(body)
        self._allowance = allowance
        self._failed: tuple[Exception, TracebackType | None] | None = None

    @property
    def failure(self) -> Exception | None:
        if self._failed is None:
            return None
        error, frames = self._failed
        return error.with_traceback(frames)

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        try:
            with self._allowance.suspend():
                chunk = await anext(self._chunks)
        except StopAsyncIteration:
            raise
        except Exception as exc:
            self._failed = exc, exc.__traceback__
            raise
        self._allowance.renew(len(chunk))
        return chunk

    async def aclose(self) -> None:
        """Close the generator of the chunks, because trio warns of generators that stay open."""
        if isinstance(self._chunks, AsyncGenerator):
            with suppress(RuntimeError):  # aiohttp's task is running it, and ends it
                await self._chunks.aclose()
