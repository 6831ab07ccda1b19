"""For any operations: which queries to send, what is done, and the stages of sending."""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from aioftrackjobs.protocol.operations import (
    Create,
    Delete,
    Operation,
    Update,
    encode_operation,
)
from aioftrackjobs.protocol.query import PAGE_SIZE
from aioftrackjobs.protocol.reconciliation import (
    ExistenceQuery,
    Row,
    chosen_key_queries,
    done_among,
    existence_queries,
    is_ambiguous,
    stages,
    untouched,
)
from aioftrackjobs.protocol.references import created_ids, referenced_ids
from aioftrackjobs.protocol.values import JSONValue, Reference
from aioftrackjobs.protocol.wire import encode_batch, join_batches

IDS = st.sampled_from("abcdef")


def job(key: str) -> Reference:
    return Reference("Job", (("id", key),))


def link(component: str, of: str) -> Reference:
    return Reference("JobComponent", (("component_id", component), ("job_id", of)))


VALUES = st.dictionaries(st.sampled_from(["data", "user_id", "parent"]), IDS | st.none())
TARGETS = IDS.map(job) | st.builds(link, IDS, IDS)
OPERATIONS = st.lists(
    st.builds(Create, TARGETS, VALUES, st.booleans())
    | st.builds(Update, TARGETS, VALUES)
    | st.builds(Delete, TARGETS)
)


# stages


@given(OPERATIONS)
def test_stages_keep_all_operations_in_their_order(operations: list[Operation]) -> None:
    split = stages(operations)

    assert [each for stage in split for each in stage] == operations
    assert all(split)


@given(OPERATIONS)
def test_no_stage_refers_to_what_it_has_created_before(operations: list[Operation]) -> None:
    for stage in stages(operations):
        created: set[str] = set()
        for operation in stage:
            assert created.isdisjoint(referenced_ids(operation))
            created.update(created_ids(operation))


@given(OPERATIONS)
def test_there_are_no_more_stages_than_needed(operations: list[Operation]) -> None:
    """Each stage begins with an operation that names what the one before it created."""
    split = stages(operations)
    for before, stage in pairwise(split):
        created = {each for operation in before for each in created_ids(operation)}
        assert not created.isdisjoint(referenced_ids(stage[0]))


def test_references_deep_inside_a_value_count() -> None:
    members: list[JSONValue] = [{"__entity_type__": "Job", "id": "a"}]
    operations: list[Operation] = [Create(job("a")), Update(job("b"), {"members": members})]

    assert len(stages(operations)) == 2


# existence_queries


class Server:
    """The entities that exist; a server applies the first operations of a batch, maybe not all."""

    def __init__(self, existing: Sequence[Reference]) -> None:
        self.rows: dict[Reference, dict[str, object]] = {each: {} for each in existing}

    def apply(self, operations: Sequence[Operation]) -> None:
        for operation in operations:
            match operation:
                case Create(target, values):
                    self.rows[target] = dict(values)
                case Update(target, values):
                    self.rows[target].update(values)
                case Delete(target):
                    self.rows.pop(target, None)

    def respond(self, queries: Sequence[ExistenceQuery]) -> dict[Reference, Row]:
        """Return the rows of the entities that the queries find."""
        found: dict[Reference, Row] = {}
        for query in queries:
            rows = [
                {**dict(each.key), **{name: self.rows[each].get(name) for name in query.names}}
                for each in query.references
                if each in self.rows
            ]
            found.update(query.found({"data": rows}))
        return found


@given(OPERATIONS, st.lists(TARGETS))
def test_existence_queries_find_what_exists(
    operations: list[Operation], existing: list[Reference]
) -> None:
    server = Server(existing)
    for queries in (existence_queries(operations), chosen_key_queries(operations)):
        references = {each for query in queries for each in query.references}

        assert server.respond(queries).keys() == server.rows.keys() & references


def test_many_keys_are_queried_in_pages_and_each_once() -> None:
    operations = [Delete(job(str(index % (PAGE_SIZE + 1)))) for index in range(3 * PAGE_SIZE)]

    assert [len(query.references) for query in existence_queries(operations)] == [
        PAGE_SIZE,
        1,
    ]


def test_keys_that_are_made_are_queried_only_afterwards() -> None:
    made = Create(job("a"), {"data": "x"}, fresh=True)

    assert chosen_key_queries([made, Update(job("b")), Create(link("a", "b"))]) == []
    assert [each.names for each in existence_queries([made, Update(job("b"))])] == [()]


def test_chosen_keys_are_queried_before_and_afterwards_with_values() -> None:
    operations = [Create(job(key), {"data": "x", "parent": None}) for key in "ab"]

    (before,), (after,) = chosen_key_queries(operations), existence_queries(operations)

    assert before.operation["expression"] == 'select id from Job where id in ("a", "b")'
    assert after.operation["expression"] == 'select id, data from Job where id in ("a", "b")'


# done_among


