"""Who may call: a user and the key that belongs to that user."""

from __future__ import annotations

import hmac
import re
from collections.abc import Mapping

from aioftrackjobs.devserver.errors import CredentialsError
from aioftrackjobs.devserver.refusals import CredentialsRefusal

#: What every client can put into a header and every server reads back unchanged: visible ASCII,
#: with blanks only inside (RFC 9110, section 5.5).
_HEADER_VALUE = re.compile(r"[!-~]+(?: +[!-~]+)*")


def check_header_value(argument: str, value: object) -> None:
    """Check that *value* can travel in a header; *argument* says what it was given as.

    Raises:
        CredentialsError: If it cannot.
    """
    if not isinstance(value, str):
        raise CredentialsError(argument, f"it is no text but of type {type(value).__name__}")
    if not value:
        raise CredentialsError(argument, "it is empty")
    if not _HEADER_VALUE.fullmatch(value):
        reason = "it may hold visible ASCII characters, and blanks between them"
        raise CredentialsError(argument, reason)


class Credentials:
    """The API keys of all users who have one. Never shows a key."""

    def __init__(self, api_keys: Mapping[str, str]) -> None:
        self._api_keys = dict(api_keys)

    def check(self, username: str | None, api_key: str | None) -> str:
        """Return the name of the user that the pair stands for.

        Raises:
            CredentialsRefusal: If it stands for none.
        """
        expected = self._api_keys.get(username or "")
        given = (api_key or "").encode("utf-8", "surrogatepass")
        if username is None or expected is None:
            raise CredentialsRefusal
        if not hmac.compare_digest(given, expected.encode()):
            raise CredentialsRefusal
        return username
