"""SafeObserver: calls an observer of the program, and outlives its errors."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Literal, TypeVar

from aioftrackjobs.background import SafeLogger
from aioftrackjobs.telemetry.observer import (
    ObservedJob,
    ObservedRequest,
    ObservedSession,
    ObservedTransfer,
    Observer,
)

logger = SafeLogger(__name__)

T = TypeVar("T")


class SafeObserver(Observer):
    """Passes everything on to *observer*; an error of it is logged once for each method.

    Calls are shown to :attr:`program` itself, since that happens for each commit.

    Args:
        observer: The program's.

    Attributes:
        program: The same.
    """

    def __init__(self, observer: Observer) -> None:
        self.program: Observer = observer
        self._failed = set[str]()

    def session_opened(self, session: ObservedSession) -> None:
        self._call(self.program.session_opened, session)

    def session_closed(self, session: ObservedSession) -> None:
        self._call(self.program.session_closed, session)

    def carrier(self) -> Mapping[str, str]:
        try:
            found = self.program.carrier()
            return {str(name): str(value) for name, value in found.items()}
        except BaseException as exc:  # noqa: BLE001
            self.note(exc, "carrier")
            return {}

    def request_began(self, request: ObservedRequest) -> None:
        self._call(self.program.request_began, request)

    def request_ended(self, request: ObservedRequest) -> None:
        self._call(self.program.request_ended, request)

    def job_began(self, job: ObservedJob) -> None:
        self._call(self.program.job_began, job)

    def job_found(self, job: ObservedJob) -> None:
        self._call(self.program.job_found, job)

    def job_running(self, job: ObservedJob) -> None:
        self._call(self.program.job_running, job)

    def job_ended(self, job: ObservedJob) -> None:
        self._call(self.program.job_ended, job)

    def transfer_ended(self, transfer: ObservedTransfer) -> None:
        self._call(self.program.transfer_ended, transfer)

    def event_received(self, topic: str) -> None:
        self._call(self.program.event_received, topic)

    def journal_changed(self, state: Literal["working", "failing"]) -> None:
        self._call(self.program.journal_changed, state)

    def _call(self, method: Callable[[T], object], argument: T) -> None:
        try:
            method(argument)
        except BaseException as exc:  # noqa: BLE001
            self.note(exc, getattr(method, "__name__", "a method"))

    def note(self, error: BaseException, method: str) -> None:
        """Log an error of a method of the observer, once for each method."""
        if isinstance(error, KeyboardInterrupt):  # it is for the program, and arrives anywhere
            raise error
        if method not in self._failed:
            self._failed.add(method)
            logger.warning(
                "%(method)s() of the observer failed; everything else goes on: "
                "%(error_type)s: %(error)s",
                method=method,
                error_type=type(error).__name__,
                error=error,
                exc_info=True,
            )
