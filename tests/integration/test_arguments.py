"""Wrong arguments are refused where they enter: by name, and before anything is sent."""

from __future__ import annotations

import inspect
import math
import re
import uuid
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

import aioftrackjobs
from aioftrackjobs import (
    ArgumentError,
    AsyncSession,
    Entity,
    EntityError,
    FtrackJobsError,
    InvalidKeyError,
    InvalidValueError,
    Job,
    RetryPolicy,
    UnknownEntityTypeError,
    UnserialisableValueError,
    User,
    job_context,
    recover,
    shutdown_on_signals,
)
from aioftrackjobs.transport import WireRequest, WireResponse

CIRCULAR: dict[str, Any] = {}
CIRCULAR["itself"] = CIRCULAR


class Silent:
    """A transport that must not be used."""

    def __init__(self) -> None:
        self.sent: list[WireRequest] = []

    async def send(self, request: WireRequest) -> WireResponse:
        self.sent.append(request)
        return WireResponse(404, b"")

    def stream(self, request: WireRequest) -> Any:
        self.sent.append(request)
        raise NotImplementedError


@dataclass(frozen=True)
class Case:
    """A call with a wrong argument.

    Attributes:
        call: The call; its result may be awaited, entered or neither.
        argument: What the error names.
        error: Its class.
    """

    call: Callable[[AsyncSession], Any]
    argument: str
    error: type[FtrackJobsError] = ArgumentError


def each(
    call: Callable[[AsyncSession, Any], Any],
    argument: str,
    values: Iterable[Any],
    error: type[FtrackJobsError] = ArgumentError,
) -> list[Case]:
    """Return a case for each of the wrong *values* of an argument."""

    def bound(value: Any) -> Case:
        return Case(lambda session: call(session, value), argument, error)

    return [bound(value) for value in values]


def numbers(call: Callable[[AsyncSession, Any], Any], argument: str) -> list[Case]:
    """Return cases for an argument that is a number of seconds."""
    return each(call, argument, (-1, -0.5, math.nan, "5", b"5", [], True, -math.inf))


def flags(call: Callable[[AsyncSession, Any], Any], argument: str) -> list[Case]:
    return each(call, argument, ("false", 0, None, []))


def texts(call: Callable[[AsyncSession, Any], Any], argument: str) -> list[Case]:
    return each(call, argument, (5, b"x", ["x"], Path("x"), {"x": 1}, object()))


def mappings(call: Callable[[AsyncSession, Any], Any], argument: str) -> list[Case]:
    wrong: tuple[Any, ...] = ([], [1], "x", 5, {1: "x"}, {None: 1}, {("a",): 1}, [("a", 1)])
    return each(call, argument, wrong)


def callbacks(call: Callable[[AsyncSession, Any], Any], argument: str) -> list[Case]:
    async def wrong(done: int, total: int | None) -> None: ...

    return each(call, argument, (5, "print", wrong))


def new(**options: Any) -> AsyncSession:
    return AsyncSession("http://ftrack.test", "key", "maya", **options)


def foreign() -> Entity:
    return Job(status="queued")


