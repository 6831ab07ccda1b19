"""FtrackServer: a server as tests see it, with its faults, its entities and its credentials."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

from anyio.from_thread import start_blocking_portal

from aioftrackjobs.config.retry import RetryPolicy
from aioftrackjobs.devserver import Faults, ServerHandle, running
from aioftrackjobs.devserver.events.actions import Actions
from aioftrackjobs.devserver.serving.handle import EntityInspector
from aioftrackjobs.session import AsyncSession

#: Shorter delays than by default, because tests with faults would spend most of their time in them.
_SHORT_DELAYS = RetryPolicy(first_delay=0.01, longest_delay=0.1)


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


class FtrackServer(EntityInspector):
    """An embedded server with everything that a test needs.

    ::

        ftrack_server.faults.inject(Drop(applied=True), on="writes")
        ...
        assert [job["status"] for job in ftrack_server.jobs()] == ["done"]

    :meth:`jobs`, :meth:`job`, :meth:`find` and :meth:`content` read the server's database, so that
    faults do not affect them.

    Attributes:
        url: URL of the server.
        api_user: Name of the user as whom clients act.
        api_key: API key of that user.
        faults: Injects faults, and knows which were injected.
        actions: Discovers and launches actions of connected clients, as the web interface does, and
            has the ``messages`` that clients have sent to it.
    """

    def __init__(self, handle: ServerHandle) -> None:
        super().__init__(handle.inspector.query)
        self.url: str = handle.url
        self.api_user: str = handle.api_user
        self.api_key: str = handle.api_key
        self.faults: Faults = handle.faults
        self.actions: Actions = handle.actions
        self._handle = handle
        self._saved = handle.inspector.save()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.url}>"

    @property
    def credentials(self) -> FtrackCredentials:
        """URL, key and user for any client."""
        return FtrackCredentials(self.url, self.api_key, self.api_user)

    def credentials_of(self, user: str) -> FtrackCredentials:
        """Return the credentials of another user, such as ``"maya"``.

        Raises:
            LookupError: The server was started without this user.
        """
        try:
            return FtrackCredentials(self.url, self._handle.api_keys[user], user)
        except KeyError:
            known = ", ".join(self._handle.api_keys)
            raise LookupError(f"no user {user!r} has an API key; these have one: {known}") from None

    def session(self, **options: Any) -> AsyncSession:
        """Return a session on this server, to be entered with ``async with``.

        Args:
            options: Arguments of ``AsyncSession``. Without *retry*, the delays between attempts are
                shorter than by default.
        """
        return AsyncSession(*self.credentials, **{"retry": _SHORT_DELAYS, **options})

    def content(self, component_id: str) -> bytes:
        """Return the content of a component's file.

        Raises:
            FtrackJobsError: There is no such file.
        """
        return self._handle.inspector.content(component_id)

    def reset(self, *, seed: int | None = None) -> None:
        """Restore the entities of the start, and remove all files and faults.

        Close the sessions first. Requests in progress end before.

        Args:
            seed: Random seed of the faults from now on. Default: the same as before.

        Raises:
            TimeoutError: A request in progress does not end.
        """
        self.faults.reset(seed)
        self._handle.inspector.restore(self._saved)


@contextmanager
def serving(seed: int | None = None, **options: Any) -> Iterator[FtrackServer]:
    """Run a server during a ``with`` block, in a thread with an event loop of its own.

    Args:
        seed: Random seed of the faults; None for a random one.
        options: Arguments of :func:`aioftrackjobs.devserver.running`.
    """
    with (
        start_blocking_portal() as portal,
        portal.wrap_async_context_manager(running(faults=Faults(seed), **options)) as handle,
    ):
        yield FtrackServer(handle)
