"""A second server, from ``docs/protocol.md`` alone: it shares no code with the embedded one.

It keeps entities and files in memory, and speaks HTTP over asyncio's sockets without a library. It
knows what a client needs that runs Jobs and moves files: create, update, delete, queries with
conditions, uploads and downloads. There are no schemas, and it checks no attributes. A batch is a
transaction.

It prints its address, and serves until its standard input is closed.
"""

from __future__ import annotations

import asyncio
import json
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from email.utils import format_datetime
from secrets import token_hex
from typing import Any
from urllib.parse import parse_qs, urlsplit

Row = dict[str, Any]
Test = Callable[[Row], bool]

USER_ID = "7b3d1c9e-0000-4000-8000-000000000001"
SERVER_LOCATION_ID = "3a372bde-05bc-11e4-8908-20c9d081909b"

#: A type, and those that its queries also find.
SUBTYPES = {"Component": ("Component", "FileComponent", "ContainerComponent", "SequenceComponent")}


class RefusalError(Exception):
    """The whole batch is refused: kind and text of the error."""


class Store:
    """Entities by type and key, and files by component."""

    def __init__(self) -> None:
        self.rows: dict[str, dict[str, Row]] = {
            "User": {USER_ID: {"id": USER_ID, "username": "maya", "is_active": True}},
            "Location": {SERVER_LOCATION_ID: {"id": SERVER_LOCATION_ID, "name": "ftrack.server"}},
        }
        self.files: dict[str, bytes] = {}
        self.announced: dict[str, tuple[str, int]] = {}
        self.parts: dict[str, dict[int, bytes]] = {}

    def run(self, operations: Sequence[Row], base: str) -> list[Any]:
        """Return a result for each operation; apply all or none.

        Raises:
            RefusalError: One of them cannot be applied.
        """
        undo: list[Callable[[], object]] = []
        try:
            return [self._run_one(operation, base, undo) for operation in operations]
        except (RefusalError, KeyError, TypeError, ValueError) as exc:
            for step in reversed(undo):
                step()
            if isinstance(exc, RefusalError):
                raise
            raise RefusalError("ServerError", f"malformed: {type(exc).__name__} {exc}") from exc

    def _run_one(self, operation: Row, base: str, undo: list[Callable[[], object]]) -> Any:
        action = operation["action"]
        if action == "query":
            return self._query(operation["expression"])
        if action == "query_server_information":
            return {"version": "memory", "is_timezone_support_enabled": True}
        if action == "query_schemas":
            return []
        if action == "get_upload_metadata":
            return self._announce(operation, base)
        if action == "complete_multipart_upload":
            parts = self.parts.pop(operation["upload_id"])
            joined = b"".join(parts[each["part_number"]] for each in operation["parts"])
            self.files[operation["component_id"]] = joined
            return {"action": action}
        return self._write(operation, undo)

    def _write(self, operation: Row, undo: list[Callable[[], object]]) -> Row:
        action, kind = operation["action"], operation["entity_type"]
        data = {
            name: value
            for name, value in (operation.get("entity_data") or {}).items()
            if name != "__entity_type__"
        }
        key = (operation.get("entity_key") or [data.get("id")])[0]
        table = self._table_of(kind, key)
        before = table.get(key)
        undo.append(lambda: table.pop(key, None) if before is None else table.update({key: before}))
        if action == "create":
            if before is not None:
                raise RefusalError("DuplicateEntryError", f"there is a {kind} {key}")
            now = {"__type__": "datetime", "value": datetime.now(UTC).isoformat("T", "seconds")}
            defaults = {"created_at": now, "type": "api_job"} if kind == "Job" else {}
            table[key] = {"id": key, **defaults, **data}
        elif before is None:
            raise RefusalError("EntityNotFoundError", f"there is no {kind} {key}")
        elif action == "update":
            table[key] = {**before, **data}
        elif action == "delete":
            del table[key]
            return {"action": "delete", "data": True}
        else:
            raise RefusalError("ServerError", f"no action {action}")
        return {"action": action, "data": {"__entity_type__": kind, **table[key]}}

    def _table_of(self, kind: str, key: str) -> dict[str, Row]:
        for each in SUBTYPES.get(kind, ()):
            if key in self.rows.get(each, {}):
                return self.rows[each]
        return self.rows.setdefault(kind, {})

    def _query(self, expression: str) -> Row:
        query = parse_query(expression)
        found = [
            (kind, row)
            for kind in SUBTYPES.get(query.entity_type, (query.entity_type,))
            for row in self.rows.get(kind, {}).values()
            if query.test(self._with_links(row))
        ]
        for name, is_descending in reversed(query.order):
            found.sort(key=lambda each: str(each[1].get(name, "")), reverse=is_descending)
        stop = None if query.limit is None else query.offset + query.limit
        page = found[query.offset : stop]
        following = None if stop is None or stop >= len(found) else stop
        rows = [self._on_the_wire(kind, row) for kind, row in page]
        return {"action": "query", "data": rows, "metadata": {"next": {"offset": following}}}

    def _on_the_wire(self, kind: str, row: Row) -> Row:
        user = self.rows["User"].get(row.get("user_id", ""))
        link = {} if user is None else {"user": {"__entity_type__": "User", **user}}
        return {"__entity_type__": kind, **row, **link}

    def _with_links(self, row: Row) -> Row:
        user = self.rows["User"].get(row.get("user_id", ""), {})
        return {**row, **{f"user.{name}": value for name, value in user.items()}}

    def _announce(self, operation: Row, base: str) -> Row:
        component, count = operation["component_id"], operation.get("parts")
        if count is None:
            token = token_hex(12)
            self.announced[token] = component, 0
            return {"url": f"{base}/upload/{token}", "headers": {}, "component_id": component}
        upload_id, urls = token_hex(12), []
        for number in range(1, count + 1):
            token = f"{upload_id}-{number}"
            self.announced[token] = upload_id, number
            urls.append({"part_number": number, "signed_url": f"{base}/upload/{token}"})
        return {"upload_id": upload_id, "urls": urls}

    def put(self, token: str, body: bytes) -> bool:
        """Keep an uploaded file or part; return whether it was announced."""
        owner, number = self.announced.get(token, ("", 0))
        if owner and number:
            self.parts.setdefault(owner, {})[number] = body
        elif owner:
            self.files[owner] = body
        return bool(owner)


