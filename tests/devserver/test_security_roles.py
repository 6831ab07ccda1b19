"""Security roles: who is an administrator, and what only administrators do."""

from __future__ import annotations

from typing import Any

import pytest

from .caller import Caller, create, delete, ref, update
from .test_operations_accounts import key_of, reset, user_id


@pytest.fixture
def maya(api: Caller) -> Caller:
    """A caller with a plain personal key."""
    return Caller(api.http, "maya", key_of(api, "maya"))


async def _role_id(api: Caller, name: str) -> str:
    (role,) = await api.query(f'SecurityRole where name is "{name}"')
    key: str = role["id"]
    return key


async def _roles_of(api: Caller, username: str) -> list[str]:
    rows = await api.query(
        f"select security_role.name from UserSecurityRole where user.username is {username}"
    )
    return sorted(row["security_role"]["name"] for row in rows)


async def _information(caller: Caller) -> list[str]:
    (facts,) = await caller.call(
        {"action": "query_server_information", "values": ["user_information"]}
    )
    permissions: list[str] = facts["user_information"]["permissions"]
    return permissions


async def test_the_user_of_the_server_is_an_administrator(api: Caller, maya: Caller) -> None:
    assert await _roles_of(api, api.user) == ["Administrator"]
    assert await _roles_of(api, "maya") == ["User"]
    assert "reset_api_keys" in await _information(api)
    assert await _information(maya) == []
    for caller, expected in ((api, True), (maya, False)):
        (result,) = await caller.call({"action": "permissions"})
        assert result["data"] == {"manage_security_roles": expected, "reset_api_keys": expected}


async def test_an_administrator_by_role_resets_the_keys_of_others(
    api: Caller, maya: Caller
) -> None:
    noor = await user_id(api, "noor")
    assert (await maya.refused(reset(noor)))["exception"] == "PermissionError"
    role = {"user_id": await user_id(api, "maya"), "role_id": await _role_id(api, "Administrator")}

    await api.call({"action": "add_user_security_role", **role})
    await maya.call(reset(noor))
    await api.call({"action": "remove_user_security_role", **role})

    assert (await maya.refused(reset(noor)))["exception"] == "PermissionError"


async def test_roles_are_changed_as_documented(api: Caller) -> None:
    maya, manager = await user_id(api, "maya"), await _role_id(api, "Project Manager")
    role = {"user_id": maya, "role_id": manager}
    project, *_ = await api.query("Project")

    await api.call({"action": "add_user_security_role", **role})
    await api.call({"action": "add_user_security_role", **role})
    assert await _roles_of(api, "maya") == ["Project Manager", "User"]
    new = {"new_role_id": await _role_id(api, "API")}
    await api.call({"action": "update_user_security_role", **role, **new})
    assert await _roles_of(api, "maya") == ["API", "User"]
    error = await api.refused({"action": "revoke_user_security_role", **role})
    assert error["exception"] == "EntityNotFoundError"
    for name, count in (
        ("grant_user_security_role_project", 1),
        ("grant_user_security_role_project", 1),
        ("revoke_user_security_role_project", 0),
        ("add_user_security_role", 1),
    ):
        await api.call({"action": name, **role, "project_id": project["id"]})
        rows = await api.query(
            f"UserSecurityRoleProject where user_security_role.security_role_id is {manager}"
        )
        assert len(rows) == count


async def test_a_plain_key_gains_no_role(api: Caller, maya: Caller) -> None:
    own, admin = await user_id(api, "maya"), await _role_id(api, "Administrator")
    (held,) = await api.query("UserSecurityRole where user.username is maya")
    (other,) = await api.query(f"UserSecurityRole where user.username is {api.user}")
    attempts: list[dict[str, Any]] = [
        create("UserSecurityRole", user_id=own, security_role_id=admin),
        update("UserSecurityRole", held["id"], security_role_id=admin),
        update("UserSecurityRole", other["id"], user_id=own),
        update("User", own, user_security_roles=[ref("UserSecurityRole", other["id"])]),
        update("SecurityRole", held["security_role_id"], name="Administrator"),
        delete("UserSecurityRole", other["id"]),
        {"action": "add_user_security_role", "user_id": own, "role_id": admin},
    ]
    for attempt in attempts:
        assert (await maya.refused(attempt))["exception"] == "PermissionError", attempt

    assert await _roles_of(api, "maya") == ["User"]
    assert await _roles_of(api, api.user) == ["Administrator"]
