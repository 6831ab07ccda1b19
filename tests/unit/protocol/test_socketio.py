"""Handshakes and frames of Socket.IO 0.9, also those that no server should send."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aioftrackjobs.errors import MalformedResponseError
from aioftrackjobs.protocol.socketio import (
    Acknowledgement,
    Frame,
    Handshake,
    event_frame,
    read_acknowledgement,
    read_frame,
    read_handshake,
)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("sid123:15:25:websocket", Handshake("sid123", 15.0, True)),
        ("a-b_c:0.5:25:xhr-polling,websocket\n", Handshake("a-b_c", 0.5, True)),
        ("sid::25:websocket", Handshake("sid", 15.0, False)),
        ("sid:0:25:websocket", Handshake("sid", 15.0, False)),
        ("sid:-1:25:websocket", Handshake("sid", 15.0, False)),
        ("sid:nan:25:websocket", Handshake("sid", 15.0, False)),
        ("sid:inf:25:websocket", Handshake("sid", 3600.0, True)),
        ("sid:soon:25:xhr,websocket", Handshake("sid", 15.0, False)),
    ],
)
def test_a_handshake_is_read(text: str, expected: Handshake) -> None:
    assert read_handshake(200, text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        "<html>",
        "sid",
        "sid:15:25",
        ":15:25:websocket",
        "a/../b?:15:25:websocket",
        "s d:1:2:websocket",
    ],
)
def test_what_is_no_handshake_is_an_error(text: str) -> None:
    with pytest.raises(MalformedResponseError, match="no handshake"):
        read_handshake(200, text)


def test_a_hub_without_websockets_is_an_error() -> None:
    with pytest.raises(MalformedResponseError, match="no WebSocket"):
        read_handshake(200, "sid:15:25:xhr-polling,flashsocket")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1::", Frame("1", "", "")),
        ("2::", Frame("2", "", "")),
        ("2:::", Frame("2", "", "")),
        ("2", Frame("2", "", "")),
        ("0::", Frame("0", "", "")),
        ('5:::{"a":":+"}', Frame("5", "", '{"a":":+"}')),
        ("5:12+::{}", Frame("5", "12", "{}")),
        ("6:::3+[1]", Frame("6", "", "3+[1]")),
        ("7:::why+", Frame("7", "", "why+")),
        ("8::", Frame("8", "", "")),
        ("5::/name:x\ny", Frame("5", "", "x\ny")),
        ("", Frame("", "", "")),
        ("9::", Frame("", "", "9::")),
        ("5", Frame("", "", "5")),
        ("hello", Frame("", "", "hello")),
        ("5:x::{}", Frame("", "", "5:x::{}")),
    ],
)
def test_a_frame_is_read(text: str, expected: Frame) -> None:
    assert read_frame(text) == expected


@given(st.text())
def test_no_text_is_an_error(text: str) -> None:
    assert isinstance(read_frame(text), Frame)
    read_acknowledgement(text)


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        ('3+[{"success":true}]', Acknowledgement(3, None)),
        ("3", Acknowledgement(3, None)),
        ("3+", Acknowledgement(3, None)),
        ("3+no JSON", Acknowledgement(3, None)),
        ("3+[]", Acknowledgement(3, None)),
        ('3+[{"success":false,"message":"why"}]', Acknowledgement(3, "why")),
        ('3+[{"success":false}]', Acknowledgement(3, "no reason given")),
        ("", None),
        ("x+[]", None),
        ("²+[]", None),
    ],
)
def test_an_acknowledgement_is_read(data: str, expected: Acknowledgement | None) -> None:
    assert read_acknowledgement(data) == expected


def test_an_event_is_framed_with_and_without_a_number() -> None:
    assert event_frame("{}") == "5:::{}"
    assert read_frame(event_frame("{}", 7)) == Frame("5", "7", "{}")
