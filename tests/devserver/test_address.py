"""Only this machine reaches a server, unless that is allowed and a key is given."""

from __future__ import annotations

import httpx
import pytest

from aioftrackjobs.devserver import ServerStartError, running, serve
from aioftrackjobs.devserver.serving.address import check_address, url_of

from .caller import Caller


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.0.1", "::1", "localhost"])
def test_loopback_needs_nothing(host: str) -> None:
    with pytest.raises(ServerStartError):
        check_address("192.0.2.7", 1, public=False, api_key=None)

    check_address(host, 1, public=False, api_key=None)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "", "192.0.2.7", "studio.example"])
@pytest.mark.parametrize(
    ("public", "api_key", "wanted"),
    [
        pytest.param(False, None, "--public", id="nothing"),
        pytest.param(False, "chosen", "--public", id="key-alone"),
        pytest.param(True, None, "--api-key", id="made-up-key"),
        pytest.param(True, "", "--api-key", id="empty-key"),
    ],
)
def test_other_addresses_need_a_flag_and_a_key(
    host: str, public: bool, api_key: str | None, wanted: str
) -> None:
    with pytest.raises(ServerStartError, match=wanted):
        check_address(host, 1, public=public, api_key=api_key)

    check_address(host, 1, public=True, api_key="chosen")


async def test_running_and_serving_both_need_them() -> None:
    with pytest.raises(ServerStartError, match="--public"):
        serve("0.0.0.0", 0)
    with pytest.raises(ServerStartError, match="--public"):
        async with running("0.0.0.0"):
            pytest.fail("it started")


async def test_a_public_server_is_reached_from_this_machine_too() -> None:
    async with (
        running("0.0.0.0", public=True, api_key="chosen") as server,
        httpx.AsyncClient(base_url=server.url) as http,
    ):
        assert len(await Caller(http, server.api_user, "chosen").query("Location")) == 5


@pytest.mark.parametrize(
    ("host", "url"),
    [("::", "http://[::1]:5"), ("::1", "http://[::1]:5"), ("192.0.2.7", "http://192.0.2.7:5")],
)
def test_urls_are_such_as_clients_take(host: str, url: str) -> None:
    assert url_of(host, 5) == url
