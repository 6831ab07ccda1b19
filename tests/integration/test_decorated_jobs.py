"""``job_context`` as a decorator: a Job for each call of a coroutine function."""

from __future__ import annotations

import asyncio
import functools
import inspect
import pickle
import uuid
from collections.abc import AsyncIterator, Iterator
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from aioftrackjobs import (
    ArgumentError,
    AsyncSession,
    Job,
    JobStatus,
    current_job,
    job_context,
)
from aioftrackjobs.devserver import ServerHandle


async def status_of(session: AsyncSession, job_id: str) -> object:
    job = await session.get(Job, job_id)
    assert job is not None
    return job.status


@pytest.mark.every_loop
async def test_each_call_is_a_job_of_its_own(session: AsyncSession, other: AsyncSession) -> None:
    @job_context(session, description="Publish")
    async def publish(shot: str, *, version: int = 1) -> tuple[str, str]:
        """Publish a shot."""
        return current_job().id, f"{shot} v{version}"

    calls = [await publish("sh010", version=2), await publish("sh020")]

    assert [text for _, text in calls] == ["sh010 v2", "sh020 v1"]
    assert len({job_id for job_id, _ in calls}) == 2
    for job_id, _ in calls:
        assert await status_of(other, job_id) is JobStatus.DONE


async def test_the_function_keeps_what_others_read_of_it(session: AsyncSession) -> None:
    async def publish(shot: str, *, version: int = 1) -> str:
        """Publish a shot."""
        return shot

    decorated = job_context(session)(publish)

    assert decorated.__wrapped__ is publish  # type: ignore[attr-defined]
    assert (decorated.__name__, decorated.__doc__) == ("publish", "Publish a shot.")
    assert inspect.signature(decorated) == inspect.signature(publish)
    assert inspect.iscoroutinefunction(decorated)
    assert asyncio.iscoroutinefunction(decorated)


class Publisher:
    """What a studio decorates: methods of all kinds, and objects that are called."""

    session: AsyncSession

    @job_context(lambda: Publisher.session, description="method")
    async def method(self, shot: str) -> str:
        return f"{type(self).__name__} {shot} {current_job().id}"

    @staticmethod
    @job_context(lambda: Publisher.session, description="static")
    async def static(shot: str) -> str:
        return f"static {shot} {current_job().id}"

    @classmethod
    @job_context(lambda: Publisher.session, description="class")
    async def of_class(cls, shot: str) -> str:
        return f"{cls.__name__} {shot} {current_job().id}"

    async def __call__(self, shot: str) -> str:
        return f"object {shot} {current_job().id}"


async def test_methods_partials_and_callable_objects_work(session: AsyncSession) -> None:
    Publisher.session = session
    publisher = Publisher()
    around = job_context(session, description="around")

    texts = [
        await publisher.method("sh010"),
        await Publisher.static("sh010"),
        await Publisher.of_class("sh010"),
        await around(publisher)("sh010"),
        await around(publisher.static)("sh010"),
        await around(functools.partial(Publisher.static, "sh010"))(),
    ]

    assert [text.rpartition(" ")[0] for text in texts] == [
        "Publisher sh010",
        "static sh010",
        "Publisher sh010",
        "object sh010",
        "static sh010",
        "static sh010",
    ]
    assert len({text.rpartition(" ")[2] for text in texts}) == 6


async def test_calls_at_the_same_time_have_their_own_jobs(session: AsyncSession) -> None:
    found: list[str] = []

    @job_context(session)
    async def work() -> None:
        await anyio.lowlevel.checkpoint()
        found.append(current_job().id)

    async with anyio.create_task_group() as group:
        for _ in range(5):
            group.start_soon(work)

    assert len(set(found)) == 5


async def test_an_error_of_a_call_fails_its_job_only(
    session: AsyncSession, other: AsyncSession
) -> None:
    ids: list[str] = []

    @job_context(session, attach_traceback=False)
    async def work(number: int) -> None:
        ids.append(current_job().id)
        assert number != 1

    await work(0)
    with pytest.raises(AssertionError):
        await work(1)
    await work(2)

    assert [await status_of(other, each) for each in ids] == ["done", "failed", "done"]


def plain(shot: str) -> None: ...


def generator() -> Iterator[int]:
    yield 1


async def async_generator() -> AsyncIterator[int]:
    yield 1


class PlainCallable:
    def __call__(self) -> None: ...


