"""Spans and metrics that the observer for OpenTelemetry makes, as the SDK exports them."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import anyio
import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import HistogramDataPoint, InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import NonRecordingSpan, SpanContext, StatusCode, use_span

from aioftrackjobs import AsyncSession, Job, JobStatus, ServerError, TransferError, job_context
from aioftrackjobs.config.retry import RetryPolicy
from aioftrackjobs.devserver import ServerHandle
from aioftrackjobs.integrations.opentelemetry import OpenTelemetryObserver
from aioftrackjobs.testing import Refuse, TooManyRequests

from .settings import connected
from .waiting import until


class Telemetry:
    """An observer, and what the SDK has exported of it."""

    def __init__(self) -> None:
        self._exporter = InMemorySpanExporter()
        self._reader = InMemoryMetricReader()
        self.traces = TracerProvider()
        self.traces.add_span_processor(SimpleSpanProcessor(self._exporter))
        self.meters = MeterProvider([self._reader])
        self.tracer = self.traces.get_tracer("test")
        self.observer = OpenTelemetryObserver(self.traces, self.meters)

    def all_spans(self) -> Sequence[ReadableSpan]:
        return self._exporter.get_finished_spans()

    def spans(self, name: str) -> list[ReadableSpan]:
        return [each for each in self.all_spans() if each.name == name]

    def span(self, name: str) -> ReadableSpan:
        (span,) = self.spans(name)
        return span

    def points(self) -> dict[str, list[Any]]:
        """Return all data points, by the name of their metric."""
        data = self._reader.get_metrics_data()
        assert data is not None
        return {
            metric.name: list(metric.data.data_points)
            for resource in data.resource_metrics
            for scope in resource.scope_metrics
            for metric in scope.metrics
        }

    def values(self, name: str, attribute: str) -> dict[Any, Any]:
        """Return the values of a metric, or the counts of a histogram, by an attribute."""
        return {
            (each.attributes or {}).get(attribute): (
                each.count if isinstance(each, HistogramDataPoint) else each.value
            )
            for each in self.points().get(name, [])
        }


@pytest.fixture
def telemetry() -> Telemetry:
    return Telemetry()


def attributes(span: ReadableSpan) -> Mapping[str, Any]:
    assert span.attributes is not None
    return span.attributes


def linked(span: ReadableSpan) -> set[int]:
    """Return the ids of the spans that *span* has links to."""
    return {link.context.span_id for link in span.links}


def ids(spans: Sequence[ReadableSpan]) -> set[int]:
    return {span.context.span_id for span in spans if span.context is not None}


@pytest.mark.every_loop
async def test_a_commit_is_a_span_in_the_trace_of_its_caller(
    server: ServerHandle, telemetry: Telemetry
) -> None:
    async with connected(server, observer=telemetry.observer) as session:
        user = await session.current_user()
        with telemetry.tracer.start_as_current_span("shot sh010") as shot:
            for _ in range(2):
                session.create(Job, {"user": user, "status": "queued"})
            await session.commit()

    commit = telemetry.span("ftrack commit")
    assert commit.parent is not None
    assert commit.parent.span_id == shot.get_span_context().span_id
    found = attributes(commit)
    assert found["db.system.name"] == "ftrack"
    assert found["db.operation.name"] == "BATCH"
    assert found["db.operation.batch.size"] == 2
    assert found["server.port"] == int(server.url.rpartition(":")[2])
    assert found["ftrack.outcome"] == "applied"
    requests = [each for each in telemetry.spans("ftrack request") if each.links]
    assert linked(requests[-1]) == ids([commit])


async def test_a_request_has_links_to_all_commits_that_share_it(
    server: ServerHandle, telemetry: Telemetry
) -> None:
    async with connected(server, observer=telemetry.observer) as session:
        user = await session.current_user()

        async def work() -> None:
            with telemetry.tracer.start_as_current_span("task"):
                async with session.unit_of_work() as unit:
                    session.create(Job, {"user": user, "status": "queued"})
                    await unit.commit()

        async with anyio.create_task_group() as group:
            for _ in range(6):
                group.start_soon(work)

    commits, requests = telemetry.spans("ftrack commit"), telemetry.spans("ftrack request")
    of_commits = [each for each in requests if attributes(each)["db.operation.name"] == "BATCH"]
    assert len(commits) == 6
    assert set[int]().union(*map(linked, of_commits)) == ids(commits)
    shared = max(of_commits, key=lambda each: len(each.links))
    assert len(shared.links) > 1
    assert shared.parent is None
    parents = {each.parent.span_id for each in commits if each.parent is not None}
    assert parents == ids(telemetry.spans("task"))


async def test_a_query_is_a_span_and_its_request_a_child_of_it(
    server: ServerHandle, telemetry: Telemetry
) -> None:
    async with connected(server, observer=telemetry.observer) as session:
        await session.query("select id from Job").all()

    query, request = telemetry.span("ftrack query"), telemetry.span("ftrack request")
    assert request.parent is not None
    assert {request.parent.span_id} == ids([query])


async def test_a_refused_commit_is_an_error_by_its_class_alone(
    server: ServerHandle, telemetry: Telemetry
) -> None:
    async with connected(server, observer=telemetry.observer) as session:
        user = await session.current_user()
        server.faults.inject(Refuse(), on="writes", times=None)
        session.create(Job, {"user": user, "status": "queued"})
        with pytest.raises(ServerError) as caught:
            await session.commit()
        session.rollback()

    commit = telemetry.span("ftrack commit")
    assert commit.status.status_code is StatusCode.ERROR
    assert attributes(commit)["error.type"] == type(caught.value).__name__
    assert str(caught.value) not in commit.to_json()
    assert telemetry.values("ftrack.client.commits", "outcome")["refused"] == 1
    durations = telemetry.values("db.client.operation.duration", "error.type")
    assert durations[type(caught.value).__name__] >= 1


async def test_the_block_of_a_job_is_a_span_around_all_that_is_in_it(
    server: ServerHandle, telemetry: Telemetry
) -> None:
    async with connected(server, observer=telemetry.observer) as session:
        with telemetry.tracer.start_as_current_span("request of the web"):
            async with job_context(session, description="secret name", interval=0) as job:
                with telemetry.tracer.start_as_current_span("render"):
                    pass
                job.progress(0.5)
                await until(lambda: len(telemetry.spans("ftrack commit")) > 1)
            with telemetry.tracer.start_as_current_span("afterwards"):
                pass
        found = await session.get(Job, job.id)

    span, outer = telemetry.span("ftrack job"), telemetry.span("request of the web")
    assert span.context is not None
    assert span.parent is not None
    assert {span.parent.span_id} == ids([outer])
    assert attributes(span)["ftrack.job.id"] == job.id
    assert attributes(span)["ftrack.job.outcome"] == "done"
    inner = [telemetry.span("render"), *telemetry.spans("ftrack commit")]
    assert len(inner) >= 4  # the beginning, the progress and the end of the Job
    assert {each.parent and each.parent.span_id for each in inner} == {span.context.span_id}
    later = telemetry.span("afterwards")
    assert later.parent is not None
    assert {later.parent.span_id} == ids([outer])
    assert found is not None
    trace_id = f"{span.context.trace_id:032x}"
    assert json.loads(found["data"])["traceparent"].split("-")[1] == trace_id
    assert "secret name" not in span.to_json()


async def test_a_job_that_is_run_again_has_a_link_to_the_block_before(
    server: ServerHandle, telemetry: Telemetry
) -> None:
    async with connected(server, observer=telemetry.observer) as session:
        with pytest.raises(ZeroDivisionError):
            async with job_context(session, description="work") as job:
                1 / 0  # noqa: B018
        async with job_context(session, job=job.id):
            pass

    first, second = telemetry.spans("ftrack job")
    assert linked(second) == ids([first])
    assert first.status.status_code is StatusCode.ERROR
    assert attributes(first)["error.type"] == "ZeroDivisionError"
    outcomes = telemetry.values("ftrack.job.duration", "outcome")
    assert outcomes == {"failed": 1, "done": 1}


async def test_a_command_gets_the_trace_in_its_environment(
    server: ServerHandle, telemetry: Telemetry, tmp_path: Path
) -> None:
    program = "import os, sys; open(sys.argv[1], 'w').write(os.environ['TRACEPARENT'])"
    target = tmp_path / "traceparent"
    async with connected(server, observer=telemetry.observer) as session:
        async with job_context(session, description="work") as job:
            await job.run([sys.executable, "-c", program, str(target)], quiet=True)

    span = telemetry.span("ftrack job")
    assert span.context is not None
    assert target.read_text().split("-")[1:3] == [
        f"{span.context.trace_id:032x}",
        f"{span.context.span_id:016x}",
    ]


async def test_a_job_in_a_command_goes_on_with_the_trace(
    server: ServerHandle, telemetry: Telemetry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRACEPARENT", f"00-{'a' * 32}-{'b' * 16}-01")
    async with connected(server, observer=telemetry.observer) as session:
        async with job_context(session, description="work"):
            pass

    span = telemetry.span("ftrack job")
    assert span.parent is not None
    assert (span.parent.trace_id, span.parent.span_id) == (int("a" * 32, 16), int("b" * 16, 16))


async def test_metrics_of_jobs_requests_and_files(
    server: ServerHandle, telemetry: Telemetry, tmp_path: Path
) -> None:
    async with connected(
        server, observer=telemetry.observer, journal=tmp_path / "journal"
    ) as session:
        async with job_context(session, description="work") as job:
            assert telemetry.values("ftrack.jobs.running", "none") == {None: 1}
            await job.attach(b"x" * 1000, name="a.txt")
        found = telemetry.points()

    assert telemetry.values("ftrack.jobs.running", "none") == {None: 0}
    assert telemetry.values("ftrack.transfer.bytes", "direction") == {"upload": 1000}
    assert telemetry.values("ftrack.client.commits", "outcome")["applied"] == 3
    assert found["ftrack.client.request.commits"][0].sum == 3
    assert found["ftrack.client.queue.wait"][0].count == 3
    for name in (
        "ftrack.client.queue.size",
        "ftrack.client.queue.oldest",
        "ftrack.final_reports.pending",
        "ftrack.final_reports.oldest",
        "ftrack.journal.failing",
        "ftrack.events.lag",
        "ftrack.events.disconnected",
        "ftrack.events.received",
        "ftrack.events.dropped",
        "ftrack.events.reconnects",
    ):
        assert [each.value for each in found[name]] == [0], name
    for points in found.values():
        for point in points:
            texts = [str(value) for value in (point.attributes or {}).values()]
            assert not any(job.id in text or "work" in text for text in texts)


async def test_neither_spans_nor_metrics_show_the_key_or_a_signed_address(
    server: ServerHandle, telemetry: Telemetry, tmp_path: Path
) -> None:
    async with connected(server, observer=telemetry.observer) as session:
        with pytest.raises(ValueError, match="key"):
            async with job_context(session, description=f"key {server.api_key}") as job:
                component = await job.attach(b"x", name="a.txt")
                await session.download(component, tmp_path / "a.txt")
                raise ValueError(f"key {server.api_key} is wrong")
        with pytest.raises(ServerError):
            await session.query("Job where nothing is {text}", text=server.api_key).all()

    spans = telemetry.all_spans()
    assert {"ftrack job", "ftrack commit", "ftrack request", "ftrack upload"} <= {
        each.name for each in spans
    }
    shown = [each.to_json() for each in spans] + [str(telemetry.points())]
    secrets = (server.api_key, "apiKey", "signature", "/component/get", "/upload")
    assert [text for text in shown for secret in secrets if secret in text] == []


async def test_a_transfer_is_a_span_in_the_trace_of_its_caller(
    server: ServerHandle, telemetry: Telemetry, tmp_path: Path
) -> None:
    async with connected(server, observer=telemetry.observer) as session:
        with telemetry.tracer.start_as_current_span("deliver") as deliver:
            component = await session.create_component(b"x" * 1000, {"name": "a"}, name="a.txt")
        with pytest.raises(TransferError):
            await session.download(component, tmp_path / "missing" / "a.txt")

    upload, download = telemetry.span("ftrack upload"), telemetry.span("ftrack download")
    assert upload.parent is not None
    assert upload.parent.span_id == deliver.get_span_context().span_id
    assert attributes(upload)["ftrack.transfer.size"] == 1000
    assert (upload.start_time or 0) < (upload.end_time or 0)
    assert download.status.status_code is StatusCode.ERROR
    assert attributes(download)["error.type"] == "FileNotFoundError"


async def test_no_span_is_made_where_the_trace_of_the_caller_is_not_sampled(
    server: ServerHandle, telemetry: Telemetry
) -> None:
    context = SpanContext(1, 2, is_remote=False)  # without the flag of a sampled trace
    async with connected(server, observer=telemetry.observer) as session:
        with use_span(NonRecordingSpan(context)):
            async with job_context(session, description="work"):
                pass

    assert telemetry.spans("ftrack commit") == []
    assert telemetry.values("ftrack.client.commits", "outcome")["applied"] == 2


async def test_a_retry_is_counted_by_its_reason(server: ServerHandle, telemetry: Telemetry) -> None:
    policy = RetryPolicy(first_delay=0.001)
    async with connected(server, observer=telemetry.observer, retry=policy) as session:
        user = await session.current_user()
        server.faults.inject(TooManyRequests(), on="writes", times=1)
        session.create(Job, {"user": user, "status": "queued"})
        await session.commit()

    assert sum(telemetry.values("ftrack.client.retries", "reason").values()) == 1
    assert attributes(telemetry.span("ftrack commit"))["ftrack.requests"] == 2


async def test_events_of_closed_sessions_stay_counted(
    server: ServerHandle, telemetry: Telemetry
) -> None:
    for number in (1, 2):
        async with connected(server, observer=telemetry.observer) as session:
            session.events.on("topic=render.done")(lambda _: None)
            await session.events.ready()
            await session.events.publish("render.done", {})
            await until(lambda: session.health.events.received)
        assert telemetry.values("ftrack.events.received", "none")[None] >= number


async def test_one_observer_may_serve_several_sessions_at_once(
    server: ServerHandle, telemetry: Telemetry
) -> None:
    observer = telemetry.observer
    async with (
        connected(server, observer=observer) as one,
        connected(server, observer=observer) as two,
    ):
        async with job_context(one, description="a"), job_context(two, description="b") as job:
            assert telemetry.values("ftrack.jobs.running", "none") == {None: 2}
        assert job.entity.status is JobStatus.DONE

    outer, inner = sorted(telemetry.spans("ftrack job"), key=lambda each: each.start_time or 0)
    assert inner.parent is not None
    assert {inner.parent.span_id} == ids([outer])


async def test_a_session_without_an_sdk_works(server: ServerHandle) -> None:
    async with AsyncSession(
        server.url, server.api_key, server.api_user, observer=OpenTelemetryObserver()
    ) as session:
        async with job_context(session, description="work") as job:
            pass
        found = await session.get(Job, job.id)

    assert found is not None
    assert found.status is JobStatus.DONE
    assert "traceparent" not in json.loads(found["data"])
