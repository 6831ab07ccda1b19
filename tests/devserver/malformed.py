"""Requests that no client sends: valid ones, damaged in one place or more.

All randomness comes from the generator that is passed in, so a seed names a case.
"""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass, field
from random import Random
from typing import Any
from uuid import UUID

from .caller import create, delete, query, ref, update

MOMENT = {"__type__": "datetime", "value": "2020-01-01T00:00:00"}
QUERIES = (
    'select id, status, user.username from Job where status in ("queued", "running")',
    'User where username like "%a_%" and not (email is none or is_active is true)',
    'TypedContext where parent[TypedContext] has (name is "sq010" and project.name is demo)',
    "select job_components.component.name from Job where job_components any () order by id",
    "Job where created_at > '2020-01-01T00:00:00' order by created_at desc offset 0 limit 5",
    "select count(id) from Job group by status",
    "Job where user_id in (select id from User where memberships any (group.name is 'x'))",
    'Component where metadata any (key is "k" and value is "v\\"w")',
)
WORDS = (
    "(", ")", "[", "]", ",", ".", "'", '"', "\\", "%", "_", "=", "!=", "<", ">", "is", "in", "not",
    "and", "or", "has", "any", "where", "select", "from", "order", "by", "limit", "offset", "group",
    "null", "none", "true", "1", "-1", "1e999", "99999999999999999999", "Job", "user", "\x00",
    "\ud800", "é", "{x}", "' or 1=1 --", " ", "\n", "-" * 300, "(" * 99,
)  # fmt: skip
ATOMS: tuple[Any, ...] = (
    None, True, False, 0, -1, 1.5, 2**70, -(2**63), 1e308, "", "x", "\x00", "\ud83d\ude00", "{x}",
    "../../etc/passwd", "é" * 200, [], {}, [[]], [None], {"id": None}, {"__entity_type__": 5},
    {"__type__": "datetime", "value": "soon"}, {"__type__": [], "value": {}}, "[" * 50, ["x"] * 50,
    {"__type__": "date", "value": "2020-13-99"}, {"": ""}, "9999-12-31T23:59:59+99:99",
)  # fmt: skip
HEADERS = (
    "ftrack-user", "ftrack-api-key", "ftrack-strict-api", "ftrack-api-options", "content-type",
    "content-encoding", "origin", "range", "if-range", "ftrack-clienttoken", "accept", "host",
    "access-control-request-method", "cookie", "expect", "x-forwarded-proto",
)  # fmt: skip
VALUES = (
    b"", b"true", b"strict:1;denormalize:1", b"=;:;=", b"bytes=-", b"bytes=9-2", b"bytes=0-0,1-1",
    b"bytes=" + b"0-0," * 500, b"\xff\xfe", b"%", b"a" * 5000, b"gzip", b"null", b"100-continue",
    b"bytes=99999999999999999999-", b"http://[", b"../..", b"bytes=x-y", b"items=0-1",
)  # fmt: skip
PATHS = (
    "/component/get", "/component/thumbnail", "/component/remove", "/widget", "/img/thumbnail2.png",
    "/upload/", "/upload/x", "/api/", "/api", "/", "/component", "/upload/%00", "/%2e%2e/%2e%2e/x",
)  # fmt: skip


@dataclass(frozen=True)
class Malformed:
    """One request to send."""

    method: str
    path: str
    content: bytes = b""
    headers: dict[str, bytes] = field(default_factory=dict)


def valid_operations(key: str, other: str) -> list[dict[str, Any]]:
    """Return one or more valid operations of each kind.

    Args:
        key: Id of a new entity.
        other: Id of an entity that may exist.
    """
    upload = {"file_name": "a.png", "file_size": 3}
    return [
        *map(query, QUERIES),
        {"action": "search", "entity_type": "User", "terms": ["a"], "object_type_ids": []},
        {"action": "search", "expression": "Task", "terms": ["a"], "context_id": other},
        {"action": "query_server_information", "values": ["user_information"]},
        {"action": "query_schemas"},
        create("Job", id=key, status="done", data="{}"),
        create("Job", user=ref("User", other), created_at=MOMENT),
        create("FileComponent", id=key, name="x", size=3, file_type=".png"),
        create("FileComponent", name="x", metadata=[{"key": "k", "parent_id": key}]),
        create("JobComponent", component_id=key, job_id=other),
        create("Metadata", parent_id=other, parent_type="User", key=key, value="v"),
        create("Task", name="x", parent_id=other),
        create("Task", name="x", parent=ref("Shot", other), status_id=key),
        create("Note", content="x", parent_id=other, parent_type="Task", user_id=other),
        create("Timelog", start=MOMENT, duration=1.5, user_id=other),
        create("User", username=key, is_active=False, email=None),
        update("User", other, first_name="x", thumbnail_id=None),
        update("User", other, memberships=[ref("Membership", key)]),
        update("Task", other, name="y", description="z", start_date=MOMENT),
        update("SequenceComponent", other, members=[ref("FileComponent", key)], padding=4),
        delete("Job", other),
        delete("JobComponent", key, other),
        {"action": "get_upload_metadata", "component_id": key, **upload},
        {"action": "get_upload_metadata", "component_id": key, **upload, "parts": 3},
        {
            "action": "complete_multipart_upload",
            "upload_id": key,
            "component_id": key,
            "parts": [{"part_number": 1, "e_tag": "0" * 32}],
        },
        {
            "action": "encode_media",
            "component_id": other,
            "version_id": None,
            "keep_original": True,
        },
        {"action": "delayed_job", "job_type": "SYNC_USERS_LDAP", "data": {"context_id": key}},
        {
            "action": "reset_remote",
            "reset_type": "api_key",
            "entity_type": "User",
            "entity_key": other,
        },
        {"action": "get_widget_url", "name": "info", "theme": "dark", "entity_type": "Task"},
        {"action": "send_user_invite", "user_id": other},
        {"action": "send_review_session_invite", "review_session_invitee_id": key},
        {"action": "permissions"},
    ]


