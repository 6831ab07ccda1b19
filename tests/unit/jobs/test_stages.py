"""Progress arithmetic: amounts, and stages with weights."""

from __future__ import annotations

import math
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aioftrackjobs.jobs.progress import Progress
from aioftrackjobs.jobs.stages import Work, number, show_number


def begun(within: Work, name: str = "s", weight: float = 1, total: float | None = None) -> Work:
    stage = Work(within, name, weight, total)
    stage.begin()
    return stage


# Amounts


@pytest.mark.parametrize(
    ("done", "total", "shown"),
    [
        (0.25, None, Progress(0.25)),
        (30, 120, Progress(0.25)),
        (5, 4, Progress(1.0)),
        (Decimal(1), Decimal(3), Progress(0.3333)),
    ],
)
def test_an_amount_is_shown_as_a_fraction(done: Any, total: Any, shown: Progress) -> None:
    work = Work()

    assert work.progress(done, None, total) is None
    assert work.shown() == shown


def test_nothing_is_shown_before_the_first_report() -> None:
    assert Work().shown() == Progress(None)


def test_an_amount_without_a_total_is_no_fraction() -> None:
    work = Work()
    work.progress(1, None, None)

    assert work.progress(45, "frames", None) == "45 without a total"
    assert work.shown() == Progress(None, "45, frames")


@pytest.mark.parametrize("value", [None, "1", b"1", math.nan, math.inf, -1, 1j, [], 10**400])
def test_what_is_no_amount_changes_nothing_but_the_message(value: Any) -> None:
    work = Work()
    work.progress(0.5, "before", None)

    assert work.progress(value, "after", None)
    assert work.shown() == Progress(0.5, "after")
    assert work.advance(value, None)
    assert work.shown() == Progress(0.5, "after")


@pytest.mark.parametrize("total", [0, -1, math.nan, math.inf, "x"])
def test_a_total_that_is_none_is_a_problem(total: Any) -> None:
    work = Work()

    assert work.progress(1, None, total)
    assert work.shown() == Progress(None)


def test_advance_counts_up_to_the_total() -> None:
    work = Work()
    work.progress(0, None, 4)
    work.advance(1, None)
    assert work.shown() == Progress(0.25, "1 of 4")
    work.advance(2, "three")
    assert work.shown() == Progress(0.75, "three")
    work.advance(2, None)
    assert work.shown() == Progress(1.0, "5 of 4")


def test_a_message_that_was_set_stays_beside_the_numbers() -> None:
    work = Work()
    work.message = "encoding"
    work.progress(1, None, 4)
    assert work.shown() == Progress(0.25, "encoding")
    work.progress(2, "sh010", None)
    work.progress(0.5, "sh010", None)
    assert work.shown() == Progress(0.5, "sh010")
    work.advance(1, None)
    assert work.shown() == Progress(0.75, "encoding, 3 of 4")
    work.message = None
    assert work.shown() == Progress(0.75)


def test_advance_without_a_total_only_counts() -> None:
    work = Work()
    work.advance(1, None)
    work.advance(1.5, None)

    assert work.shown() == Progress(None, "2.5")


def test_a_thousand_steps_are_everything() -> None:
    work = Work()
    work.progress(0, None, 1000)
    for _ in range(1000):
        work.advance(1, None)

    assert work.shown() == Progress(1.0, "1000 of 1000")


def test_a_total_given_to_a_stage_is_that_of_its_reports() -> None:
    job = Work()
    stage = begun(job, "encode", 1, 120)
    stage.progress(1, None, None)

    assert stage.fraction == pytest.approx(1 / 120)


@pytest.mark.parametrize(
    ("value", "text"),
    [(1.0, "1"), (2.5, "2.5"), (1e15, "1000000000000000"), (1 / 3, "0.333333")],
)
def test_numbers_are_shown_as_people_read_them(value: float, text: str) -> None:
    assert show_number(value) == text


@given(
    st.one_of(st.none(), st.text(), st.floats(), st.integers(), st.binary(), st.complex_numbers())
)
def test_a_number_is_finite_and_not_negative(value: object) -> None:
    found = number(value)

    assert found is None or (math.isfinite(found) and found >= 0)


# Stages


