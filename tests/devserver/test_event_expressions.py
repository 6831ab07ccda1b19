"""What expressions of subscriptions mean, and where the official clients differ."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aioftrackjobs.devserver.events.expressions import parse

EVENT: dict[str, Any] = {
    "topic": "ftrack.update",
    "source": {"user": {"username": "maya"}, "id": None},
    "data": {"n": 10, "s": "10", "list": ["a"], "and": "x", "with space": "y", "empty": ""},
}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("topic=ftrack.update", True),
        ("topic = ftrack.update", True),
        ('topic="ftrack.update"', True),
        ("topic='ftrack.update'", True),
        ("topic=ftrack.*", True),
        ("topic=*", True),
        ("topic='ftrack.*'", True),
        ("topic=track.*", False),
        ("topic=*update", False),
        ("topic!=ftrack.*", True),
        ("topic!=ftrack.update", False),
        ("topic=a or topic=ftrack.update and source.user.username=maya", True),
        ("(topic=a or topic=ftrack.update) and source.user.username=tom", False),
        ("TOPIC=ftrack.update", False),
        ("topic=a OR NOT topic=b", True),
        ("not topic=a and not topic=b", True),
        ("not (topic=a or topic=ftrack.update)", False),
        ("missing=a", False),
        ("missing!=a", False),
        ("not missing=a", True),
        ("topic.deeper=a", False),
        ("data.n=10", False),
        ("data.n!=10", True),
        ("data.n>1", False),
        ("data.s>=1", True),
        ("data.s<1", False),
        ("data.list=a", False),
        ("data.and=x", True),
        ('data.empty=""', True),
        ("source.id=None", False),
        ("source.user.username=maya and source.user.username=tom", False),
        ("topic=ftrack.update and topic=ftrack.update", True),
    ],
)
def test_expressions(text: str, expected: bool) -> None:
    assert parse(text).matches(EVENT) is expected


@pytest.mark.parametrize(
    ("text", "where"),
    [
        ("", "at its end"),
        ("topic=", "at its end"),
        ("topic=a and", "at its end"),
        ("(topic=a", "at its end"),
        ("topic=a)", "at ')'"),
        ("topic=a topic=b", "at 'topic=b'"),
        ("topic='a", 'at "\'a"'),
    ],
)
def test_errors_name_the_place(text: str, where: str) -> None:
    with pytest.raises(ValueError, match="cannot be read") as refused:
        parse(text)
    assert str(refused.value).endswith(f"{where}.")


@given(st.text(max_size=60))
def test_any_text_is_an_expression_or_an_error(text: str) -> None:
    try:
        expression = parse(text)
    except ValueError:
        return
    assert isinstance(expression.matches(EVENT), bool)