class Malformer:
    """Makes malformed requests, one after the other.

    Args:
        random: Source of all choices.
        credentials: Headers with valid credentials.

    Attributes:
        tokens: Addresses that the server made, to be damaged too.
        keys: Ids of what exists.
    """

    def __init__(self, random: Random, credentials: dict[str, bytes]) -> None:
        self._random = random
        self._credentials = credentials
        self.tokens: list[str] = []
        self.keys: list[str] = ["x"]

    def next(self) -> Malformed:
        kinds = (self._operations, self._operations, self._query, self._body, self._headers)
        others = (self._address, self._upload)
        return self._random.choice((*kinds, *others))()

    def _api(self, content: bytes, **headers: bytes) -> Malformed:
        return Malformed("POST", "/api", content, self._credentials | headers)

    def _valid(self) -> list[dict[str, Any]]:
        new = str(UUID(int=self._random.getrandbits(128)))
        return valid_operations(self._random.choice((new, *self.keys)), self._one_key())

    def _one_key(self) -> str:
        return self._random.choice(self.keys)

    def _operations(self) -> Malformed:
        """Operations with wrong values in some places."""
        changed: Any = self._random.choices(self._valid(), k=self._random.choice((1, 1, 1, 2, 4)))
        for _ in range(self._random.randint(1, 3)):
            changed = self._changed(changed)
        return self._api(json.dumps(changed).encode())

    def _changed(self, value: Any) -> Any:
        """Return *value* with a part of it replaced, removed or added."""
        choose = self._random
        if isinstance(value, dict) and value and choose.random() < 0.97:
            # Seldom the action: what is no operation at all is soon refused.
            names = [name for name in sorted(value) if name != "action" or choose.random() < 0.1]
            name = choose.choice(names or ["action"])
            if choose.random() < 0.15:
                return {key: each for key, each in value.items() if key != name}
            if choose.random() < 0.1:
                return {**value, choose.choice(WORDS): choose.choice(ATOMS)}
            return {**value, name: self._changed(value[name])}
        if isinstance(value, list) and value and choose.random() < 0.97:
            index = choose.randrange(len(value))
            return [*value[:index], self._changed(value[index]), *value[index + 1 :]]
        if isinstance(value, str) and value and choose.random() < 0.5:
            return self._garbled(value)
        return choose.choice((*ATOMS, *self.tokens, *self.keys))

    def _garbled(self, text: str) -> str:
        choose = self._random
        start, end = sorted(choose.choices(range(len(text) + 1), k=2))
        middle = choose.choice(("", choose.choice(WORDS), text[start:end] * 2))
        return text[:start] + middle + text[end:]

    def _query(self) -> Malformed:
        text = self._random.choice(QUERIES)
        for _ in range(self._random.randint(1, 4)):
            text = self._garbled(text)
        return self._api(json.dumps([query(text)]).encode())

    def _body(self) -> Malformed:
        choose = self._random
        body = json.dumps([choose.choice(self._valid())]).encode()
        start, end = sorted(choose.choices(range(len(body) + 1), k=2))
        noise = choose.randbytes(choose.randint(0, 40))
        broken = (body[:start], body[:start] + noise + body[end:], noise, b"[" * 2000, b'[{"a":1}')
        return self._api(choose.choice(broken))

    def _headers(self) -> Malformed:
        choose = self._random
        headers = {name: choose.choice(VALUES) for name in choose.choices(HEADERS, k=3)}
        if "host" in headers:
            headers["host"] = headers["host"] or b"x"
        return self._api(json.dumps([choose.choice(self._valid())]).encode(), **headers)

    def _address(self) -> Malformed:
        choose = self._random
        method = choose.choice(("GET", "GET", "GET", "PUT", "POST", "DELETE", "HEAD", "OPTIONS"))
        names = ("id", "size", "username", "apiKey", "signature", "expires", "name")
        raw = "&".join(
            f"{choose.choice(names)}={self._escaped(choose.choice(WORDS))}"
            for _ in range(choose.randint(0, 4))
        )
        headers = {choose.choice(HEADERS): choose.choice(VALUES)} if choose.random() < 0.4 else {}
        return Malformed(method, f"{choose.choice(PATHS)}?{raw}", b"", headers)

    def _escaped(self, text: str) -> str:
        return "".join(f"%{byte:02x}" for byte in text.encode("utf-8", "surrogatepass"))

    def _upload(self) -> Malformed:
        """A body for a valid upload address, or for one much like it."""
        choose = self._random
        token = choose.choice(self.tokens) if self.tokens else "x"
        if choose.random() < 0.3:
            index = choose.randrange(len(token))
            token = token[:index] + choose.choice("aA0-_") + token[index + 1 :]
        if choose.random() < 0.1:
            token = base64.urlsafe_b64encode(choose.randbytes(60)).decode()
        body = choose.randbytes(choose.choice((0, 1, 3, 3, 4, 5000)))
        return Malformed("PUT", f"/upload/{token}", body)
