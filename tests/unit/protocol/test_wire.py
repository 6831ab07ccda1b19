"""Responses become results, or errors whose class says what the caller may do next."""

from __future__ import annotations

import json
import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aioftrackjobs.errors import (
    AuthenticationError,
    DuplicateEntryError,
    MalformedResponseError,
    PermissionDeniedError,
    QuerySyntaxError,
    ServerError,
    ValidationError,
)
from aioftrackjobs.protocol.wire import decode_response, encode_batch

EXPRESSION = "select id from Job where"


def test_results_are_aligned_with_the_operations() -> None:
    assert decode_response(200, b'[{"a": 1}, {"b": 2}]', 2) == [{"a": 1}, {"b": 2}]


@pytest.mark.parametrize("status", [200, 400, 401, 422, 500])
def test_an_error_object_is_a_refusal_with_any_status(status: int) -> None:
    body = json.dumps(
        {"exception": "ValidationError", "content": "status {x} is bad", "error_code": "E1"}
    ).encode()

    with pytest.raises(ServerError) as caught:
        decode_response(status, body, 1)

    error = caught.value
    assert isinstance(error, ValidationError)
    assert (error.kind, error.detail, error.status, error.code) == (
        "ValidationError",
        "status {x} is bad",
        status,
        "E1",
    )
    assert str(error) == "ValidationError: status {x} is bad"


@pytest.mark.parametrize(
    ("kind", "cls"),
    [
        ("InvalidCredentialsError", AuthenticationError),
        ("FTAuthenticationError", AuthenticationError),
        ("PermissionError", PermissionDeniedError),
        ("ValidationError", ValidationError),
        ("DuplicateEntryError", DuplicateEntryError),
        ("ParseError", QuerySyntaxError),
        ("SomethingNewError", ServerError),
    ],
)
def test_error_names_have_their_class(kind: str, cls: type[ServerError]) -> None:
    body = json.dumps({"exception": kind, "content": "no"}).encode()

    with pytest.raises(ServerError) as caught:
        decode_response(200, body, 1)

    assert type(caught.value) is cls


def test_a_refused_query_is_shown_with_the_servers_own_text() -> None:
    body = json.dumps(
        {"exception": "ParseError", "content": "unexpected end", "error": {"line": 1, "column": 25}}
    ).encode()

    with pytest.raises(QuerySyntaxError) as caught:
        decode_response(200, body, 1, expression=EXPRESSION)

    error = caught.value
    assert error.expression == EXPRESSION
    assert (error.line, error.column) == (1, 25)
    assert "unexpected end" in str(error)
    assert "select id from Job where" in str(error)


@pytest.mark.parametrize(
    ("status", "body", "part"),
    [
        pytest.param(200, b"<html>Sign in</html>", "not JSON", id="html"),
        pytest.param(200, b'[{"action": "cre', "not JSON", id="truncated"),
        pytest.param(200, b"", "not JSON", id="empty"),
        pytest.param(502, b"<h1>Bad Gateway</h1>", "not JSON", id="bad gateway"),
        pytest.param(503, b"[]", "not a list", id="list with an error status"),
        pytest.param(200, b'{"hello": 1}', "not a list", id="another object"),
        pytest.param(200, b"[{}, {}]", "2 result(s) for 1 operation(s)", id="too many"),
        pytest.param(200, b"[]", "0 result(s) for 1 operation(s)", id="too few"),
    ],
)
def test_a_malformed_response_leaves_a_request_uncertain(
    status: int, body: bytes, part: str
) -> None:
    with pytest.raises(MalformedResponseError) as caught:
        decode_response(status, body, 1)

    assert part in str(caught.value)
    assert caught.value.status == status


@pytest.mark.parametrize("body", [b"<html>too large</html>", b'{"detail": []}', b"[{}]"])
def test_a_4xx_without_an_error_object_is_a_refusal_too(body: bytes) -> None:
    with pytest.raises(ServerError) as caught:
        decode_response(413, body, 1)

    assert caught.value.kind == "HTTP 413"


@given(st.binary(max_size=200), st.sampled_from([200, 400, 500]))
def test_no_body_breaks_the_decoder(body: bytes, status: int) -> None:
    shown = ""
    results: list[object] = []
    try:
        results = decode_response(status, body, 1)
    except (ServerError, MalformedResponseError) as exc:
        shown = str(exc)

    assert shown or len(results) == 1


@pytest.mark.parametrize(
    "error",
    [
        ServerError("ValidationError", "no", status=400, code="x", expression="Job"),
        MalformedResponseError("not JSON", status=502, excerpt="<h1>"),
    ],
)
def test_errors_survive_pickling(error: Exception) -> None:
    copy = pickle.loads(pickle.dumps(error))

    assert type(copy) is type(error)
    assert str(copy) == str(error)
    assert vars(copy) == vars(error)


def test_a_batch_is_a_json_array_in_utf8() -> None:
    body = encode_batch([{"action": "query", "expression": 'Job where id is "ü"'}])

    assert json.loads(body) == [{"action": "query", "expression": 'Job where id is "ü"'}]
    assert "ü".encode() in body
