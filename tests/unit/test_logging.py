"""Log records: constant messages, with their data beside them."""

from __future__ import annotations

import ast
import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

import aioftrackjobs
from aioftrackjobs.background import SafeLogger

PACKAGE = Path(aioftrackjobs.__file__).parent
LEVELS = {"debug", "info", "warning", "error", "exception", "critical", "log"}


def calls() -> Iterator[tuple[str, ast.Call]]:
    """Yield each call of a logger in the package, and where it is."""
    for path in sorted(PACKAGE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            match node:
                case ast.Call(func=ast.Attribute(value=ast.Name(id=name), attr=attribute)):
                    if attribute in LEVELS and name.strip("_") in ("logger", "errors", "log"):
                        yield f"{path.relative_to(PACKAGE)}:{node.lineno}", node


def test_every_message_is_a_constant() -> None:
    """What varies is in its arguments, so that records can be counted by their message."""
    found = list(calls())
    texts = {
        place: next((each for each in call.args if isinstance(each, ast.Constant)), None)
        for place, call in found
    }

    assert len(found) > 100
    assert [place for place, text in texts.items() if not isinstance(text, ast.Constant)] == []
    first = [call.args[1 if call.func.attr == "log" else 0] for _, call in found]  # type: ignore[attr-defined]
    assert all(isinstance(each, ast.Constant) for each in first)


def test_the_loggers_of_the_client_add_the_data() -> None:
    """The embedded server has plain ones: its errors are to be seen."""
    plain = {
        path.relative_to(PACKAGE).parts[0]
        for path in PACKAGE.rglob("*.py")
        if "= logging.getLogger(" in path.read_text("utf-8")
    }

    assert plain <= {"devserver", "background", "cli", "jobs"}  # where others' loggers are used


def test_a_record_has_its_data_as_plain_values(caplog: pytest.LogCaptureFixture) -> None:
    logger = SafeLogger("aioftrackjobs.test")

    with caplog.at_level(logging.INFO, "aioftrackjobs.test"):
        logger.info("%s failed after %d s: %s", Path("a.exr"), 3, ValueError("no cache"))

    (record,) = caplog.records
    assert record.getMessage() == "a.exr failed after 3 s: no cache"
    assert vars(record)["ftrack_message"] == "%s failed after %d s: %s"
    assert vars(record)["ftrack_values"] == ["a.exr", 3, "no cache"]
