"""The API key never appears in logs, reprs, texts, tracebacks or warnings."""

from __future__ import annotations

import logging
import traceback
import warnings
from collections.abc import Awaitable, Callable
from pathlib import Path

import httpx
import pytest

from aioftrackjobs import AsyncSession, FtrackJobsError, Location, job_context
from aioftrackjobs.config.retry import NO_RETRIES
from aioftrackjobs.devserver import ServerHandle, running

from .relay import cut_off
from .waiting import until

KEY = "VERY-SECRET-KEY-0123456789"


def shown(error: BaseException) -> str:
    """Return all text that could be printed of *error* and its causes."""
    texts = traceback.TracebackException.from_exception(error, capture_locals=False).format()
    seen: list[str] = ["".join(texts)]
    current: BaseException | None = error
    while current is not None:
        seen += [str(current), repr(current), repr(vars(current))]
        current = current.__cause__ or current.__context__
    return "\n".join(seen)


async def provoke(session: AsyncSession, tmp_path: Path) -> list[str]:
    """Use the whole session, provoke errors, and return all text that was shown."""
    texts = [repr(session), str(session), repr(session._connection), repr(vars(session))]
    attempts: list[Callable[[], Awaitable[object]]] = [
        session.query("Job where").all,
        session.query("Nonsense").all,
        lambda: session.download("missing", tmp_path / "x"),
        lambda: session.create_component(tmp_path / "missing"),
        lambda: session.create_component(b"x", {"version_id": "none"}, name="x"),
        lambda: session.get("Job", []),
    ]
    for attempt in attempts:
        try:
            await attempt()
        except FtrackJobsError as error:
            texts.append(shown(error))
        else:
            pytest.fail(f"{attempt} did not fail")
    return texts


async def test_the_key_appears_nowhere(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.DEBUG)
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        async with (
            running(api_key=KEY) as server,
            AsyncSession(server.url, KEY, server.api_user) as session,
        ):
            texts = [repr(server), str(server), *await provoke(session, tmp_path)]
            async with job_context(session, interval=0) as job:
                job.progress(0.5)
                component = await job.attach(b"1", name="1.txt")
                await job.attach(b"2", name="2.txt")
                texts.append(repr(job))
            await session.download(component, tmp_path / "1.txt")
            location = (
                await session.query('Location where name is "ftrack.server"').of(Location).one()
            )
            async with httpx.AsyncClient() as client:
                await client.get(location.get_url(component))
            texts += [repr(location), repr(component), repr(session.recorded_operations)]
            with pytest.raises(ValueError, match="key"):
                async with job_context(session) as failed:
                    raise ValueError(f"key {KEY} in {location.get_url(component)}")
            held = await session.get("Job", failed.id)
            assert held is not None
            texts.append(repr(dict(held)))
            await session.populate(held, "job_components.component")
            await session.download(held["job_components"][0]["component"], tmp_path / "tb")

    texts += [record.getMessage() for record in caplog.records]
    texts += [str(record.exc_text) for record in caplog.records]
    texts += [str(warning.message) for warning in warned]
    texts += list(capfd.readouterr())
    source = 'raise ValueError(f"key {KEY}'  # this line of the test contains no key
    texts.append((tmp_path / "tb").read_text().replace(source, ""))
    assert any("HTTP Request" in text for text in texts), "httpx has logged its requests"
    assert any("apiKey=***" in text for text in texts), "and the filter has seen its URLs"
    assert [text for text in texts if KEY in text] == []


async def test_a_key_that_the_server_echoes_is_not_passed_on(tmp_path: Path) -> None:
    def echo(request: httpx.Request) -> httpx.Response:
        text = f"bad key {KEY} at {request.url}?apiKey={KEY}"
        if b"html" in request.content:
            return httpx.Response(502, html=text)
        return httpx.Response(200, json={"exception": "InvalidCredentialsError", "content": text})

    async with (
        httpx.AsyncClient(transport=httpx.MockTransport(echo)) as client,
        AsyncSession("http://ftrack.test", KEY, "user", client=client) as session,
    ):
        for name in ("json", "html"):
            with pytest.raises(FtrackJobsError) as caught:
                await session.call([{"action": name}])
            assert KEY not in shown(caught.value)


@pytest.mark.parametrize(
    "error",
    [
        httpx.ConnectError(f"cannot connect with {KEY}"),
        httpx.ReadError(f"https://h/?apiKey={KEY}"),
        httpx.InvalidURL(f"https://h/?apiKey={KEY}"),
    ],
)
async def test_a_key_in_an_http_clients_error_is_not_passed_on(
    error: Exception, tmp_path: Path
) -> None:
    def fail(_: httpx.Request) -> httpx.Response:
        raise error

    async with (
        httpx.AsyncClient(transport=httpx.MockTransport(fail)) as client,
        AsyncSession("http://ftrack.test", KEY, "user", client=client, retry=NO_RETRIES) as session,
    ):
        with pytest.raises(FtrackJobsError) as caught:
            await session.server_information()
        with pytest.raises(FtrackJobsError) as second:
            await session.download("c", tmp_path / "x")

    for raised in (caught.value, second.value):
        printed = "".join(traceback.format_exception(raised)) + str(raised) + repr(raised)
        assert KEY not in printed


async def test_progress_that_fails_logs_no_key(
    server: ServerHandle, caplog: pytest.LogCaptureFixture
) -> None:
    async with AsyncSession(
        server.url, server.api_key, server.api_user, retry=NO_RETRIES
    ) as session:
        with pytest.raises(FtrackJobsError):
            async with job_context(session, interval=0, grace=0.1) as job:
                cut_off(session)
                job.progress(0.5)
                await until(lambda: "progress was not written" in caplog.text)

    assert server.api_key not in caplog.text