CASES: dict[str, list[Case]] = {
    "AsyncSession": [
        *each(lambda _, v: new(observer=v), "observer", (5, "x", object(), [])),
        *numbers(lambda _, v: new(timeout=v), "timeout"),
        Case(lambda _: new(timeout=0), "timeout"),
        *numbers(lambda _, v: new(lease=v), "lease"),
        Case(lambda _: new(lease=math.inf), "lease"),
        Case(lambda _: new(lease=1e12), "lease"),
        *flags(lambda _, v: new(strict_api=v), "strict_api"),
        *flags(lambda _, v: new(group_commit=v), "group_commit"),
        *each(lambda _, v: new(transfers=v), "transfers", (0, -1, 1.5, "8", None, True, math.inf)),
        *each(
            lambda _, v: new(client=v),
            "client",
            (5, "httpx", httpx.Client(), httpx.AsyncClient, object()),
        ),
        *each(lambda _, v: new(retry=v), "retry", (None, 5, RetryPolicy)),
        *each(lambda _, v: new(journal=v), "journal", (5, b"x", ["x"], True)),
    ],
    "AsyncSession.query": [
        *texts(lambda s, v: s.query(v), "expression"),
        Case(lambda s: s.query(None), "expression"),  # type: ignore[call-overload]
    ],
    "AsyncSession.get": [
        *each(
            lambda s, v: s.get(v, "id"),
            "the entity type",
            (None, 5, b"Job", ["Job"], dict, object(), foreign()),
        ),
        Case(lambda s: s.get("job", "id"), "Did you mean 'Job'", UnknownEntityTypeError),
        Case(lambda s: s.get("", "id"), "entity type", UnknownEntityTypeError),
        Case(lambda s: s.get(Entity, "id"), "entity type", EntityError),
    ],
    "AsyncSession.populate": [
        *each(
            lambda s, v: s.populate(s.create("Job"), v),
            "projections",
            (None, 5, b"x", [], [5], [None], ["id", ""], "", {"id": 1}, ["id", b"x"]),
        ),
        *each(
            lambda s, v: s.populate(v, "id"),
            "entities",
            (None, 5, "id", b"id", ["id"], [None], {"a": 1}, object()),
        ),
        Case(lambda s: s.populate(foreign(), "id"), "does not belong", EntityError),
        Case(lambda s: s.populate([foreign()], "id"), "does not belong", EntityError),
    ],
    "AsyncSession.call": [
        *each(
            lambda s, v: s.call(v),
            "operations",
            (None, 5, "query", {"action": "query"}, [5], ["query"], [["action"]]),
        ),
        Case(lambda s: s.call([{"a": {1, 2}}]), "operations", UnserialisableValueError),
        Case(lambda s: s.call([{"a": math.nan}]), "operations", UnserialisableValueError),
        Case(lambda s: s.call([{"a": CIRCULAR}]), "operations", UnserialisableValueError),
        Case(lambda s: s.call([{"a": b"x"}]), "operations", UnserialisableValueError),
    ],
    "AsyncSession.create": [
        *mappings(lambda s, v: s.create("Job", v), "data"),
        *each(lambda s, v: s.create(v), "the entity type", (None, 5, dict, object(), foreign())),
        Case(lambda s: s.create("job"), "Did you mean 'Job'", UnknownEntityTypeError),
        Case(lambda s: s.create("user"), "Did you mean 'User'", UnknownEntityTypeError),
        Case(lambda s: s.create("assetVersion"), "'AssetVersion'", UnknownEntityTypeError),
        Case(lambda s: s.create("Job", {"status": "runing"}), "status", InvalidValueError),
        Case(lambda s: s.create("Job", {"data": {"a": math.nan}}), "a", UnserialisableValueError),
        Case(lambda s: s.create("Job", {"data": {"a": {1}}}), "a", UnserialisableValueError),
        Case(lambda s: s.create("Job", {"data": CIRCULAR}), "itself", UnserialisableValueError),
        Case(lambda s: s.create("Task", {"name": math.inf}), "name", UnserialisableValueError),
        Case(lambda s: s.create("Task", {"name": Path("x")}), "name", UnserialisableValueError),
        Case(lambda s: s.create("Task", {"metadata": {"a": 1}}), "metadata", InvalidValueError),
    ],
    "AsyncSession.delete": [
        *each(lambda s, v: s.delete(v), "entity", (None, "id", 5, [], {})),
        Case(lambda s: s.delete(foreign()), "does not belong", EntityError),
    ],
    "AsyncSession.ensure": [
        *mappings(lambda s, v: s.ensure("User", v), "data"),
        Case(lambda s: s.ensure("User", None), "data"),  # type: ignore[call-overload]
        *each(
            lambda s, v: s.ensure("User", {"username": "m"}, v),
            "identifying_keys",
            ("username", 5, [], [5], b"x", {"username": 1}, [""]),
        ),
        Case(lambda s: s.ensure("user", {"username": "m"}), "'User'", UnknownEntityTypeError),
        Case(lambda s: s.ensure(5, {"username": "m"}), "the entity type"),  # type: ignore[call-overload]
    ],
    "AsyncSession.create_component": [
        *mappings(lambda s, v: s.create_component(b"x", v, name="x"), "data"),
        *texts(lambda s, v: s.create_component(b"x", name=v), "name"),
        Case(lambda s: s.create_component(b"x", name=""), "name"),
        *flags(lambda s, v: s.create_component(b"x", name="x", checksum=v), "checksum"),
        *callbacks(lambda s, v: s.create_component(b"x", name="x", progress=v), "progress"),
        *each(
            lambda s, v: s.create_component(b"x", name="x", version=v), "version", (5, "id", [], {})
        ),
        *each(
            lambda s, v: s.create_component(b"x", {}, v, name="x"),
            "location",
            (None, 5, "ftrack.server", ["auto"]),
        ),
        Case(
            lambda s: s.create_component(b"x", {"metadata": {"a": 1}}, name="x"),
            "metadata",
            InvalidValueError,
        ),
        Case(lambda s: s.create_component(b"x", {"sise": 1}, name="x"), "'size'", EntityError),
    ],
    "AsyncSession.download": [
        *each(lambda s, v: s.download(v, "x"), "component", (None, 5, "", " ", b"id", ["id"])),
        *each(
            lambda s, v: s.download("id", v), "path", (None, 5, "", b"x", ["x"], "a\0b", "\ud800")
        ),
        *flags(lambda s, v: s.download("id", "x", resume=v), "resume"),
        *flags(lambda s, v: s.download("id", "x", checksum=v), "checksum"),
        *callbacks(lambda s, v: s.download("id", "x", progress=v), "progress"),
    ],
    "job_context": [
        *numbers(lambda s, v: job_context(s, grace=v), "grace"),
        *numbers(lambda s, v: job_context(s, interval=v), "interval"),
        Case(lambda s: job_context(s, grace=None), "grace"),  # type: ignore[arg-type]
        *flags(lambda s, v: job_context(s, attach_traceback=v), "attach_traceback"),
        *flags(lambda s, v: job_context(s, attach_log=v), "attach_log"),
        *texts(lambda s, v: job_context(s, description=v), "description"),
        *each(
            lambda s, v: job_context(s, data=v),
            "data",
            ([1], [], 5, "no JSON", "[1]", "5", "", b"{}", True),
        ),
        *each(
            lambda s, v: job_context(s, data=v),
            "data",
            ({1: 2}, {"a": math.nan}, {"a": {1}}, {"a": b"x"}, CIRCULAR, '{"a": NaN}'),
            UnserialisableValueError,
        ),
        *each(lambda s, v: job_context(s, user=v), "user", (5, "", b"maya", ["maya"], object())),
        *each(lambda s, v: job_context(s, job=v), "job", (5, "", b"id", ["id"], object())),
        Case(lambda s: job_context(s, user=foreign()), "user"),
        Case(lambda s: job_context(s, job=User(id="id")), "job"),
        *each(lambda s, v: job_context(v), "session", (None, 5, "session", AsyncSession, object())),
    ],
    "job_context (owners)": [
        *each(
            lambda s, v: job_context(s, stop_on=v), "stop_on", (None, "", "Any", "stop", [], b"any")
        ),
        *flags(lambda s, v: job_context(s, job="id", take_over=v), "take_over"),
        *flags(lambda s, v: job_context(s, job="id", join=v), "join"),
        *each(lambda s, v: job_context(s, new_id=v), "new_id", ("", "id", 5, b"id")),
        *each(
            lambda s, v: job_context(s, retry_on=v),
            "retry_on",
            (None, 5, "OSError", [OSError], int),
        ),
    ],
    "AsyncSession.queue_job": [
        *each(lambda s, v: s.queue_job(v), "key", ("id", 5, b"id", Job())),
        *texts(lambda s, v: s.queue_job(description=v), "description"),
        *each(lambda s, v: s.queue_job(user=v), "user", (5, "", b"x", ["x"], foreign())),
        *each(lambda s, v: s.queue_job(data=v), "data", (5, "text", [], b"{}")),
    ],
    "AsyncSession.claim_job": [
        *each(lambda s, v: s.claim_job(v), "query", (None, 5, b"Job", ["Job"], foreign())),
        *each(
            lambda s, v: s.claim_job("Job", spread=v), "spread", (0, -1, 1.5, "8", None, math.nan)
        ),
    ],
    "recover": [
        *numbers(lambda s, v: recover(s, grace=v), "grace"),
        *each(
            lambda s, v: recover(s, older_than=v),
            "older_than",
            (-1, math.nan, "5", timedelta(seconds=-1), True),
        ),
        *texts(lambda s, v: recover(s, user=v), "user"),
        Case(lambda s: recover(s, user=""), "user"),
        *flags(lambda s, v: recover(s, dry_run=v), "dry_run"),
        *flags(lambda s, v: recover(s, without_lease=v), "without_lease"),
        Case(lambda s: recover(None), "session"),  # type: ignore[arg-type]
    ],
    "shutdown_on_signals": [
        *numbers(lambda s, v: shutdown_on_signals(s, grace=v), "grace"),
        Case(lambda s: shutdown_on_signals(None), "session"),  # type: ignore[arg-type]
    ],
    "RetryPolicy": [
        *numbers(lambda _, v: RetryPolicy(budget=v), "budget"),
        *numbers(lambda _, v: RetryPolicy(first_delay=v), "first_delay"),
        *numbers(lambda _, v: RetryPolicy(longest_delay=v), "longest_delay"),
        *numbers(lambda _, v: RetryPolicy(jitter=v), "jitter"),
        Case(lambda _: RetryPolicy(jitter=1.5), "jitter"),
    ],
    "Query.of": [
        *each(lambda s, v: s.query("Job").of(v), "model", (None, 5, "Job", foreign())),
        Case(lambda s: s.query("Job").of(dict), "the entity type"),
    ],
}


