"""Histograms of requests, which are recorded when the SDK reads them, or many at a time.

To record one value in the middle of other work takes the SDK ten times as long as one of many in a
row, since its code and its data are in no cache of the processor by then. A request has four.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from typing import NamedTuple

from opentelemetry.context import Context
from opentelemetry.metrics import Meter

#: Conventional boundaries of the duration of database operations, in seconds.
_SECONDS = (0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1, 5, 10, 60)

#: Boundaries of the number of operations and commits in a request.
_COUNTS = (1, 2, 5, 10, 25, 50, 100, 200, 500)

#: Requests that wait at most. Recording them takes about a millisecond.
_MOST = 64


class RequestFigures(NamedTuple):
    """What is recorded of one request.

    Attributes:
        seconds: How long it took.
        attributes: What names the operation, and the error if it has failed.
        context: Has its span, for exemplars; None if it has none.
        operations: How many it had; None if it carried no commits.
        commits: How many it had; 0 if it carried none.
        waited: Seconds for which the first of these has waited.
    """

    seconds: float
    attributes: Mapping[str, str | int]
    context: Context | None
    operations: int | None
    commits: int
    waited: float


class RequestMetrics:
    """Records the figures of requests, in any thread.

    Args:
        meter: Makes the instruments.
    """

    def __init__(self, meter: Meter) -> None:
        self._waiting = deque[RequestFigures]()
        self._duration = meter.create_histogram(
            "db.client.operation.duration",
            "s",
            "Duration of requests.",
            explicit_bucket_boundaries_advisory=_SECONDS,
        )
        self._wait = meter.create_histogram(
            "ftrack.client.queue.wait",
            "s",
            "How long the first commit of a request has waited.",
            explicit_bucket_boundaries_advisory=_SECONDS,
        )
        self._operations = meter.create_histogram(
            "ftrack.client.request.operations",
            "{operation}",
            "Operations in a request.",
            explicit_bucket_boundaries_advisory=_COUNTS,
        )
        self._commits = meter.create_histogram(
            "ftrack.client.request.commits",
            "{commit}",
            "Commits that share a request.",
            explicit_bucket_boundaries_advisory=_COUNTS,
        )

    def add(self, figures: RequestFigures) -> None:
        """Let *figures* be recorded."""
        self._waiting.append(figures)
        if len(self._waiting) >= _MOST:
            self.record()

    def record(self) -> None:
        """Record what waits."""
        while True:
            try:
                figures = self._waiting.popleft()  # another thread may do so, too
            except IndexError:
                return
            self._duration.record(figures.seconds, figures.attributes, figures.context)
            if figures.operations is not None:
                self._operations.record(figures.operations, None, figures.context)
            if figures.commits:
                self._commits.record(figures.commits, None, figures.context)
                self._wait.record(figures.waited, None, figures.context)
