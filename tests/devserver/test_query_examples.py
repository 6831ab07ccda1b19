"""The example queries of the protocol reference, section 4.10, on data made for them."""

from __future__ import annotations

from typing import Any

import pytest

from .caller import Caller
from .example_world import ENTITIES, REVIEW, SERVER


@pytest.fixture
async def world(api: Caller) -> Caller:
    await api.call(*ENTITIES)
    if not await api.query('Setting where name is "storage_scenario" and group is "STORAGE"'):
        await api.create("Setting", name="storage_scenario", group="STORAGE", value="{}")
    states = await api.query(
        "select name, state.short from Status where state has () and name is Done"
    )
    done = next(each["id"] for each in states if each["state"]["short"] == "DONE")
    await api.update("Task", "comp", status_id=done)
    return api


#: Number of the example, the query with its placeholders filled, and the ids it finds.
FOUND = [
    (2, "User where username is jenkins", None),
    (3, 'Project where status is active and name like "%thrones"', "got"),
    (
        4,
        'Project where status is active and (name like "%thrones" or full_name like "%thrones")',
        "got p",
    ),
    (5, 'Task where project.id is "p" and status.type.name is "Done"', "comp"),
    (6, 'Task where timelogs.start >= "2026-01-01T00:00:00+00:00"', "comp"),
    (7, 'Note where author has (first_name is "Jane" and last_name is "Doe")', "n-jane"),
    (8, "Project where metadata any (key=some_key and value=some_value)", "got"),
    (
        10,
        "select id, content, author.thumbnail_id from Note where parent_id in (a,b) "
        "and not in_reply_to has () order by thread_activity desc offset 0 limit 10",
        "n-b n-a",
    ),
    (13, 'select id from User where username is "bob" limit 2', "bob"),
    (
        18,
        "select id, user_id, status, created_at, data from Job "
        'where status in ("queued", "running")',
        "j1 j2",
    ),
    (19, 'select id, status from Job where id in ("j3","j1")', "j1 j3"),
    (20, "select id, data from Job where id is 'j2'", "j2"),
    (21, 'select id from Job where (id is "j1") offset 0 limit 500', "j1"),
    (22, "select status, data from Job where id in (j1,j3) offset 0 limit 500", "j1 j3"),
    (
        26,
        "select component_id, resource_identifier from ComponentLocation "
        f"where location_id is {SERVER} and component_id in (c1, c2) offset 0 limit 500",
        "cl1",
    ),
    (27, f"ComponentLocation where component_id is c2 and location_id is {REVIEW}", "cl2"),
    (28, 'Location where name is "ftrack.server"', SERVER),
    (30, 'Timer where user_id = "bob"', "timer"),
    (31, 'Timer where user.username is "bob"', "timer"),
    (34, 'select link from Task where assignments any (resource.username = "bob")', None),
    (35, 'Task where custom_attributes any (key is "my_text_field" and value is "bar")', "anim"),
    (
        36,
        "select username from User where custom_attribute_links_from any "
        '(configuration.key is "supervisor" and context.bid > 1)',
        "jane",
    ),
    (37, 'Sequence where metadata any (key is "frame_padding" and value is "4")', "sq"),
    (
        38,
        'TypedContext where name is "sh" '
        'and parent[TypedContext] has (name is "sq" and project.name is "p")',
        "sh",
    ),
    (
        39,
        "select name from Project where "
        'allocations.resource[Group].memberships any (user.username is "john_doe")',
        "got",
    ),
    (
        40,
        'Note where parent_id is "v1" or parent_id in '
        '(select id from ReviewSessionObject where version_id is "v1")',
        "n-v n-o",
    ),
    (
        45,
        "select id, key from CustomAttributeConfiguration "
        "where entity_type is AssetVersion or is_hierarchical is True",
        "fps of-versions",
    ),
    (
        46,
        'select id, size from Component where version_id in ("v1","v2") and '
        'component_locations.location.name in ("ftrack.server","ftrack.review")',
        "c1 c2 c3",
    ),
    (47, 'Note where date > "2018-05-01"  and date < "2018-06-01"', "n-may"),
    (48, 'select id from Asset where\ncontext_id is "sh" and\nname is "n"\nlimit 1', "asset"),
    (51, 'Note where date before "1970-01-01T00:00:00+00:00"', "n-old"),
    (
        51,
        'Note where parent_id is x and date after "1970-01-01T00:00:00+00:00"',
        "n-may n-jane",
    ),
    (52, 'Job where id in (123, "j1")', "j1"),
    (52, "Job where id in (none)", ""),
    (52, "Job where user_id in (none)", "j3"),
    (53, "AssetVersion where not version is 5", "v2 v3"),
    (53, "AssetVersion where not (version is 5 or version is 6)", "v3"),
    (53, "AssetVersion where not version in (5,6)", "v3"),
    (54, r'Job where data like "%\"value\"%"', "j1"),
    (54, r'Job where data like "%\%abc\%%"', "j2"),
    (
        # The type of the source is the name that the .NET client has for Task.
        55,
        "select name, bid from Task where ((((bid > 10) and "
        '(name like "%foo" or name like "bar%")) and name like "%foobar%") and '
        '((parent.parent.name = "baz") or parent.children any '
        '(((name = "comp") and (parent.name = "sh"))))) '
        "order by name descending offset 0 limit 10",
        "anim",
    ),
    (
        55,
        "select name, bid from Task where ((((bid > 10) and "
        '(name like "%foo" and name like "bar%")) and name like "%foobar%") and '
        '((parent.parent.name = "baz") or parent.children any '
        '(((name = "fuz") and (parent.name = "blah"))))) '
        "order by name descending offset 5 limit 10",
        "",
    ),
    (
        57,
        'select id from Job where id is "j3" and status is "done" and type is api_job limit 2',
        "j3",
    ),
]


