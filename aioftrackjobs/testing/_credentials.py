"""The credentials that clients need for a server."""

from __future__ import annotations

from typing import NamedTuple


class FtrackCredentials(NamedTuple):
    """URL, key and user of a server, in the order of the arguments of a session.

    Use it as ``AsyncSession(*credentials)`` or ``ftrack_api.Session(*credentials)``. Its ``repr``
    does not show the key.
    """

    server_url: str
    api_key: str
    api_user: str

    def __repr__(self) -> str:
        return f"{type(self).__name__}(server_url={self.server_url!r}, api_user={self.api_user!r})"

    @property
    def environment(self) -> dict[str, str]:
        """The environment variables for these credentials."""
        return {
            "FTRACK_SERVER": self.server_url,
            "FTRACK_API_KEY": self.api_key,
            "FTRACK_API_USER": self.api_user,
        }
