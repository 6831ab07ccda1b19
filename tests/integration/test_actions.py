"""Actions: who gets which, forms, Jobs, messages, and what goes wrong; without an event hub."""

from __future__ import annotations

import asyncio
import json
import logging
import re
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Literal
from uuid import uuid4

import anyio
import pytest
from pydantic import BaseModel, Field

from aioftrackjobs import ArgumentError, AsyncSession, Job, RunningJob, User
from aioftrackjobs.actions import Actions, Launch, stop_my_jobs
from aioftrackjobs.actions import discovery as discovery_module
from aioftrackjobs.actions.service import ActionService
from aioftrackjobs.devserver import ServerHandle

from .settings import connected
from .waiting import until


class Delivery(BaseModel):
    codec: Literal["prores", "dnxhd"] = "prores"
    quality: int = Field(80, ge=1, le=100)


def event_of(
    session: AsyncSession, identifier: str | None = None, *selection: tuple[str, str], **data: Any
) -> dict[str, Any]:
    return {
        "topic": "ftrack.action.launch",
        "data": {
            "actionIdentifier": identifier,
            "selection": [{"entityType": kind, "entityId": each} for kind, each in selection],
            **data,
        },
        "source": {"user": {"username": session.api_user}},
    }


class Service(ActionService):
    """A service whose messages are kept."""

    messages: list[tuple[Any, ...]]


@asynccontextmanager
async def serving(
    session: AsyncSession, actions: Actions, concurrency: int = 8
) -> AsyncIterator[Service]:
    messages: list[tuple[Any, ...]] = []

    async def publish(*message: Any) -> None:
        messages.append(message)

    async with anyio.create_task_group() as group:
        service = Service(session, actions, group, publish, concurrency=concurrency)
        service.messages = messages
        yield service


@asynccontextmanager
async def counting(session: AsyncSession) -> AsyncIterator[list[Any]]:
    """Give a list of the calls that the session makes."""
    connection, calls = session._connection, list[Any]()
    call = connection.call

    async def count(operations: Any, **manner: Any) -> Any:
        calls.append(operations)
        return await call(operations, **manner)

    connection.call = count  # type: ignore[method-assign]
    yield calls
    connection.call = call  # type: ignore[method-assign]


async def jobs_of(session: AsyncSession) -> list[Job]:
    query = session.query("select status, data, user.username, job_components from Job")
    return await query.of(Job).all()


async def give_role(session: AsyncSession, name: str) -> None:
    role = session.create("SecurityRole", {"name": name})
    user = await session.current_user()
    session.create("UserSecurityRole", {"user_id": user.id, "security_role_id": role["id"]})
    await session.commit()


# Launching


@pytest.mark.every_loop
async def test_an_action_runs_as_a_job_of_who_has_clicked(session: AsyncSession) -> None:
    actions = Actions()

    @actions.action("Deliver", variant="client")
    async def deliver(launch: Launch, form: Delivery, job: RunningJob) -> str:
        assert launch.user is not None
        tasks = await launch.selection("Task", "name, parent.name")
        async for _ in job.track(tasks):
            pass
        await job.attach(form.codec.encode(), name="delivery.txt")
        return f"{len(tasks)} delivered for {launch.user.username}"

    task = await session.query("Task").first()
    assert task is not None
    user = session.create(User, {"username": "ada"})
    await session.commit()

    async with serving(session, actions) as service:
        first = await service.launch(event_of(session, "deliver", ("task", task["id"]), values={}))
    assert first is not None
    assert "items" in first
    form = await actions.launch_for_test(session, "deliver", selection=[task])
    assert [item["name"] for item in form.reply["items"]] == ["codec", "quality"]
    assert form.reply["title"] == "Deliver - client"
    assert (form.job, form.messages) == (None, [])

    done = await actions.launch_for_test(
        session, "deliver", selection=[task], values={"codec": "dnxhd"}, user="ada"
    )

    assert done.reply == {"success": True, "message": "Deliver - client has started."}
    assert done.messages == [{"type": "message", "success": True, "message": "1 delivered for ada"}]
    (job,) = await jobs_of(session)
    as_it_came = await actions.launch_for_test(session, "deliver", selection=[task], values={})
    assert as_it_came.job is not None
    assert done.job is not None
    assert done.job.is_done
    assert job.description == done.job.description == "Deliver - client - 1 delivered for ada"
    assert job["user"] is user


