"""Transport over ``httpx.AsyncClient``, or a client with the same interface.

The meaning of an error is found by the names of its classes, because the client belongs to the
caller: httpx2 has its own classes under the names of httpx, and it or aiohttp may not be installed.
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
from functools import partial
from itertools import takewhile
from typing import Any, cast
from urllib.parse import urlsplit

import anyio
from anyio.to_thread import run_sync

from aioftrackjobs.errors import (
    ConnectError,
    FtrackJobsError,
    MalformedResponseError,
    TransportError,
)
from aioftrackjobs.transport._base import (
    ClientResponse,
    Departure,
    Download,
    HttpClient,
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
    Allowance,
    Body,
    Bounds,
    ExceededError,
)
from aioftrackjobs.transport._redaction import hide_secrets, hiding_addresses, redact

#: Bytes of a download that are written at once.
_BLOCK = 1024 * 1024

#: Errors of httpx and httpx2 that are raised before the request leaves this machine.
_NOT_SENT = frozenset(
    {
        "ConnectError",
        "ConnectTimeout",
        "LocalProtocolError",
        "PoolTimeout",
        "ProxyError",
        "UnsupportedProtocol",
    }
)

#: The same of aiohttp. httpx-aiohttp 0.2 turns every ClientConnectionError into a ConnectTimeout,
#: even if the server has read the request and then closed the connection. So the cause decides.
_NOT_SENT_AIOHTTP = frozenset(
    {
        "ClientConnectorError",
        "ClientHttpProxyError",
        "ConnectionTimeoutError",
        "InvalidURL",
        "NonHttpUrlClientError",
    }
)

#: Errors that every further attempt would raise again.
_PERMANENT = frozenset(
    {
        "ClientConnectorCertificateError",
        "InvalidURL",
        "LocalProtocolError",
        "NonHttpUrlClientError",
        "SSLCertVerificationError",
        "UnsupportedProtocol",
    }
)

_CERTIFICATES = "name a file with the certificates to trust in SSL_CERT_FILE or REQUESTS_CA_BUNDLE"
#: What to do about errors of TLS, by a part of their text.
_HINTS = {
    "local issuer certificate": _CERTIFICATES,
    "self-signed certificate": _CERTIFICATES,
    "WRONG_VERSION_NUMBER": "the server may speak http there, not https",
}


class HttpxTransport:
    """Transport over a client that the caller owns and closes.

    Args:
        client: An ``httpx.AsyncClient`` on any httpx transport, or a client with its interface.
        secrets: Texts that must never appear in an error.
        bounds: What a request and its response may take.
    """

    def __init__(
        self, client: HttpClient, *, secrets: tuple[str, ...] = (), bounds: Bounds = NO_BOUNDS
    ) -> None:
        self._client = client
        self._bounds = bounds
        self._uses_aiohttp = _is_of(getattr(client, "_transport", None), "httpx_aiohttp")
        self._secrets = secrets
        hide_secrets()

    async def send(self, request: WireRequest) -> WireResponse:
        """Send *request*, and return its whole response; no redirection is followed."""
        is_call = isinstance(request.body, bytes)
        allowance = Allowance(self._bounds.seconds, SLOWEST_CALL if is_call else SLOWEST_FILE)
        if isinstance(request.body, bytes):
            allowance.add(len(request.body))
        async with self._exchange(request, allowance, follow_redirects=False) as response:
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
                    url=_origin(request.url),
                )
                error.is_retryable = False
            except Exception as exc:  # noqa: BLE001 - a caller's client may raise anything
                error = self._translate(exc, request.url)
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
        allowance = Allowance(self._bounds.seconds, SLOWEST_FILE)
        async with self._exchange(request, allowance, follow_redirects=True) as response:
            translate = partial(self._translate, url=request.url)
            yield _HttpxDownload(response, translate, allowance)

    @asynccontextmanager
    async def _exchange(
        self, request: WireRequest, allowance: Allowance, *, follow_redirects: bool
    ) -> AsyncIterator[ClientResponse]:
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
            headers = [(name.encode("ascii"), value) for name, value in encoded(request.headers)]
            if isinstance(body, AnnouncedBody):
                headers.append((b"content-length", str(len(body)).encode()))
            self._require_open()
            outgoing = self._client.build_request(
                request.method, request.url, content=body, headers=headers
            )
            if trace is not None and isinstance(getattr(outgoing, "extensions", None), dict):
                outgoing.extensions["trace"] = trace
            send = self._client.send(outgoing, stream=True, follow_redirects=follow_redirects)
            with allowance.limit():
                if request.method == "POST":  # an API call, whose address is no secret
                    response = await send
                else:
                    with hiding_addresses():
                        response = await send
        except Exception as exc:  # noqa: BLE001 - a caller's client may raise anything
            own = body.failure if isinstance(body, AnnouncedBody | _Body) else None
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
            if trace is not None:
                await trace.aclose()
        raise error  # outside the handler, so that its context does not refer to httpx's error

    def _require_open(self) -> None:
        if self._client.is_closed:
            error = ConnectError("the HTTP client is closed")
            error.is_retryable = False
            raise error

    def _translate(self, exc: Exception, url: str) -> FtrackJobsError:
        """Return our error for an error of the client.

        Never chain the two: the request of the client's error has secrets in its URL and headers.
        """
        if isinstance(exc, FtrackJobsError):  # our own
            return exc
        if isinstance(exc, ExceededError):
            return TransportError(f"no complete response from {_origin(url)}: {exc}")
        if was_not_sent(exc):
            error = ConnectError(f"cannot reach {_origin(url)}: {self._reason(exc)}")
            error.is_retryable = not is_permanent(exc)
            return error
        return TransportError(f"no complete response from {_origin(url)}: {self._reason(exc)}")

    def _reason(self, exc: Exception) -> str:
        return redact(describe(exc), *self._secrets)


def encoded(headers: Mapping[str, str | bytes]) -> list[tuple[str, bytes]]:
    """Return *headers* with text in UTF-8, in which servers expect the name of a file."""
    return [
        (name, value if isinstance(value, bytes) else value.encode())
        for name, value in headers.items()
    ]


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
        failure: The error that the chunks ended with. aiohttp reads them in its own task, and
            raises a different error, which does not refer to this one.
    """

    def __init__(self, body: AsyncIterable[bytes], allowance: Allowance) -> None:
        self._chunks = aiter(body)
        self._allowance = allowance
        self.failure: Exception | None = None

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        try:
            with self._allowance.suspend():
                chunk = await anext(self._chunks)
        except StopAsyncIteration:
            raise
        except Exception as exc:
            self.failure = exc
            raise
        self._allowance.renew(len(chunk))
        return chunk

    async def aclose(self) -> None:
        """Close the generator of the chunks, because trio warns of generators that stay open."""
        if isinstance(self._chunks, AsyncGenerator):
            with suppress(RuntimeError):  # aiohttp's task is running it, and ends it
                await self._chunks.aclose()