@pytest.mark.parametrize(
    ("expression", "found"),
    [case[1:] for case in FOUND if case[2] is not None],
    ids=[f"{number}-{index}" for index, (number, _, ids) in enumerate(FOUND) if ids is not None],
)
async def test_examples_find_the_right_rows(world: Caller, expression: str, found: str) -> None:
    assert [row["id"] for row in await world.query(expression)] == found.split()


def shows(actual: Any, expected: Any) -> bool:
    """Return whether *actual* has what is expected, and perhaps more in its objects."""
    if isinstance(expected, list):
        return len(actual) == len(expected) and all(map(shows, actual, expected))
    if isinstance(expected, dict):
        return all(name in actual and shows(actual[name], expected[name]) for name in expected)
    return bool(actual == expected)


#: The same for queries whose point is what they show of the rows they find.
SHOWN: list[tuple[int, str, list[dict[str, Any]]]] = [
    (2, "select username from User where username is jenkins", [{"username": "jenkins"}]),
    (
        # In the recorded schemas a project's status is a plain word, without a name.
        11,
        "select full_name, status.name from Project where id in (got, old)",
        [
            {"full_name": "The Game", "status": "active"},
            {"full_name": "An old one", "status": "hidden"},
        ],
    ),
    (
        23,
        "select job_components from Job where id is j2 offset 0 limit 500",
        [{"job_components": [{"__entity_type__": "JobComponent", "component_id": "c1"}]}],
    ),
    (
        24,
        "select component.id, component.system_type from JobComponent "
        'where (component_id is "c1"and job_id is "j1") offset 0 limit 500',
        [{"job_id": "j1", "component": {"id": "c1", "system_type": "file"}}],
    ),
    (
        25,
        'select url from JobComponent where (component_id is "c1"and job_id is "j1") '
        'or (component_id is "c2"and job_id is "j1") offset 0 limit 500',
        [{"component_id": "c1", "url": {}}, {"component_id": "c2", "url": {}}],
    ),
    (
        32,
        "select version, asset.versions.version from AssetVersion "
        "where asset_id is_not None limit 1",
        [{"version": 5, "asset": {"versions": [{"id": "v1"}, {"id": "v2", "version": 6}]}}],
    ),
    (
        33,
        "select status.state.short from Task "
        "where status.state.short is NOT_STARTED and project.name is p limit 2",
        [{"id": "anim", "status": {"state": {"short": "NOT_STARTED"}}}],
    ),
    (
        34,
        "select link from Task where id is comp and assignments any (resource.username = bob)",
        [
            {
                "link": [
                    {"id": "p", "name": "p", "type": "Project"},
                    {"id": "sq", "name": "sq", "type": "TypedContext"},
                    {"id": "sh", "name": "sh", "type": "TypedContext"},
                    {"id": "comp", "name": "comp", "type": "TypedContext"},
                ]
            }
        ],
    ),
    (
        41,
        "select id, system_type, name, size, file_type, container_id, version_id, "
        "version.asset_id, version.asset.name from Component where version_id is v1 "
        "order by name, file_type, id",
        [
            {"id": "c2", "size": 4, "version": {"asset_id": "asset", "asset": {"name": "n"}}},
            {"id": "c1", "container_id": None, "version": {"id": "v1"}},
        ],
    ),
    (
        43,
        "select project, priority, assignments.resource.username, link, status.name from Task "
        'where assignments any (resource.username = "bob") and '
        'status.name not_in ("Omitted", "On Hold", "Completed") and '
        'project.status is "active" order by priority.sort limit 10',
        [
            {
                "id": "comp",
                "project": {"id": "p"},
                "priority": {"id": "low"},
                "assignments": [{"resource": {"__entity_type__": "User", "username": "bob"}}],
                "status": {"name": "Done"},
            },
            {"id": "anim", "priority": {"id": "urgent"}},
        ],
    ),
    (
        44,
        'select value from Setting where name is "storage_scenario" and group is "STORAGE"',
        [{"name": "storage_scenario", "group": "STORAGE"}],
    ),
    (
        49,
        "select value from Metadata "
        'where key is "some_key" and parent_type is "Project" and parent_id is "got"',
        [{"value": "some_value", "parent_id": "got"}],
    ),
    (
        50,
        'select id, component_locations.url.value from Component where id is "c1" limit 1',
        [{"id": "c1", "component_locations": [{"id": "cl1", "url": {}}]}],
    ),
    (
        56,
        'select thumbnail from User where username is "bob"',
        [{"id": "bob", "thumbnail": None}],
    ),
]


