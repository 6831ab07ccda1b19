"""What the test suites of other clients expect of a server."""

from __future__ import annotations

import json
from pathlib import Path

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
