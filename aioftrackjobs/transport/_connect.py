"""Connects a socket on the event loop and not in a thread, so that it can be cancelled at once."""

from __future__ import annotations

import errno
import os
import socket
from itertools import chain, zip_longest
from typing import TypeAlias

import anyio

#: Seconds after which the next address is tried, too (RFC 8305, "Happy Eyeballs").
_NEXT_ADDRESS = 0.25

_IN_PROGRESS = (errno.EINPROGRESS, errno.EWOULDBLOCK, getattr(errno, "WSAEWOULDBLOCK", 0))

#: Address family, and address as the socket module has it.
_Target: TypeAlias = tuple[int, tuple[str, int] | tuple[str, int, int, int]]


async def connect(host: str, port: int, timeout: float | None) -> socket.socket:
    """Return a socket that is connected to the first address of *host* that accepts.

    Raises:
        OSError: The host does not exist, or none of its addresses accepts.
        TimeoutError: No address accepted within *timeout* seconds.
    """
    connected: list[socket.socket] = []
    try:
        with anyio.move_on_after(timeout) as scope:
            found = await anyio.getaddrinfo(host, port, type=socket.SOCK_STREAM)
            errors = await _race([(family, address) for family, *_, address in found], connected)
    except BaseException:
        for each in connected:
            each.close()
        raise
    if connected:
        return connected[0]
    if scope.cancelled_caught:
        raise TimeoutError(f"no connection within {timeout:g} s")
    raise errors[-1]


async def _race(targets: list[_Target], connected: list[socket.socket]) -> list[OSError]:
    """Put the first socket that connects into *connected*; return the errors of the others."""
    errors: list[OSError] = []

    async with anyio.create_task_group() as group:

        async def attempt(target: _Target, failed: anyio.Event) -> None:
            try:
                sock = await _connect(target)
            except OSError as exc:
                errors.append(exc)
                failed.set()
                return
            if connected:
                sock.close()
            else:
                connected.append(sock)
                group.cancel_scope.cancel()

        for target in _alternating(targets):
            failed = anyio.Event()
            group.start_soon(attempt, target, failed)
            with anyio.move_on_after(_NEXT_ADDRESS):
                await failed.wait()
    return errors


def _alternating(targets: list[_Target]) -> list[_Target]:
    """Return *targets* with the families in turns, so that one without a route delays no other."""
    first = [each for each in targets if each[0] == targets[0][0]]
    others = [each for each in targets if each[0] != targets[0][0]]
    return [each for each in chain(*zip_longest(first, others)) if each is not None]


async def _connect(target: _Target) -> socket.socket:
    family, address = target
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.settimeout(0)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        code = sock.connect_ex(address)
        if code in _IN_PROGRESS:
            await anyio.wait_writable(sock)
            code = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    except BaseException:
        sock.close()
        raise
    if code:
        sock.close()
        raise OSError(code, os.strerror(code))
    return sock