async def work(kind: object) -> None: ...


@pytest.mark.parametrize(
    ("function", "hint"),
    [
        (plain, "async def"),
        (lambda: None, "async def"),
        (generator, "in its body"),
        (async_generator, "in its body"),
        (functools.partial(plain, "sh010"), "async def"),
        (PlainCallable(), "async def"),
        (len, "async def"),
        (Publisher, "decorate its coroutine functions"),
        (staticmethod(work), "put @staticmethod above it"),
        (classmethod(work), "put @classmethod above it"),
        (property(plain), "no function"),
        ("work", "no function"),
        (None, "no function"),
    ],
    ids=lambda value: "",
)
def test_what_cannot_be_awaited_is_refused_when_it_is_decorated(function: Any, hint: str) -> None:
    session = AsyncSession("http://ftrack.test", "key", "maya")

    with pytest.raises(TypeError, match=hint) as caught:
        job_context(session)(function)

    assert "job_context cannot decorate" in str(caught.value)


def test_the_result_of_a_call_is_refused_too() -> None:
    async def call() -> None: ...

    called = call()
    with pytest.raises(TypeError, match="call was called; decorate the function"):
        job_context(AsyncSession("http://ftrack.test", "key", "maya"))(called)  # type: ignore[type-var, unused-coroutine]
    called.close()


def test_forgotten_parentheses_are_refused_when_it_decorates() -> None:
    with pytest.raises(ArgumentError, match=r"write @job_context\(session\)"):

        @job_context  # type: ignore[arg-type]
        async def work() -> None: ...


def test_wrong_arguments_are_refused_when_it_decorates() -> None:
    session = AsyncSession("http://ftrack.test", "key", "maya")

    with pytest.raises(ArgumentError, match="grace") as caught:

        @job_context(session, grace=-1)
        async def work() -> None: ...

    with pytest.raises(ArgumentError, match="session must be a session"):
        job_context(None)  # type: ignore[arg-type]  # a module has it as None at first

    with pytest.raises(ArgumentError, match="user must be a User"):
        job_context(session, user=Job(status="queued"))

    with pytest.raises(TypeError, match="descripton"):
        job_context(session, descripton="x")  # type: ignore[call-arg]
    again = pickle.loads(pickle.dumps(caught.value))
    assert (str(again), again.argument) == (str(caught.value), "grace")


async def test_a_module_can_decorate_before_there_is_a_session(server: ServerHandle) -> None:
    current: list[AsyncSession] = []

    @job_context(lambda: current[-1], description="nightly")
    async def nightly() -> str:
        return current_job().id

    for _ in range(2):
        async with AsyncSession(server.url, server.api_key, server.api_user) as opened:
            current.append(opened)
            job_id = await nightly()
            assert await status_of(opened, job_id) is JobStatus.DONE


async def test_a_function_that_returns_no_session_is_an_error() -> None:
    with pytest.raises(ArgumentError, match=r"session\(\) returns must be a session, not None"):
        async with job_context(lambda: None):  # type: ignore[arg-type, return-value]
            pass
    with pytest.raises(ArgumentError, match="session"):
        async with job_context(AsyncSession):
            pass

    async def find() -> AsyncSession:
        raise AssertionError("it is not awaited")

    with pytest.raises(ArgumentError, match=r"session\(\) returns must be a session"):
        async with job_context(lambda: find()):  # type: ignore[arg-type, return-value]
            pass
    with pytest.raises(ZeroDivisionError):
        async with job_context(lambda: 1 // 0):  # type: ignore[arg-type, return-value]
            pass


async def test_a_block_is_entered_once(session: AsyncSession, other: AsyncSession) -> None:
    block = job_context(session)
    async with block as job:
        with pytest.raises(RuntimeError, match=r"call job_context\(\.\.\.\) again"):
            async with block:
                pass
    with pytest.raises(RuntimeError, match=r"call job_context\(\.\.\.\) again"):
        async with block:
            pass

    assert await status_of(other, job.id) is JobStatus.DONE


async def test_the_id_of_a_job_may_be_a_uuid_object(session: AsyncSession) -> None:
    created = session.create(Job, {"user": await session.current_user()})
    await session.commit()

    async with job_context(session, job=uuid.UUID(created.id)) as job:
        assert job.id == created.id

    assert await status_of(session, created.id) is JobStatus.DONE
