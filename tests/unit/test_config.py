"""Configuration: arguments first, then the environment, and every problem named at once."""

from __future__ import annotations

import pytest

from aioftrackjobs.config import resolve_credentials
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
