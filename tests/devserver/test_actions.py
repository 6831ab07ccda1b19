"""Actions of connected clients, discovered and launched without a browser."""

from __future__ import annotations

import json
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from anyio.to_thread import run_sync

from aioftrackjobs.cli import main
from aioftrackjobs.cli.actions import ask
from aioftrackjobs.devserver import ServerHandle
from aioftrackjobs.testing import ServerProcess, ServerProcessError
from aioftrackjobs.testing._server import FtrackServer

from .test_event_clients import session_of, until

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)
    import ftrack_api
    from ftrack_api.event.base import Event

ITEM = {"label": "Render", "variant": "4K", "actionIdentifier": "render"}
FORM = {"type": "form", "items": [{"name": "frames", "type": "text", "value": ""}], "title": "R"}


class Render:
    """An action as hooks write it: offered for one task, with a form, and a Job."""

    def __init__(self, session: ftrack_api.Session) -> None:
        self.session = session
        self.events: list[Any] = []

    def register(self, user: str) -> None:
        hub, confirmed = self.session.event_hub, threading.Semaphore(0)
        hub._on_subscribed = lambda *_: confirmed.release()
        of_user = f"source.user.username={user}"
        hub.subscribe(f"topic=ftrack.action.discover and {of_user}", self.discover)
        hub.subscribe(
            f"topic=ftrack.action.launch and {of_user} and data.actionIdentifier=render",
            self.launch,
        )
        assert confirmed.acquire(timeout=20)
        assert confirmed.acquire(timeout=20)

    def discover(self, event: Any) -> Any:
        selection = event["data"]["selection"]
        if [each["entityType"] for each in selection] != ["task"]:
            return None
        return {"items": [ITEM]}

    def launch(self, event: Any) -> Any:
        self.events.append(event)
        if "values" not in event["data"]:
            return FORM
        user = self.session.get("User", event["source"]["user"]["id"])
        self.session.create("Job", {"user": user, "status": "done"})
        self.session.commit()
        message = {"type": "message", "success": True, "message": "Submitted"}
        target = f'applicationId=ftrack.client.web and user.id="{user["id"]}"'
        self.session.event_hub.publish(
            Event("ftrack.action.trigger-user-interface", data=message, target=target)
        )
        return {"success": True, "message": event["data"]["values"]["frames"]}


@contextmanager
def serving_action(server: ServerHandle | ServerProcess, user: str) -> Iterator[Render]:
    """A process of hooks, as far as the server sees: a client that handles events."""
    with session_of(server) as session:
        action, is_over = Render(session), threading.Event()
        action.register(user)

        def handle() -> None:
            while not is_over.is_set():
                session.event_hub.wait(0)

        thread = threading.Thread(target=handle)
        thread.start()
        try:
            yield action
        finally:
            is_over.set()
            thread.join()


async def test_an_action_is_discovered_and_launched_with_its_form(server: ServerHandle) -> None:
    def work() -> None:
        task = server.inspector.find("select id from Task limit 1")[0]
        (maya,) = server.inspector.find('select id from User where username is "maya"')
        with serving_action(server, "maya") as action:
            (item,) = server.actions.discover([task], user="maya", timeout=20)
            assert item == ITEM
            assert server.actions.launch(item, [task], user="maya", timeout=20) == FORM
            values = {"frames": "1001-1010"}
            reply = server.actions.launch(item, [task], user="maya", values=values)
            assert reply == {"success": True, "message": "1001-1010"}
            until(lambda: server.actions.messages)
            assert [each["message"] for each in server.actions.messages] == ["Submitted"]
            launched = action.events[-1]
            assert launched["source"]["user"] == {"username": "maya", "id": maya["id"]}
            assert launched["data"] == {
                **ITEM,
                "selection": [{"entityId": task["id"], "entityType": "task"}],
                "values": values,
            }
            assert [job["user"] for job in server.inspector.jobs()] == ["maya"]

    await run_sync(work)


async def test_an_action_is_for_its_user_and_its_selection(server: ServerHandle) -> None:
    def work() -> None:
        project = server.inspector.find("select id from Project limit 1")[0]
        with serving_action(server, "maya"):
            assert server.actions.discover([("Task", "t1")], user="tom") == []
            assert server.actions.discover([project], user="maya", timeout=0.5) == []
            with pytest.raises(LookupError, match="no connected client has the action 'render'"):
                server.actions.launch("render", [project], user="tom")
            selection = [{"entityId": "x", "entityType": "task"}]
            assert server.actions.discover(selection, user="maya", timeout=20) == [ITEM]

    await run_sync(work)