class Unruly:
    """A value that raises whatever it is asked."""

    def _refuse(self, *_: object) -> Any:
        raise RuntimeError("of the value")

    __repr__ = __str__ = __eq__ = __ne__ = __bool__ = __len__ = _refuse
    __hash__ = None  # type: ignore[assignment]


class UnrulyNumber(int):
    """A number that raises whatever it is asked."""

    __repr__ = __str__ = __eq__ = __ne__ = __abs__ = Unruly._refuse
    __hash__ = int.__hash__


UNRULY: dict[str, Callable[[AsyncSession, Any], Any]] = {
    "job": lambda s, v: job_context(s, job=v),
    "user": lambda s, v: job_context(s, user=v),
    "new_id": lambda s, v: job_context(s, new_id=v),
    "stop_on": lambda s, v: job_context(s, stop_on=v),
    "description": lambda s, v: job_context(s, description=v),
    "data": lambda s, v: job_context(s, data=v),
    "take_over": lambda s, v: job_context(s, take_over=v),
    "job to stop": lambda s, v: s.stop_job(v),
    "reason": lambda s, v: s.stop_job("id", reason=v),
    "each of jobs": lambda s, v: s.wait_for([v]),
    "the entity type": lambda s, v: s.create(v),
    "expression": lambda s, v: s.query(v),
    "operations": lambda s, v: s.call(v),
    "component": lambda s, v: s.download(v, "x"),
    "retry": lambda _, v: new(retry=v),
    "journal": lambda _, v: new(journal=v),
}