def valid_commits() -> st.SearchStrategy[list[Operation]]:
    """Return histories of entities, shuffled among each other, as a unit of work may record them.

    An entity is created or already exists, is changed, and may be deleted.
    """

    @st.composite
    def draw_commit(draw: st.DrawFn) -> list[Operation]:
        histories: list[list[Operation]] = []
        for key in "abcd":
            history: list[Operation] = []
            if draw(st.booleans()):
                history.append(Create(job(key), {"data": "y"}, fresh=draw(st.booleans())))
            history += [Update(job(key), {"data": "x"})] * draw(st.integers(0, 2))
            if draw(st.booleans()) and not (history and isinstance(history[0], Create)):
                history.append(Delete(job(key)))
            histories.append(history)
        commit: list[Operation] = []
        while any(histories):
            commit.append(draw(st.sampled_from([each for each in histories if each])).pop(0))
        return commit

    return draw_commit()


@given(valid_commits(), st.data())
def test_what_a_server_did_is_found_and_the_rest_can_be_sent(
    commit: list[Operation], data: st.DataObject
) -> None:
    """The rest completes a batch, no matter which part a server applied before it refused it."""
    created = {each.target for each in commit if isinstance(each, Create)}
    server = Server([job(key) for key in "abcd" if job(key) not in created])
    applied = data.draw(st.integers(0, len(commit)))
    server.apply(commit[:applied])

    found = server.respond(existence_queries(commit))
    assert not is_ambiguous(commit, found, created)
    done = done_among(commit, found, created)
    rest = [each for place, each in enumerate(commit) if place not in done]

    for place, operation in enumerate(commit):
        if place in done and not isinstance(operation, Update):
            assert place < applied
        if place < applied and not isinstance(operation, Update):
            assert place in done
    for operation in rest:  # none of it is refused
        match operation:
            case Create(target):
                assert target not in server.rows
            case Update(target) | Delete(target):
                assert target in server.rows
        server.apply([operation])
    gone = {each.target for each in commit if isinstance(each, Delete)}
    assert server.rows.keys() == {job(key) for key in "abcd"} - gone


def test_existence_is_enough_for_a_link_and_not_for_a_chosen_key() -> None:
    operations = [Create(link("a", "b")), Create(job("a"), {"data": "x"})]
    found: dict[Reference, Row] = {link("a", "b"): {}, job("a"): {"data": "x"}}

    assert done_among(operations, found) == [0]


def test_a_chosen_key_that_was_free_is_ours_with_our_values() -> None:
    create = Create(job("a"), {"data": "x", "parent": None})
    same: dict[Reference, Row] = {job("a"): {"data": "x", "parent": "filled in"}}
    other: dict[Reference, Row] = {job("a"): {"data": "y"}}

    assert done_among([create], same, {job("a")}) == [0]
    assert not is_ambiguous([create], same, {job("a")})
    assert done_among([create], other, {job("a")}) == []
    assert is_ambiguous([create], other, {job("a")})
    assert not is_ambiguous([create], other, set())


def test_only_the_first_create_of_an_entity_can_have_made_it() -> None:
    creates = [Create(job("a"), {"data": "x"}), Create(job("a"), {"data": "y"})]

    assert done_among(creates, {job("a"): {"data": "x"}}, {job("a")}) == [0]


def test_a_link_that_is_replaced_is_not_taken_for_the_new_one() -> None:
    operations: list[Operation] = [Delete(link("a", "b")), Create(link("a", "b"))]

    assert done_among(operations, {link("a", "b"): {}}) == []
    assert done_among(operations, {}) == [0]


# untouched


@given(OPERATIONS, OPERATIONS)
def test_what_stays_done_has_nothing_to_do_with_what_is_deleted_or_left(
    sent: list[Operation], left: list[Operation]
) -> None:
    created = [each for each in sent if isinstance(each, Create)]
    for operation in untouched(sent, left):
        assert operation in sent
        assert not isinstance(operation, Create)
        assert operation.target not in {each.target for each in (*created, *left)}
        for each in created:
            assert set(created_ids(each)).isdisjoint(referenced_ids(operation))


def test_a_change_of_something_else_stays_done() -> None:
    change = Update(job("z"), {"data": "x"})

    assert untouched([Create(job("a")), change], [Update(job("a"), {"data": "x"})]) == [change]


# join_batches


@given(
    st.lists(
        st.lists(
            st.builds(
                Update,
                TARGETS,
                st.dictionaries(st.just("data"), st.text(st.characters(exclude_categories=["Cs"]))),
            ),
            min_size=1,
        ),
        min_size=1,
    )
)
def test_joined_batches_carry_all_operations_in_their_order(batches: list[list[Operation]]) -> None:
    wire = [[encode_operation(each) for each in batch] for batch in batches]

    joined = join_batches([encode_batch(batch) for batch in wire])

    assert json.loads(joined) == [each for batch in wire for each in batch]
