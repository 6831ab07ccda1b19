"""Writes that are refused, and questions that are not answered: neither is taken for the other."""

from __future__ import annotations

import re
from collections.abc import Callable
from itertools import count, product
from typing import Any

import anyio
import pytest

from aioftrackjobs import (
    AsyncSession,
    CommitUncertainError,
    FtrackJobsError,
    Job,
    PermissionDeniedError,
    ServerError,
)
from aioftrackjobs.config.retry import RetryPolicy
from aioftrackjobs.transport import WireRequest, WireResponse

from ..tables import RefusalError, Tables, Wire


def again() -> RetryPolicy:
    """Return a policy of a few attempts, however long they take."""
    return RetryPolicy(budget=5, first_delay=0, clock=count().__next__)


class Studio(Tables):
    """A server with a user of few permissions.

    Attributes:
        forbidden: Keys of what the user may neither change nor delete.
        hidden: Keys of what queries do not show the user.
        refusals: Names of errors that refuse the next writes.
        question: What is done with each request of queries alone.
    """

    def __init__(self) -> None:
        super().__init__()
        self.forbidden: set[str] = set()
        self.hidden: set[str] = set()
        self.refusals: list[str] = []
        self.question = "answered"

    async def send(self, request: WireRequest) -> WireResponse:
        assert isinstance(request.body, bytes)
        if self.question == "a page" and b'"action":"query"' in request.body:
            return WireResponse(200, b"<h1>Please log in</h1>")
        return await super().send(request)

    def _apply_one(self, operation: Wire, created: list[str]) -> Wire:
        if operation["action"] == "query":
            return self._answer(operation, created)
        if self.refusals:
            raise RefusalError(self.refusals.pop(0), "refused")
        if operation["entity_key"][0] in self.forbidden:
            raise RefusalError("PermissionError", "you may not")
        return super()._apply_one(operation, created)

    def _answer(self, operation: Wire, created: list[str]) -> Wire:
        if self.question == "refused":
            raise RefusalError("PermissionError", "you may not ask")
        if self.question == "another answer":
            return {"action": "query", "data": [{"__entity_type__": "Job", "id": "another"}]}
        keys = re.findall(r'"([^"]+)"', operation["expression"])
        result = super()._apply_one(operation, created)
        found = result["data"] if keys else self.rows.values()  # keys, or any rows
        rows = [row for row in found if row["id"] not in self.hidden]
        if self.question == "one of a page":
            following = 1 if len(keys) > 1 else None
            return {
                "action": "query",
                "data": rows[:1],
                "metadata": {"next": {"offset": following}},
            }
        if self.question == "an empty page":
            return {"action": "query", "data": [], "metadata": {"next": {"offset": 500}}}
        return {"action": "query", "data": rows, "metadata": {}}


@pytest.fixture
def tables() -> Studio:
    return Studio()


async def end_of(session: AsyncSession) -> str:
    """Commit, and return how it ends."""
    try:
        await session.commit()
    except FtrackJobsError as exc:
        return type(exc).__name__
    return "applied"


QUESTIONS = (
    "answered",
    "refused",
    "a page",
    "another answer",
    "one of a page",
    "an empty page",
)


@pytest.mark.every_loop
@pytest.mark.either_loop
@pytest.mark.parametrize("is_read", [False, True], ids=["own", "read"])
@pytest.mark.parametrize("hides", [False, True], ids=["shown", "hidden"])
async def test_a_delete_that_was_plainly_refused_stays_refused(
    *, hides: bool, is_read: bool
) -> None:
    for question in QUESTIONS:
        tables = Studio()
        tables.rows = {key: {"__entity_type__": "Job", "id": key, "data": "x"} for key in "ab"}
        async with tables.session(retry=again()) as session:
            kept = await _known(session, tables, "a", is_read=is_read)
            gone = await _known(session, tables, "b", is_read=is_read)
            tables.question, tables.forbidden = question, {"a"}
            tables.hidden = {"a", "b"} if hides else set()
            session.delete(kept)
            with pytest.raises(PermissionDeniedError):
                await session.commit()
            assert len(session.recorded_operations) == 1
            session.rollback()
            session.delete(gone)
            await session.commit()

        assert tables.rows.keys() == {"a"}