async def test_a_failure_is_a_failed_job_with_a_traceback_and_one_sentence(
    session: AsyncSession,
) -> None:
    actions = Actions()

    @actions.action("Deliver")
    async def deliver(job: RunningJob) -> None:
        raise OSError(f"disk\nfull {session._connection.credentials.api_key.reveal()}")

    @actions.action("Count")
    async def count(job: RunningJob) -> str:
        job.fail("2 of 3 are bad")
        return "counted"

    @actions.action("Leave")
    async def leave() -> None:
        raise SystemExit(3)

    @actions.action("Stop")
    async def stop(job: RunningJob) -> None:
        await session.stop_job(job.id, "lunch", by="maya")
        await anyio.sleep_forever()

    @actions.action("Render", timeout=0.01)
    async def render() -> None:
        await anyio.sleep_forever()

    said = {}
    for action in actions:
        outcome = await actions.launch_for_test(session, action.identifier)
        assert outcome.reply["success"] is True
        assert outcome.job is not None
        assert outcome.job.is_failed
        (message,) = outcome.messages
        said[action.identifier] = message["success"], message["message"]
        if action.identifier == "deliver":
            assert isinstance(outcome.error, OSError)
    assert said == {
        "deliver": (False, "Deliver - failed: OSError: disk full ***"),
        "count": (False, "Count - failed: 2 of 3 are bad"),
        "leave": (False, "Leave - failed: the process exits with 3"),
        "stop": (False, "Stop - failed: stopped by maya: lunch"),
        "render": (False, "Render - failed: timed out after 0.01 s"),
    }
    job = await session.query('Job where data like "%disk%"').of(Job).one()
    await session.populate(job, "job_components.component.name")
    assert "traceback" in job["job_components"][0]["component"]["name"].lower()


async def test_a_job_that_says_itself_what_was_done_is_reported_so(session: AsyncSession) -> None:
    actions = Actions()

    @actions.action("Deliver")
    async def deliver(job: RunningJob) -> None:
        job.finish("3 files")

    @actions.action("Count", job="Count files")
    async def count() -> None: ...

    outcomes = [await actions.launch_for_test(session, name) for name in ("deliver", "count")]
    assert [outcome.messages[0]["message"] for outcome in outcomes] == [
        "Deliver - 3 files",
        "Count is done.",
    ]


@pytest.mark.parametrize(
    ("result", "reply"),
    [
        (None, {"success": True, "message": "Quick is done."}),
        ("3 files", {"success": True, "message": "3 files"}),
        (False, {"success": False, "message": "Quick has failed."}),
        ({"message": "so"}, {"success": True, "message": "so"}),
        ({"success": False, "message": "so"}, {"success": False, "message": "so"}),
        ({"items": [{"type": "label"}]}, {"items": [{"type": "label"}]}),
    ],
)
async def test_what_a_quick_action_returns_is_the_reply(
    session: AsyncSession, result: object, reply: dict[str, Any]
) -> None:
    actions = Actions()

    @actions.action("Quick", job=None)
    async def quick() -> object:
        return result

    assert (await actions.launch_for_test(session, "quick")).reply == reply
    assert await jobs_of(session) == []


async def test_quick_actions_that_go_wrong_reply_with_one_sentence(
    session: AsyncSession, caplog: pytest.LogCaptureFixture
) -> None:
    actions = Actions()

    @actions.action("Raises", job=None)
    async def raises() -> None:
        raise ExceptionGroup("several", [ValueError("a"), OSError("b")])

    @actions.action("Hangs", job=None, timeout=0.01)
    async def hangs() -> None:
        await anyio.sleep_forever()

    @actions.action("No JSON", job=None)
    async def no_json() -> object:
        return {"message": object()}

    @actions.action("Not a number", job=None)
    async def nan() -> object:
        return {"message": float("nan")}

    @actions.action("Odd", job=None)
    async def odd() -> object:
        return object()

    for action in actions:
        outcome = await actions.launch_for_test(session, action.identifier)
        assert outcome.reply["success"] is False
        assert re.match(f"{action.title} (has failed: |took longer)", outcome.reply["message"])
        json.dumps(outcome.reply, allow_nan=False)
    assert len(caplog.records) == len(actions)


