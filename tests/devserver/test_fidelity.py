"""What the test suites of other clients expect of a server."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import pytest

from aioftrackjobs.devserver import ServerStartError, create_app, running
from aioftrackjobs.devserver.schema.builtin import BUILTIN_SCHEMAS

from .caller import Caller, create, delete, new_id, update
from .test_operations_accounts import key_of


async def test_a_user_without_a_name_gets_one(api: Caller) -> None:
    one, other = await api.create("User", first_name="A"), await api.create("User", first_name="B")

    rows = await api.query(f"select username from User where id in ({one['id']}, {other['id']})")

    names = {row["username"] for row in rows}
    assert len(names) == 2
    assert all(names)


async def test_jenkins_has_the_id_of_the_official_suite(api: Caller) -> None:
    (user,) = await api.query("User where username is jenkins")

    assert user["id"] == "d07ae5d0-66e1-11e1-b5e9-f23c91df25eb"


async def test_schemas_can_be_a_file(tmp_path: Path) -> None:
    path = tmp_path / "schemas.json"
    path.write_text(json.dumps(BUILTIN_SCHEMAS))
    for source in (path, str(path)):
        async with (
            running(schemas=source) as server,
            httpx.AsyncClient(base_url=server.url) as http,
        ):
            api = Caller(http, server.api_user, server.api_key)
            assert await api.call({"action": "query_schemas"}) == [list(BUILTIN_SCHEMAS)]


@pytest.mark.parametrize("content", [None, "no JSON"])
def test_a_file_that_holds_no_schemas_is_named(tmp_path: Path, content: str | None) -> None:
    path = tmp_path / "schemas.json"
    if content is not None:
        path.write_text(content)

    with pytest.raises(ServerStartError) as caught:
        create_app(schemas=path)

    assert (caught.value.option, caught.value.subject) == ("schemas", str(path))


async def test_the_address_of_a_server_says_what_it_is(api: Caller) -> None:
    page = await api.http.get("/", headers={"Accept": "text/html,*/*"})
    data = await api.http.get("/")

    assert page.headers["content-type"].startswith("text/html")
    assert "API key" in page.text
    assert "ftrack" in data.json()["server"]


async def _custom_attribute(api: Caller, kind: str) -> tuple[str, str]:
    """Create a custom attribute of Shots, and return a Shot and the id of the attribute."""
    (found,) = await api.query(f'CustomAttributeType where name is "{kind}"')
    (object_type,) = await api.query("ObjectType where name is Shot")
    values = {"type_id": found["id"], "object_type_id": object_type["id"], "config": "{}"}
    names = {"key": f"a {kind}", "label": "A", "entity_type": "task"}
    operation = {"action": "create", "entity_type": "CustomAttributeConfiguration"}
    (result,) = await api.call(operation | {"entity_data": names | values})
    shot, *_ = await api.query("Shot")
    return shot["id"], result["data"]["id"]


def _set(entity_id: str, configuration_id: str, value: object) -> dict[str, Any]:
    return {
        "action": "update",
        "entity_type": "ContextCustomAttributeValue",
        "entity_key": [configuration_id, entity_id],
        "entity_data": {"value": value},
    }


_DATE = {"__type__": "datetime", "value": "2026-01-01T00:00:00"}
_DAY = {"__type__": "date", "value": "2026-01-01"}
#: By type of custom attribute: values that it takes, of all those below.
_TAKES: dict[str, list[object]] = {
    "text": ["", "a", "1", "true", "2026-01-01"],
    "url": ["", "a", "1", "true", "2026-01-01"],
    "expression": ["", "a", "1", "true", "2026-01-01"],
    "number": [0, 1, -1.5, 2**53],
    "boolean": [True, False],
    "date": ["2026-01-01", _DATE, _DAY],
    "enumerator": ["", "a", "1", "true", "2026-01-01", [], ["a"], ["a", "b"]],
    "dynamic enumerator": ["", "a", "1", "true", "2026-01-01", [], ["a"], ["a", "b"]],
}
_VALUES: list[object] = [
    *("", "a", "1", "true", "2026-01-01"),
    *(0, 1, -1.5, 2**53, True, False),
    *([], ["a"], ["a", "b"], [1], ["a", 1], [True], [["a"]], [None], [_DATE]),
    *({}, {"a": 1}, _DATE, _DAY, {"__type__": "date", "value": "soon"}, {"__type__": "date"}),
]


@pytest.mark.parametrize("kind", _TAKES)
async def test_values_of_custom_attributes_are_checked(api: Caller, kind: str) -> None:
    entity_id, configuration_id = await _custom_attribute(api, kind)

    taken = []
    for value in [*_VALUES, None]:
        result = (await api.post(_set(entity_id, configuration_id, value))).json()
        if isinstance(result, list):
            taken.append(value)
        else:
            assert result["exception"] == "ValidationError", value
            assert f"must be of type {kind}" in result["content"]

    wanted = [*_TAKES[kind], None]
    assert list(map(repr, taken)) == [repr(each) for each in [*_VALUES, None] if _in(each, wanted)]


def _in(value: object, values: list[object]) -> bool:
    """Return whether *values* has *value*, and not only an equal one of another type."""
    return any(value == each and type(value) is type(each) for each in values)


async def test_selected_custom_attributes_have_their_values(api: Caller) -> None:
    entity_id, configuration_id = await _custom_attribute(api, "number")
    await api.call(_set(entity_id, configuration_id, 1042))

    (shot,) = await api.query(f"select custom_attributes from Shot where id is {entity_id}")

    values = {each["configuration_id"]: each["value"] for each in shot["custom_attributes"]}
    assert values[configuration_id] == 1042
    rows = await api.query(
        "select _casted_value from ContextCustomAttributeValue where _casted_value > 1000"
    )
    assert [row["_casted_value"] for row in rows] == [1042]


async def test_the_answer_to_a_create_has_the_moment_as_it_was_sent(api: Caller) -> None:
    sent = {"__type__": "datetime", "value": "2026-02-03T04:05:06.789012+00:00"}

    job = await api.create("Job", finished_at=sent)

    assert job["finished_at"] == sent


async def _user(api: Caller, username: str) -> str:
    (user,) = await api.query(f"User where username is {username}")
    key: str = user["id"]
    return key


async def _recipients(api: Caller, note_id: str) -> set[str]:
    rows = await api.query(f"Recipient where note_id is {note_id}")
    return {row["resource_id"] for row in rows}


async def test_the_caller_is_a_recipient_of_a_new_note(api: Caller) -> None:
    maya, noor, caller = [await _user(api, name) for name in ("maya", "noor", api.user)]
    await api.call(
        create("Note", id="n", content="Too dark", user_id=maya),
        create("Recipient", note_id="n", resource_id=noor),
        create("Recipient", note_id="n", resource_id=caller),
        update("Note", "n", recipients=[{"note_id": "n", "resource_id": noor}]),
    )

    assert await _recipients(api, "n") == {noor, caller}


async def test_a_note_that_is_deleted_at_once_has_no_recipients(api: Caller) -> None:
    author = await _user(api, api.user)

    await api.call(create("Note", id="n", user_id=author), delete("Note", "n"))

    assert await _recipients(api, "n") == set()


async def test_the_first_label_of_a_note_is_its_category(api: Caller) -> None:
    one, other, *_ = await api.query("select name from NoteCategory")
    await api.call(create("Note", id="n", user_id=await _user(api, "maya")))

    async def category() -> object:
        (note,) = await api.query("select category_id from Note where id is n")
        return note["category_id"]

    for label in (one, other):
        await api.call(create("NoteLabelLink", note_id="n", label_id=label["id"]))
        assert await category() == one["id"]
    await api.call(delete("NoteLabelLink", "n", one["id"]))
    assert await category() == other["id"]
    await api.call(delete("NoteLabel", other["id"]))
    assert await category() is None


async def test_former_statuses_are_kept_as_status_changes(api: Caller) -> None:
    task, *_ = await api.query("select status_id from Task")
    old, new, deleted = task["status_id"], new_id(), new_id()
    await api.call(create("Status", id=new, name="n"), create("Status", id=deleted, name="d"))
    maya = Caller(api.http, "maya", key_of(api, "maya"))

    for status in (new, new, deleted):
        await maya.update("Task", task["id"], status_id=status, bid=1)
    await api.update("Task", task["id"], status_id=old)
    await api.call(delete("Status", deleted))

    (found,) = await api.query(
        "select status_changes.from_status_id, status_changes.status_id, "
        "status_changes.user.username, status_changes.parent_type, status_changes.date "
        f"from Task where id is {task['id']}"
    )
    assert [(each["from_status_id"], each["status_id"]) for each in found["status_changes"]] == [
        (old, new),
        (new, None),
        (None, old),
    ]
    users = [each["user"].get("username") for each in found["status_changes"]]
    assert users == ["maya", None, api.user]  # the second one is a reference to the first
    assert all(each["date"] and each["parent_type"] == "task" for each in found["status_changes"])
    await api.call(delete("Task", task["id"]))
    assert await api.query(f"StatusChange where parent_id is {task['id']}") == []


async def test_status_changes_of_versions_have_their_parent(api: Caller) -> None:
    shot, *_ = await api.query("Shot")
    first, second, *_ = await api.query("Status")
    kind, *_ = await api.query("AssetType")
    await api.call(
        create("Asset", id="a", name="plate", context_id=shot["id"], type_id=kind["id"]),
        create("AssetVersion", id="v", asset_id="a", status_id=first["id"]),
        update("AssetVersion", "v", status_id=second["id"]),
    )

    (change,) = await api.query("select parent.version from AssetVersionStatusChange")

    assert change["parent"]["id"] == "v"
    assert await api.query("TypedContextStatusChange") == []


async def test_unknown_attributes_are_ignored_if_that_is_chosen(
    start_shared_server: Callable[..., Any],
) -> None:
    with start_shared_server(ignore_unknown=True).as_new() as server:
        async with httpx.AsyncClient(base_url=server.url) as http:
            api = Caller(http, server.api_user, server.api_key)
            job = await api.create("Job", status="running", colour="red", nested={"a": [1]})
            await api.update("Job", job["id"], status="done", colour=["blue"])
            (found,) = await api.query("select status from Job")
            error = await api.refused(update("Job", job["id"], status="no"))

    assert (found["status"], "colour" in job) == ("done", False)
    assert error["exception"] == "ValidationError"


async def test_unknown_attributes_are_refused_by_default(api: Caller) -> None:
    job = await api.create("Job")
    for operation in (create("Job", colour="red"), update("Job", job["id"], colour="red")):
        error = await api.refused(operation)
        assert (error["exception"], "colour" in error["content"]) == ("ValidationError", True)


_LOGIN = "/user/api_credentials?identifier=tool-%3Cb%3E&redirect_url="


async def test_a_browser_logs_in_for_a_desktop_tool(api: Caller) -> None:
    address = f"{_LOGIN}http%3A%2F%2Flocalhost%3A5000%2Fcallback%3Fa%3D1"
    form = await api.http.get(address)
    wrong = await api.http.post(address, data={"api_user": "<maya>", "api_key": "no"})
    maya = {"api_user": "maya", "api_key": key_of(api, "maya")}
    right = await api.http.post(address, data=maya)
    by_headers = await api.http.get(
        address, headers={"ftrack-user": api.user, "ftrack-api-key": api.key}
    )

    assert (form.status_code, wrong.status_code, right.status_code) == (200, 401, 303)
    assert "tool-&lt;b&gt;" in form.text
    assert "&lt;maya&gt;" in wrong.text
    sent = [(maya["api_user"], maya["api_key"]), (api.user, api.key)]
    for response, (user, key) in zip((right, by_headers), sent, strict=True):
        url = httpx.URL(response.headers["location"])
        assert (url.host, url.port, url.path) == ("localhost", 5000, "/callback")
        assert dict(url.params) == {"a": "1", "api_user": user, "api_key": key}


@pytest.mark.parametrize(
    "target", ["", "http://evil.com/", "javascript:alert(1)", "//evil.com", "http://[", "http://"]
)
async def test_keys_are_not_sent_to_strangers(api: Caller, target: str) -> None:
    data = {"api_user": api.user, "api_key": api.key}
    response = await api.http.post(_LOGIN + quote(target, safe=""), data=data)

    assert response.status_code == 400
    assert api.key not in response.text
