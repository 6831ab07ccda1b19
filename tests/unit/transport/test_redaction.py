"""Secrets stay out of texts and logs."""

from __future__ import annotations

import logging

import pytest

from aioftrackjobs.config.secret import Secret
from aioftrackjobs.transport import WireRequest, hide_secrets, redact


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("http://h/get?id=1&username=u&apiKey=abc", "http://h/get?id=1&username=u&apiKey=***"),
        ("http://h/?api_key=abc&x=1", "http://h/?api_key=***&x=1"),
        (
            "https://s3/x?X-Amz-Signature=abc&X-Amz-Date=1",
            "https://s3/x?X-Amz-Signature=***&X-Amz-Date=***",
        ),
        ("cannot reach http://maya:abc@proxy:80/x", "cannot reach http://***@proxy:80/x"),
        ("http://h/a@b?c=d@e", "http://h/a@b?c=d@e"),
        ("BasicAuth(login='m', password='abc')", "BasicAuth(login='m', password=***)"),
        ("nothing to hide: key=1", "nothing to hide: key=1"),
        ("plain SECRET here", "plain *** here"),
    ],
)
def test_secret_parameters_are_hidden(text: str, expected: str) -> None:
    assert redact(text, Secret("SECRET")) == expected


@pytest.mark.parametrize("client", ["httpx", "httpx2"])
def test_clients_log_urls_without_secrets(caplog: pytest.LogCaptureFixture, client: str) -> None:
    hide_secrets()
    hide_secrets()
    with caplog.at_level(logging.INFO, logger=client):
        logging.getLogger(client).info(
            'HTTP Request: %s %s "%s %d %s"',
            "GET",
            "http://h/?id=1&apiKey=abc",
            "HTTP/1.1",
            200,
            "OK",
        )

    assert caplog.messages == ['HTTP Request: GET http://h/?id=1&apiKey=*** "HTTP/1.1 200 OK"']


def test_a_requests_repr_shows_neither_url_nor_headers() -> None:
    request = WireRequest("GET", "http://h/?apiKey=abc", {"ftrack-api-key": "abc"})

    assert "abc" not in repr(request)