@pytest.mark.asyncio_only
async def test_no_error_of_a_function_ends_the_service(session: AsyncSession) -> None:
    actions = Actions()
    errors = {
        "cancelled": asyncio.CancelledError("not this task"),
        "exits": SystemExit(3),
        "generator": RuntimeError("generator raised StopIteration"),
        "group": BaseExceptionGroup("several", [SystemExit(1), ValueError("a")]),
        "base": type("Odd", (BaseException,), {})("odd"),
    }

    def offer(name: str, error: BaseException) -> None:
        async def fail() -> None:
            raise error

        async def refuse(_: Launch) -> bool:
            raise error

        actions.action(name, identifier=name)(fail)
        actions.action(name, identifier=f"quick {name}", job=None)(fail)
        actions.action(name, identifier=f"discover {name}", discover=refuse)(fail)

    for name, error in errors.items():
        offer(name, error)
    async with serving(session, actions) as service:
        for _ in range(2):
            found = await service.discover(event_of(session))
            assert found is not None
            assert len(found["items"]) == 2 * len(errors)
            for name in errors:
                reply = await service.launch(event_of(session, name))
                assert reply == {"success": True, "message": f"{name} has started."}
                for other in (f"quick {name}", f"discover {name}"):
                    reply = await service.launch(event_of(session, other))
                    assert reply is not None
                    assert reply["success"] is False
    jobs = await jobs_of(session)
    assert [job.status for job in jobs] == ["failed"] * 2 * len(errors)
    assert len(service.messages) == len(jobs)


@pytest.mark.every_loop
async def test_the_reply_leaves_when_the_job_exists_and_others_wait_for_their_turn(
    session: AsyncSession,
) -> None:
    actions, may_end, working = Actions(), anyio.Event(), list[str]()

    @actions.action("Work")
    async def work(job: RunningJob) -> None:
        working.append(job.id)
        await may_end.wait()

    async with serving(session, actions, concurrency=2) as service:
        for _ in range(5):
            reply = await service.launch(event_of(session, "work"))
            assert reply == {"success": True, "message": "Work has started."}
        await until(lambda: len(working) == 2)
        assert [job.status for job in await jobs_of(session)] == ["running"] * 5
        may_end.set()

    assert len(set(working)) == 5
    assert [(job.status, job.description) for job in await jobs_of(session)] == [
        ("done", "Work")
    ] * 5
    assert len(service.messages) == 5
    user = await session.current_user()
    assert {(topic, target) for topic, _, target in service.messages} == {
        (
            "ftrack.action.trigger-user-interface",
            f'applicationId=ftrack.client.web and user.id="{user.id}"',
        )
    }


async def test_a_double_click_launches_once(session: AsyncSession) -> None:
    actions, may_end = Actions(), anyio.Event()

    @actions.action("Once", unique="selection")
    async def once() -> None:
        await may_end.wait()

    a, b = ("task", "a"), ("task", "b")
    async with serving(session, actions) as service:
        replies: list[Any] = []

        async def click() -> None:
            replies.append(await service.launch(event_of(session, "once", a, b)))

        async with anyio.create_task_group() as group:
            for _ in range(3):
                group.start_soon(click)
        assert sorted(reply["message"] for reply in replies) == [
            "Once has started.",
            "Once is running already for this selection.",
            "Once is running already for this selection.",
        ]
        other = await service.launch(event_of(session, "once", a))
        assert other is not None
        assert other["success"] is True
        may_end.set()

        async def is_launched() -> bool:
            again = await service.launch(event_of(session, "once", b, a))
            return again is not None and bool(again["success"])

        await until(is_launched)
    assert len(await jobs_of(session)) == 3


async def test_the_end_of_the_service_fails_what_runs(session: AsyncSession) -> None:
    actions = Actions()

    @actions.action("Work")
    async def work() -> None:
        await anyio.sleep_forever()

    async with serving(session, actions) as service:
        await service.launch(event_of(session, "work"))
        service._group.cancel_scope.cancel()

    assert [job.status for job in await jobs_of(session)] == ["failed"]