# When a request leaves this machine. Until then it can be stopped, and the server never sees it. A
# client of httpx first connects, which may take as long as its timeout. httpcore announces each
# step to the extension ``trace`` of a request. In some steps a cancellation is safe. In between it
# is not: httpcore 1.0 would keep a connection in its pool that no request can use any more. There
# the request is stopped by an error at the next step.

#: The steps of httpcore in which a request waits for the network before it leaves.
_CONNECTING = frozenset(
    {"connect_tcp", "connect_unix_socket", "setup_socks5_connection", "start_tls"}
)


class Trace:
    """Reports the steps of httpcore, as the extension ``trace`` of a request."""

    def __init__(self, departure: Departure) -> None:
        self._departure = departure
        self._stream: Any = None  # the connection, before httpcore keeps it

    async def __call__(self, event: str, info: Mapping[str, Any]) -> None:
        step, _, phase = event.rpartition(".")
        step = step.rpartition(".")[2]
        if step in _CONNECTING:
            if phase == "started":
                self._departure.wait()
                return
            self._stream = info.get("return_value") or self._stream
            try:
                self._departure.proceed()
            except Exception:
                await self.aclose()
                raise
        elif phase == "started" and "request" in info:
            if info["request"].method != b"CONNECT":
                if step == "send_request_headers":
                    self._stream = None
                    # No further step is of interest, and each call takes time.
                    info["request"].extensions.pop("trace", None)
                    body = self._departure.leave(may_replace=True)
                    if body is not None:
                        _replace_body(info["request"], body)
            elif step == "receive_response_headers":  # of a proxy, which connects meanwhile
                self._departure.wait()
            else:
                self._departure.proceed()

    async def aclose(self) -> None:
        """Close a connection that was stopped before httpcore has noted it."""
        stream, self._stream = self._stream, None
        if stream is not None:
            with anyio.CancelScope(shield=True):
                await stream.aclose()


class _Bytes:
    def __init__(self, body: bytes) -> None:
        self._body = body

    async def __aiter__(self) -> AsyncIterator[bytes]:
        yield self._body


def _replace_body(request: Any, body: bytes) -> None:
    """Let httpcore send *body*: it reads headers and body of its *request* after this."""
    length = str(len(body)).encode()
    request.headers = [
        (name, length if name.lower() == b"content-length" else value)
        for name, value in request.headers
    ]
    request.stream = _Bytes(body)


class AnnouncedBody:
    """A body that reports when its first byte leaves: aiohttp has no ``trace``.

    Attributes:
        failure: The error of the departure; aiohttp raises a different one.
    """

    def __init__(self, body: bytes, departure: Departure) -> None:
        self._body = body
        self._departure = departure
        self.failure: Exception | None = None
        departure.wait()

    def __len__(self) -> int:
        return len(self._body)

    async def __aiter__(self) -> AsyncIterator[bytes]:
        try:
            self._departure.leave(may_replace=False)
        except Exception as exc:
            self.failure = exc
            raise
        yield self._body


def _origin(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"


# What errors mean


def is_permanent(error: BaseException) -> bool:
    """Return whether another attempt would fail, too: a bad address or certificate."""
    return any(type(each).__name__ in _PERMANENT for each in _chain(error))


def was_not_sent(error: BaseException) -> bool:
    """Return whether the request certainly did not leave this machine."""
    origin = _original(error)
    names = _NOT_SENT_AIOHTTP if _is_of(origin, "aiohttp") else _NOT_SENT
    return any(kind.__name__ in names for kind in type(origin).__mro__)


def describe(error: BaseException) -> str:
    """Return the name of *error* and its text, or if it has none the text of its cause.

    A cancellation ends the search: its text only names a scope of the event loop.
    """
    origin = _original(error)
    failures = takewhile(lambda each: isinstance(each, Exception), _chain(origin))
    text = next(filter(None, map(str, failures)), "")
    text += next((f"; {hint}" for part, hint in _HINTS.items() if part in text), "")
    return f"{type(origin).__name__}: {text}" if text else type(origin).__name__


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


def _is_of(value: object, package: str) -> bool:
    return any(kind.__module__.partition(".")[0] == package for kind in type(value).__mro__)
