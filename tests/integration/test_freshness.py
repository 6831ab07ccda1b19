"""Which value an entity has when answers come in another order than they were asked for."""

from __future__ import annotations

import pytest

from aioftrackjobs import AsyncSession, Job

pytestmark = pytest.mark.every_client


async def test_a_change_after_others_in_a_commit_is_what_stays(session: AsyncSession) -> None:
    """The server's answer to the create is older than the update that travels with it."""
    job = session.create(Job, {"status": "queued"})
    session.create(Job, {"status": "queued"})
    job["status"] = "running"
    await session.commit()

    assert job["status"] == "running"
