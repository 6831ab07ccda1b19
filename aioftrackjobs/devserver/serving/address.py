"""The address of a server: its check, the socket that listens there, and the URL."""

from __future__ import annotations

import errno
import socket

from aioftrackjobs.devserver.errors import ServerStartError
from aioftrackjobs.devserver.http.trusted import address_in

_BACKLOG = 512
#: What to do about an address that the system refuses.
_REASONS = {
    errno.EADDRINUSE: "another program uses this port; choose another port (--port), "
    "or 0 for any free one",
    errno.EACCES: "the system does not allow this port; choose a port from 1024 on (--port)",
    errno.EADDRNOTAVAIL: "this machine does not have this address",
    errno.EAFNOSUPPORT: "this machine does not support this kind of address",
}
#: Addresses that stand for all of a machine's, and those that reach them from the machine itself.
_ANY = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104


def check_address(host: str, port: int, *, public: bool, api_key: str | None) -> None:
    """Check that only this machine reaches *host*, unless that is allowed and there is a key."""
    address = address_in(host)
    is_loopback = host == "localhost" or (address is not None and address.is_loopback)
    if is_loopback or (public and api_key):
        return
    wanted = "give it an api_key (--api-key)" if public else "allow that with public (--public)"
    raise ServerStartError("host", f"{host or '*'}:{port}", f"other machines reach it; {wanted}")


def bind(host: str, port: int) -> socket.socket:
    """Return a listening socket; bound here, so that a port in use is an error of the start."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        # IPPROTO_TCP is named because asyncio turns off Nagle's delay (40 ms for each response)
        # only for sockets whose protocol says so.
        listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind((host, port))
            listener.listen(_BACKLOG)
        except BaseException:
            listener.close()
            raise
    except (OSError, OverflowError, TypeError, ValueError) as error:
        raise ServerStartError("host", f"{host}:{port}", _reason(error)) from error
    return listener


def _reason(error: Exception) -> str:
    if not isinstance(error, OSError):
        return str(error)
    if isinstance(error, socket.gaierror):
        return f"this name has no address here: {error.strerror}"
    return _REASONS.get(error.errno or 0) or error.strerror or str(error)


def url_of(host: str, port: int) -> str:
    """Return the URL by which clients on this machine reach a server that listens there."""
    reached = _ANY.get(host, host)
    return f"http://[{reached}]:{port}" if ":" in reached else f"http://{reached}:{port}"
