"""The reconciler on a transport without a socket: what it asks, and what it takes for done."""

from __future__ import annotations

import pytest

from aioftrackjobs import TransportError
from aioftrackjobs.commit.api_client import ApiClient
from aioftrackjobs.commit.reconciler import Reconciler
from aioftrackjobs.commit.request import PendingRequest
from aioftrackjobs.models import new_id
from aioftrackjobs.protocol.operations import Create, Operation, Update
from aioftrackjobs.protocol.values import Reference
from tests.tables import Tables


@pytest.fixture
def tables() -> Tables:
    return Tables()


@pytest.fixture
def reconciler(tables: Tables) -> Reconciler:
    return Reconciler(ApiClient(tables, url="https://ftrack.test/api", headers={}))


def create(key: str | None = None, data: str = "mine") -> Create:
    """Return a create under a key that was made for it, or under one of a user's choice."""
    is_fresh = key is None
    return Create(Reference("Job", (("id", key or new_id()),)), {"data": data}, fresh=is_fresh)


def request(*changes: Operation) -> PendingRequest:
    return PendingRequest.of_commit(changes, lambda _: None)


def has(tables: Tables, operation: Operation, **values: str) -> None:
    """Have the server hold the entity of *operation*, with *values*."""
    key = operation.target.key[0][1]
    tables.rows[key] = {"__entity_type__": "Job", "id": key, **values}


async def test_what_exists_under_its_own_key_is_done(
    tables: Tables, reconciler: Reconciler
) -> None:
    done, open_ = request(create()), request(create())
    has(tables, done.operations[0], data="changed by others since")

    any_done, unanswered = await reconciler.reconcile([done, open_])

    assert any_done
    assert unanswered == []
    assert list(done.operations_left) == []
    assert open_.operations_left == open_.operations
    assert tables.queries == 1, "one request for all"


async def test_where_nothing_exists_nothing_is_done(reconciler: Reconciler) -> None:
    pending = request(create(), create())

    any_done, _ = await reconciler.reconcile([pending])

    assert not any_done
    assert pending.operations_left == pending.operations


async def test_updates_alone_cause_no_query(tables: Tables, reconciler: Reconciler) -> None:
    """They set absolute values, and may be sent again."""
    change = Update(Reference("Job", (("id", new_id()),)), {"data": "x"})

    assert await reconciler.reconcile([request(change)]) == (False, ())
    assert tables.queries == 0


async def test_a_server_that_refuses_the_question_says_nothing(
    tables: Tables, reconciler: Reconciler
) -> None:
    tables.hides = {"Job"}
    pending = request(create(), create(), create())

    any_done, unanswered = await reconciler.reconcile([pending])

    assert not any_done
    assert list(unanswered) == [pending]
    assert pending.operations_left == pending.operations


async def test_a_query_without_a_response_is_an_error(
    tables: Tables, reconciler: Reconciler
) -> None:
    tables.faults.append("lost query")

    with pytest.raises(TransportError):
        await reconciler.reconcile([request(create())])


async def test_chosen_keys_are_looked_up_before_they_are_used(
    tables: Tables, reconciler: Reconciler
) -> None:
    taken, free = request(create("taken")), request(create("free"))
    has(tables, taken.operations[0], data="mine")

    await reconciler.check_chosen_keys([taken, free])

    assert taken.free_keys == set()
    assert free.free_keys == {free.operations[0].target}


async def test_a_key_that_was_taken_before_is_not_ours_even_with_the_same_values(
    tables: Tables, reconciler: Reconciler
) -> None:
    pending = request(create("k"))
    has(tables, pending.operations[0], data="mine")
    await reconciler.check_chosen_keys([pending])

    any_done, _ = await reconciler.reconcile([pending])

    assert not any_done
    assert pending.operations_left == pending.operations


async def test_a_key_that_was_free_before_and_has_our_values_is_ours(
    tables: Tables, reconciler: Reconciler
) -> None:
    pending = request(create("k"))
    await reconciler.check_chosen_keys([pending])
    has(tables, pending.operations[0], data="mine")

    any_done, _ = await reconciler.reconcile([pending])

    assert any_done
    assert list(pending.operations_left) == []


async def test_a_key_that_was_free_before_and_has_other_values_stays_uncertain(
    tables: Tables, reconciler: Reconciler
) -> None:
    pending = request(create("k"))
    await reconciler.check_chosen_keys([pending])
    has(tables, pending.operations[0], data="of another client")

    any_done, _ = await reconciler.reconcile([pending])

    assert not any_done
    assert pending.uncertain_because is not None
