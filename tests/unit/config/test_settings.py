"""Configuration: arguments first, then the environment, and every problem named at once."""

from __future__ import annotations

import pytest

from aioftrackjobs.config.settings import resolve_credentials
from aioftrackjobs.errors import ConfigurationError

ENVIRONMENT = {
    "FTRACK_SERVER": "https://env.test/",
    "FTRACK_API_KEY": "env-key",
    "FTRACK_API_USER": "env-user",
}


def test_the_environment_is_enough() -> None:
    found = resolve_credentials(environment=ENVIRONMENT)

    assert found.server_url == "https://env.test"
    assert found.api_user == "env-user"
    assert found.api_key.reveal() == "env-key"


def test_arguments_come_first() -> None:
    found = resolve_credentials("https://arg.test", "k", "u", environment=ENVIRONMENT)

    assert (found.server_url, found.api_user) == ("https://arg.test", "u")
    assert found.api_key.reveal() == "k"


def test_the_older_name_of_the_key_is_read_after_the_newer() -> None:
    old = {**ENVIRONMENT, "FTRACK_APIKEY": "old"}

    assert resolve_credentials(environment=old).api_key.reveal() == "env-key"
    del old["FTRACK_API_KEY"]
    assert resolve_credentials(environment=old).api_key.reveal() == "old"


def test_all_that_is_missing_is_named_at_once() -> None:
    with pytest.raises(ConfigurationError) as caught:
        resolve_credentials(environment={})

    text = str(caught.value)
    assert all(name in text for name in ("FTRACK_SERVER", "FTRACK_API_KEY", "FTRACK_API_USER"))
    assert len(caught.value.problems) == 3


@pytest.mark.parametrize(
    "url",
    [
        "studio.ftrackapp.com",
        "ftp://studio.test",
        "https://",
        "https://h:port",
        "https://h/?a=b",
        "https://user:pw@h",
    ],
)
def test_an_unusable_url_is_a_configuration_error(url: str) -> None:
    with pytest.raises(ConfigurationError):
        resolve_credentials(url, "k", "u", environment={})


@pytest.mark.parametrize("key", ["two\nlines-SECRET", "ünicode-SECRET"])
def test_a_key_that_no_header_can_carry_is_refused_without_showing_it(key: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        resolve_credentials("https://h", key, "u", environment={})

    assert "SECRET" not in str(caught.value)


def test_a_line_break_after_the_key_is_forgiven() -> None:
    found = resolve_credentials("https://h", "key\n", "u", environment={})

    assert found.api_key.reveal() == "key"


def test_the_key_shows_in_no_repr() -> None:
    assert "env-key" not in repr(resolve_credentials(environment=ENVIRONMENT))


@pytest.mark.parametrize("name", ["server_url", "api_key", "api_user"])
@pytest.mark.parametrize("value", ["", "   ", "\n", b"bytes", 5, ["x"]], ids=repr)
def test_what_is_given_and_unusable_is_not_replaced_by_the_environment(
    name: str, value: object
) -> None:
    with pytest.raises(ConfigurationError) as caught:
        resolve_credentials(**{name: value}, environment=ENVIRONMENT)  # type: ignore[arg-type]

    assert len(caught.value.problems) == 1
    assert f"the argument {name} is" in str(caught.value)


@pytest.mark.parametrize("name", ["FTRACK_SERVER", "FTRACK_API_KEY", "FTRACK_API_USER"])
@pytest.mark.parametrize("value", ["", "   ", "\n\t"], ids=repr)
def test_an_empty_variable_counts_as_missing(name: str, value: str) -> None:
    with pytest.raises(ConfigurationError, match=name):
        resolve_credentials(environment={**ENVIRONMENT, name: value})


def test_an_empty_variable_does_not_hide_the_older_one() -> None:
    found = resolve_credentials(
        environment={**ENVIRONMENT, "FTRACK_API_KEY": " ", "FTRACK_APIKEY": "k"}
    )

    assert found.api_key.reveal() == "k"


@pytest.mark.parametrize("key", ["two\nlines-SECRET", "tab\there-SECRET", "nul\0-SECRET"])
@pytest.mark.parametrize("way", ["argument", "variable"])
def test_a_key_with_a_line_break_inside_is_refused(key: str, way: str) -> None:
    given = key if way == "argument" else None

    with pytest.raises(ConfigurationError, match="API key holds") as caught:
        resolve_credentials(api_key=given, environment={**ENVIRONMENT, "FTRACK_API_KEY": key})

    assert "SECRET" not in str(caught.value)


@pytest.mark.parametrize(
    "url",
    [
        "https://studio test",
        "https://studio\n.test",
        "https://studio.test/#part",
        "https://studio.test?",
        "https://studio.test:0",
        "https://studio.test:99999",
        "https://:80",
        "https://[::1",
        "https:\\\\studio.test",
        "https://@studio.test",
        "https://key-SECRET@studio.test",
        "file:///etc",
        "mailto:x@y",
        "//studio.test",
    ],
)
def test_more_unusable_urls(url: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        resolve_credentials(url, "k", "u", environment={})

    assert "SECRET" not in str(caught.value)


@pytest.mark.parametrize(
    "url",
    ["https://studio.test", "http://127.0.0.1:8090/", "HTTPS://h/path//", " https://[::1]:1 "],
)
def test_usable_urls(url: str) -> None:
    assert resolve_credentials(url, "k", "u", environment={}).server_url == url.strip().rstrip("/")
