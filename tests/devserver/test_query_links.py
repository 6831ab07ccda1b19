"""Collections that are stored by joining entities, or by nothing in the schemas.

The unmodified official client writes and reads them, as the official documentation and tests
have it: the items of lists, the scopes of tasks, versions that use others, security roles.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import ftrack_api
import httpx
import pytest

from aioftrackjobs.devserver import ServerHandle

from .caller import Caller, create, delete, query, ref, update
from .test_official_client import session_of, with_session


def new_list(session: ftrack_api.Session, kind: str) -> Any:
    project = session.query("Project").first()
    category = session.create("ListCategory", {"name": "Today"})
    return session.create(kind, {"name": "today", "project": project, "category": category})


def names(found: Any) -> list[str]:
    return [each["name"] for each in found]


async def test_versions_are_put_on_a_list_and_taken_off(server: ServerHandle) -> None:
    def work(session: ftrack_api.Session) -> None:
        made = new_list(session, "AssetVersionList")
        asset = session.create("Asset", {"name": "plate", "parent": session.query("Shot").first()})
        versions = [
            session.create("AssetVersion", {"asset": asset, "version": number}) for number in (1, 2)
        ]
        for version in versions:
            made["items"].append(version)
        session.commit()
        other = session_of(server)
        found = other.query("AssetVersionList where name is today").one()
        assert [each["version"] for each in found["items"]] == [1, 2]
        assert names(found["items"][0]["lists"]) == ["today"]
        assert len(other.query("ListObject").all()) == 2
        found["items"].remove(found["items"][0])
        other.commit()
        other.close()
        third = session_of(server)
        on_list = third.query('AssetVersion where lists any (name is "today")').all()
        assert [each["version"] for each in on_list] == [2]
        third.close()

    await with_session(server, work)


async def test_shots_are_on_lists_as_tasks_are(server: ServerHandle) -> None:
    """Either side may be written; a list has all kinds of typed contexts."""

    def work(session: ftrack_api.Session) -> None:
        made = new_list(session, "TypedContextList")
        shot, task = session.query("Shot").first(), session.query("Task").first()
        made["items"].append(task)
        session.commit()
        shot["lists"].append(made)
        session.commit()
        other = session_of(server)
        found = other.get("TypedContextList", made["id"])
        assert {each.entity_type for each in found["items"]} == {"Task", "Shot"}
        assert other.query("Shot where lists.name is today").one()["id"] == shot["id"]
        other.close()

    await with_session(server, work)


async def test_a_task_on_a_list_of_versions_is_refused(server: ServerHandle) -> None:
    def work(session: ftrack_api.Session) -> None:
        new_list(session, "AssetVersionList")["items"].append(session.query("Task").first())
        with pytest.raises(ftrack_api.exception.ServerError, match="AssetVersion"):
            session.commit()
        session.reset()
        new_list(session, "TypedContextList")["items"].append(session.query("Project").first())
        with pytest.raises(ftrack_api.exception.ServerError, match="is a Project"):
            session.commit()

    await with_session(server, work)


async def test_scopes_are_added_removed_and_queried(server: ServerHandle) -> None:
    def work(session: ftrack_api.Session) -> None:
        scope = session.create("Scope", {"name": "pilot"})
        task = session.query("Task").first()
        in_scope = "Task where scopes.name is pilot"
        session.commit()
        assert session.query(in_scope).all() == []
        task["scopes"].append(scope)
        session.commit()
        assert session.query(in_scope).one() is task
        assert names(session_of(server).get("Task", task["id"])["scopes"]) == ["pilot"]
        task["scopes"].remove(scope)
        session.commit()
        assert session.query(in_scope).all() == []

    await with_session(server, work)


async def test_versions_use_versions(server: ServerHandle) -> None:
    def work(session: ftrack_api.Session) -> None:
        asset = session.create("Asset", {"name": "rig", "parent": session.query("Shot").first()})
        model, rig = (
            session.create("AssetVersion", {"asset": asset, "comment": comment})
            for comment in ("model", "rig")
        )
        session.commit()
        rig["uses_versions"].append(model)
        session.commit()
        other = session_of(server)
        found = other.get("AssetVersion", model["id"])
        assert [each["comment"] for each in found["used_in_versions"]] == ["rig"]
        link = other.query("AssetVersionLink").one()
        assert (link["from_id"], link["to_id"]) == (model["id"], rig["id"])
        other.close()

    await with_session(server, work)


async def test_security_roles_may_read_and_write_a_custom_attribute(server: ServerHandle) -> None:
    def work(session: ftrack_api.Session) -> None:
        reader, writer = (
            session.create("SecurityRole", {"name": name}) for name in ("Artist", "Manager")
        )
        made = session.create(
            "CustomAttributeConfiguration",
            {
                "key": "approved",
                "entity_type": "assetversion",
                "config": "{}",
                "read_security_roles": [reader, writer],
                "write_security_roles": [writer],
            },
        )
        session.commit()
        other = session_of(server)
        found = other.get("CustomAttributeConfiguration", made["id"])
        assert names(found["read_security_roles"]) == ["Artist", "Manager"]
        assert names(found["write_security_roles"]) == ["Manager"]
        other.close()

    await with_session(server, work)


async def test_members_of_groups_are_memberships(server: ServerHandle) -> None:
    def work(session: ftrack_api.Session) -> None:
        group = session.create("Group", {"name": "artists"})
        maya = session.query("User where username is maya").one()
        member = session.create("Membership", {"group": group, "user": maya})
        session.commit()
        other = session_of(server)
        found = other.query('User where memberships.group.name is "artists"').one()
        assert found["username"] == "maya"
        group = other.get("Group", group["id"])
        group["memberships"].remove(other.get("Membership", member["id"]))
        other.commit()
        other.close()
        assert session_of(server).query("Membership").all() == []

    await with_session(server, work)


async def test_custom_attributes_of_lists_are_there(server: ServerHandle) -> None:
    def work(session: ftrack_api.Session) -> None:
        data = {"key": "listbool", "entity_type": "list", "config": "{}", "default": False}
        session.create("CustomAttributeConfiguration", data)
        session.commit()
        session.reset()
        made = new_list(session, "TypedContextList")
        made["custom_attributes"]["listbool"] = True
        untouched = new_list(session, "AssetVersionList")
        session.commit()
        other = session_of(server)
        for key, value in ((made["id"], True), (untouched["id"], False)):
            assert other.get("List", key)["custom_attributes"]["listbool"] is value
        other.close()

    await with_session(server, work)


@pytest.fixture
async def remote(server: ServerHandle) -> AsyncIterator[Caller]:
    async with httpx.AsyncClient(base_url=server.url) as http:
        caller = Caller(http, server.api_user, server.api_key)
        (project,) = await caller.query("Project limit 1")
        await caller.call(
            create("Shot", id="shot", name="shot", parent_id=project["id"]),
            create("Scope", id="scope", name="pilot"),
            create("ListCategory", id="c", name="c"),
            create("TypedContextList", id="list", category_id="c", project_id=project["id"]),
            update("TypedContextList", "list", items=[ref("Shot", "shot")]),
            update("Shot", "shot", scopes=[ref("Scope", "scope")]),
        )
        yield caller


@pytest.mark.parametrize(
    ("entity_type", "key", "left"),
    [
        ("Shot", "shot", "items"),
        ("TypedContextList", "list", "lists"),
        ("Scope", "scope", "scopes"),
    ],
)
async def test_joining_entities_are_deleted_with_either_end(
    remote: Caller, entity_type: str, key: str, left: str
) -> None:
    owner = "TypedContextList" if left == "items" else "Shot"

    await remote.call(delete(entity_type, key))

    (row,) = await remote.query(f"select {left} from {owner} where id in (shot, list)")
    assert row[left] == []
    joining = await remote.query("ListObject where list_id is list")
    assert len(joining) == (1 if left == "scopes" else 0)


async def test_an_unchanged_member_keeps_what_joins_it(remote: Caller) -> None:
    """An object of a list has custom attributes of its own."""
    before = await remote.query("ListObject where list_id is list")
    members = [ref("Shot", "shot"), ref("Shot", "shot")]

    await remote.call(update("TypedContextList", "list", items=members))

    assert await remote.query("ListObject where list_id is list") == before


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (update("Shot", "shot", ancestors=[]), "Shot.ancestors follows from the parents"),
        (update("Shot", "shot", descendants=[]), "Shot.descendants follows from the parents"),
        (update("Asset", "a", latest_version=None), "latest_version is computed by the server"),
        (update("Shot", "shot", scopes=[ref("Scope", "x")]), "names Scope x, which does not exist"),
        (update("Shot", "shot", scopes="scope"), "takes a list of references"),
    ],
)
async def test_what_cannot_be_written_is_refused(
    remote: Caller, change: dict[str, Any], reason: str
) -> None:
    await remote.create("Asset", id="a", name="a", context_id="shot")

    error = await remote.refused(update("Shot", "shot", name="changed"), change)

    assert reason in error["content"]
    assert await remote.query("Shot where name is changed") == []


async def test_the_latest_version_has_the_highest_number(remote: Caller) -> None:
    await remote.call(
        *(create("Asset", id=key, name=key, context_id="shot") for key in ("a", "b", "none")),
        create("AssetVersion", id="a3", asset_id="a", version=3),
        create("AssetVersion", id="a1", asset_id="a", version=1),
        create("AssetVersion", id="b1", asset_id="b", version=1),
        create("AssetVersion", id="b1-again", asset_id="b", version=1),
    )

    rows = await remote.query(
        "select name, latest_version.version from Asset where context_id is shot order by name"
    )

    assert [(row["name"], row["latest_version"]) for row in rows] == [
        ("a", {"__entity_type__": "AssetVersion", "id": "a3", "asset_id": "a", "version": 3}),
        ("b", {"__entity_type__": "AssetVersion", "id": "b1-again", "asset_id": "b", "version": 1}),
        ("none", None),
    ]


@pytest.mark.parametrize(
    ("criteria", "found"),
    [
        ("latest_version.version > 2", "a"),
        ("latest_version.version is 1", "b"),
        ("latest_version has (version < 3)", "b"),
        ("latest_version has ()", "a b"),
        ("latest_version is none", "none"),
        ("latest_version is a3", "a"),
        ("latest_version in (a1, b1)", "b"),
        ("latest_version_id is a3", None),
        ("id in (select asset_id from AssetVersion where asset.latest_version is a3)", "a"),
        ("id in (a, b) order by latest_version.version", "b a"),
    ],
)
async def test_assets_are_found_by_their_latest_version(
    remote: Caller, criteria: str, found: str | None
) -> None:
    await remote.call(
        *(create("Asset", id=key, name=key, context_id="shot") for key in ("a", "b", "none")),
        create("AssetVersion", id="a1", asset_id="a", version=1),
        create("AssetVersion", id="a3", asset_id="a", version=3),
        create("AssetVersion", id="b1", asset_id="b", version=1),
    )

    if found is None:
        error = await remote.refused(query(f"Asset where {criteria}"))
        assert "did you mean 'latest_version'?" in error["content"]
    else:
        assert [row["id"] for row in await remote.query(f"Asset where {criteria}")] == found.split()
