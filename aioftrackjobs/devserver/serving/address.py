"""The address of a server: who may reach it, and the socket that listens there."""

from __future__ import annotations

import ipaddress
import socket

from aioftrackjobs.devserver.errors import ServerStartError

_BACKLOG = 512
#: Addresses that stand for all of a machine's, and what reaches them from the machine itself.
_ANY = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104


def check_address(host: str, port: int, *, public: bool, api_key: str | None) -> None:
    """Check that only this machine reaches *host*, or that more is wanted and safe.

    Raises:
        ServerStartError: If other machines reach it, and that is not allowed by *public*, or there
            is no *api_key* that was chosen for it.
    """
    if _is_loopback(host):
        return
    address = f"{host or '*'}:{port}"
    if not public:
        raise ServerStartError(
            "host", address, "other machines reach it; allow that with public (--public)"
        )
    if not api_key:
        raise ServerStartError(
            "host", address, "other machines reach it; give it an api_key (--api-key)"
        )


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def bind(host: str, port: int) -> socket.socket:
    """Return a listening socket, so that a port in use is an error of the caller's.

    Raises:
        ServerStartError: If the system does not give it.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # Named, as asyncio turns off Nagle's delay (40 ms an answer) only where it sees TCP.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(_BACKLOG)
    except (OSError, OverflowError) as error:
        listener.close()
        reason = getattr(error, "strerror", None) or str(error)
        raise ServerStartError("host", f"{host}:{port}", reason) from error
    return listener


def url_of(host: str, port: int) -> str:
    """Return what clients on this machine take as the URL of a server that listens there."""
    reached = _ANY.get(host, host)
    return f"http://[{reached}]:{port}" if ":" in reached else f"http://{reached}:{port}"