async def test_jobs_of_who_has_clicked_are_stopped(session: AsyncSession) -> None:
    actions, mine = Actions(), await session.current_user()
    actions.include(stop_my_jobs)
    for status, user in (("queued", mine), ("done", mine), ("queued", None)):
        session.create(Job, {"status": status, "user": user, "data": {"description": status}})
    await session.commit()
    (name,) = (action.identifier for action in actions)

    form = (await actions.launch_for_test(session, name)).reply
    jobs, reason = form["items"][0], form["items"][1]
    assert [each["label"] for each in jobs["data"]] == ["queued (queued)"]
    assert (jobs["multi_select"], reason["name"]) == (True, "reason")
    wrong = await actions.launch_for_test(session, name, values={"jobs": [str(uuid4())]})
    assert "cannot be chosen" in str(wrong.reply["items"])
    values = {"jobs": [jobs["data"][0]["value"]], "reason": "lunch"}
    outcome = await actions.launch_for_test(session, name, values=values)

    assert outcome.reply == {"success": True, "message": "1 Job is stopped"}
    found = {job.description for job in await jobs_of(session) if job.status == "failed"}
    assert found == {f"queued - failed: stopped by {mine.username}: lunch"}
    with pytest.raises(ArgumentError):
        actions.include(stop_my_jobs)


async def test_an_action_can_act_as_who_has_clicked(server: ServerHandle) -> None:
    async with connected(server) as session:
        actions = Actions()

        @actions.action("Who", job=None)
        async def who(launch: Launch) -> str | None:
            async with launch.as_user() as own:
                assert own is not launch.session
                return (await own.current_user()).username

        assert (await actions.launch_for_test(session, "who")).reply["message"] == session.api_user
        nobody = await actions.launch_for_test(session, "who", user="nobody")
        assert "names no user" in nobody.reply["message"]


# Discovery


async def labels(actions: Actions, session: AsyncSession, *selection: Any) -> list[str]:
    items = await actions.discover_for_test(session, selection=selection)
    return [item["label"] for item in items]


async def test_actions_are_offered_by_type_number_role_project_and_function(
    session: AsyncSession,
) -> None:
    actions = Actions()
    declared: dict[str, dict[str, Any]] = {
        "any": {},
        "versions": {"on": "AssetVersion"},
        "one": {"on": ["Task", "AssetVersion"], "many": False},
        "jobs": {"on": Job},
        "managers": {"roles": {"Project manager"}},
        "supervisors": {"roles": ["Supervisor"]},
        "here": {"projects": "demo"},
        "elsewhere": {"projects": ["other"]},
        "chosen": {"discover": lambda launch: launch.user.username == session.api_user},
        "not chosen": {"discover": lambda _: False},
    }
    for label, options in declared.items():

        @actions.action(label, identifier=label, **options)
        async def act() -> None: ...

    await give_role(session, "Project manager")
    task = await session.query("select id, parent_id, project.name from Task").first()
    assert task is not None
    project = task["project"]
    actions_here = Actions()

    @actions_here.action("here", projects=[project["name"], "other"])
    async def here() -> None: ...

    asset = session.create("Asset", {"name": "plate", "context_id": task["parent_id"]})
    published = session.create("AssetVersion", {"asset_id": asset["id"]})
    await session.commit()
    version = ("AssetVersion", str(uuid4()))
    everywhere = ["any", "managers", "chosen"]
    assert await labels(actions, session) == everywhere
    assert await labels(actions, session, version) == ["any", "versions", "one", *everywhere[1:]]
    assert await labels(actions, session, version, task) == everywhere
    assert await labels(actions, session, task) == ["any", "one", "managers", "here", "chosen"]
    assert await labels(actions, session, ("Job", "1")) == ["any", "jobs", *everywhere[1:]]
    assert await labels(actions_here, session, task, project, asset, published) == ["here"]
    assert await labels(actions_here, session, task, version) == []
    refused = await actions.launch_for_test(session, "supervisors")
    assert refused.reply == {
        "success": False,
        "message": "supervisors is not available here, or not for you.",
    }


