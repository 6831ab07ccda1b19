"""The dashboard and the alert rules, on a real Prometheus that reads a program with Jobs."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import urllib.parse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anyio
import pytest
from anyio.to_thread import run_sync

from aioftrackjobs import AsyncSession, job_context
from aioftrackjobs.devserver import running

httpx = pytest.importorskip("httpx")
exporter = pytest.importorskip("opentelemetry.exporter.prometheus", reason="it is not installed")
client = pytest.importorskip("prometheus_client", reason="it is not installed")
metrics = pytest.importorskip("opentelemetry.sdk.metrics", reason="it is not installed")

FOLDER = Path(__file__).parents[2] / "docs" / "telemetry"

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.skipif(shutil.which("prometheus") is None, reason="there is no Prometheus"),
]


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
        return port


@pytest.fixture
def prometheus(tmp_path: Path) -> Iterator[tuple[str, int]]:
    """The address of a Prometheus, and the port of the program that it reads each 0.2 s."""
    scraped, port = free_port(), free_port()
    settings: dict[str, Any] = {
        "global": {"scrape_interval": "200ms", "scrape_timeout": "200ms"},
        "rule_files": [str(FOLDER / "alerts.yml")],
        "scrape_configs": [
            {"job_name": "farm", "static_configs": [{"targets": [f"127.0.0.1:{scraped}"]}]}
        ],
    }
    path = tmp_path / "prometheus.yml"
    path.write_text(json.dumps(settings))  # JSON is YAML
    process = subprocess.Popen(
        [
            "prometheus",
            f"--config.file={path}",
            f"--storage.tsdb.path={tmp_path / 'data'}",
            f"--web.listen-address=127.0.0.1:{port}",
        ],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        yield f"http://127.0.0.1:{port}", scraped
    finally:
        process.kill()
        process.wait()


def queries() -> list[str]:
    """Return the queries of the dashboard, for all programs and a short time."""
    panels = json.loads((FOLDER / "dashboard.json").read_text())["panels"]
    texts = [target["expr"] for panel in panels for target in panel["targets"]]
    return [text.replace("$job", ".*").replace("$__rate_interval", "1m") for text in texts]


async def ask(http: Any, address: str, query: str) -> list[Any]:
    answer = await http.get(f"{address}/api/v1/query?query={urllib.parse.quote(query)}")
    answer.raise_for_status()
    found: list[Any] = answer.json()["data"]["result"]
    return found


@pytest.mark.timeout(120)
async def test_each_query_of_the_dashboard_finds_something(prometheus: tuple[str, int]) -> None:
    from aioftrackjobs.integrations.opentelemetry import OpenTelemetryObserver

    address, scraped = prometheus
    reader = exporter.PrometheusMetricReader()
    observer = OpenTelemetryObserver(meter_provider=metrics.MeterProvider([reader]))
    web, thread = client.start_http_server(scraped, "127.0.0.1")
    try:
        async with (
            running() as server,
            AsyncSession(server.url, server.api_key, server.api_user, observer=observer) as session,
            httpx.AsyncClient(timeout=30) as http,
        ):
            missing = queries()
            with anyio.fail_after(90):
                while missing:
                    async with job_context(session, description="Render") as job:
                        await job.attach(b"frames", name="frames.txt")
                    left = []
                    for query in missing:
                        try:
                            found = await ask(http, address, query)
                        except httpx.HTTPError:  # it has not started yet
                            found = []
                        # Nothing is sent again, and no event comes, unless something happens.
                        if not found and "retries" not in query:
                            left.append(query)
                    missing = left
            rules = (await http.get(f"{address}/api/v1/rules")).json()["data"]["groups"][0]["rules"]
            assert len(rules) == 6
            assert {rule["health"] for rule in rules} <= {"ok", "unknown"}
    finally:
        web.shutdown()
        web.server_close()
        await run_sync(thread.join)


def test_the_rules_are_valid() -> None:
    done = subprocess.run(
        ["promtool", "check", "rules", str(FOLDER / "alerts.yml")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
