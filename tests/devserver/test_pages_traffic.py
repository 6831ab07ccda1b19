"""The pages about requests and events, and about actions."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from html import unescape
from typing import Any

import anyio
import httpx
import pytest

from aioftrackjobs.devserver import ServerHandle, create_app, running
from aioftrackjobs.devserver.faults.kinds import Delay, Drop, Refuse

from .acting import MESSAGE, offering
from .browsing import Visitor, add_job, visiting
from .caller import Caller, create, query
from .hub_client import connected

REQUESTS, ACTIONS = "/pages/requests", "/pages/actions"


@pytest.fixture
async def visitor(server: ServerHandle) -> AsyncIterator[Visitor]:
    async with visiting(server) as visitor:
        yield visitor


def text_of(html: str) -> str:
    """Return the text of a page, with single blanks."""
    return " ".join(unescape(re.sub(r"<[^>]*>", " ", html)).split())


async def test_requests_are_shown_with_their_operations_errors_and_faults(
    server: ServerHandle, remote: Caller, visitor: Visitor
) -> None:
    await remote.post(query("select nothing from Job"))
    await remote.call(create("Job", status="done", data="<script>x</script>"), *3 * [query("User")])
    server.faults.inject(Refuse("ValidationError", "on purpose"))
    await remote.post(query("Job"))
    server.faults.inject(Drop())
    with pytest.raises(httpx.TransportError):
        await remote.post(query("Job"))
    await remote.http.put("/upload/secret-token", content=b"x")
    await remote.http.get("/component/get?id=a&apiKey=secret-key&username=maya")
    page = (await visitor.get(REQUESTS)).text

    text = text_of(page)
    assert "400 POST /api" not in text
    assert "200 POST /api ValidationError: " in text
    assert "query select nothing from Job" in text
    assert "create Job (status, data), query User, query User and 1 more developer" in text
    assert "Refuse(kind='ValidationError', text='on purpose')" in text
    assert "none POST /api query Job Drop(applied=False)" in text
    assert "403 PUT /upload" in text
    assert "401 GET /component/get" in text
    assert "secret" not in page
    assert "<script>x" not in page
    only_faults = text_of((await visitor.get(f"{REQUESTS}?show=faults")).text)
    assert "Drop(applied=False)" in only_faults
    assert "PUT /upload" not in only_faults


async def test_a_request_is_shown_while_it_runs_and_events_as_they_come(
    server: ServerHandle, remote: Caller, visitor: Visitor
) -> None:
    server.faults.inject(Delay(30), on="reads")
    page = (await visitor.get(REQUESTS)).text
    stream = unescape(page.split('data-stream="')[1].split('"')[0])
    async with visitor.stream(stream) as updates, anyio.create_task_group() as tasks:
        tasks.start_soon(remote.query, "User")
        (row,) = (await anext(updates))["rows"]
        assert "… POST /api" in text_of(row)
        async with connected(server) as hub:
            await hub.subscribe("topic=something")
            await hub.publish("something", data={"a": "<i>"}, source={"user": {"username": "noor"}})
        shown = ""
        while "event something" not in shown:
            shown += "".join(map(text_of, (await anext(updates))["rows"]))
        assert '"a": "<i>"' in shown
        assert "noor to 1" in shown
        await add_job(remote, "queued")
        while "event ftrack.update add Job" not in shown:
            shown += "".join(map(text_of, (await anext(updates))["rows"]))
        tasks.cancel_scope.cancel()


async def test_only_the_latest_entries_are_kept(remote: Caller, visitor: Visitor) -> None:
    for number in range(310):
        await remote.http.get(f"/component/get?id={number}")
    page = (await visitor.get(REQUESTS)).text
    async with visitor.stream(f"{REQUESTS}/stream") as updates:
        update = await anext(updates)

    assert page.count('class="entry') == 300
    assert (len(update["rows"]), update["is_all"]) == (300, True)


async def test_faults_are_injected_by_hand(
    server: ServerHandle, remote: Caller, visitor: Visitor
) -> None:
    fields = {"fault": "refuse", "amount": "2x", "on": "reads"}
    done = await visitor.submit(f"{REQUESTS}/faults", settings="kind=X 'text=a b'", **fields)
    assert (done.status_code, done.headers["location"]) == (303, REQUESTS)
    refused = await remote.refused(query("Job"))
    assert (refused["exception"], refused["content"]) == ("X", "a b")
    page = text_of((await visitor.get(REQUESTS)).text)
    assert "Planned Refuse(kind='X', text='a b') Remove all" in page
    assert f"Injected (1) {server.faults.injected[0]}" in page
    assert f'name="seed" value="{server.faults.seed}"' in (await visitor.get(REQUESTS)).text
    assert (await visitor.submit(f"{REQUESTS}/reset")).status_code == 303
    assert server.faults.planned == ()
    assert (await visitor.submit(f"{REQUESTS}/reset", seed="42")).status_code == 303
    assert (server.faults.seed, server.faults.injected) == (42, ())


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"fault": "dorp"}, "did you mean drop"),
        ({"fault": "drop", "amount": "often"}, "'often' is neither a probability"),
        ({"fault": "drop", "amount": "0x"}, "times must be 1 or more"),
        ({"fault": "delay", "settings": "seconds=long"}, "seconds cannot be 'long'"),
        ({"fault": "delay", "settings": "'seconds=1"}, "No closing quotation"),
        ({"fault": "drop", "on": "<b>"}, "no requests are called '<b>'"),
        ({"fault": "lose-power"}, "shares its process with other code"),
        ({}, "there is no fault ''"),
    ],
    ids=lambda value: value.get("fault", "none") if isinstance(value, dict) else "",
)
async def test_a_fault_that_is_none_comes_back(
    server: ServerHandle, visitor: Visitor, fields: dict[str, str], reason: str
) -> None:
    response = await visitor.submit(f"{REQUESTS}/faults", **fields)

    assert response.status_code == 422
    assert reason in text_of(response.text)
    for name in ("amount", "settings"):
        assert f'value="{fields.get(name, "")}"' in unescape(response.text)
    assert server.faults.planned == ()
    assert (await visitor.submit(f"{REQUESTS}/reset", seed="many")).status_code == 422


async def test_an_application_without_faults_says_so() -> None:
    app = create_app(api_key="key")
    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(app), base_url="http://ftrack.test"
    ) as http:
        visitor = Visitor(http)
        await visitor.log_in("developer", "key")
        page = await visitor.get(REQUESTS)
        assert "This server was started without faults." in page.text
        assert (await visitor.submit(f"{REQUESTS}/faults", fault="drop")).status_code == 409
    app.state.engine.close()


FORM = {
    "title": "Render <b>",
    "items": [
        {"type": "label", "value": "Read <this>"},
        {"type": "text", "name": "frames", "label": "Frames", "value": "1-10"},
        {"type": "number", "name": "chunk", "label": "Chunk", "value": 5},
        {"type": "date", "name": "due", "label": "Due", "value": "2026-12-01"},
        {"type": "boolean", "name": "notify", "value": True},
        {"type": "enumerator", "name": "layer", "data": [{"label": "B", "value": 2}, "x"]},
        {"type": "enumerator", "name": "all", "multi_select": True, "data": [1, 2, 3]},
        {"type": "textarea", "name": "note", "value": "<script>"},
        {"type": "hidden", "name": "secret", "value": "h"},
        {"type": "odd", "name": 5}, "no item", {},
    ],
}  # fmt: skip


def hidden(page: str, name: str) -> str:
    return unescape(page.split(f'name="{name}" value="')[1].split('"')[0])


async def test_an_action_is_found_filled_in_and_launched(
    server: ServerHandle, visitor: Visitor
) -> None:
    launched = list[dict[str, Any]]()

    def launch(data: dict[str, Any]) -> Any:
        launched.append(data)
        if "values" not in data:
            return FORM
        is_good = data["values"]["chunk"] != 7
        return {"success": is_good, "message": "<i>sent</i>" if is_good else "No sevens"}

    items = [{"label": "Render <b>", "actionIdentifier": "render", "extra": [1]}, {}]
    (task, *_) = server.inspector.find('Task where name is "anim"')
    selection = {"selection": f"Task:{task['id']}"}
    async with offering(server, items, launch):
        menu = (await visitor.submit(f"{ACTIONS}/discover", **selection)).text
        assert "Render <b>" in text_of(menu)
        assert f'value="Task:{task["id"]}" checked' in menu
        item = {"item": hidden(menu, "item"), **selection}
        form = (await visitor.submit(f"{ACTIONS}/launch", **item)).text
        assert "Read <this>" in text_of(form)
        assert "<script>" not in form.replace("<script src", "")
        fields = {**item, "form": hidden(form, "form")}
        entered = {
            "field-1": "5-6", "field-2": "x", "field-3": "soon", "field-5": "1",
            "field-6": ["1", "2"], "field-7": "a\r\nb", "field-8": "h",
        }  # fmt: skip
        wrong = await visitor.submit(f"{ACTIONS}/launch", **fields, **entered)
        assert wrong.status_code == 422
        assert "Chunk: 'x' is no number." in text_of(wrong.text)
        assert "Due: 'soon' is no date, such as 2026-11-30." in text_of(wrong.text)
        assert 'value="5-6"' in wrong.text
        assert len(launched) == 1
        fields["form"] = hidden(wrong.text, "form")
        entered |= {"field-2": "7", "field-3": "2026-12-24"}
        refused = (await visitor.submit(f"{ACTIONS}/launch", **fields, **entered)).text
        assert "No sevens" in refused
        assert 'value="5-6"' in refused
        entered |= {"field-2": "2,5"}
        done = text_of((await visitor.submit(f"{ACTIONS}/launch", **fields, **entered)).text)
        assert "<i>sent</i>" in done

    assert [each["extra"] for each in launched] == [[1], [1], [1]]
    assert launched[0]["selection"] == [{"entityId": task["id"], "entityType": "task"}]
    assert launched[-1]["values"] == {
        "frames": "5-6", "chunk": 2.5, "due": "2026-12-24", "notify": False, "layer": "x",
        "all": [2, 3], "note": "a\nb", "secret": "h",
    }  # fmt: skip


@pytest.mark.parametrize(
    "reply", [None, [], {}, 5, "text", {"success": False}, {"items": []}, {"items": [5]},
              {"type": "widget", "url": "https://ftrack.test"}, {"message": 5}, [FORM["items"][1]]],
    ids=repr,
)  # fmt: skip
async def test_whatever_an_action_replies_is_shown(
    server: ServerHandle, visitor: Visitor, reply: Any
) -> None:
    async with offering(server, [], lambda _: reply):
        response = await visitor.submit(f"{ACTIONS}/launch", item='{"actionIdentifier": "a"}')

    assert response.status_code == 200, response.text


async def test_what_is_wrong_with_a_launch_is_said(server: ServerHandle, visitor: Visitor) -> None:
    nobody = await visitor.submit(f"{ACTIONS}/launch", item='{"actionIdentifier": "a"}')
    assert nobody.status_code == 422
    assert "No connected client has the action 'a' for developer." in unescape(nobody.text)
    odd = await visitor.submit(f"{ACTIONS}/discover", selection="nonsense")
    assert "A selection has entities" in odd.text
    for fields in ({"item": "{"}, {"item": "[]"}, {"form": "5"}):
        assert (await visitor.submit(f"{ACTIONS}/launch", **fields)).status_code == 400
    assert "Demo project" in (await visitor.get(f"{ACTIONS}?project=none")).text


async def test_messages_of_actions_are_shown_as_they_come(
    server: ServerHandle, visitor: Visitor
) -> None:
    page = (await visitor.get(ACTIONS)).text
    stream = unescape(page.split('data-stream="')[1].split('"')[0])
    async with visitor.stream(stream) as updates, connected(server) as hub:
        for data in ({"success": False, "message": "<b>no</b>"}, {"items": [], "title": "T"}, {}):
            await hub.publish(MESSAGE, data=data)
            (part,) = (await anext(updates))["parts"]
    assert text_of(part).startswith("A message without a text")
    assert "&lt;b&gt;no" in part
    assert "&lt;b&gt;no" in (await visitor.get(ACTIONS)).text


async def test_a_server_without_projects_has_no_tree() -> None:
    async with running(empty=True) as server, visiting(server) as visitor:
        assert "No projects." in (await visitor.get(ACTIONS)).text
