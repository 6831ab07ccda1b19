"""Faults of the event hub."""

from __future__ import annotations

import pytest
from websockets.exceptions import ConnectionClosed

from aioftrackjobs.devserver import Limits, ServerHandle, running
from aioftrackjobs.testing import Delay, Drop, Duplicate, Reorder, Restart, StopHeartbeats

from .caller import Caller
from .hub_client import HubClient, connected


async def numbers(client: HubClient, publisher: HubClient, count: int = 3) -> list[int]:
    """Return the numbers in events that *client* gets, of which *publisher* publishes some."""
    for number in range(count):
        await publisher.publish("a", data={"n": number})
    await publisher.publish("end")
    found = []
    while (event := await client.event())["topic"] != "end":
        found.append(event["data"]["n"])
    return found


async def test_events_are_duplicated(server: ServerHandle) -> None:
    async with connected(server) as client, connected(server) as publisher:
        await client.subscribe("topic=*")
        server.faults.inject(Duplicate())
        assert await numbers(client, publisher) == [0, 0, 1, 2]
        (injected,) = server.faults.injected
        assert (injected.request.path, injected.request.kind) == ("a", "event")


async def test_events_change_their_order(server: ServerHandle) -> None:
    async with connected(server) as client, connected(server) as publisher:
        await client.subscribe("topic=*")
        server.faults.inject(Reorder())
        assert await numbers(client, publisher) == [1, 0, 2]


async def test_an_event_that_is_held_back_comes_with_the_next_heartbeat() -> None:
    async with running(limits=Limits(heartbeat=0.3)) as server, connected(server) as client:
        await client.subscribe("topic=*")
        server.faults.inject(Reorder())
        await client.publish("a")
        assert (await client.event())["topic"] == "a"


async def test_events_are_delayed(server: ServerHandle) -> None:
    async with connected(server) as client, connected(server) as publisher:
        await client.subscribe("topic=*")
        await publisher.subscribe("topic=*")
        server.faults.inject(
            Delay(0.5),
            on=lambda request: request.kind == "event" and request.operations[0]["data"]["n"] == 1,
            times=2,
        )
        assert await numbers(client, publisher) == [0, 1, 2]
        assert len(server.faults.injected) == 2


async def test_a_connection_is_dropped_in_place_of_an_event(server: ServerHandle) -> None:
    async with connected(server) as client, connected(server) as publisher:
        await client.subscribe("topic=*")
        server.faults.inject(Drop(), on="events")
        await publisher.publish("a")
        with pytest.raises(ConnectionClosed):
            await client.event()
        async with connected(server) as again:
            await again.subscribe("topic=*")
            assert await numbers(again, publisher) == [0, 1, 2]


async def test_heartbeats_stop_on_one_connection() -> None:
    async with running(limits=Limits(heartbeat=0.15)) as server, connected(server) as client:
        server.faults.inject(StopHeartbeats())
        with pytest.raises(ConnectionClosed):
            while await client.frame():
                assert not server.faults.injected
        async with connected(server) as again:
            assert await again.frame() == "2::"


async def test_a_restart_closes_connections_to_the_hub(
    server: ServerHandle, remote: Caller
) -> None:
    async with connected(server) as client:
        server.faults.inject(Restart(0.0))
        with pytest.raises(Exception, match="disconnected"):
            await remote.query("Job")
        with pytest.raises(ConnectionClosed):
            await client.event()


async def test_faults_of_requests_leave_events_alone(server: ServerHandle) -> None:
    async with connected(server) as client, connected(server) as publisher:
        await client.subscribe("topic=*")
        server.faults.inject(Drop(), times=5)
        server.faults.inject(Duplicate(), on="calls")
        assert await numbers(client, publisher) == [0, 1, 2]
        assert server.faults.injected == ()
