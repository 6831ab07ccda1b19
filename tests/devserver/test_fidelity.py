"""What the test suites of other clients expect of a server."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import httpx
import pytest

from aioftrackjobs.devserver import ServerStartError, create_app, running
from aioftrackjobs.devserver.schema.builtin import BUILTIN_SCHEMAS

from .caller import Caller


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
    assert "FTRACK_SERVER" in page.text
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


@pytest.mark.parametrize(
    ("kind", "wrong", "right"),
    [
        ("number", ["1", True, [], {"__type__": "date", "value": "2026-01-01"}], [1, 1.5, None]),
        ("text", [1, True, ["a"]], ["a", "", None]),
        ("boolean", ["true", 1, []], [True, False, None]),
        ("date", [1, True, ["2026-01-01"]], [{"__type__": "date", "value": "2026-01-01"}, None]),
        ("enumerator", [1, True, [1]], ["a", ["a", "b"], None]),
    ],
)
async def test_values_of_custom_attributes_are_checked(
    api: Caller, kind: str, wrong: list[object], right: list[object]
) -> None:
    entity_id, configuration_id = await _custom_attribute(api, kind)
    for value in wrong:
        error = await api.refused(_set(entity_id, configuration_id, value))
        assert error["exception"] == "ValidationError", value
        assert f"must be of type {kind}" in error["content"]
    for value in right:
        await api.call(_set(entity_id, configuration_id, value))


async def test_selected_custom_attributes_have_their_values(api: Caller) -> None:
    entity_id, configuration_id = await _custom_attribute(api, "number")
    await api.call(_set(entity_id, configuration_id, 1042))

    (shot,) = await api.query(f"select custom_attributes from Shot where id is {entity_id}")

    values = {each["configuration_id"]: each["value"] for each in shot["custom_attributes"]}
    assert values[configuration_id] == 1042


async def test_the_answer_to_a_create_has_the_moment_as_it_was_sent(api: Caller) -> None:
    sent = {"__type__": "datetime", "value": "2026-02-03T04:05:06.789012+00:00"}

    job = await api.create("Job", finished_at=sent)

    assert job["finished_at"] == sent
