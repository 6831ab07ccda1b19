"""The example queries of the docs/protocol.md, section 4.10, on data made for them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from .caller import Caller
from .example_queries import EXAMPLES, example
from .example_world import ENTITIES, REVIEW, SERVER

#: Where the examples come from.
REFERENCE = Path(__file__).parents[2] / "docs" / "protocol.md"


async def populate(api: Caller) -> None:
    await api.call(*ENTITIES)
    if not await api.query('Setting where name is "storage_scenario" and group is "STORAGE"'):
        await api.create("Setting", name="storage_scenario", group="STORAGE", value="{}")
    states = await api.query(
        "select name, state.short from Status where state has () and name is Done"
    )
    done = next(each["id"] for each in states if each["state"]["short"] == "DONE")
    await api.update("Task", "comp", status_id=done)


@pytest.fixture
async def world(api: Caller) -> Caller:
    await populate(api)
    return api


#: Number of an example, the query with its placeholders filled, and the ids it finds.
FOUND = [
    (3, example(3), "got"),
    (4, example(4), "got p"),
    (5, example(5, "p"), "comp"),
    (6, example(6), "comp"),
    (7, example(7), "n-jane"),
    (8, example(8), "got"),
    (10, example(10, "select id, content, author.thumbnail_id"), "n-b n-a"),
    (13, example(13), "bob"),
    (18, example(18), "j1 j2 zz"),
    (19, example(19, "j3", "j1"), "j1 j3"),
    (20, example(20, "j2"), "j2"),
    (21, example(21, "j1"), "j1"),
    (22, example(22, "j1", "j3"), "j1 j3"),
    (26, example(26, SERVER, "c1", "c2"), "cl1"),
    (27, example(27, "c2", REVIEW), "cl2"),
    (28, example(28), SERVER),
    (30, example(30, "bob"), "timer"),
    (31, example(31), "timer"),
    (34, example(34), "comp anim left"),
    (35, example(35), "anim"),
    (36, example(36), "jane"),
    (37, example(37), "sq"),
    (38, example(38), "sh"),
    (39, example(39), "got"),
    (40, example(40), "n-v n-o"),
    (45, example(45), "fps of-versions"),
    (46, example(46), "c4 c5"),
    (47, example(47), "n-may"),
    (48, example(48), "asset-c"),
    (51, f"Note where {example(51)}", "n-old"),
    (
        51,
        f"Note where parent_id is x and {example(51, '1970-01-01T00:00:00+00:00', nth=1)}",
        "n-may n-jane",
    ),
    (52, f"Job where {example(52)}", "abc 123"),
    (52, f"Job where {example(52, nth=1)}", ""),
    (52, "Job where user_id in (none)", "j3"),
    (53, f"AssetVersion where {example(53)}", "v2 v3"),
    (53, f"AssetVersion where {example(53, nth=1)}", "v3"),
    (53, f"Asset where {example(53, nth=2)}", "asset asset2 asset-c"),
    (54, f"Job where {example(54)}", "j1"),
    (54, f"Asset where {example(54, nth=1)}", "1"),
    # The type that the example names is a class of the .NET client, which no server has; as a
    # query for tasks, which the class stands for, it finds what it says.
    (55, example(55).replace("FtrackTask", "Task"), "blah-1 in-baz-0 blah-0"),
    (57, example(57), "zz"),
]


@pytest.mark.parametrize(
    ("expression", "found"),
    [case[1:] for case in FOUND],
    ids=[f"{case[0]}-{index}" for index, case in enumerate(FOUND)],
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
    (
        23,
        example(23, "j2"),
        [{"job_components": [{"__entity_type__": "JobComponent", "component_id": "c1"}]}],
    ),
    (24, example(24), [{"job_id": "j1", "component": {"id": "c1", "system_type": "file"}}]),
    (25, example(25), [{"component_id": "c1", "url": {}}, {"component_id": "c2", "url": {}}]),
    (
        32,
        example(32),
        [{"version": 5, "asset": {"versions": [{"id": "v"}, {"id": "v2", "version": 6}]}}],
    ),
    (
        41,
        example(41, "v"),
        [
            {"id": "c2", "size": 4, "version": {"asset_id": "asset", "asset": {"name": "n"}}},
            {"id": "c1", "container_id": None, "version": {"id": "v"}},
        ],
    ),
    (
        43,
        example(43),
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
    # A setting has no id, and its key is always sent.
    (44, example(44), [{"name": "storage_scenario", "group": "STORAGE"}]),
    (49, example(49, "bob"), [{"value": "some_value", "parent_id": "bob"}]),
    (50, example(50, "c1"), [{"id": "c1", "component_locations": [{"id": "cl1", "url": {}}]}]),
    (56, example(56), [{"id": "bob", "thumbnail": None}]),
]


@pytest.mark.parametrize(
    ("expression", "shown"), [case[1:] for case in SHOWN], ids=[str(case[0]) for case in SHOWN]
)
async def test_examples_show_what_they_select(
    world: Caller, expression: str, shown: list[dict[str, Any]]
) -> None:
    rows = await world.query(expression)

    assert shows(rows, shown), rows


def test_the_examples_are_those_of_the_reference() -> None:
    section = REFERENCE.read_text(encoding="utf-8").partition("### 4.10")[2].partition("\n## 5")[0]
    (block,) = re.findall(r"```text\n(.*?)```", section, re.DOTALL)
    unwrapped = block.replace("\n    ", " ")
    entries = re.findall(r"^# (\d+): .*\n((?:[^#\n].*\n)+)", unwrapped, re.MULTILINE)
    texts = {int(n): tuple(lines.splitlines()) for n, lines in entries}

    assert len(texts) == 57
    assert {n: tuple(t.replace("⏎", "\n") for t in each) for n, each in texts.items()} == EXAMPLES


async def test_every_project_is_found_with_its_default_projections(world: Caller) -> None:
    rows = await world.query(example(1))

    assert [row["id"] for row in rows][-3:] == ["got", "old", "p"]
    assert all(row.keys() == {"__entity_type__", "id", "name", "context_type"} for row in rows)


async def test_a_projects_status_is_shown_though_it_has_no_name(world: Caller) -> None:
    """In the recorded schemas it is a plain word; the documented query selects its name.

    The word is sent in its place: it says the same, and the query works as documented.
    """
    rows = {row["id"]: row for row in await world.query(example(11))}

    assert {"got", "old", "p"} < rows.keys()
    assert shows(rows["got"], {"full_name": "The Game", "status": "active"})
    assert shows(rows["old"], {"full_name": "An old one", "status": "hidden"})


async def test_a_type_of_the_dotnet_client_is_refused_with_the_servers(world: Caller) -> None:
    error = await world.refused({"action": "query", "expression": example(55)})

    assert "Unknown entity type 'FtrackTask', did you mean 'Task'?" in error["content"]


async def test_tasks_are_found_by_the_state_of_their_status(world: Caller) -> None:
    """As recorded: the status comes once, and then as a reference."""
    first, second = await world.query(example(33))

    assert first["status"]["state"]["short"] == "NOT_STARTED"
    again = await world.query(
        f"Status where id is {second['status']['id']} and state.short is NOT_STARTED"
    )
    assert [row["id"] for row in again] == [second["status"]["id"]]


async def test_the_link_of_a_task_is_the_path_to_it(world: Caller) -> None:
    rows = await world.query(example(34))

    assert rows[0]["link"] == [
        {"id": "p", "name": "p", "type": "Project"},
        {"id": "sq", "name": "sq", "type": "TypedContext"},
        {"id": "sh", "name": "sh", "type": "TypedContext"},
        {"id": "comp", "name": "comp", "type": "TypedContext"},
    ]


async def test_a_bare_word_is_a_value(world: Caller) -> None:
    (found,) = await world.query(example(2))

    (row,) = await world.query(f"select username from User where id is {found['id']}")
    assert row["username"] == "jenkins"


async def test_users_without_timelogs_are_found(world: Caller) -> None:
    everybody = [row["id"] for row in await world.query("User")]

    without = [row["id"] for row in await world.query(example(9))]

    assert without == [each for each in everybody if each not in {"bob", "jane"}]


@pytest.mark.parametrize(
    ("expression", "first", "last"),
    [
        (example(14), 0, 10),
        (example(15), 2, 10),
        (example(29), 0, 500),
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
        (example(16), ["-first_name"], 0, None),
        (example(17), ["first_name"], 5, 10),
        (example(42), ["-sort", "name"], 0, 200),
    ],
    ids=["16", "17", "42"],
)
async def test_rows_are_sorted_before_they_are_paged(
    world: Caller, expression: str, names: list[str], first: int, last: int | None
) -> None:
    (entity_type,) = re.findall(r"(\w+) order by", expression)
    selected = ", ".join(name.lstrip("-") for name in names)
    everything = await world.query(f"select {selected} from {entity_type}")
    for name in reversed(names):
        everything.sort(key=lambda row: row[name.lstrip("-")], reverse=name.startswith("-"))

    rows = await world.query(expression)

    assert [row["id"] for row in rows] == [row["id"] for row in everything[first:last]]


async def test_tasks_are_counted_by_status(world: Caller) -> None:
    response = await world.post(
        {"action": "query", "expression": example(12)},
        **{"ftrack-api-options": "strict:1"},
    )

    ((result,),) = [response.json()]
    tasks = await world.query("select status_id from Task")
    counted = {row["status_id"]: row["count_id"] for row in result["data"]}
    assert counted["omitted"] == 1
    assert sum(counted.values()) == len(tasks)
    assert all("__entity_type__" not in row for row in result["data"])
