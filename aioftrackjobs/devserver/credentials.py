"""Who may call: a user and the key that belongs to that user."""

from __future__ import annotations

import hmac
from collections.abc import Mapping

from aioftrackjobs.devserver.refusals import CredentialsRefusal


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
