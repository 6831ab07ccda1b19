"""Log records: constant messages, with their data beside them."""

from __future__ import annotations

import ast
import json
import logging
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import aioftrackjobs
from aioftrackjobs import Job
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


def test_each_value_has_a_name_that_its_message_shows() -> None:
    found = [
        (place, call)
        for place, call in calls()
        if not place.startswith(("devserver", "cli")) and "self._logger" not in ast.unparse(call)
    ]
    wrong = []
    for place, call in found:
        names = {each.arg for each in call.keywords} - {"exc_info", "stacklevel"}
        message = ast.literal_eval(call.args[0])
        if len(call.args) > 1 or set(re.findall(r"%\((\w+)\)", message)) != names:
            wrong.append(place)

    assert len(found) > 100
    assert wrong == []


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
        logger.info(
            "%(job)r: %(path)s failed after %(seconds)d s: %(error)s",
            job=Job(id="j1"),
            path=Path("a.exr"),
            seconds=3,
            error=ValueError("no cache"),
        )

    (record,) = caplog.records
    assert record.getMessage().endswith(": a.exr failed after 3 s: no cache")
    assert fields(record) == {
        "ftrack_message": "%(job)r: %(path)s failed after %(seconds)d s: %(error)s",
        "ftrack_job_id": "j1",
        "ftrack_path": "a.exr",
        "ftrack_seconds": 3,
        "ftrack_error": "no cache",
    }


def test_no_field_has_what_gives_access_to_a_file(caplog: pytest.LogCaptureFixture) -> None:
    logger = SafeLogger("aioftrackjobs.test")

    logger.warning(
        "%(error)s",
        error=OSError("GET https://u:secret@store.example/a/b?X-Amz-Signature=secret: refused"),
    )

    (record,) = caplog.records
    assert fields(record)["ftrack_error"] == "GET https://***@store.example/a/b?*** refused"


class _Odd:
    """A value that raises an error whatever is asked."""

    def __getattribute__(self, name: str) -> Any:
        raise RuntimeError

    def __repr__(self) -> str:
        raise RuntimeError


def test_a_value_that_raises_loses_no_other(caplog: pytest.LogCaptureFixture) -> None:
    logger = SafeLogger("aioftrackjobs.test")

    logger.warning("%(error)s", error=ValueError("no cache"), job=_Odd())

    (record,) = caplog.records
    assert (fields(record)["ftrack_error"], fields(record)["ftrack_job_id"]) == ("no cache", "")


def test_a_formatter_of_json_shows_the_fields(caplog: pytest.LogCaptureFixture) -> None:
    """Any that writes the attributes which a plain record does not have."""
    plain = vars(logging.makeLogRecord({})).keys() | {"message", "asctime"}
    SafeLogger("aioftrackjobs.test").warning("%(count)d of them", count=3)

    (record,) = caplog.records
    added = {name: value for name, value in vars(record).items() if name not in plain}
    assert json.loads(json.dumps(added)) == {
        "ftrack_message": "%(count)d of them",
        "ftrack_count": 3,
    }


def fields(record: logging.LogRecord) -> dict[str, Any]:
    return {name: value for name, value in vars(record).items() if name.startswith("ftrack_")}
