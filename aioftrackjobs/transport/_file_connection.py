"""HTTP over blocking sockets, for worker threads, on the standard library's ``http.client``.

How a cancelled transfer stops here: a thread waits for the peer at most ``_SLICE`` seconds, then
checks whether it was stopped. So it ends soon after a cancellation, whatever the peer does, and
closes the socket itself; no thread closes a socket that another thread uses.

How a peer is kept from holding it up: the waits for each ``STEP`` bytes of a file, and for the head
of a response, are added up, and may take the time-out in all. What is received besides the file
itself, such as interim responses, headers and the frames of chunks, has a largest size.
"""

from __future__ import annotations

import io
import selectors
import socket
import ssl
import threading
import time
import zlib
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from http.client import HTTPConnection, HTTPException, HTTPResponse
from typing import Any, BinaryIO, TypeVar, cast

from aioftrackjobs.config.secret import Secret
from aioftrackjobs.protocol.headers import REDIRECTIONS
from aioftrackjobs.transport._base import FileBody, WireResponse, Write
from aioftrackjobs.transport._bounds import ANY_WINDOW, CODINGS, STEP
from aioftrackjobs.transport._client_errors import describe, is_permanent

T = TypeVar("T")

#: Bytes that are read and sent, or received and written, at once: enough for few system calls and
#: thread switches, and few enough to stay in the processor's cache.
_PIECE = 256 * 1024

#: Seconds that a thread waits for the peer before it checks whether it was stopped.
_SLICE = 0.1

#: Seconds to wait for a response after the connection broke while the body was sent.
_EARLY_RESPONSE = 1.0

#: Bytes of the body of a redirection that are read to reuse the connection.
_SKIPPED = 64 * 1024

#: Bytes of the response to an upload, at most, and of what is received besides a file.
_LONGEST_RESPONSE = 1024 * 1024

RawHeaders = Sequence[tuple[str, str | bytes]]


class BrokenError(Exception):
    """The connection broke, or the received data is not valid HTTP; the text may contain secrets.

    Attributes:
        is_retryable: Whether another attempt may succeed.
    """

    def __init__(self, reason: str, *, is_retryable: bool = True) -> None:
        super().__init__(reason)
        self.is_retryable = is_retryable


@contextmanager
def network_errors() -> Iterator[None]:
    """Raise errors of sockets, TLS, ``http.client`` and zlib as BrokenError."""
    try:
        yield
    except (OSError, HTTPException, zlib.error) as exc:
        raise BrokenError(describe(exc), is_retryable=not is_permanent(exc)) from None


