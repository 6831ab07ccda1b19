"""Who may call: a user and the key that belongs to that user."""

from __future__ import annotations

import hashlib
import hmac
import re
from collections import defaultdict
from dataclasses import dataclass

from aioftrackjobs.devserver.api_errors import InvalidCredentialsError
from aioftrackjobs.devserver.errors import ServerStartError

#: What every client can put into a header and every server reads back unchanged: visible ASCII,
#: with blanks only inside (RFC 9110, section 5.5).
_HEADER_VALUE = re.compile(r"[!-~]+(?: +[!-~]+)*")


def check_header_value(argument: str, value: object) -> None:
    """Check that *value* can travel in a header; *argument* says what it was given as.

    Raises:
        ServerStartError: If it cannot.
    """
    if not isinstance(value, str):
        raise ServerStartError(
            "credentials", argument, f"it is no text but of type {type(value).__name__}"
        )
    if not value:
        raise ServerStartError("credentials", argument, "it is empty")
    if not _HEADER_VALUE.fullmatch(value):
        reason = "it may hold visible ASCII characters, and blanks between them"
        raise ServerStartError("credentials", argument, reason)


@dataclass(frozen=True, slots=True)
class Identity:
    """Whom a request acts for.

    Attributes:
        owners: Whom the key belongs to: ids of users, or names where schemas have no users.
        is_global: The key is not that user's own but one that acts for any user.
    """

    username: str
    owners: frozenset[str] = frozenset()
    is_global: bool = False

    def may_act_as(self, owner: object) -> bool:
        """Return whether the key belongs to *owner*, or acts for any user."""
        return self.is_global or owner in self.owners


class Credentials:
    """The API keys of all users who have one, and one that acts for anybody. Never shows a key.

    A key belongs to a user whatever that one is called: who could rename users would else come
    to act as others. Which user has the name, and whether that one is active, is for the store
    to say.
    """

    def __init__(self, global_api_key: str | None = None) -> None:
        self._digests: dict[str, bytes] = {}
        self._owners = defaultdict[bytes, frozenset[str]](frozenset)
        self._global_digest = None if global_api_key is None else _digest(global_api_key)

    def check(self, username: str | None, api_key: str | None) -> Identity:
        """Return whom the pair may stand for; the name is yet to be compared with the owners.

        Raises:
            InvalidCredentialsError: If the key is nobody's.
        """
        if not username or not api_key:
            raise InvalidCredentialsError
        digest = _digest(api_key)
        owners = self._owners.get(digest, frozenset())
        is_global = self._global_digest is not None and hmac.compare_digest(
            digest, self._global_digest
        )
        if not owners and not is_global:
            raise InvalidCredentialsError
        return Identity(username, owners, is_global)

    def forget(self) -> None:
        """Let nobody in but by the key that acts for anybody."""
        self._digests.clear()
        self._owners.clear()

    def set_api_key(self, owner: str, api_key: str) -> None:
        """Let *owner* in with *api_key*, and no longer with an earlier one."""
        earlier, digest = self._digests.get(owner), _digest(api_key)
        if earlier is not None:
            self._owners[earlier] -= {owner}
        self._digests[owner] = digest
        self._owners[digest] |= {owner}


def _digest(api_key: str) -> bytes:
    """Return what keys are looked up by, so that the time that takes tells nothing of them."""
    return hashlib.sha256(api_key.encode("utf-8", "surrogatepass")).digest()