def test_planned_stages_have_the_shares_of_their_weights() -> None:
    job = Work()
    encode, upload = Work(job, "encode", 3), Work(job, "upload", 1)
    encode.begin()
    encode.progress(0.5, "sh010", None)
    assert encode.shown() == Progress(0.375, "encode: sh010")
    encode.end(succeeded=True)
    assert job.shown() == Progress(0.75)
    upload.begin()
    assert upload.shown() == Progress(0.75, "upload")
    upload.end(succeeded=True)
    assert job.shown() == Progress(1.0)


def test_a_stage_that_is_made_when_it_begins_leaves_room_for_another() -> None:
    job = Work()
    begun(job, "encode", 3).end(succeeded=True)
    assert job.fraction == 0.75
    begun(job, "upload", 1).end(succeeded=True)
    assert job.fraction == 0.875


def test_a_total_of_the_job_is_the_sum_of_the_weights() -> None:
    job = Work()
    job.progress(0, None, 4)
    begun(job, "encode", 3).end(succeeded=True)
    assert job.fraction == 0.75
    begun(job, "upload", 1).end(succeeded=True)
    assert job.fraction == 1
    job.advance(1, None)
    assert job.message == "5 of 4"


def test_more_stages_than_announced_stay_at_everything() -> None:
    job = Work()
    job.progress(0, None, 2)
    for _ in range(4):
        begun(job).end(succeeded=True)

    assert job.fraction == 1


def test_stages_inside_of_a_stage_share_its_part() -> None:
    job = Work()
    render, publish = Work(job, "render", 1), Work(job, "publish", 1)
    render.begin()
    first, second = Work(render, "sh010"), Work(render, "sh020")
    first.begin()
    first.progress(0.5, "frame 12", None)
    assert first.shown() == Progress(0.125, "render: sh010: frame 12")
    for stage in (first, second, render, publish):
        stage.end(succeeded=True)
    assert job.fraction == 1


def test_stages_at_the_same_time_add_up() -> None:
    job = Work()
    stages = [Work(job, str(number)) for number in range(4)]
    for stage in stages:
        stage.begin()
        stage.progress(0.5, None, None)

    assert job.fraction == 0.5


def test_a_stage_that_fails_stays_where_it_was() -> None:
    job = Work()
    first, _ = Work(job), Work(job)
    first.begin()
    first.progress(0.5, None, None)
    first.end(succeeded=False)

    assert job.fraction == 0.25


def test_progress_of_the_job_itself_is_what_was_reported() -> None:
    job = Work()
    first, second = Work(job), Work(job)
    first.begin()
    first.progress(1, None, None)
    job.progress(0.2, "anew", None)
    assert job.shown() == Progress(0.2, "anew")
    first.end(succeeded=True)
    second.begin()
    second.progress(0.5, None, None)
    assert 0.2 < job.fraction < 0.5


def test_stages_without_weight_count_nothing() -> None:
    job = Work()
    job.progress(0.5, None, None)
    begun(job, "idle", 0).end(succeeded=True)

    assert job.fraction == 0.5


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["plan", "begin", "advance", "progress", "succeed", "fail"]),
        st.integers(0, 7),
        st.floats(0, 10),
    ),
    max_size=60,
)


@given(STEPS, st.one_of(st.none(), st.floats(0.1, 20)))
def test_progress_never_runs_backwards(
    steps: list[tuple[str, int, float]], total: float | None
) -> None:
    job = Work(total=total)
    works, before = [job], 0.0
    for step, index, amount in steps:
        work = works[index % len(works)]
        match step:
            case "plan":
                works.append(Work(work, "s", amount, amount or None))
            case "begin":
                work.begin()
            case "advance" if not work.ended:
                work.advance(amount, None)
            case "progress" if not work.ended and work is not job:
                work.progress(max(work.fraction, amount / 10), None, 1)
            case "succeed" | "fail" if not any(each.within is work for each in works):
                work.end(succeeded=step == "succeed")
            case _:
                pass
        assert 0 <= job.fraction <= 1
        assert job.fraction >= before - 1e-9
        before = job.fraction
        assert isinstance(str(work.shown()), str)


@given(st.lists(st.floats(0.01, 100), min_size=2, max_size=8))
def test_planned_stages_are_everything_in_the_end(weights: list[float]) -> None:
    job = Work()
    stages = [Work(job, "s", weight) for weight in weights]
    for stage in stages:
        stage.begin()
        stage.end(succeeded=True)

    assert job.fraction == pytest.approx(1)