# The query language, as far as clients use it


class Parsed:
    """A query: what it selects from, and in which order."""

    def __init__(self, entity_type: str) -> None:
        self.entity_type = entity_type
        self.test: Test = lambda _: True
        self.order: list[tuple[str, bool]] = []
        self.offset = 0
        self.limit: int | None = None


_TOKEN = re.compile(r"""\s*("(?:\\.|[^"\\])*"|'(?:\\.|[^'\\])*'|[(),]|[<>]=?|[^\s(),<>]+)""")
_WORDS = ("order", "limit", "offset")


def parse_query(expression: str) -> Parsed:
    """Return a parsed query.

    Raises:
        RefusalError: It is not understood.
    """
    tokens = [match[1] for match in _TOKEN.finditer(expression)]
    try:
        if tokens[0].lower() == "select":
            tokens = tokens[[each.lower() for each in tokens].index("from") + 1 :]
        query, reader = Parsed(tokens[0]), Tokens(tokens[1:])
        if reader.take("where"):
            query.test = reader.either()
        while not reader.is_empty:
            word = reader.next().lower()
            if word == "order":
                reader.expect("by")
                query.order = list(reader.ordering())
            elif word == "limit":
                query.limit = int(reader.next())
            elif word == "offset":
                query.offset = int(reader.next())
            else:
                raise ValueError(word)
    except (IndexError, ValueError) as exc:
        raise RefusalError("ParseError", f"{exc} in: {expression}") from exc
    return query


