"""The data of a Job: the values of this package beside those of others."""

from __future__ import annotations

import json
from typing import Any

import pytest

from aioftrackjobs.jobs.data import JobData, compose_recovered_data, parse_given_data
from aioftrackjobs.jobs.progress import Progress


def test_the_description_is_replaced_and_the_rest_is_kept() -> None:
    report = JobData("Render")

    assert report.compose('{"frames": [1], "description": "old"}') == {
        "frames": [1],
        "description": "Render",
    }


def test_without_a_description_nothing_is_added() -> None:
    assert JobData(None).compose('{"a": 1}') == {"a": 1}


def test_progress_and_failure_follow_the_base_text() -> None:
    report = JobData("Render")
    report.progress = Progress(0.5, "sh010")
    report.failure_reason = "ValueError: bad"

    assert report.compose(None, {"host": "n7"}) == {
        "host": "n7",
        "description": "Render (50 %, sh010) - failed: ValueError: bad",
        "base_description": "Render",
        "progress": 0.5,
    }


def test_a_job_that_runs_again_starts_from_its_base_text() -> None:
    first = JobData("Render")
    first.progress, first.failure_reason = Progress(1.0), "ValueError: disk"
    data = json.dumps(first.compose(None))

    again = JobData(None)
    again.adopt_description(data)
    again.progress = Progress(1.0)

    assert again.compose(data)["description"] == "Render (100 %)"


def test_a_job_without_a_text_that_runs_again_starts_from_none() -> None:
    first = JobData(None, progress=Progress(0.4, "loading"), failure_reason="OSError: disk full")
    data = json.dumps(first.compose(None))

    again = JobData(None)
    again.adopt_description(data)
    assert "description" not in again.compose(data)
    again.progress = Progress(0.2)

    assert again.compose(data)["description"] == "20 %"


def test_a_joined_report_about_a_job_without_a_text_is_kept_until_the_end() -> None:
    joined = JobData(None, progress=Progress(0.4, "loading"), is_running=True)
    data = json.dumps(joined.compose("{}"))
    owner = JobData(None, is_running=True)
    again = JobData("", is_running=True)

    assert owner.compose(data)["description"] == again.compose(data)["description"]
    assert owner.compose(data)["description"] == "40 %, loading"
    assert owner.compose(data)["base_description"] == ""
    owner.is_running = False
    assert owner.compose(data) == {"progress": 0.4}


@pytest.mark.parametrize("data", ["{}", '{"description": "50 %", "base_description": ""}'])
def test_the_reason_of_a_mistaken_recovery_is_no_report(data: str) -> None:
    recovered = json.dumps(compose_recovered_data(data, "gone", {"holder": "me"}))

    assert JobData(None, is_running=True).compose(recovered) == {}
    assert JobData("x", is_running=True).compose(recovered) == {"description": "x"}


def test_a_text_that_is_no_json_object_is_kept_aside() -> None:
    report = JobData("Render")

    once = report.compose("plain text of the server")
    twice = report.compose(json.dumps(once))

    assert (
        once
        == twice
        == {
            "previous_data": "plain text of the server",
            "description": "Render",
        }
    )


@pytest.mark.parametrize("data", [None, "", "{}", "null"])
def test_empty_data_leaves_nothing_aside(data: str | None) -> None:
    assert JobData(None).compose(data) == {}


def test_text_that_is_no_unicode_can_still_travel() -> None:
    report = JobData("frame\udcff.exr")
    report.failure_reason = "cannot read \udc80"

    composed = report.compose(None)

    assert composed["description"].encode()
    assert composed["base_description"] == "frame?.exr"


@pytest.mark.parametrize(("data", "parsed"), [("{}", {}), ('{"a": 1}', {"a": 1})])
def test_users_may_give_data_as_json(data: str, parsed: dict[str, int]) -> None:
    assert parse_given_data(data) == parsed


@pytest.mark.parametrize("data", ["", "[1]", "text", "[" * 100_000])
def test_other_text_is_refused(data: str) -> None:
    with pytest.raises(ValueError, match="JSON object"):
        parse_given_data(data)


def test_a_job_that_is_done_shows_its_result_in_place_of_progress() -> None:
    report = JobData("Render", progress=Progress(0.5, "sh010"))
    before = json.dumps(report.compose(None))
    report.is_done, report.result = True, "3 files"

    assert report.compose(before) == {
        "description": "Render - 3 files",
        "base_description": "Render",
        "progress": 0.5,
    }


def test_a_job_without_a_text_has_none_when_it_is_done() -> None:
    report = JobData(None, progress=Progress(0.5, "sh010"))
    before = report.compose(None)
    assert before["description"] == "50 %, sh010"
    report.is_done = True

    assert report.compose(json.dumps(before)) == {"progress": 0.5}


def test_progress_that_is_not_known_any_more_is_removed() -> None:
    report = JobData("Render", progress=Progress(0.5))
    before = json.dumps(report.compose(None))
    report.progress = Progress(None, "45")

    assert report.compose(before) == {
        "description": "Render (45)",
        "base_description": "Render",
    }


def test_a_long_text_is_cut() -> None:
    composed = JobData("x" * 1_000_000).compose(None)

    assert len(composed["description"]) == 2000


@pytest.mark.parametrize(
    ("before", "after", "description"),
    [
        ({"description": "Render"}, {"description": "Render v2"}, "Render v2"),
        ({"description": "Render"}, {"description": "Render (retry)"}, "Render (retry)"),
        ({"description": "Render"}, {"description": "Render"}, "Render"),
        ({"description": "Render"}, {"mine": 1}, "Render"),
        ({"description": "Render"}, {"description": None}, ""),
        ({"description": "Render"}, {"description": 5}, "Render"),
        ({"description": "Render (50 %)"}, {"description": "Render (25 %)"}, "Render"),
        ({"description": "Render (50 %)"}, {"description": "Render (99 %, sh010)"}, "Render"),
        ({"description": "Render (50 %)"}, {"description": "Render (sh010)"}, "Render"),
        ({"description": "Render (50 %)"}, {"description": "Comp"}, "Comp"),
    ],
)
def test_a_text_that_the_program_sets_is_the_base_text(
    before: dict[str, Any], after: dict[str, Any], description: str
) -> None:
    report = JobData("Render", progress=Progress(None, "sh010"))
    report.compose(None)  # what the program may have read, and set again later
    report.adopt_change(json.dumps(before), json.dumps(after))

    assert report.description == description


def test_a_former_base_text_may_be_set_again() -> None:
    report = JobData("first")
    report.compose(None)
    report.description = "second"
    written = json.dumps(report.compose(None))
    report.adopt_change(written, json.dumps({"description": "first"}))

    assert report.description == "first"


def test_values_that_the_program_has_changed_go_along() -> None:
    report = JobData("Render")
    before = {"description": "Render", "kept": 1, "lease": {}, "changed": 1}
    report.adopt_values(
        json.dumps(before), json.dumps({**before, "changed": 2, "new": 3, "lease": 5})
    )

    assert report.extra == {"changed": 2, "new": 3}
    assert report.compose(json.dumps(before)) == {
        "description": "Render",
        "kept": 1,
        "changed": 2,
        "new": 3,
    }
