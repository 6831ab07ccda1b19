"""What the replay of the journal reads in its entries."""

from __future__ import annotations

import json

import pytest

from aioftrackjobs.jobs.journal_replay import _has_begun
from aioftrackjobs.journal import Entry


def entry(final_report: str | None) -> Entry:
    return Entry("job", "j1", "me", 0.0, final_report)


@pytest.mark.parametrize(
    ("report", "has_begun"),
    [
        ({"status": "done", "data": {}, "has_begun": True}, True),
        ({"status": "done", "data": {}, "has_begun": False}, False),
        ({"status": "done", "data": {"has_begun": True}, "has_begun": False}, False),
        ({"status": "done", "data": {"theirs": {"has_begun": True}}}, False),
        ([], False),
    ],
)
def test_a_key_of_the_users_does_not_say_that_a_job_has_begun(
    report: object, has_begun: bool
) -> None:
    assert _has_begun(entry(json.dumps(report))) is has_begun


@pytest.mark.parametrize("text", [None, "", "{", '"has_begun": true'])
def test_what_is_no_final_report_says_nothing(text: str | None) -> None:
    assert _has_begun(entry(text)) is False
