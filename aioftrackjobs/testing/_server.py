"""A server of a test: what to break, and what it holds."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from anyio.from_thread import start_blocking_portal

from aioftrackjobs.devserver import Faults, ServerHandle, running
from aioftrackjobs.retry import RetryPolicy
from aioftrackjobs.session import AsyncSession
from aioftrackjobs.testing._credentials import FtrackCredentials

#: Tests with faults would spend most of their time in pauses.
_IMPATIENT = RetryPolicy(first_delay=0.01, longest_delay=0.1)


class FtrackServer:
    """An embedded server, seen by a test. What is looked up here passes no network and no fault.

    Attributes:
        url: What clients take as the server's URL.
        api_user: Whom clients act as.
        api_key: The key of that user.
        faults: What is to go wrong, and what did.
    """

    def __init__(self, handle: ServerHandle) -> None:
        self.url = handle.url
        self.api_user = handle.api_user
        self.api_key = handle.api_key
        self.faults: Faults = handle.faults
        self._handle = handle
        self._saved = handle.inspector.save()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.url}>"

    @property
    def credentials(self) -> FtrackCredentials:
        """URL, key and user for any client."""
        return FtrackCredentials(self.url, self.api_key, self.api_user)

    def credentials_of(self, user: str) -> FtrackCredentials:
        """Return what a client needs to act as another user, such as ``"maya"``.

        Raises:
            LookupError: If the server was not started with such a user.
        """
        try:
            return FtrackCredentials(self.url, self._handle.api_keys[user], user)
        except KeyError:
            known = ", ".join(self._handle.api_keys)
            raise LookupError(f"no user {user!r} has a key; there are: {known}") from None

    def session(self, **options: Any) -> AsyncSession:
        """Return a session on this server, to be opened.

        Args:
            options: As ``AsyncSession`` has them. If *retry* is not given, the pauses between
                attempts are shorter than in production, and nothing else differs.
        """
        return AsyncSession(*self.credentials, **{"retry": _IMPATIENT, **options})

    def jobs(self) -> list[dict[str, Any]]:
        """Return all Jobs, the oldest first, with what tests ask for.

        Each has ``id``, ``status``, ``type``, ``description``, ``data`` (a dictionary),
        ``user`` (a name), ``created_at``, ``finished_at`` and ``attachments``: of each file its
        ``id`` for :meth:`content`, ``name`` and ``size``.
        """
        return self._handle.inspector.jobs()

    def job(self, job: object) -> dict[str, Any]:
        """Return one Job, as in :meth:`jobs`.

        Args:
            job: Its id, or anything with an ``id``, such as the Job of a session.

        Raises:
            LookupError: If there is none.
        """
        return self._handle.inspector.job(job)

    def find(self, expression: str) -> list[dict[str, Any]]:
        """Return the entities that a query finds, as plain dictionaries; times are ``datetime``.

        Raises:
            FtrackJobsError: If *expression* is no query.
        """
        return self._handle.inspector.find(expression)

    def content(self, component_id: str) -> bytes:
        """Return the bytes of a component's file.

        Raises:
            FtrackJobsError: If there is none.
        """
        return self._handle.inspector.content(component_id)

    def reset(self, *, seed: int | None = None) -> None:
        """Be as new: entities as at the start, no files, no faults.

        Close the sessions before: requests under way come to their end first.

        Args:
            seed: What chance begins with from now on; as before if not given.

        Raises:
            TimeoutError: If a request does not come to its end.
        """
        self.faults.reset(seed)
        self._handle.inspector.restore(self._saved)


@contextmanager
def serving(seed: int | None = None, **options: Any) -> Iterator[FtrackServer]:
    """Run a server for the length of the block, for code without an event loop.

    Args:
        seed: What the chance of its faults begins with.
        options: What :func:`aioftrackjobs.devserver.running` takes.
    """
    with (
        start_blocking_portal() as portal,
        portal.wrap_async_context_manager(running(faults=Faults(seed), **options)) as handle,
    ):
        yield FtrackServer(handle)
