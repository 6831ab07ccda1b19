"""The dispatcher and the API client of a session that is observed.

Without an observer their base classes run, so that being observed costs nothing where it is off.

A commit and the requests that carry it are two things: commits share requests, and a commit may
need several. So an :class:`.ObservedCall` goes from :meth:`Dispatcher.submit` to the outcome, and
each request has an :class:`.ObservedRequest` that refers to the calls in it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from aioftrackjobs.commit.api_client import ApiClient, Sending
from aioftrackjobs.commit.dispatcher import Dispatcher
from aioftrackjobs.commit.request import Applied, NotApplied, Outcome, PendingRequest, Unknown
from aioftrackjobs.commit.sender import Withdrawal
from aioftrackjobs.errors import ServerError
from aioftrackjobs.protocol.results import AnyOperation
from aioftrackjobs.telemetry import CallOutcome, ObservedCall, ObservedRequest, SafeObserver

_COMMIT = "commit"


class ObservedDispatcher(Dispatcher):
    """Shows each commit and each other call to an observer.

    Args:
        observer: What they are shown to.
        server_url: The server, as the observer sees it.
        args: As of :class:`Dispatcher`.
        kwargs: As of :class:`Dispatcher`.
    """

    def __init__(self, observer: SafeObserver, server_url: str, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._observer, self._server_url = observer, server_url

    def _enter(self, request: PendingRequest) -> PendingRequest:
        action = _COMMIT if request.operations else _action_of(request.call)
        call = ObservedCall(
            action, request.operations, request.count, self._server_url, time.monotonic()
        )
        try:
            self._observer.program.call_queued(call)
        except BaseException as exc:  # noqa: BLE001 - of the program's
            self._observer.note(exc, "call_queued")
        request.observed = call
        return super()._enter(request)

    def _end(self, request: PendingRequest, outcome: Outcome) -> None:
        call, request.observed = request.observed, None
        try:
            super()._end(request, outcome)
        finally:
            if isinstance(call, ObservedCall):  # it ends the first time
                if isinstance(outcome, Applied):
                    call.outcome = "applied"
                else:
                    call.outcome, call.error = _describe(outcome), outcome.error
                try:
                    self._observer.program.call_settled(call)
                except BaseException as exc:  # noqa: BLE001 - of the program's
                    self._observer.note(exc, "call_settled")


def _describe(outcome: NotApplied | Unknown) -> CallOutcome:
    if isinstance(outcome, NotApplied):
        return "refused" if isinstance(outcome.error, ServerError) else "unsent"
    return "uncertain"


class ObservedApiClient(ApiClient):
    """Shows each request to an observer.

    Args:
        observer: What they are shown to.
        server_url: The server, as the observer sees it.
        args: As of :class:`ApiClient`.
        kwargs: As of :class:`ApiClient`.
    """

    def __init__(self, observer: SafeObserver, server_url: str, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._observer, self._server_url = observer, server_url

    async def send(
        self,
        body: bytes,
        operations: Callable[[], Sequence[AnyOperation]],
        departure: Sending | None = None,
    ) -> list[Any]:
        """Do as :meth:`ApiClient.send`."""
        sent = operations()
        first = sent[0] if sent else None
        wire = first if isinstance(first, Mapping) else None  # they are all alike
        carried: Sequence[PendingRequest] = ()
        if isinstance(departure, Withdrawal) and (wire is None or departure.group[0].call):
            carried = departure.group  # otherwise it is a question about the group
        request = ObservedRequest(
            [each.observed for each in carried if isinstance(each.observed, ObservedCall)],
            _COMMIT if wire is None else _action_of([wire]),
            len(sent),
            len(body),
            self._server_url,
            time.monotonic(),
            retry_after=next((each.last_error for each in carried if each.last_error), None),
        )
        for call in request.calls:
            call.attempts += 1
        self._observer.request_began(request)
        try:
            return await super().send(body, operations, departure)
        except BaseException as exc:
            request.error = exc
            raise
        finally:
            self._observer.request_ended(request)


def _action_of(wire: Sequence[Mapping[str, Any]]) -> str:
    """Return the kind of a call: that of its first operation."""
    return str(wire[0].get("action")) if wire else "call"
