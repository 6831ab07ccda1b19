"""What monitoring may see of a session: the :class:`Observer`, and what it is called with.

:mod:`aioftrackjobs.integrations.opentelemetry` has an observer that makes traces and metrics. The
core calls an observer only where there is one; without one, other classes run that do not ask.
"""

from aioftrackjobs.telemetry._safe import SafeObserver
from aioftrackjobs.telemetry.observer import (
    CallOutcome,
    EventHubView,
    HealthView,
    JobOutcome,
    ObservedCall,
    ObservedJob,
    ObservedRequest,
    ObservedSession,
    ObservedTransfer,
    Observer,
)

__all__ = [
    "CallOutcome",
    "EventHubView",
    "HealthView",
    "JobOutcome",
    "ObservedCall",
    "ObservedJob",
    "ObservedRequest",
    "ObservedSession",
    "ObservedTransfer",
    "Observer",
    "SafeObserver",
]
