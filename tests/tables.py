"""An in-memory server without a socket, whose behaviour and faults tests can choose.

Most tests that need a server without sockets use it. Some have a server of their own, because they
test what it does not have:

- ``respx`` and ``httpx.MockTransport`` respond to a client of httpx with given statuses, headers
  and bytes, or raise its errors: how these become outcomes is what is tested
  (``test_commit_ends.py``, ``test_malformed_servers.py``, ``test_endings.py``).
- ``aioftrackjobs.testing.FakeServer`` is a feature for users. It has schemas and files.
- Storage services of tests of transfers respond to ``PUT`` and ``GET``, not to operations.
- ``tests/benchmarks/stub.py`` is a process that does as little as possible for each request.
- ``tests/unit/protocol/test_reconciliation.py`` has a model of what a batch does. It has no
  requests at all.
"""

from __future__ import annotations

import json
import re
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import anyio
import anyio.lowlevel

from aioftrackjobs import AsyncSession, ConnectError, Entity, TransportError
from aioftrackjobs.config.retry import NO_RETRIES
from aioftrackjobs.protocol.schemas import COMPOSITE_KEYS
from aioftrackjobs.transport import Download, WireRequest, WireResponse

Wire = dict[str, Any]


#: Faults of requests with nothing but queries.
_OF_QUERIES = {"lost query", "forbidden query"}
#: Faults of the next request, whatever it has.
_OF_ALL = {"busy", "busy for 7 s"}


class RefusalError(Exception):
    """The server refuses a batch, and returns an error object."""