async def _known(session: AsyncSession, tables: Studio, key: str, *, is_read: bool) -> Job:
    """Return the Job with *key*, which a query has shown, or which the session has created."""
    if is_read:
        return await session.query(f'select id from Job where id is "{key}"').of(Job).one()
    del tables.rows[key]
    made = session.create(Job, {"id": key, "data": "x"})
    await session.commit()
    return made


@pytest.mark.every_loop
async def test_of_many_deletes_those_are_done_that_were_not_refused(tables: Studio) -> None:
    """Half of them may not be deleted, and a third is hidden; some questions are refused."""
    ends: dict[str, str] = {}
    async with tables.session(retry=again()) as session, anyio.create_task_group() as group:
        jobs = [session.create(Job, {"data": "x"}) for _ in range(60)]
        await session.commit()
        tables.forbidden = {job.id for job in jobs[::2]}
        tables.hidden = {job.id for job in jobs[::3]}
        tables.question = "refused"

        async def delete(job: Job) -> None:
            key = job.id
            async with session.unit_of_work() as unit:
                session.delete(job)
                ends[key] = await end_of(session)
                unit.rollback()

        for job in jobs:
            group.start_soon(delete, job)

    assert {key for key, end in ends.items() if end == "applied"} == ends.keys() - tables.forbidden
    assert {key for key, end in ends.items() if end != "applied"} == tables.forbidden
    assert tables.rows.keys() == tables.forbidden


async def test_a_plain_refusal_of_one_create_is_one_whatever_the_question_says(
    tables: Studio,
) -> None:
    tables.question = "a page"
    tables.refuses = lambda _: True
    async with tables.session() as session:
        session.create(Job, {"data": "x"})
        with pytest.raises(ServerError):
            await session.commit()
        assert len(session.recorded_operations) == 1
        session.rollback()


CHANGES: dict[str, Callable[[AsyncSession, Job], Any]] = {
    "create": lambda session, _: session.create(Job, {"data": "new"}),
    "update": lambda _, job: job.update(data="new"),
    "delete": lambda session, job: session.delete(job),
}


@pytest.mark.every_loop
@pytest.mark.either_loop
@pytest.mark.parametrize("change", CHANGES)
async def test_no_word_about_a_lost_write_is_false(change: str) -> None:
    """What is said to be applied is; what is said to be refused is not."""
    cases = product(
        ("lost request", "lost response"),
        ("OperationalError", "PermissionError", None),
        QUESTIONS,
        (False, True),
    )
    false: list[object] = []
    async with anyio.create_task_group() as group:
        for case in cases:
            group.start_soon(_lose, change, case, false)

    assert false == []


async def _lose(change: str, case: tuple[str, str | None, str, bool], false: list[object]) -> None:
    """Make a change whose first attempt is lost and whose second one may be refused."""
    fault, refusal, question, hides = case
    tables = Studio()
    async with tables.session(retry=again()) as session:
        job = session.create(Job, {"data": "old"})
        await session.commit()
        before = set(tables.rows)
        tables.faults.append(fault)
        tables.question = question
        if refusal is not None:
            _refuse_second(tables, refusal)
        CHANGES[change](session, job)
        key = next((each["id"] for each in session.created), job.id)
        tables.hidden = {key, *before} if hides else set()
        end = await end_of(session)
        session.rollback()

    is_applied = {
        "create": key in tables.rows and key not in before,
        "update": tables.rows.get(key, {}).get("data") == "new",
        "delete": key not in tables.rows,
    }[change]
    # Only an attempt that was applied and then refused for good ends with that refusal.
    may_be_refused = not is_applied or (refusal == "PermissionError" and change != "delete")
    if end == "CommitUncertainError":
        is_true = question != "answered" or hides or (change == "delete" and refusal is not None)
    else:
        is_true = is_applied if end == "applied" else may_be_refused
    if not is_true:
        false.append((case, end))


