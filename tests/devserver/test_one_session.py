"""What the official client reads in the session that wrote it.

After a commit it keeps what the answer told it and never asks again for what it has, so an
answer that leaves something out leaves the session with stale data. Other tests read in a
second session; these do not.
"""

from __future__ import annotations

import ftrack_api
import pytest

from aioftrackjobs.devserver import ServerHandle

from .test_official_client import with_session


@pytest.fixture
def server(any_server: ServerHandle) -> ServerHandle:
    """All of it works with the schemas that come with the server, and with real ones."""
    return any_server


async def test_metadata_is_there_after_the_commit(server: ServerHandle) -> None:
    def work(session: ftrack_api.Session) -> None:
        sequence = session.query("Sequence").first()
        sequence["metadata"] = {"key1": "1", "key2": "2"}
        session.commit()
        assert dict(sequence["metadata"].items()) == {"key1": "1", "key2": "2"}
        sequence["metadata"]["key1"] = "one"
        session.commit()
        del sequence["metadata"]["key2"]
        sequence["metadata"]["key3"] = "3"
        session.commit()
        assert dict(sequence["metadata"].items()) == {"key1": "one", "key3": "3"}

    await with_session(server, work)


async def test_members_are_there_after_the_commit(server: ServerHandle) -> None:
    def work(session: ftrack_api.Session) -> None:
        container = session.create("ContainerComponent", {"name": "plates"})
        for name in ("left", "right"):
            container["members"].append(session.create("FileComponent", {"name": name}))
            session.commit()
        assert [each["name"] for each in container["members"]] == ["left", "right"]
        assert container["members"][0]["container"] is container
        container["members"].remove(container["members"][0])
        session.commit()
        assert [each["name"] for each in container["members"]] == ["right"]

    await with_session(server, work)


async def test_notes_and_replies_are_there_after_the_commit(server: ServerHandle) -> None:
    def work(session: ftrack_api.Session) -> None:
        maya = session.query("User where username is maya").one()
        task = session.query("Task").first()
        note = task.create_note("Too dark", author=maya, recipients=[maya])
        session.commit()
        reply = note.create_reply("Fixed", author=maya)
        session.commit()
        assert list(task["notes"]) == [note]
        assert list(note["replies"]) == [reply]
        assert [each["resource_id"] for each in note["recipients"]] == [maya["id"]]
        assert reply["in_reply_to"] is note

    await with_session(server, work)


async def test_an_emptied_collection_is_empty_after_the_commit(server: ServerHandle) -> None:
    def work(session: ftrack_api.Session) -> None:
        project = session.query("Project").first()
        project["metadata"]["rate"] = "24"
        session.commit()
        project["metadata"] = {}
        session.commit()
        assert dict(project["metadata"].items()) == {}
        assert session.query("Metadata").all() == []

    await with_session(server, work)
