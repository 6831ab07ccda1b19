"""What any client needs to reach a server."""

from __future__ import annotations

from typing import NamedTuple


class FtrackCredentials(NamedTuple):
    """URL, key and user, in the order in which sessions take them. Never shows the key.

    ``AsyncSession(*credentials)``, and the same for ``ftrack_api.Session``.
    """

    server_url: str
    api_key: str
    api_user: str

    def __repr__(self) -> str:
        return f"{type(self).__name__}(server_url={self.server_url!r}, api_user={self.api_user!r})"

    @property
    def environment(self) -> dict[str, str]:
        """The environment variables that clients read."""
        return {
            "FTRACK_SERVER": self.server_url,
            "FTRACK_API_KEY": self.api_key,
            "FTRACK_API_USER": self.api_user,
        }
