"""API keys, authentication, invitations and widgets."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from aioftrackjobs.devserver import create_app, running
from aioftrackjobs.devserver.api.administration import signed_widget
from aioftrackjobs.devserver.api_errors import ApiError
from aioftrackjobs.devserver.schema.builtin import BUILTIN_SCHEMAS

from .caller import Caller, create, delete, query, update

GLOBAL_KEY = "studio-wide"


@pytest.fixture
async def anybody() -> AsyncIterator[Caller]:
    """A caller with a global key, as maya."""
    app = create_app(global_api_key=GLOBAL_KEY)
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://ftrack.test") as http:
        yield Caller(http, "maya", GLOBAL_KEY)
    app.state.engine.close()


def key_of(api: Caller, username: str) -> str:
    engine = api.http._transport.app.state.engine  # type: ignore[attr-defined]
    key: str = engine.api_keys[username]
    return key


async def user_id(api: Caller, username: str) -> str:
    (row,) = await api.query(f'User where username is "{username}"')
    key: str = row["id"]
    return key


def reset(user: str, **fields: Any) -> dict[str, Any]:
    operation = {"action": "reset_remote", "reset_type": "api_key", "entity_type": "User"}
    return {**operation, "entity_key": user, **fields}


async def test_a_new_key_replaces_the_old_one(api: Caller) -> None:
    (result,) = await api.call(reset(await user_id(api, api.user)))
    assert result["action"] == "reset_remote"

    old = (await api.post(query("Job"))).json()
    new = Caller(api.http, api.user, result["data"]["api_key"])

    assert old["exception"] == "InvalidCredentialsError"
    assert await new.query("Job") == []


async def test_a_new_user_gets_a_key_that_is_valid_once_active(anybody: Caller) -> None:
    user = await anybody.create("User", username="new")
    (result,) = await anybody.call(reset(user["id"]))
    new = Caller(anybody.http, "new", result["data"]["api_key"])

    inactive = (await new.post(query("Job"))).json()
    await anybody.update("User", user["id"], is_active=True)

    assert inactive["exception"] == "InvalidCredentialsError"
    assert await new.query("Job") == []


async def test_a_personal_key_resets_no_other_users_key(api: Caller) -> None:
    """Otherwise a client could act as any user with two requests."""
    maya = Caller(api.http, "maya", key_of(api, "maya"))

    for other in (api.user, "noor"):
        error = await maya.refused(reset(await user_id(api, other)))
        strict = await maya.post(reset(await user_id(api, other)), **{"ftrack-strict-api": "true"})

        assert error["exception"] == "PermissionError"
        assert (strict.status_code, strict.json()) == (403, error)
    assert await api.query("Job") == []
    assert await Caller(api.http, "noor", key_of(api, "noor")).query("Job") == []


async def test_an_administrator_resets_any_users_key(api: Caller) -> None:
    """The user that the server is started for is one."""
    (result,) = await api.call(reset(await user_id(api, "maya")))

    assert await Caller(api.http, "maya", result["data"]["api_key"]).query("Job") == []
    old = Caller(api.http, "maya", key_of(api, "maya"))
    assert (await old.refused(query("Job")))["exception"] == "InvalidCredentialsError"


async def test_a_global_key_resets_any_users_key(anybody: Caller) -> None:
    (result,) = await anybody.call(reset(await user_id(anybody, "noor")))

    noor = Caller(anybody.http, "noor", result["data"]["api_key"])
    assert await noor.query("Job") == []


async def test_a_group_has_no_key(anybody: Caller) -> None:
    group = await anybody.create("Group", name="artists")

    error = await anybody.refused(reset(group["id"]))

    assert error["exception"] == "EntityNotFoundError"


async def test_a_key_stays_with_its_user_when_names_change(api: Caller) -> None:
    """Swapping two names gives neither user's key the other's rights."""
    mine, theirs = await user_id(api, api.user), await user_id(api, "maya")
    maya_key = key_of(api, "maya")

    await api.call(
        update("User", mine, username="away"),
        update("User", theirs, username=api.user),
        update("User", mine, username="maya"),
    )

    as_developer = (await api.post(query("Job"))).json()
    assert as_developer["exception"] == "InvalidCredentialsError"
    assert await Caller(api.http, "maya", api.key).query("Job") == []
    assert await Caller(api.http, api.user, maya_key).query("Job") == []


async def test_a_new_user_of_an_old_name_does_not_get_the_old_key(api: Caller) -> None:
    maya_key = key_of(api, "maya")

    await api.call(
        delete("User", await user_id(api, "maya")),
        create("User", username="maya", is_active=True),
    )

    result = (await Caller(api.http, "maya", maya_key).post(query("Job"))).json()
    assert result["exception"] == "InvalidCredentialsError"


async def test_a_key_stays_with_its_user_over_a_restart(tmp_path: Path) -> None:
    database = tmp_path / "ftrack.db"
    async with (
        running(database=database, empty=True, api_user="ada") as server,
        httpx.AsyncClient(base_url=server.url) as http,
    ):
        ada = Caller(http, "ada", server.api_key)
        await ada.update("User", await user_id(ada, "ada"), username="countess")

    for api_user in ("root", "ada"):  # the second is a new user of that name
        async with running(database=database, api_user=api_user) as server:
            assert server.api_keys["countess"] == ada.key
            assert server.api_keys[api_user] != ada.key
            assert server.api_keys.keys() >= {"countess", api_user}


async def test_users_authenticate_by_name_where_schemas_have_none() -> None:
    schemas = [each for each in BUILTIN_SCHEMAS if each["id"] == "Setting"]
    async with (
        running(schemas=schemas) as server,
        httpx.AsyncClient(base_url=server.url) as http,
    ):
        assert await Caller(http, server.api_user, server.api_key).query("Setting") == []
        other = await Caller(http, "other", server.api_key).refused(query("Setting"))

    assert other["exception"] == "InvalidCredentialsError"


async def test_a_refused_batch_leaves_the_key(api: Caller) -> None:
    await api.refused(reset(await user_id(api, api.user)), query("("))

    assert await api.query("Job") == []


@pytest.mark.parametrize(
    ("fields", "exception"),
    [
        ({"reset_type": "password"}, "ValidationError"),
        ({"entity_type": "Job"}, "ValidationError"),
        ({"entity_key": "gone"}, "EntityNotFoundError"),
        ({"entity_key": ["x"]}, "EntityNotFoundError"),
        ({"entity_key": None}, "EntityNotFoundError"),
    ],
)
async def test_other_resets_are_refused(
    api: Caller, fields: dict[str, Any], exception: str
) -> None:
    assert (await api.refused(reset("x", **fields)))["exception"] == exception


async def test_a_global_key_acts_for_any_active_user(anybody: Caller) -> None:
    await anybody.create("Job")
    jenkins = Caller(anybody.http, "jenkins", GLOBAL_KEY)
    await jenkins.update("User", await user_id(anybody, "maya"), is_active=False)

    refused = (await anybody.post(query("Job"))).json()

    assert refused["exception"] == "InvalidCredentialsError"
    (facts,) = await jenkins.call(
        {"action": "query_server_information", "values": ["user_information"]}
    )
    assert facts["user_information"]["is_global_access_key"] is True
    assert facts["user_information"]["username"] == "jenkins"


async def test_a_global_key_lets_an_unknown_user_read_only(anybody: Caller) -> None:
    """Integrations find unknown users with a query (docs/protocol.md, section 1.6)."""
    unknown = Caller(anybody.http, "unknown", GLOBAL_KEY)

    await unknown.call({"action": "query_server_information"}, {"action": "query_schemas"})
    assert await unknown.query('User where username is "unknown"') == []
    error = await unknown.refused(create("Job"))

    assert error["exception"] == "InvalidCredentialsError"


async def test_a_personal_key_acts_as_its_user_only(api: Caller) -> None:
    other = Caller(api.http, "maya", api.key)

    assert (await other.post(query("Job"))).json()["exception"] == "InvalidCredentialsError"


async def test_a_deleted_or_inactive_user_cannot_read_files_either(api: Caller) -> None:
    engine = api.http._transport.app.state.engine  # type: ignore[attr-defined]
    maya, jenkins = [
        {"id": "x", "username": name, "apiKey": engine.api_keys[name]}
        for name in ("maya", "jenkins")
    ]
    await api.call(
        delete("User", await user_id(api, "maya")),
        update("User", await user_id(api, "jenkins"), is_active=False),
    )

    statuses = [
        (await api.http.get("/component/get", params=parameters)).status_code
        for parameters in (maya, jenkins, {"id": "x", "username": api.user, "apiKey": api.key})
    ]

    assert statuses == [401, 401, 404]


def test_every_error_has_a_status_in_strict_mode() -> None:
    kinds, statuses = [ApiError], dict[str, set[int]]()
    while kinds:
        kind = kinds.pop()
        statuses.setdefault(kind.exception, set()).add(kind.strict_status)
        kinds += kind.__subclasses__()

    assert statuses["ValidationError"] == {422}
    assert all(400 <= status < 600 for (status,) in statuses.values())


async def test_users_are_invited(api: Caller) -> None:
    (result,) = await api.call(
        {"action": "send_user_invite", "user_id": await user_id(api, "maya")}
    )

    assert result == {"action": "send_user_invite", "sent": True}


@pytest.mark.parametrize(
    ("operation", "exception"),
    [
        ({"action": "send_user_invite"}, "ValidationError"),
        ({"action": "send_user_invite", "user_id": "gone"}, "EntityNotFoundError"),
        (
            {"action": "send_review_session_invite", "review_session_invitee_id": "gone"},
            "EntityNotFoundError",
        ),
    ],
)
async def test_a_missing_user_cannot_be_invited(
    api: Caller, operation: dict[str, Any], exception: str
) -> None:
    assert (await api.refused(operation))["exception"] == exception


async def test_a_widget_has_an_address_that_expires(api: Caller) -> None:
    task, *_ = await api.query("Task")
    operation = {"action": "get_widget_url", "name": "info", "theme": None}
    (result,) = await api.call({**operation, "entity_type": "Task", "entity_key": [task["id"]]})

    shown = await api.http.get(result["widget_url"])
    forged = await api.http.get(result["widget_url"].replace("info", "tasks"))

    assert (shown.status_code, forged.status_code) == (200, 401)
    assert task["id"] in shown.text
    engine = api.http._transport.app.state.engine  # type: ignore[attr-defined]
    late = signed_widget(engine.uploads, {"name": "info"}, 0)
    assert (await api.http.get("/widget", params=late)).status_code == 401


@pytest.mark.parametrize(
    "fields",
    [
        {"name": None},
        {"name": "info<script>"},
        {"name": "tasks", "theme": "pink"},
        {"name": "tasks", "theme": []},
        {"name": "info", "entity_type": "Task"},
        {"name": "info", "entity_type": "Tsk", "entity_key": ["x"]},
        {"name": "info", "entity_type": "Task", "entity_key": ["a", "b"]},
    ],
)
async def test_widgets_that_do_not_exist_are_refused(api: Caller, fields: dict[str, Any]) -> None:
    error = await api.refused({"action": "get_widget_url", **fields})

    assert error["exception"] == "ValidationError"


async def test_a_widget_about_an_entity_that_does_not_exist_is_refused(api: Caller) -> None:
    about = {"name": "info", "entity_type": "Task", "entity_key": ["gone"]}
    error = await api.refused({"action": "get_widget_url", **about})

    assert error["exception"] == "EntityNotFoundError"


@pytest.mark.parametrize(
    "action",
    ["generate_signed_url", "compute_rollups", "configure_totp", "assume_user"],
)
async def test_what_only_a_real_server_does_is_refused_by_name(api: Caller, action: str) -> None:
    error = await api.refused({"action": action})

    assert error["exception"] == "UnsupportedOperationError"
    assert action in error["content"]
