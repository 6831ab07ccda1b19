"""Traces and metrics by OpenTelemetry: ``pip install aioftrackjobs[otel]``.

::

    observer = OpenTelemetryObserver()
    async with AsyncSession(observer=observer) as session:
        ...

It needs ``opentelemetry-api`` alone. What is recorded goes where the program's SDK sends it, and
nowhere without one. Names and attributes are listed in docs/telemetry.md. Metrics never have ids or
texts as attributes, since each value of an attribute is a time series of its own.

Commits share requests, so that a request cannot be a child of one of them. Its span has links to
the spans of all that it carries, as the conventions for batches say. If it carries only one, it is
a child of that, too.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from contextvars import Token
from typing import Literal, NamedTuple
from urllib.parse import urlsplit
from weakref import ref

from opentelemetry import context as contexts
from opentelemetry import metrics, trace
from opentelemetry.context import Context
from opentelemetry.trace import (
    Link,
    NonRecordingSpan,
    Span,
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
)
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from aioftrackjobs._version import __version__
from aioftrackjobs.integrations._metrics import SessionMetrics
from aioftrackjobs.integrations._request_metrics import RequestFigures, RequestMetrics
from aioftrackjobs.telemetry import (
    ObservedCall,
    ObservedJob,
    ObservedRequest,
    ObservedSession,
    ObservedTransfer,
    Observer,
)

_SCOPE = "aioftrackjobs"

#: Boundaries of the duration of Jobs, in seconds.
_JOB_SECONDS = (1, 5, 15, 60, 300, 900, 1800, 3600, 4 * 3600, 12 * 3600, 24 * 3600)

_propagator = TraceContextTextMapPropagator()

#: In it, the spans of an HTTP client are not recorded, if the sampler follows the parent.
_NOT_SAMPLED = trace.set_span_in_context(NonRecordingSpan(SpanContext(1, 1, is_remote=False)))


class _RequestMark(NamedTuple):
    """What is kept with a request: its span, and what makes the context before it current again.

    Without a span, the traces of all that it carries are not sampled.
    """

    span: Span | None
    context: Context
    token: Token[Context]


class _JobMark(NamedTuple):
    """What is kept with a Job: its span, and the contexts inside and around its block."""

    span: Span
    inside: Context
    around: Context


class OpenTelemetryObserver(Observer):
    """Makes spans and metrics of what sessions do; one object may serve many sessions.

    Args:
        tracer_provider: Makes the spans; the global one if None.
        meter_provider: Makes the metrics; the global one if None.
    """

    def __init__(
        self,
        tracer_provider: trace.TracerProvider | None = None,
        meter_provider: metrics.MeterProvider | None = None,
    ) -> None:
        self._tracer = trace.get_tracer(_SCOPE, __version__, tracer_provider)
        meter = metrics.get_meter(_SCOPE, __version__, meter_provider)
        self._requests = RequestMetrics(meter)
        self._sessions = SessionMetrics(meter, before_reading=self._requests.record)
        self._uses_global_tracer = tracer_provider is None  # it may be set later
        self._is_untraced = isinstance(self._tracer, trace.NoOpTracer)
        self._known: dict[tuple[str, str], dict[str, str | int]] = {}  # attributes
        self._jobs: dict[str, Context] = {}  # the contexts of running Jobs, by their ids
        self._unsampled: dict[int, ref[Context]] = {}  # contexts of traces that are not sampled

        def seconds(name: str, text: str) -> metrics.Histogram:
            return meter.create_histogram(
                name, "s", text, explicit_bucket_boundaries_advisory=_JOB_SECONDS
            )

        self._retries = meter.create_counter(
            "ftrack.client.retries", "{request}", "Requests that were sent again, by the reason."
        )
        self._job_duration = seconds(
            "ftrack.job.duration", "How long Jobs have run, by their outcome."
        )
        self._transfer_bytes = meter.create_counter(
            "ftrack.transfer.bytes", "By", "Bytes of uploads and downloads."
        )
        self._transfer_duration = seconds(
            "ftrack.transfer.duration", "Duration of uploads and downloads."
        )
        self._journal_failures = meter.create_counter(
            "ftrack.journal.failures", "{failure}", "How often the journal could not be written."
        )

    def session_opened(self, session: ObservedSession) -> None:
        """Read its health for the metrics from now on."""
        if self._uses_global_tracer:
            self._is_untraced = _traces_nothing()
        self._sessions.add(session)

    def session_closed(self, session: ObservedSession) -> None:
        """Do not read it any more."""
        self._sessions.remove(session)

    def carrier(self) -> Mapping[str, str]:
        """Return ``traceparent``, and ``tracestate`` if there is one, of the current span."""
        return _carrier_of(None)

    # Calls and requests

    def call_queued(self, call: ObservedCall) -> None:
        """Keep the trace of the caller, for the span of a commit or of another call."""
        if self._is_untraced:
            return
        context = self._context_of(call)
        known = self._unsampled.get(id(context))
        if known is not None and known() is context:
            return
        parent = trace.get_current_span(context).get_span_context()
        if parent.trace_flags.sampled or not parent.is_valid:
            call.mark = context
        else:  # the SDK would refuse a span, too, but takes as long as a commit of a farm may
            number, forget = id(context), self._unsampled.pop
            self._unsampled[number] = ref(context, lambda _: forget(number, None))

    def _begin_spans(self, calls: Sequence[ObservedCall]) -> None:
        """Begin the spans of calls, which were queued some time ago.

        One after the other takes less time than each on its own, amid other work.
        """
        now, passed = time.time_ns(), time.monotonic()
        for call in calls:
            context = call.mark
            if not isinstance(context, Context):
                continue  # it has one already, or needs none
            attributes = self._attributes(call.server_url, call.action)
            if call.count > 1:
                attributes = {**attributes, "db.operation.batch.size": call.count}
            call.mark = self._tracer.start_span(
                f"ftrack {call.action}",
                context,
                SpanKind.CLIENT,
                attributes,
                start_time=now - int(1e9 * (passed - call.queued_at)),
            )

    def _context_of(self, call: ObservedCall) -> Context:
        """Return the context of a call; that of the Job, for a report, which runs elsewhere."""
        here = contexts.get_current()
        if not self._jobs or not call.operations:
            return here
        key = call.operations[0].target.key
        of_job = self._jobs.get(key[0][1]) if len(key) == 1 else None
        if of_job is None:
            return here
        ids = [trace.get_current_span(each).get_span_context().trace_id for each in (of_job, here)]
        return here if ids[0] == ids[1] else of_job

    def call_settled(self, call: ObservedCall) -> None:
        """End the span of a call, and count its outcome."""
        if call.action == "commit" and call.outcome is not None:
            self._sessions.count_commit(call.outcome)
        if call.mark is None:
            return
        self._begin_spans([call])  # unless it was sent
        span: Span = call.mark
        if span.is_recording():
            found = {"ftrack.outcome": call.outcome or "unknown", "ftrack.requests": call.attempts}
            span.set_attributes(found)
            _note_error(span, call.error)
        span.end()

    def request_began(self, request: ObservedRequest) -> None:
        """Begin the span of a request, with links to the calls that it carries."""
        if request.retry_after is not None:
            self._retries.add(1, {"reason": _type_of(request.retry_after)})
        if self._uses_global_tracer:
            self._is_untraced = _traces_nothing()
        if self._is_untraced:
            return
        self._begin_spans(request.calls)
        span = self._request_span(request)
        context = _NOT_SAMPLED if span is None else trace.set_span_in_context(span)
        request.mark = _RequestMark(span, context, contexts.attach(context))
        if span is not None and request.retry_after is not None:
            span.set_attribute("ftrack.retry.reason", _type_of(request.retry_after))

    def _request_span(self, request: ObservedRequest) -> Span | None:
        """Return the span of a request; None if it carries calls, and none of them is recorded."""
        marks: list[Span] = [call.mark for call in request.calls if call.mark is not None]
        recorded = [each for each in marks if each.is_recording()]
        parent: Context | None = Context()
        if len(request.calls) == 1 and recorded:
            parent = trace.set_span_in_context(recorded[0], Context())
        elif not request.calls:  # a question of the package, in the context of the background
            parent = None
        elif not recorded:
            return None
        attributes = {
            **self._attributes(request.server_url, request.action),
            "ftrack.operations": request.count,
            "ftrack.calls": len(request.calls),
        }
        links = [Link(each.get_span_context()) for each in recorded]
        return self._tracer.start_span(
            "ftrack request", parent, SpanKind.INTERNAL, attributes, links
        )

    def request_ended(self, request: ObservedRequest) -> None:
        """End the span of a request, and record how long it took."""
        mark: _RequestMark | None = request.mark
        attributes = self._attributes(request.server_url, request.action)
        if request.error is not None:
            attributes = {**attributes, "error.type": _type_of(request.error)}
        is_commit, calls = request.action == "commit", request.calls
        figures = RequestFigures(
            time.monotonic() - request.began_at,
            attributes,
            None if mark is None or mark.span is None else mark.context,
            operations=request.count if is_commit else None,
            commits=len(calls) if is_commit else 0,
            waited=request.began_at - calls[0].queued_at if calls else 0.0,
        )
        self._requests.add(figures)
        if mark is not None:
            contexts.detach(mark.token)
            if mark.span is not None:
                _note_error(mark.span, request.error)
                mark.span.end()

    def _attributes(self, url: str, action: str) -> dict[str, str | int]:
        """Return the attributes that name a server, and what it is to do."""
        found = self._known.get((url, action))
        if found is None:
            parts = urlsplit(url)
            found = self._known[url, action] = {
                "db.system.name": "ftrack",
                # All operations of a commit are one batch.
                "db.operation.name": "BATCH" if action == "commit" else action,
                "server.address": parts.hostname or "",
                "server.port": parts.port or (443 if parts.scheme == "https" else 80),
            }
        return found

    # Jobs

    def job_began(self, job: ObservedJob) -> None:
        """Begin the span of a Job, which is current inside of its block."""
        around = contexts.get_current()
        parent = around
        if not trace.get_current_span().get_span_context().is_valid:
            # A command of a Job gets the trace in its environment.
            names = {name: os.environ.get(name.upper(), "") for name in _propagator.fields}
            parent = _propagator.extract(names, around)
        name = "ftrack job (joined)" if job.is_joined else "ftrack job"
        span = self._tracer.start_span(name, parent, SpanKind.INTERNAL)
        inside = trace.set_span_in_context(span, around)
        job.mark = _JobMark(span, inside, around)
        if not job.is_joined:
            job.carrier = _carrier_of(inside)
        contexts.attach(inside)

    def job_found(self, job: ObservedJob) -> None:
        """Link the span to that of the block that has created the Job, or has run it before."""
        mark: _JobMark = job.mark
        found = trace.get_current_span(_propagator.extract(job.found, Context()))
        if found.get_span_context().is_valid:
            mark.span.add_link(found.get_span_context())

    def job_running(self, job: ObservedJob) -> None:
        """Count a Job that runs."""
        mark: _JobMark = job.mark
        mark.span.set_attribute("ftrack.job.id", job.id or "")
        if job.id is not None and not job.is_joined:
            self._jobs[job.id] = mark.inside
            self._sessions.count_jobs(1)

    def job_ended(self, job: ObservedJob) -> None:
        """End the span of a Job, and record how long it has run."""
        mark: _JobMark = job.mark
        if not job.is_joined and job.id is not None and job.outcome != "not_begun":
            if self._jobs.get(job.id) is mark.inside:
                del self._jobs[job.id]
            self._sessions.count_jobs(-1)
        if not job.is_joined:
            outcome = {"outcome": job.outcome or "left"}
            self._job_duration.record(time.monotonic() - job.began_at, outcome)
        mark.span.set_attribute("ftrack.job.outcome", job.outcome or "left")
        _note_error(mark.span, job.error)
        if job.error is None and job.outcome == "failed":
            mark.span.set_status(Status(StatusCode.ERROR))
        mark.span.end()
        # No token: a block in a generator may end in another context than it has begun in.
        if contexts.get_current() is mark.inside:
            contexts.attach(mark.around)

    # Files, events and the journal

    def transfer_ended(self, transfer: ObservedTransfer) -> None:
        """Record a transfer, and make its span, in the trace of the caller."""
        now = time.time_ns()
        span = self._tracer.start_span(
            f"ftrack {transfer.direction}",
            None,
            SpanKind.CLIENT,
            {"ftrack.transfer.size": transfer.size},
            start_time=now - int(1e9 * transfer.seconds),
        )
        _note_error(span, transfer.error)
        span.end(now)
        attributes: dict[str, str] = {"direction": transfer.direction}
        self._transfer_bytes.add(transfer.size, attributes)
        if transfer.error is not None:
            attributes["error.type"] = _type_of(transfer.error)
        self._transfer_duration.record(transfer.seconds, attributes)

    def journal_changed(self, state: Literal["working", "failing"]) -> None:
        """Count failures of the journal."""
        if state == "failing":
            self._journal_failures.add(1)


def _traces_nothing() -> bool:
    """Return whether the program has no SDK for traces yet. It is asked once for each request."""
    return isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider)


def _carrier_of(context: Context | None) -> dict[str, str]:
    carrier: dict[str, str] = {}
    _propagator.inject(carrier, context)
    return carrier


def _type_of(error: BaseException) -> str:
    """Return ``error.type``: the class, as texts may have ids and secrets."""
    return type(error).__name__


def _note_error(span: Span, error: BaseException | None) -> None:
    if error is not None and span.is_recording():
        span.set_attribute("error.type", _type_of(error))
        span.set_status(Status(StatusCode.ERROR))