@pytest.mark.parametrize("value", [Unruly(), UnrulyNumber(7)], ids=["object", "number"])
@pytest.mark.parametrize("argument", UNRULY)
async def test_a_value_that_raises_is_a_wrong_argument(
    silent: AsyncSession, argument: str, value: object
) -> None:
    with pytest.raises(ArgumentError) as caught:
        await use(UNRULY[argument](silent, value))
    assert argument.removesuffix(" to stop") == caught.value.argument
    assert caught.value.given == f"a value of type {type(value).__name__}"


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "empty"),
        (" \t", "a text of blanks"),
        ("a\0b", "a text with the character NUL"),
    ],
    ids=["empty", "blank", "NUL"],
)
@pytest.mark.parametrize("argument", ["job", "user", "job to stop", "each of jobs", "component"])
async def test_a_text_that_can_be_no_id_is_refused_with_its_fault(
    silent: AsyncSession, argument: str, text: str, problem: str
) -> None:
    with pytest.raises(ArgumentError, match=f", not {problem}$"):
        await use(UNRULY[argument](silent, text))


@pytest.fixture
async def silent() -> Any:
    transport = Silent()
    async with AsyncSession("http://ftrack.test", "key", "maya", transport=transport) as session:
        yield session
        assert transport.sent == [], "nothing may be sent"


async def use(result: Any) -> None:
    """Await what was returned, or enter it."""
    if inspect.isawaitable(result):
        await result
    elif hasattr(result, "__aenter__"):
        async with result:
            pass