class _Wire(io.RawIOBase):
    """A connected socket, as ``http.client`` uses one; each wait is limited and can be stopped.

    Args:
        sock: Closed by :meth:`shut`. The thread of the event loop must create this object.
        timeout: Seconds that the waits for the peer may take until it moves on; None for no limit.
    """

    def __init__(self, sock: socket.socket, timeout: float | None) -> None:
        super().__init__()
        self._moved = self._extra = 0  # bytes of the file, and others, since it last moved on
        self._waited = 0.0
        self._socket = sock
        self._socket.settimeout(_SLICE)
        self.timeout = timeout
        self.is_stopped = False
        self._loop_thread = threading.current_thread()
        self.makefile("rb")

    def start_tls(self, context: ssl.SSLContext, host: str) -> None:
        def shake_hands() -> bool:
            secure.do_handshake()
            return True

        secure = context.wrap_socket(
            self._socket, server_hostname=host, do_handshake_on_connect=False
        )
        self._socket = secure
        self._repeat(shake_hands, "no response to the TLS handshake")

    def sendall(self, data: bytes | memoryview) -> None:
        unsent = memoryview(data)
        while unsent:
            # After a time-out OpenSSL requires the same bytes again.
            count = self._repeat(lambda: self._socket.send(unsent), "the server accepted no data")  # noqa: B023
            unsent = unsent[count:]
            self.move_on(count)

    def _repeat(self, operation: Callable[[], T], problem: str) -> T:
        """Return the result of *operation*, which is repeated until the time-out."""
        while True:
            self._check()
            started = time.monotonic()
            try:
                result = operation()
            except TimeoutError as exc:
                if _is_system_error(exc):
                    raise
                result = None
            if (late := self._add_wait(started, problem)) is not None:
                raise late
            if result is not None:
                return result

    def _add_wait(self, started: float, problem: str) -> TimeoutError | None:
        """Add the time since *started* to the waits; return an error if they are too long."""
        self._waited += time.monotonic() - started
        if self.timeout is None or self._waited < self.timeout:
            return None
        if self._moved or self._extra:
            problem = problem.replace("no ", "too little ", 1)
        return TimeoutError(f"{problem} for {self.timeout:g} s")

    def move_on(self, moved: int = STEP) -> None:
        """Note that bytes of a file were moved: after enough of them, the peer has more time."""
        self._moved += moved
        if self._moved >= STEP:
            self._moved = self._extra = 0
            self._waited = 0.0

    def _check(self) -> None:
        if self.is_stopped or not self._loop_thread.is_alive():  # the program ends
            raise ConnectionAbortedError("stopped")

    def makefile(self, _: str) -> BinaryIO:
        """Return the file object that the next response is read from."""
        self._reader = io.BufferedReader(self)
        self._is_direct = False
        self._failure: OSError | None = None
        return self._reader

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        """Receive bytes for the reader; None makes the reader return the bytes that it has."""
        if self._is_direct:
            return None
        count = self._repeat(lambda: self._socket.recv_into(buffer), "no data arrived")
        self._extra += count
        if self._extra > _LONGEST_RESPONSE:
            raise ConnectionAbortedError("the response has too much besides a file")
        return count

    def read_into(self, buffer: memoryview) -> int | None:
        """Read bytes of a body; return how many: 0 at its end, None if the peer sent none yet.

        It does not wait until the buffer is full, so that a slow body is written as it arrives.
        """
        if not self._is_direct:  # the reader may have bytes behind the head of the response
            self._is_direct = True
            if count := self._reader.readinto(buffer):
                return count
        if self._failure is not None:
            raise self._failure
        self._check()
        return self._receive(buffer)

    def _receive(self, buffer: memoryview) -> int | None:
        """Receive until *buffer* is full, or nothing has arrived for one slice of time.

        TLS gives at most 16 KiB at once, so that this loop does little else.
        """
        count, receive, started = 0, self._socket.recv_into, time.monotonic()
        try:
            while count < len(buffer) and not self.is_stopped:
                received = receive(buffer[count:])
                if not received:
                    return count
                count += received
                if time.monotonic() - started > _SLICE:
                    break
        except OSError as exc:
            if not isinstance(exc, TimeoutError) or _is_system_error(exc):
                self._failure = exc  # raised by the next read, so that earlier bytes are not lost
        late = self._add_wait(started, "no data arrived")
        self.move_on(count)
        if late is not None and self._waited:
            self._failure = late
        if not count and isinstance(self._failure, TimeoutError):
            raise self._failure
        return count or None

    def is_readable(self) -> bool:
        """Return whether data arrived or the peer closed the connection."""
        with selectors.DefaultSelector() as selector:
            selector.register(self._socket, selectors.EVENT_READ)
            return bool(selector.select(0))

    def close(self) -> None:
        """Do nothing, because ``http.client`` closes its socket before it reads the last body."""

    def shut(self) -> None:
        """Close the socket."""
        self._socket.close()


def _is_system_error(error: TimeoutError) -> bool:
    """Return whether the operating system raised it, and not the socket after one slice."""
    return error.errno is not None


