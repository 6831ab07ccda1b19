"""The fast server of the benchmarks: responses of the right form, from memory.

It stores nothing: creates and updates are echoed, queries for Jobs return the same 20 000 rows in
prepared pages, uploads are counted and dropped, whole or in parts, and each download is the same
file, or a range of it. It uses blocking sockets and a thread for each connection, because that is
the fastest way in Python with one client at a time, and no HTTP library that would be measured too.

``run.py`` runs it. It prints its URL, and serves until its standard input is closed.
"""

from __future__ import annotations

import json
import os
import re
import socket
import socketserver
import sys
import tempfile
import threading
import time
from bisect import bisect_right
from collections.abc import Mapping
from typing import Any, BinaryIO
from urllib.parse import parse_qs, urlsplit
from uuid import NAMESPACE_URL, uuid4, uuid5

from measuring import FILE_SIZE, JOBS, PAGE, USERS

from aioftrackjobs.devserver.schema.builtin import BUILTIN_SCHEMAS
from aioftrackjobs.protocol.schemas import schema_hash
from aioftrackjobs.protocol.upload import SERVER_LOCATION_ID

#: Bytes that are received or sent at once.
CHUNK = 1 << 20

_PAGING = re.compile(r" offset (\d+) limit (\d+)$")
_AFTER = re.compile(r' id > "([^"]*)"')
_RANGE = re.compile(r"bytes=(\d+)-")
_NAME = re.compile(r'name is "([^"]*)"')
_MOMENT = {"__type__": "datetime", "value": "2026-01-01T00:00:00+00:00"}


def _id(kind: str, number: object) -> str:
    return str(uuid5(NAMESPACE_URL, f"{kind}/{number}"))


#: Ids of the Jobs, in ascending order, in which a client reads them that goes on after a key.
_JOB_IDS = sorted(_id("Job", number) for number in range(JOBS))


def _job_rows(offset: int, limit: int) -> list[dict[str, Any]]:
    """Return rows of Jobs; a page has each user in full once (docs/protocol.md, section 3.5)."""
    rows, included = [], set()
    for number in range(offset, min(offset + limit, JOBS)):
        user_number = number * 7 % USERS
        user = {"__entity_type__": "User", "id": _id("User", user_number)}
        if user_number not in included:
            included.add(user_number)
            user["username"] = f"user{user_number:02}"
        rows.append(
            {
                "__entity_type__": "Job",
                "id": _JOB_IDS[number],
                "status": ("done", "failed", "running")[number % 3],
                "user": user,
            }
        )
    return rows


def _result(rows: list[dict[str, Any]], following: int | None = None) -> bytes:
    result = {"action": "query", "data": rows, "metadata": {"next": {"offset": following}}}
    return json.dumps(result).encode()


def write(operation: Mapping[str, Any]) -> dict[str, Any]:
    """Return the result of an operation that creates or updates."""
    action, data = operation["action"], dict(operation["entity_data"])
    if action == "update":
        data["id"] = operation["entity_key"][0]
    elif "id" not in data:
        data["id"] = str(uuid4())  # the JavaScript client leaves it to the server
    if operation["entity_type"] == "Job":
        if action == "create":
            data |= {"created_at": _MOMENT, "type": "api_job"}
        elif data.get("status") == "done":
            data["finished_at"] = _MOMENT
    return {"action": action, "data": data}