def test_a_server_in_a_process_of_its_own_has_the_same_actions(tmp_path: Path) -> None:
    with ServerProcess(tmp_path) as server:
        task = server.find("select id from Task limit 1")[0]
        with serving_action(server, "developer"):
            assert server.actions.discover([task], timeout=20) == [ITEM]
            assert server.actions.launch(ITEM, [("Task", task["id"])], timeout=20) == FORM
            values = {"frames": "1"}
            assert server.actions.launch("render", [task], values=values, timeout=20)["success"]
            until(lambda: server.actions.messages)
            assert server.actions.messages[0]["message"] == "Submitted"
        with pytest.raises(LookupError, match="no connected client has the action 'other'"):
            server.actions.launch("other", [task])
        with pytest.raises(ValueError, match="Tusk"):
            server.actions.discover([("Tusk", "x")])
        with pytest.raises(ValueError, match="pairs of entity type and id"):
            server.actions.discover([5])
        assert [job["user"] for job in server.jobs()] == ["developer"]
        server.kill()
        with pytest.raises(ServerProcessError, match="does not run"):
            server.actions.discover()


async def test_actions_through_http_and_commands(
    server: ServerHandle, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FTRACK_SERVER", server.url)
    monkeypatch.setenv("FTRACK_API_USER", "maya")
    monkeypatch.setenv("FTRACK_API_KEY", server.api_keys["maya"])

    def command(*arguments: str) -> Any:
        monkeypatch.setattr("sys.argv", ["aioftrackjobs", *arguments])
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main()
        out, err = capsys.readouterr()
        return ended.value.code, json.loads(out) if out else err

    def work() -> None:
        task = server.inspector.find("select id from Task limit 1")[0]
        selected = f"Task:{task['id']}"
        with serving_action(server, "maya"):
            assert command("discover", selected) == (0, [ITEM])
            assert command("launch", "render", selected) == (0, FORM)
            filled = ("--value", "frames=1-2")
            done = {"success": True, "message": "1-2"}
            assert command("launch", "render", selected, *filled) == (0, done)
            messages = ask("messages")["messages"]
            assert [each["message"] for each in messages] == ["Submitted"]
            code, error = command("launch", "other", selected)
            reason = "No connected client has the action 'other' for maya."
            assert (code, error) == (1, f"aioftrackjobs: {reason}\n")
            assert command("launch", "render", "nothing")[0] == 2

    await run_sync(work)


async def test_actions_need_credentials_and_a_body(server: ServerHandle) -> None:
    credentials = {"ftrack-user": server.api_user, "ftrack-api-key": server.api_key}
    async with httpx.AsyncClient(base_url=server.url) as http:
        for path in ("discover", "launch", "messages"):
            assert (await http.post(f"/actions/{path}", json={})).status_code == 401
        http.headers.update(credentials)
        for path, body in (
            ("discover", b"{"),
            ("discover", b"[]"),
            ("discover", b'{"selection": [5]}'),
            ("discover", b'{"selection": 5}'),
            ("launch", b"{}"),
            ("launch", b'{"item": {}}'),
            ("launch", b'{"item": "a", "values": 5}'),
        ):
            response = await http.post(f"/actions/{path}", content=body)
            assert (response.status_code, response.json()["exception"]) == (400, "RequestError")


async def test_without_clients_there_are_no_actions(server: ServerHandle) -> None:
    assert await run_sync(server.actions.discover) == []
    with pytest.raises(LookupError):
        await run_sync(server.actions.launch, "render")


@pytest.mark.parametrize("entity", ["Task", 5, ("Nothing", "id"), {"id": "x"}])
async def test_a_selection_of_something_else_is_refused(server: ServerHandle, entity: Any) -> None:
    with pytest.raises(ValueError, match="a selection has entities"):
        await run_sync(server.actions.discover, [entity])


def test_the_fixture_s_server_has_actions(server: ServerHandle) -> None:
    tested = FtrackServer(server)
    tested.actions.messages.append({"message": "of an earlier test"})
    tested.reset()
    assert tested.actions.messages == []