@pytest.mark.parametrize("place", CASES)
async def test_a_wrong_argument_is_named_before_anything_is_sent(
    silent: AsyncSession, place: str
) -> None:
    for number, case in enumerate(CASES[place]):
        before = len(silent.recorded_operations)
        with pytest.raises(case.error) as caught:
            await use(case.call(silent))

        assert case.argument in str(caught.value), f"{place}, case {number}"
        if case.error is ArgumentError:
            assert case.argument.rpartition(" of ")[2] in caught.value.args[0]
        recorded = silent.recorded_operations[before:]
        assert all("populate" in place for _ in recorded)
        silent.rollback()


@pytest.mark.parametrize("place", ["job_context", "AsyncSession.create_component", "recover"])
async def test_an_argument_is_wrong_without_showing_a_text(
    silent: AsyncSession, place: str
) -> None:
    class Text(bytes):
        def __repr__(self) -> str:
            return "SECRET"

    calls: dict[str, Callable[[], Any]] = {
        "job_context": lambda: job_context(silent, description=Text(b"SECRET")),  # type: ignore[arg-type]
        "AsyncSession.create_component": lambda: silent.create_component(b"", name=Text(b"SECRET")),  # type: ignore[arg-type]
        "recover": lambda: recover(silent, user=Text(b"SECRET")),  # type: ignore[arg-type]
    }
    with pytest.raises(ArgumentError) as caught:
        await use(calls[place]())

    assert "SECRET" not in str(caught.value) + repr(caught.value)


RIGHT: Mapping[str, Callable[[AsyncSession], Any]] = {
    "no lease": lambda _: new(lease=0),
    "whole seconds": lambda _: new(timeout=5, lease=60),
    "no end": lambda _: new(timeout=math.inf),
    "no retries": lambda _: new(retry=RetryPolicy(budget=0, jitter=0)),
    "no end of retries": lambda _: RetryPolicy(budget=math.inf),
    "path of a journal": lambda _: new(journal=Path("x")),
    "no journal": lambda _: new(journal=""),
    "data": lambda s: s.create("Job", None),
    "a block": lambda s: job_context(s, grace=0, interval=0, data="{}", user="maya"),
    "a block without end": lambda s: job_context(s, grace=math.inf, data={"a": uuid.uuid4()}),
}


@pytest.mark.parametrize("name", RIGHT)
async def test_what_is_unusual_and_right_is_accepted(silent: AsyncSession, name: str) -> None:
    assert RIGHT[name](silent) is not None


def test_the_error_is_a_type_error_and_a_value_error() -> None:
    assert issubclass(ArgumentError, TypeError)
    assert issubclass(ArgumentError, ValueError)


def test_every_public_function_with_arguments_is_in_the_table() -> None:
    """A new public argument needs its cases."""
    covered = {place: " ".join(case.argument for case in cases) for place, cases in CASES.items()}
    elsewhere = {
        "server_url", "api_key", "api_user",  # tests/unit/test_config.py
        "parameters",  # any value, which is quoted
        "key",  # tests/unit/entities
        "source",  # tests/unit/transfers/test_content.py
        "timings", "transport",  # for tests of this package
        "clock", "sleep", "chance",
    }  # fmt: skip
    kind = {"kind": "the entity type"}
    missing = []
    covered["job_context"] += covered.pop("job_context (owners)")
    for place in covered:
        found: Any = aioftrackjobs
        for name in place.split("."):
            found = getattr(found, name)
        for name in inspect.signature(found).parameters:
            if name != "self" and name not in elsewhere:
                known = covered[place] + (" kind" if kind["kind"] in covered[place] else "")
                known += " kind" if "Did you mean" in covered[place] else ""
                if not re.search(rf"\b{name}\b", known):
                    missing.append(f"{place}({name})")

    assert missing == []


class _Unshowable:
    def __repr__(self) -> str:
        raise RuntimeError("no text")


async def test_keys_that_no_entity_has(session: AsyncSession, tmp_path: Path) -> None:
    """Blanks, half of a surrogate pair, and what cannot even be shown: each error has a text."""
    for key in (" ", "\ud800", _Unshowable()):
        with pytest.raises(InvalidKeyError, match=r"^the key of Job is \(id\), not "):
            await session.get("Job", key)  # type: ignore[arg-type]
    with pytest.raises(ArgumentError, match="half of a surrogate pair"):
        await session.download("\ud800", tmp_path / "x")
    with pytest.raises(ArgumentError, match="half of a surrogate pair"):
        await session.stop_job("\ud800")