@pytest.mark.parametrize(
    ("expression", "shown"), [case[1:] for case in SHOWN], ids=[str(case[0]) for case in SHOWN]
)
async def test_examples_show_what_they_select(
    world: Caller, expression: str, shown: list[dict[str, Any]]
) -> None:
    rows = await world.query(expression)

    assert shows(rows, shown), rows


async def test_every_project_is_found_with_its_default_projections(world: Caller) -> None:
    """Example 1."""
    rows = await world.query("Project")

    assert [row["id"] for row in rows][-3:] == ["got", "old", "p"]
    assert all(row.keys() == {"__entity_type__", "id", "name", "context_type"} for row in rows)


async def test_users_without_timelogs_are_found(world: Caller) -> None:
    """Example 9."""
    everybody = [row["id"] for row in await world.query("User")]

    without = [row["id"] for row in await world.query("User where not timelogs any ()")]

    assert without == [each for each in everybody if each not in {"bob", "jane"}]


@pytest.mark.parametrize(
    ("expression", "first", "last"),
    [
        ("select id from User offset 0 limit 10", 0, 10),
        ("User offset 2 limit 8", 2, 10),
        ("select id from Location offset 0 limit 500", 0, 500),
    ],
    ids=["14", "15", "29"],
)
async def test_pages_are_pieces_of_the_whole(
    world: Caller, expression: str, first: int, last: int
) -> None:
    everything = await world.query(expression.partition(" offset")[0])

    assert await world.query(expression) == everything[first:last]


@pytest.mark.parametrize(
    ("expression", "names", "first", "last"),
    [
        ("select first_name from User order by first_name desc", ["-first_name"], 0, None),
        ("select first_name from User order by first_name offset 5 limit 5", ["first_name"], 5, 10),
        (
            "select id, name, sort, color from Status order by sort desc, name asc limit 200",
            ["-sort", "name"],
            0,
            200,
        ),
    ],
    ids=["16", "17", "42"],
)
async def test_rows_are_sorted_before_they_are_paged(
    world: Caller, expression: str, names: list[str], first: int, last: int | None
) -> None:
    everything = await world.query(expression.partition(" order by")[0])
    for name in reversed(names):
        everything.sort(key=lambda row: row[name.lstrip("-")], reverse=name.startswith("-"))

    assert await world.query(expression) == everything[first:last]


async def test_tasks_are_counted_by_status(world: Caller) -> None:
    """Example 12."""
    response = await world.post(
        {"action": "query", "expression": "select count(id) from Task group by status_id"},
        **{"ftrack-api-options": "strict:1"},
    )

    ((answer,),) = [response.json()]
    tasks = await world.query("select status_id from Task")
    counted = {row["status_id"]: row["count_id"] for row in answer["data"]}
    assert counted["omitted"] == 1
    assert sum(counted.values()) == len(tasks)
    assert all("__entity_type__" not in row for row in answer["data"])