class Tables:
    """An in-memory server, which is itself the transport of its sessions.

    Attributes:
        atomic: Whether a refused batch is rolled back.
        reorders: Whether a batch may not refer to an entity that it creates.
        refuses: Returns whether an operation is refused.
        gate: An event for which requests wait.
        faults: What happens to the next requests with writes, one after the other: a "refused
            connection", a "lost request", a "lost response" or "none"; to the next request with
            nothing but queries, a "lost query", or a "forbidden query", which a proxy refuses; to
            the next request of any kind, "busy" or "busy for 7 s", which asks the client to wait
            so long.
        hides: Entity types that no user may query.
        most_operations: Larger batches are refused.
        requests: The operations of each request, in the order in which they were sent, also
            those that a fault lost.
        batches: The writes of each such request.
        applied: The writes that were applied and not rolled back, in order.
        refused: The writes that were refused, and not those beside them.
        in_progress: Number of requests that wait now.
        most_in_progress: The highest number of requests that waited at the same time.
    """

    def __init__(self) -> None:
        self.atomic = True
        self.reorders = False
        self.refuses: Callable[[Wire], bool] = lambda _: False
        self.gate = anyio.Event()
        self.gate.set()
        self.faults: deque[str] = deque()
        self.hides: set[str] = set()
        self.most_operations: int | None = None
        self.rows: dict[str, Wire] = {}
        self.applied: list[Wire] = []
        self.refused: list[Wire] = []
        self.requests: list[list[Wire]] = []
        self.batches: list[list[Wire]] = []
        self.queries = 0
        self.in_progress = self.most_in_progress = 0
        self.arrived = anyio.Event()

    async def send(self, request: WireRequest) -> WireResponse:
        assert isinstance(request.body, bytes)
        operations = json.loads(request.body)
        writes = [operation for operation in operations if operation["action"] != "query"]
        self.queries += len(operations) - len(writes)
        self.requests.append(operations)
        if writes:
            self.batches.append(writes)
        self.in_progress += 1
        self.most_in_progress = max(self.most_in_progress, self.in_progress)
        self.arrived.set()
        try:
            await self.gate.wait()
        finally:
            self.in_progress -= 1
        fault = self._next_fault(is_query=not writes)
        if fault == "refused connection":
            raise ConnectError("refused")
        if fault in ("lost request", "lost query"):
            raise TransportError("gone")
        if fault == "forbidden query":
            return WireResponse(403, b"<h1>Forbidden</h1>")
        if fault in ("busy", "busy for 7 s"):
            headers = {} if fault == "busy" else {"retry-after": "7"}
            return WireResponse(429, b"slow down", headers)
        response = self._respond(operations)
        if fault == "lost response":
            raise TransportError("gone")
        return response

    def stream(self, request: WireRequest) -> AbstractAsyncContextManager[Download]:
        raise NotImplementedError("it has no files")

    def _next_fault(self, *, is_query: bool) -> str | None:
        if not self.faults:
            return None
        fault = self.faults[0]
        if fault not in _OF_ALL and is_query != (fault in _OF_QUERIES):
            return None
        return self.faults.popleft()

    def _respond(self, operations: Sequence[Wire]) -> WireResponse:
        if self.most_operations is not None and len(operations) > self.most_operations:
            return WireResponse(413, b"<h1>Request Entity Too Large</h1>")
        before = {key: dict(row) for key, row in self.rows.items()}, list(self.applied)
        try:
            return _json(self._apply(operations))
        except RefusalError as exc:
            if self.atomic:
                self.rows, self.applied = before
            kind, content = exc.args
            return _json({"exception": kind, "content": content})

    def _apply(self, operations: Sequence[Wire]) -> list[Wire]:
        created = [
            each["entity_key"][0]
            for each in operations
            if each["action"] == "create" and len(each["entity_key"]) == 1
        ]
        results = []
        for operation in operations:
            try:
                results.append(self._apply_one(operation, created))
            except RefusalError:
                if operation["action"] != "query":
                    self.refused.append(operation)
                raise
        return results

    def _apply_one(self, operation: Wire, created: list[str]) -> Wire:
        if operation["action"] == "query":
            (kind,) = re.findall(r"from (\w+)", operation["expression"])
            if kind in self.hides:
                raise RefusalError("ServerError", "no user may query this")
            expression = operation["expression"]
            ids = re.findall(r'"([^"]+)"', expression) if " where " in expression else self.rows
            queried = [self.rows.get(each) for each in ids]
            data = [row for row in queried if row and row.get("__entity_type__", kind) == kind]
            return {"action": "query", "data": data}
        key = operation["entity_key"][0]
        if self.refuses(operation):
            raise RefusalError("ValidationError", f"refused: {key}")
        data = operation.get("entity_data", {})
        if self.reorders and any(value in created for name, value in data.items() if name != "id"):
            raise RefusalError("IntegrityError", "a foreign key refers to nothing")
        match operation["action"]:
            case "create":
                if key in self.rows:
                    raise RefusalError("DuplicateEntryError", key)
                self.rows[key] = dict(data)
            case "update":
                if key not in self.rows:
                    raise RefusalError("EntityNotFoundError", key)
                self.rows[key].update(data)
            case "delete":
                if self.rows.pop(key, None) is None:
                    raise RefusalError("EntityNotFoundError", key)
                self.applied.append(operation)
                return {"action": "delete", "data": True}
        self.applied.append(operation)
        return {"action": operation["action"], "data": {"id": key, **data}}

    @asynccontextmanager
    async def session(self, **options: Any) -> AsyncIterator[AsyncSession]:
        options = {"retry": NO_RETRIES, **options}
        session = AsyncSession("https://ftrack.test", "SECRET", "maya", transport=self, **options)
        async with session as opened:
            yield opened

    def data_of(self, job: Entity) -> object:
        return self.rows[job["id"]].get("data")


def result_of(operation: Wire) -> Wire:
    """Return what a server responds that has applied *operation*, under the usual key."""
    if operation["action"] == "delete":
        return {"action": "delete", "data": True}
    names = COMPOSITE_KEYS.get(operation["entity_type"], ("id",))
    key = dict(zip(names, operation["entity_key"], strict=True))
    row = {"__entity_type__": operation["entity_type"], **key, **operation["entity_data"]}
    return {"action": operation["action"], "data": row}


def _json(content: object) -> WireResponse:
    return WireResponse(200, json.dumps(content).encode())


async def turns(number: int = 20) -> None:
    """Give all tasks that can run the time to do so."""
    for _ in range(number):
        await anyio.lowlevel.checkpoint()
