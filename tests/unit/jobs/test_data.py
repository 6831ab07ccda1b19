"""The data of a Job: the values of this package beside those of others."""

from __future__ import annotations

import json

import pytest

from aioftrackjobs.jobs.data import JobData, parse_given_data
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