async def test_a_hundred_actions_and_a_thousand_discoveries_take_one_query(
    session: AsyncSession,
) -> None:
    actions = Actions()
    for number in range(100):

        @actions.action(f"a{number}", identifier=f"a{number}", roles="Artist", icon="x")
        async def act() -> None: ...

    await give_role(session, "Artist")
    replies: list[Any] = []

    async with serving(session, actions) as service, counting(session) as calls:

        async def discover() -> None:
            replies.append(await service.discover(event_of(session, None, ("task", "a"))))

        async with anyio.create_task_group() as group:
            for _ in range(1000):
                group.start_soon(discover)

        assert {len(reply["items"]) for reply in replies} == {100}
        assert len(replies) == 1000
        assert len(calls) == 1

        async def look(number: int) -> None:
            source = {"user": {"id": f"user {number}"}}
            assert await service.discover({"data": {}, "source": source}) is None

        async with anyio.create_task_group() as group:
            for number in range(300):
                group.start_soon(look, number % 100)
        assert len(calls) <= 3


async def test_a_function_that_hangs_or_raises_leaves_its_action_out(
    session: AsyncSession, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(discovery_module, "DISCOVER_LIMIT", 0.3)
    actions = Actions()

    async def hang(_: Launch) -> bool:
        await anyio.sleep_forever()
        return True

    def fail(_: Launch) -> bool:
        raise OSError("disk full")

    def block(_: Launch) -> bool:
        time.sleep(0.31)
        return True

    async def yes(_: Launch) -> bool:
        return True

    functions: dict[str, Any] = {"hangs": hang, "fails": fail, "blocks": block, "good": yes}
    for label, discover in functions.items():

        @actions.action(label, identifier=label, discover=discover)
        async def act() -> None: ...

    assert await labels(actions, session) == ["good"]
    assert sorted(record.getMessage() for record in caplog.records) == [
        "the action 'blocks' is not offered: discover took longer than 0.3 s",
        "the action 'fails' is not offered: discover has failed",
        "the action 'hangs' is not offered: discover took longer than 0.3 s",
    ]


async def test_while_the_server_is_away_what_needs_it_is_not_offered(
    server: ServerHandle, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(discovery_module, "READ_LIMIT", 0.05)
    actions = Actions()

    @actions.action("Anybody")
    async def anybody() -> None: ...

    @actions.action("Managers", roles="Project manager")
    async def managers() -> None: ...

    async with connected(server, "http://127.0.0.1:9") as session, serving(session, actions) as it:
        reply = await it.discover(event_of(session))
    assert reply is not None
    assert [item["label"] for item in reply["items"]] == ["Anybody"]
    assert "not offered" in caplog.text


# Odd events

ODD: list[Any] = [
    None,
    3,
    "event",
    [],
    {},
    {"data": None, "source": None},
    {"data": [], "source": "me"},
    {"data": {"selection": 3}, "source": {"user": 3}},
    {"data": {"selection": [None, 3, {}, {"entityId": 3, "entityType": []}]}},
    {"data": {"context": {"selection": {"a": 1}}}, "source": {"user": {"id": [], "username": 3}}},
    {"data": {"selection": [], "values": "x"}, "source": {"user": {"id": "x" * 1_000_000}}},
    {"data": {"selection": [{"entityType": "task", "entityId": "y" * 1_000_000}]}},
    {"data": {"selection": [], "values": {"quality": "z" * 1_000_000, "codec": {"a": [1]}}}},
    {"data": {"selection": [], "values": {3: None, "quality": [[]]}}},
]


async def test_odd_events_get_a_true_reply_or_none(
    session: AsyncSession, caplog: pytest.LogCaptureFixture
) -> None:
    actions = Actions()

    @actions.action("Deliver", roles="Artist")
    async def deliver(form: Delivery) -> None: ...

    @actions.action("Open", job=None)
    async def open_(form: Delivery, launch: Launch) -> str:
        return "opened"

    caplog.set_level(logging.WARNING)
    async with serving(session, actions) as service:
        for event in ODD:
            found = await service.discover(event)
            assert found is None or [item["label"] for item in found["items"]] == ["Open"], event
            assert await service.launch(event) is None
            for name in ("deliver", "open_", "unknown", 3):
                data = event.get("data") if isinstance(event, dict) else None
                named = {**(data if isinstance(data, dict) else {}), "actionIdentifier": name}
                source = event.get("source") if isinstance(event, dict) else None
                reply = await service.launch({"data": named, "source": source})
                if name in ("unknown", 3):
                    assert reply is None
                else:
                    assert reply is not None
                    is_form = "items" in reply
                    assert is_form == (name == "open_"), (event, reply)
                    assert len(json.dumps(reply)) < 30_000
    assert await jobs_of(session) == []
