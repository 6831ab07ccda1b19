"""Cycles of parents, containers and replies are refused."""

from __future__ import annotations

from typing import Any

import ftrack_api
import pytest

from aioftrackjobs.devserver import ServerHandle, ServerStartError, create_app
from aioftrackjobs.devserver.store.database import Transaction

from .caller import Caller, create, ref, update
from .test_official_client import with_session


async def test_a_session_cannot_create_a_cycle(server: ServerHandle) -> None:
    def work(session: ftrack_api.Session) -> None:
        project = session.query("Project").first()
        above = session.create("Folder", {"name": "above", "parent": project})
        below = session.create("Folder", {"name": "below", "parent": above})
        session.commit()
        above["parent"] = below
        with pytest.raises(ftrack_api.exception.ServerError, match="cannot be below itself"):
            session.commit()
        session.rollback()
        assert [each["name"] for each in below["link"]] == ["demo", "above", "below"]

    await with_session(server, work)


@pytest.mark.parametrize(
    "operations",
    [
        [update("Folder", "a", parent_id="a")],
        [update("Folder", "a", parent_id="c")],
        [update("Folder", "a", parent=ref("Folder", "b"))],
        [update("Folder", "c", children=[ref("Folder", "a")])],
        [create("Folder", id="x", name="x", parent_id="x")],
        [
            create("Folder", id="x", name="x", parent_id="y"),
            create("Folder", id="y", name="y", parent_id="x"),
        ],
        [
            create("Folder", id="x", name="x", parent_id="c"),
            update("Folder", "a", parent_id="x"),
        ],
        [
            create("Group", id="g", name="g", parent_id="h"),
            create("Group", id="h", name="h", parent_id="g"),
        ],
        [
            create("ContainerComponent", id="g", container_id="h"),
            create("ContainerComponent", id="h", container_id="g"),
        ],
    ],
)
async def test_a_circle_is_refused(api: Caller, operations: list[dict[str, Any]]) -> None:
    await make_chain(api, "abc")

    error = await api.refused(*operations)

    assert error["exception"] == "ValidationError"
    assert "cannot be below itself" in error["content"]


async def test_what_is_moved_twice_in_a_batch_counts_as_it_is_in_the_end(api: Caller) -> None:
    project_id = await make_chain(api, "abc")

    await api.call(
        update("Folder", "a", parent_id="c"),
        update("Folder", "b", parent_id=project_id),
        update("Folder", "c", parent_id=project_id),
    )

    (row,) = await api.query("select link from Folder where id is a")
    assert [each["name"] for each in row["link"]][1:] == ["c", "a"]


async def test_long_chains_are_read_once(api: Caller, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each entity is checked once, however many others are below it."""
    reads = 0
    read = Transaction.read

    def counted(*arguments: Any) -> dict[str, Any] | None:
        nonlocal reads
        reads += 1
        return read(*arguments)

    monkeypatch.setattr(Transaction, "read", counted)
    project_id = await make_chain(api, "a")
    count = 1000
    names = [f"n{number}" for number in range(count)]
    above = dict(zip(names, [*names[1:], project_id], strict=True))

    await api.call(*(create("Folder", id=n, name=n, parent_id=above[n]) for n in names))
    await api.call(*(update("Folder", name, parent_id=above[name]) for name in names))
    error = await api.refused(update("Folder", names[-1], parent_id=names[0]))

    assert "cannot be below itself" in error["content"]
    assert reads < 10 * count


def test_a_fixture_with_a_circle_is_refused() -> None:
    entries = [
        {"__entity_type__": "Folder", "id": "x", "name": "x", "parent_id": "y"},
        {"__entity_type__": "Folder", "id": "y", "name": "y", "parent_id": "x"},
    ]

    with pytest.raises(ServerStartError, match="cannot be below itself"):
        create_app(fixture=entries)


async def make_chain(api: Caller, names: str) -> str:
    """Create folders, each below the one before it, and return the project's id."""
    (project,) = await api.query("select id from Project limit 1")
    above = [project["id"], *names]
    await api.call(
        *(
            create("Folder", id=name, name=name, parent_id=parent)
            for name, parent in zip(names, above, strict=False)
        )
    )
    return str(project["id"])
