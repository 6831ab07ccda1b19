"""Connecting to the first address of a host that accepts."""

from __future__ import annotations

import socket
from typing import Any

import anyio
import pytest

from aioftrackjobs.transport import _connect
from aioftrackjobs.transport._connect import connect

V6, V4 = socket.AF_INET6, socket.AF_INET


class Network:
    """Addresses of a host: each accepts, refuses, or does not respond.

    Attributes:
        tried: The addresses in the order of the attempts.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch, **addresses: str) -> None:
        self.tried: list[str] = []
        self.sockets: list[socket.socket] = []
        self._addresses = addresses
        monkeypatch.setattr(anyio, "getaddrinfo", self._resolve)
        monkeypatch.setattr(_connect, "_connect", self._attempt)

    async def _resolve(self, *_: Any, **__: Any) -> list[Any]:
        families = {"a": V6, "b": V4}
        return [(families[name[0]], 1, 6, "", (name, 1)) for name in self._addresses]

    async def _attempt(self, target: Any) -> socket.socket:
        _, (name, _) = target
        self.tried.append(name)
        if self._addresses[name] == "refuses":
            raise ConnectionRefusedError(name)
        if self._addresses[name] == "hangs":
            await anyio.sleep_forever()
        self.sockets.append(socket.socket())
        return self.sockets[-1]


async def test_families_take_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    network = Network(monkeypatch, a1="refuses", a2="refuses", b1="refuses", b2="accepts")

    with await connect("h", 1, 10) as connected:
        assert connected is network.sockets[0]

    assert network.tried == ["a1", "b1", "a2", "b2"]


async def test_an_address_that_does_not_respond_delays_no_other(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(_connect, "_NEXT_ADDRESS", 0.01)
    network = Network(monkeypatch, a1="hangs", b1="accepts")

    (await connect("h", 1, 10)).close()

    assert network.tried == ["a1", "b1"]


async def test_the_last_refusal_is_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    Network(monkeypatch, a1="refuses", b1="refuses")

    with pytest.raises(ConnectionRefusedError, match="b1"):
        await connect("h", 1, 10)


async def test_a_host_that_does_not_respond_times_out(monkeypatch: pytest.MonkeyPatch) -> None:
    Network(monkeypatch, a1="hangs")

    with pytest.raises(TimeoutError, match=r"no connection within 0\.01 s"):
        await connect("h", 1, 0.01)


async def test_a_server_is_reached() -> None:
    async with await anyio.create_tcp_listener(local_host="127.0.0.1") as listener:
        port = listener.extra(anyio.abc.SocketAttribute.local_port)
        with await connect("localhost", port, 10) as connected:
            assert connected.getpeername() == ("127.0.0.1", port)


async def test_a_closed_port_refuses() -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]

    with pytest.raises(ConnectionRefusedError):
        await connect("127.0.0.1", port, 10)
