"""Who may call: a user and the key that belongs to that user."""

from __future__ import annotations

import hmac
import re
from dataclasses import dataclass

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


@dataclass(frozen=True, slots=True)
class Identity:
    """Whom a request acts for.

    Attributes:
        is_global: The key is not that user's own but one that acts for any user.
    """

    username: str
    is_global: bool = False


class Credentials:
    """The API keys of all users who have one, and one that acts for anybody. Never shows a key.

    Whether the user exists and is active is for the store to say.
    """

    def __init__(self, global_api_key: str | None = None) -> None:
        self._api_keys: dict[str, str] = {}
        self._global_api_key = global_api_key

    def check(self, username: str | None, api_key: str | None) -> Identity:
        """Return whom the pair stands for.

        Raises:
            CredentialsRefusal: If it stands for nobody.
        """
        given = (api_key or "").encode("utf-8", "surrogatepass")
        if username and given:
            if _same(given, self._api_keys.get(username)):
                return Identity(username)
            if _same(given, self._global_api_key):
                return Identity(username, is_global=True)
        raise CredentialsRefusal

    def set_api_key(self, username: str, api_key: str) -> None:
        """Let *username* in with *api_key*, and no longer with an earlier one."""
        self._api_keys[username] = api_key


def _same(given: bytes, expected: str | None) -> bool:
    return expected is not None and hmac.compare_digest(given, expected.encode())