class Tokens:
    """The rest of a query."""

    def __init__(self, tokens: list[str]) -> None:
        self._tokens = tokens

    @property
    def is_empty(self) -> bool:
        return not self._tokens

    def next(self) -> str:
        return self._tokens.pop(0)

    def take(self, word: str) -> bool:
        if self._tokens and self._tokens[0].lower() == word:
            self._tokens.pop(0)
            return True
        return False

    def expect(self, word: str) -> None:
        if not self.take(word):
            raise ValueError(f"{word} is missing")

    def ordering(self) -> Iterator[tuple[str, bool]]:
        while True:
            name = self.next()
            is_descending = self.take("descending") or self.take("desc")
            _ = self.take("ascending") or self.take("asc")
            yield name, is_descending
            if not self.take(","):
                return

    def either(self) -> Test:
        tests = [self._both()]
        while self.take("or"):
            tests.append(self._both())
        return lambda row: any(test(row) for test in tests)

    def _both(self) -> Test:
        tests = [self._one()]
        while self.take("and"):
            tests.append(self._one())
        return lambda row: all(test(row) for test in tests)

    def _one(self) -> Test:
        if self.take("not"):
            test = self._one()
            return lambda row: not test(row)
        if self.take("("):
            inner = self.either()
            self.expect(")")
            return inner
        name, operator = self.next(), self.next().lower()
        if operator in ("in", "not_in"):
            self.expect("(")
            values = [self._value()]
            while self.take(","):
                values.append(self._value())
            self.expect(")")
            return lambda row: (row.get(name) in values) == (operator == "in")
        value = self._value()
        return lambda row: _COMPARE[operator](row.get(name), value)

    def _value(self) -> Any:
        token = self.next()
        if token[0] in "\"'":
            return re.sub(r"\\(.)", r"\1", token[1:-1])
        return {"none": None, "true": True, "false": False}.get(token.lower(), token)


def _is_like(one: Any, other: Any) -> bool:
    pattern = re.escape(str(other)).replace("%", ".*").replace("_", ".")
    return re.fullmatch(pattern, str(one), re.DOTALL | re.IGNORECASE) is not None


_COMPARE: Mapping[str, Callable[[Any, Any], bool]] = {
    "is": lambda one, other: one == other,
    "is_not": lambda one, other: one != other,
    "like": _is_like,
    "not_like": lambda one, other: not _is_like(one, other),
    ">": lambda one, other: str(one) > str(other),
    ">=": lambda one, other: str(one) >= str(other),
    "<": lambda one, other: str(one) < str(other),
    "<=": lambda one, other: str(one) <= str(other),
}


# HTTP


async def serve_connection(
    store: Store, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    """Answer the requests of one connection until the client closes it."""
    with suppress(OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
        while True:
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
            line, *lines = head.split("\r\n")
            headers = {
                name.lower(): value.strip() for name, _, value in (x.partition(":") for x in lines)
            }
            body = await reader.readexactly(int(headers.get("content-length", 0)))
            method, target, _ = line.split(" ")
            writer.write(respond(store, method, target, headers, body))
            await writer.drain()
    writer.close()


def respond(
    store: Store, method: str, target: str, headers: Mapping[str, str], body: bytes
) -> bytes:
    """Return the response to one request, as bytes."""
    url = urlsplit(target)
    query = {name: values[0] for name, values in parse_qs(url.query).items()}
    match method, url.path.split("/")[1:]:
        case "POST", ["api"]:
            try:
                result: Any = store.run(json.loads(body), f"http://{headers['host']}")
            except RefusalError as exc:
                result = {"exception": exc.args[0], "content": exc.args[1], "error_code": None}
            return response(200, json.dumps(result).encode(), "application/json")
        case "PUT", ["upload", token]:
            return response(200 if store.put(token, body) else 403, etag='"1"')
        case "GET", ["component", "get"]:
            file = store.files.get(query.get("id", ""))
            return response(404) if file is None else response(200, file)
        case "GET", ["component", "remove"]:
            found = store.files.pop(query.get("id", ""), None)
            return response(404 if found is None else 200)
    return response(404)


def response(
    status: int, body: bytes = b"", kind: str = "application/octet-stream", **headers: str
) -> bytes:
    """Return a response as bytes."""
    all_headers = {
        "date": format_datetime(datetime.now(UTC), usegmt=True),
        "content-type": kind,
        "content-length": str(len(body)),
        **headers,
    }
    lines = [f"HTTP/1.1 {status} X", *(f"{name}: {text}" for name, text in all_headers.items())]
    return "\r\n".join([*lines, "", ""]).encode() + body


async def main() -> None:
    """Serve until standard input is closed."""
    store = Store()
    server = await asyncio.start_server(
        lambda reader, writer: serve_connection(store, reader, writer), "127.0.0.1", 0, limit=2**24
    )
    port = server.sockets[0].getsockname()[1]
    endpoint = {"url": f"http://127.0.0.1:{port}", "key": "a-key-of-memory", "user": "maya"}
    print(json.dumps(endpoint), flush=True)
    async with server:
        await asyncio.to_thread(sys.stdin.read)


if __name__ == "__main__":
    asyncio.run(main())
