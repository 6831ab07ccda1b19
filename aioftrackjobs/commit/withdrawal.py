"""Stops the sending of requests that were withdrawn before they left.

A caller that is cancelled withdraws its request if the server cannot have received it. Then nobody
waits for what the worker does for it: a pause before another attempt, or a connection that takes
long. If all of a group is withdrawn, this ends at once, and the worker is free. If a part of it is,
the connection is made for the others, and they are sent without that part.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import anyio

from aioftrackjobs.commit.request import PendingRequest, WithdrawnError
from aioftrackjobs.protocol.wire import join_batches


class Withdrawal:
    """Follows a group of requests through the attempts to send it; a ``Departure`` of transports.

    Attributes:
        group: What the current attempt sends.
        replaced: The body that has left, and the number of its operations, if that was not all of
            what the attempt began with.
    """

    replaced: tuple[bytes, int] | None

    def __init__(self, group: Sequence[PendingRequest]) -> None:
        self.group, self.replaced = group, None
        self._scope: anyio.CancelScope | None = None
        self._may_cancel = False
        self._marks_sent = False
        self._has_left = False
        for request in group:
            request.on_withdrawn = self.stop_if_unneeded

    def stop_if_unneeded(self) -> None:
        """Stop what is being done for the group if all of it has ended."""
        if self._may_cancel and self._scope is not None and self._is_over:
            self._scope.cancel()

    @property
    def _is_over(self) -> bool:
        return all(request.outcome is not None for request in self.group)

    @contextmanager
    def pausing(self) -> Iterator[None]:
        """End the block early if all of the group is withdrawn."""
        with anyio.CancelScope() as scope:
            self._scope, self._may_cancel = scope, True
            try:
                self.stop_if_unneeded()
                yield
            finally:
                self._may_cancel = False

    @contextmanager
    def sending(
        self, group: Sequence[PendingRequest], *, marks_sent: bool = True
    ) -> Iterator[None]:
        """Follow a request that the block sends, until it leaves.

        Args:
            group: What it carries.
            marks_sent: Whether it carries the group itself, and no question about it.

        Raises:
            WithdrawnError: All of the group, or a part of a fixed body, was withdrawn.
        """
        self.group, self.replaced = group, None
        self._marks_sent, self._has_left = marks_sent, False
        # From the beginning, as a client of the caller's may not report when the request leaves.
        self._mark_sent()
        with anyio.CancelScope() as self._scope:
            try:
                yield
                return
            finally:
                self._may_cancel = False
        raise WithdrawnError("withdrawn before it was sent")

    def _mark_sent(self) -> None:
        if self._marks_sent:
            for request in self.group:
                request.is_sent = True

    # As the departure of a request

    def wait(self) -> None:
        """Note that it has not left, and may be cancelled until the next call."""
        if not self._has_left:
            if self._marks_sent:
                for request in self.group:
                    request.note_unsent()
            self.proceed()
            self._may_cancel = True

    def proceed(self) -> None:
        """Note that it must not be cancelled from now on.

        Raises:
            WithdrawnError: All of the group was withdrawn.
        """
        self._may_cancel = False
        if not self._has_left and self._is_over:
            raise WithdrawnError("withdrawn before it was sent")

    def leave(self, *, may_replace: bool) -> bytes | None:
        """Note that its first byte leaves; return the body of what is left, if it is not all.

        Raises:
            WithdrawnError: All of the group was withdrawn, or some of it, and the body is fixed.
        """
        self._may_cancel = False
        if self._has_left:
            return None
        if self._marks_sent:
            for request in self.group:
                if request.is_abandoned:  # meanwhile, when it was not known that it waits
                    request.note_unsent()
        left = [request for request in self.group if request.outcome is None]
        is_changed = self._marks_sent and len(left) < len(self.group)
        if not left or (is_changed and not may_replace):
            raise WithdrawnError("withdrawn before it was sent")
        self._has_left = True
        if is_changed:
            body = join_batches([request.encode() for request in left])
            count = sum([request.count_left for request in left])
            self.group, self.replaced = left, (body, count)
        self._mark_sent()
        return None if self.replaced is None else self.replaced[0]