class FileConnection:
    """A connection that sends and receives files, by one request at a time.

    All methods except :meth:`stop` and :meth:`close` block, and run in worker threads.

    Args:
        sock: A connected socket, which this object closes.
        origin: Scheme, host and port of the server, for texts of errors.
        host: Name of the server, which its certificate must have.
        timeout: Seconds for which the server may accept or send nothing; None for no limit.
    """

    def __init__(self, sock: socket.socket, origin: str, host: str, timeout: float | None) -> None:
        self._wire = _Wire(sock, timeout)
        self.origin = origin
        self._host = host
        self._http = HTTPConnection(host)
        self._http.auto_open = 0
        self._http.sock = cast("socket.socket", self._wire)
        self._response: HTTPResponse | None = None
        self._lock = threading.Lock()

    def start_tls(self, context: ssl.SSLContext) -> None:
        """Encrypt the connection, and verify the server's certificate."""
        with network_errors():
            self._wire.start_tls(context, self._host)

    def put(
        self, method: str, target: Secret[str], headers: Secret[RawHeaders], body: FileBody
    ) -> Generator[int, None, WireResponse]:
        """Send *body*; yield how many bytes were sent, and return the response."""
        broken: BrokenError | None = None
        buffer = memoryview(bytearray(min(_PIECE, body.size)))
        left = body.size
        try:
            self._send_head(method, target, headers)
            while left:
                count = body.read_into(buffer[: min(left, _PIECE)], body.size - left)
                with network_errors():
                    self._wire.sendall(buffer[:count])
                left -= count
                yield count
        except BrokenError as exc:
            # A server that rejects a request may respond and close before it has read the body.
            broken, self._wire.timeout = exc, _EARLY_RESPONSE
        try:
            with network_errors():
                self._wire.move_on()
                response = self._response = self._http.getresponse()
                if (response.length or 0) > _LONGEST_RESPONSE:
                    raise ConnectionAbortedError("the response is too big")
                return WireResponse(response.status, response.read(), _headers(response))
        except BrokenError as exc:
            error = broken or exc
        finally:
            if broken is not None:
                self._response = None  # the connection cannot be used again
        raise error

    def get(self, method: str, target: Secret[str], headers: Secret[RawHeaders]) -> WireResponse:
        """Send a request without a body, and return its response without the body.

        The body of a redirection is read, too, if it is short.
        """
        self._send_head(method, target, headers)
        with network_errors():
            response = self._response = self._http.getresponse()
            length = response.length
            if response.status in REDIRECTIONS and length is not None and length <= _SKIPPED:
                response.read()
        return WireResponse(response.status, b"", _headers(response))

    @property
    def body_size(self) -> int | None:
        """Length of the response's body in bytes; None if it is not known."""
        response = self._require_response()
        return None if "content-encoding" in response.headers else response.length

    def receive(self, write: Write) -> Generator[int, None, None]:
        """Give the body of the response to *write*; yield how many bytes were written."""
        if self.body_size is None:
            yield from self._receive_unknown(write)
        else:
            yield from self._receive_known(write)

    def _receive_known(self, write: Write) -> Generator[int, None, None]:
        response = self._require_response()
        left = response.length or 0
        buffer = memoryview(bytearray(min(_PIECE, left)))
        while left:
            with network_errors():
                count = self._wire.read_into(buffer[:left])
            if count == 0:
                raise BrokenError(f"the server closed the connection with {left} bytes to come")
            if count is not None:
                write([buffer[:count]])
                left -= count
            yield count or 0
        response.close()

    def _receive_unknown(self, write: Write) -> Generator[int, None, None]:
        """Receive a body that is compressed, or ends with a last chunk or with the connection."""
        response = self._require_response()
        coding = response.headers.get("content-encoding", "").strip().lower()
        decoder = zlib.decompressobj(ANY_WINDOW) if coding in CODINGS else None
        while True:
            with network_errors():
                received = response.read1(_PIECE)
            if not received:
                break
            self._wire.move_on(len(received))
            for piece in [received] if decoder is None else _decoded(decoder, received):
                write([piece])
                yield len(piece)
        if decoder is not None and not decoder.eof:
            raise BrokenError("the compressed content has no end")

    def _send_head(self, method: str, target: Secret[str], headers: Secret[RawHeaders]) -> None:
        self._response = None
        self._wire.move_on()
        try:
            self._http.putrequest(
                method, target.reveal(), skip_host=True, skip_accept_encoding=True
            )
            for name, value in headers.reveal():
                self._http.putheader(name, value)
        except ValueError:  # which may quote a secret
            invalid = BrokenError("a header of the request is invalid", is_retryable=False)
        else:
            with network_errors():
                self._http.endheaders()
            return
        raise invalid

    def _require_response(self) -> HTTPResponse:
        assert self._response is not None  # noqa: S101 - a request was sent
        return self._response

    def work(self, function: Callable[[], T]) -> T:
        """Return the result of *function*, which uses this connection in this thread."""
        try:
            with self._lock:
                return function()
        finally:
            if self._wire.is_stopped:
                self._wire.shut()

    def stop(self) -> None:
        """Let :meth:`work` in another thread end soon, with an error."""
        self._wire.is_stopped = True

    def close(self) -> None:
        """Close the connection; if a thread uses it, :meth:`work` closes it at its end."""
        self.stop()
        if not self._lock.locked():
            self._wire.shut()

    @property
    def is_complete(self) -> bool:
        """Whether a response was read to its end, and the connection can be used again."""
        response = self._response
        return response is not None and response.isclosed() and not response.will_close

    @property
    def is_stale(self) -> bool:
        """Whether the server closed the connection while it was not used."""
        return self._wire.is_readable()


def _decoded(decoder: zlib._Decompress, received: bytes) -> Iterator[bytes]:
    """Decode what was *received*, in pieces of limited size: a few bytes may become very many."""
    while received and not decoder.eof:
        with network_errors():
            piece = decoder.decompress(received, _PIECE)
        yield piece
        received = decoder.unconsumed_tail
        if not received and len(piece) == _PIECE:
            with network_errors():
                yield decoder.decompress(b"")


def _headers(response: HTTPResponse) -> dict[str, str]:
    headers = response.headers
    return {name.lower(): ", ".join(headers.get_all(name, [])) for name in headers}