class Responses:
    """One result for each operation, as bytes."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._pages = {
            offset: _result(
                _job_rows(offset, PAGE), offset + PAGE if offset + PAGE < JOBS else None
            )
            for offset in range(0, JOBS, PAGE)
        }
        self._schemas = json.dumps(BUILTIN_SCHEMAS).encode()
        self._information = json.dumps(
            {
                "version": "dev",
                "schema_hash": schema_hash(BUILTIN_SCHEMAS),
                "is_timezone_support_enabled": True,
                "storage_scenario": None,
            }
        ).encode()

    def batch(self, body: bytes) -> bytes:
        """Return the response to the operations in *body*."""
        return b"[" + b",".join([self._operation(each) for each in json.loads(body)]) + b"]"

    def _operation(self, operation: Mapping[str, Any]) -> bytes:
        match operation["action"]:
            case "create" | "update":
                return json.dumps(write(operation)).encode()
            case "query":
                return self._query(operation["expression"])
            case "query_server_information":
                return self._information
            case "query_schemas":
                return self._schemas
            case "get_upload_metadata":
                return self._upload(operation)
            case action:
                return json.dumps({"action": action, "data": True}).encode()

    def _upload(self, operation: Mapping[str, Any]) -> bytes:
        url = f"{self._url}/upload"
        if operation.get("parts"):
            numbers = range(1, operation["parts"] + 1)
            urls = [{"part_number": number, "signed_url": url} for number in numbers]
            return json.dumps({"upload_id": "upload", "urls": urls}).encode()
        headers = {"Content-Length": str(operation["file_size"])}
        if "checksum" in operation:
            headers["Content-MD5"] = operation["checksum"]
        return json.dumps({"url": url, "headers": headers}).encode()

    def _query(self, expression: str) -> bytes:
        if " from Job" in expression or expression.startswith("Job"):
            return self._jobs(expression)
        name = _NAME.search(expression)
        if " from User" in expression:
            username = name[1] if name else "user00"
            row = {"__entity_type__": "User", "id": _id("User", 0), "username": username}
            return _result([row])
        if name and name[1] == "ftrack.server":
            row = {"__entity_type__": "Location", "id": SERVER_LOCATION_ID, "name": name[1]}
            return _result([row])
        return _result([])

    def _jobs(self, expression: str) -> bytes:
        paging = _PAGING.search(expression)
        if paging is None:
            return _result([])
        offset, limit = int(paging[1]), int(paging[2])
        if after := _AFTER.search(expression):
            offset += bisect_right(_JOB_IDS, after[1])
        if limit == PAGE and offset in self._pages:
            return self._pages[offset]
        return _result(_job_rows(offset, limit), offset + limit if offset + limit < JOBS else None)


class _Handler(socketserver.StreamRequestHandler):
    """One connection, kept open: as much of HTTP/1.1 as the measured clients use."""

    disable_nagle_algorithm = True
    server: _Server

    def handle(self) -> None:
        while request := self.rfile.readline():
            method, target, _ = request.decode("latin-1").split(" ", 2)
            headers = self._headers()
            body_size = int(headers.get("content-length", 0))
            path = urlsplit(target).path
            if method == "POST" and path == "/api":
                time.sleep(self.server.latency)
                self._send(200, self.server.responses.batch(self.rfile.read(body_size)))
            elif method == "PUT" and path == "/upload":
                received = self._drop(body_size)
                self._send(200 if received == body_size else 400, b"")
            elif method == "GET" and path == "/component/get":
                self._send_file(target, headers.get("range"))
            else:
                self._drop(body_size)
                self._send(404 if path != "/component/remove" else 200, b"{}")

    def _headers(self) -> dict[str, str]:
        headers = {}
        while line := self.rfile.readline().strip():
            name, _, value = line.decode("latin-1").partition(":")
            headers[name.lower()] = value.strip()
        return headers

    def _drop(self, size: int) -> int:
        left = size
        buffer = bytearray(min(CHUNK, size))
        while left and (count := self.rfile.readinto1(memoryview(buffer)[: min(CHUNK, left)])):
            left -= count
        return size - left

    def _send(self, status: int, body: bytes) -> None:
        # The tag is not a digest, because hashing would be the bottleneck.
        head = f'HTTP/1.1 {status} OK\r\ncontent-type: application/json\r\netag: "stub"\r\n'
        self.connection.sendall(f"{head}content-length: {len(body)}\r\n\r\n".encode() + body)

    def _send_file(self, target: str, wanted: str | None) -> None:
        size = int(parse_qs(urlsplit(target).query).get("size", [FILE_SIZE])[0])
        start, status = 0, "200 OK"
        if wanted is not None and (match := _RANGE.fullmatch(wanted)):
            start = int(match[1])
            status = f"206 Part\r\ncontent-range: bytes {start}-{size - 1}/{size}"
        head = f'HTTP/1.1 {status}\r\ncontent-type: application/octet-stream\r\netag: "stub"\r\n'
        self.connection.sendall(f"{head}content-length: {size - start}\r\n\r\n".encode())
        while start < size:  # the file repeatedly, because it may be shorter than the download
            offset = start % FILE_SIZE
            count = min(FILE_SIZE - offset, size - start)
            self.connection.sendfile(self.server.file, offset, count)
            start += count


class _Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True
    block_on_close = False

    def __init__(self, file: BinaryIO, latency: float, url: str) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.file = file
        self.latency = latency
        self.listens = f"http://127.0.0.1:{self.server_address[1]}"
        self.url = url or self.listens
        self.responses = Responses(self.url)

    def handle_error(self, request: Any, client_address: Any) -> None:
        error = sys.exception()
        if not isinstance(error, (ConnectionError, socket.timeout)):
            super().handle_error(request, client_address)


def serve(milliseconds: int = 0, url: str = "") -> None:
    """Serve until standard input is closed.

    Args:
        milliseconds: How long each API response takes.
        url: Of the proxy in front of this server, which stores the files.
    """
    with tempfile.TemporaryFile() as file:
        block = os.urandom(CHUNK)
        for _ in range(FILE_SIZE // CHUNK):
            file.write(block)
        file.flush()
        with _Server(file, milliseconds / 1000, url) as server:
            threading.Thread(target=server.serve_forever, daemon=True).start()
            facts = {"url": server.url, "listens": server.listens, "user": "user00", "key": "key"}
            print(json.dumps(facts), flush=True)
            sys.stdin.read()
            server.shutdown()


if __name__ == "__main__":
    serve(int(sys.argv[1]) if sys.argv[1:] else 0, *sys.argv[2:])