def _refuse_second(tables: Studio, refusal: str) -> None:
    """Let the server refuse each write after the first one that arrives."""
    first = [len(tables.batches)]

    def refuses(_: Wire) -> bool:
        if len(tables.batches) > first[0] + 1:
            raise RefusalError(refusal, "refused")
        return False

    tables.refuses = refuses


async def test_a_delete_of_what_is_gone_already_is_refused_but_done_if_it_was_in_doubt(
    tables: Studio,
) -> None:
    async with tables.session(retry=again()) as session:
        job = session.create(Job, {"data": "x"})
        await session.commit()
        tables.faults.append("lost response")
        session.delete(job)
        await session.commit()
        assert tables.rows == {}

        other = session.create(Job, {"data": "x"})
        await session.commit()
        tables.rows.clear()
        session.delete(other)
        with pytest.raises(ServerError):
            await session.commit()
        session.rollback()


@pytest.mark.every_loop
@pytest.mark.either_loop
@pytest.mark.parametrize("hides", [False, True], ids=["shown", "hidden"])
@pytest.mark.parametrize("with_others", ["create", "update", "another delete"])
async def test_a_refused_delete_stays_refused_in_a_larger_commit(
    tables: Studio, with_others: str, *, hides: bool
) -> None:
    """Whether its entity is there and hidden, or was deleted before, as if it were alone."""
    tables.rows = {key: {"__entity_type__": "Job", "id": key, "data": "x"} for key in "abc"}
    async with tables.session(retry=again()) as session:
        kept, gone, other = [await _known(session, tables, key, is_read=True) for key in "abc"]
        del tables.rows["b"]
        for job in (kept, gone):
            tables.forbidden = {"a"}
            tables.hidden = {"a"} if hides else set()
            if with_others == "create":
                session.create(Job, {"data": "new"})
            elif with_others == "update":
                other["data"] = "new"
            else:
                session.delete(other)
            session.delete(job)
            with pytest.raises(ServerError):
                await session.commit()
            assert len(session.recorded_operations) == 2
            session.rollback()
    assert {key: row["data"] for key, row in tables.rows.items()} == {"a": "x", "c": "x"}


@pytest.mark.every_loop
async def test_a_page_of_a_proxy_does_not_say_that_an_entity_is_gone(
    tables: Studio, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its status is 404, and queries hide the entity."""
    send, pages = tables.send, [WireResponse(404, b"<h1>Not Found</h1>")]

    async def refuse(request: WireRequest) -> WireResponse:
        assert isinstance(request.body, bytes)
        return pages.pop() if pages and b'"delete"' in request.body else await send(request)

    async with tables.session(retry=again()) as session:
        job = session.create(Job, {"data": "x"})
        await session.commit()
        tables.hidden = {job.id}
        monkeypatch.setattr(tables, "send", refuse)
        session.delete(job)
        assert await end_of(session) == "CommitUncertainError"
        session.rollback()
    assert tables.rows.keys() == {job.id}


async def test_a_page_that_does_not_have_all_rows_is_read_on(tables: Studio) -> None:
    tables.question = "one of a page"
    async with tables.session(retry=again()) as session:
        tables.faults.append("lost response")
        for _ in range(5):
            session.create(Job, {"data": "x"})
        await session.commit()

        assert len(tables.batches) == 1
        assert session.uncertain_operations == ()
    assert len(tables.rows) == 5


async def test_an_uncertain_commit_is_no_refusal(tables: Studio) -> None:
    tables.question = "a page"
    async with tables.session(retry=again()) as session:
        job = session.create(Job, {"data": "old"})
        await session.commit()
        tables.faults.append("lost response")
        session.delete(job)
        with pytest.raises(CommitUncertainError) as caught:
            await session.commit()
        tables.question = "answered"
        await caught.value.resolve()
    assert tables.rows == {}
