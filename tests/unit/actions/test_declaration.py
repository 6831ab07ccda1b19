"""Declarations: what an action gets from its function, and which mistakes are found at once."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
from pydantic import BaseModel

from aioftrackjobs import ArgumentError, Entity, Job, RunningJob
from aioftrackjobs.actions import Actions, Launch

if TYPE_CHECKING:
    from collections import OrderedDict as NotThere


class Delivery(BaseModel):
    quality: int = 80


def declared(**options: Any) -> Any:
    actions = Actions()

    @actions.action("Deliver", **options)
    async def deliver(launch: Launch) -> None:
        """Sends files to a client,
        and says so.

        More.
        """

    (action,) = actions
    return action


def test_an_action_has_its_name_and_text_from_its_function() -> None:
    action = declared(variant="client")

    assert action.item() == {
        "label": "Deliver",
        "variant": "client",
        "description": "Sends files to a client, and says so.",
        "actionIdentifier": "deliver",
    }
    assert action.job == action.title == "Deliver - client"
    assert declared(job=None).job is None
    assert declared(job="Make it").job == "Make it"
    assert declared(on=Job).types == ("Job",)
    assert declared(on=["Task", Job]).types == ("Task", "Job")
    assert declared(roles="Artist", projects={"a", "b"}).roles == {"Artist"}
    assert declared(identifier="studio.deliver", icon="x").item()["icon"] == "x"


def test_parameters_are_found_by_their_annotations_also_local_ones() -> None:
    class Local(BaseModel):
        name: str = ""

    actions = Actions()

    @actions.action("a")
    async def a(work: RunningJob, *, form: Local, click: Launch, more: int = 3) -> None: ...

    @actions.action("b")
    async def b() -> None: ...

    first, second = actions
    assert first.parameters == {"work": "job", "form": "form", "click": "launch"}
    assert first.form is not None
    assert first.form.model is Local
    assert (second.parameters, second.form) == ({}, None)


def test_methods_and_partial_functions_can_be_actions() -> None:
    class Service:
        async def deliver(self, launch: Launch, form: Delivery) -> str:
            return "a"

    async def many(count: int, launch: Launch) -> None: ...

    actions = Actions()
    actions.action("a")(Service().deliver)
    actions.action("b")(partial(many, 3))
    first, second = actions
    assert (first.identifier, first.parameters) == ("deliver", {"launch": "launch", "form": "form"})
    assert (second.identifier, second.parameters) == ("many", {"launch": "launch"})


async def _launch(launch: Launch) -> None: ...
def _sync(launch: Launch) -> None: ...
async def _bare(launch) -> None: ...  # type: ignore[no-untyped-def]
async def _number(count: int) -> None: ...
async def _twice(a: Launch, b: Launch) -> None: ...
async def _two_forms(a: Delivery, b: Delivery) -> None: ...
async def _entity(job: Job) -> None: ...
async def _star(*launch: Launch) -> None: ...
async def _stars(**launch: Launch) -> None: ...
async def _positional(launch: Launch, /) -> None: ...
async def _missing(a: NotThere[str, str]) -> None: ...
async def _text(a: object) -> None: ...
async def _broken(a: "Launch[") -> None: ...  # type: ignore[valid-type]  # noqa: F722
async def _attribute(a: pytest.Nothing) -> None: ...  # type: ignore[name-defined]
async def _generator(launch: Launch) -> Any:
    yield launch


@pytest.mark.parametrize(
    ("function", "named"),
    [
        (_sync, "_sync must be a coroutine function"),
        (_generator, "_generator must be a coroutine function"),
        (3, "3 must be a coroutine function"),
        (_bare, r"_bare\(launch\) must be parameters that are annotated"),
        (_number, r"_number\(count\)"),
        (_twice, r"_twice\(b\) must be the only one of its kind"),
        (_two_forms, r"_two_forms\(b\)"),
        (_entity, r"_entity\(job\)"),
        (_star, r"_star\(launch\)"),
        (_stars, r"_stars\(launch\)"),
        (_positional, r"_positional\(launch\)"),
        (_text, r"_text\(a\)"),
        (_broken, "an annotation of _broken must be one that Python can evaluate"),
        (_attribute, "an annotation of _attribute must be one that Python can evaluate"),
        (_missing, "'NotThere', which is not defined when _missing is decorated"),
    ],
)
def test_a_function_that_cannot_be_called_is_refused_where_it_is_decorated(
    function: Callable[..., Any], named: str
) -> None:
    with pytest.raises(ArgumentError, match=named):
        Actions().action("a")(function)


@pytest.mark.parametrize(
    "options",
    [
        {"variant": ""},
        {"variant": 3},
        {"on": 3},
        {"on": [3]},
        {"on": ""},
        {"on": {"Task": 1}},
        {"many": "no"},
        {"roles": 3},
        {"roles": [None]},
        {"projects": b"a"},
        {"discover": True},
        {"icon": 3},
        {"job": ""},
        {"job": 3},
        {"unique": "project"},
        {"timeout": 0},
        {"timeout": "3"},
        {"identifier": ""},
        {"choices": {"quality": _launch}},
        {"choices": [1]},
        {"defaults": {"quality": 3}},
        {"defaults": _launch},
    ],
)
def test_wrong_options_are_refused_where_they_are_given(options: dict[str, Any]) -> None:
    with pytest.raises(ArgumentError):
        declared(**options)


def test_wrong_choices_labels_and_combinations_are_refused() -> None:
    async def with_form(form: Delivery) -> None: ...
    async def with_job(job: RunningJob) -> None: ...
    def sync(launch: Launch) -> list[str]:
        return []

    actions = Actions()
    with pytest.raises(ArgumentError, match="choices must be fields of Delivery"):
        actions.action("a", choices={"codec": _launch})(with_form)  # type: ignore[dict-item]
    with pytest.raises(ArgumentError, match="coroutine function"):
        actions.action("a", choices={"quality": sync})(with_form)  # type: ignore[dict-item]
    with pytest.raises(ArgumentError, match=r"with_job\(job\) must be left out with job=None"):
        actions.action("a", job=None)(with_job)
    for label in ("", None, 3):
        with pytest.raises(ArgumentError, match="label"):
            actions.action(label)(_launch)  # type: ignore[arg-type]
    assert len(actions) == 0
    actions.action("a")(_launch)
    with pytest.raises(ArgumentError, match="identifier must be another one"):
        actions.action("b")(_launch)
    with pytest.raises(ArgumentError, match="other must be Actions"):
        actions.include(_launch)  # type: ignore[arg-type]


def test_a_class_of_entities_of_the_user_is_a_type() -> None:
    class Shot(Entity):
        entity_type = "Shot"

    assert declared(on=Shot).types == ("Shot",)
