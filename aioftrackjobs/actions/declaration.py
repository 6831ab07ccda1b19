"""An action as it is declared: for whom, on what, with which form, and how its function is called.

Mistakes in a declaration are found when the module is imported, and not by the first click.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from types import FrameType
from typing import Any, Literal, TypeAlias, TypedDict, Unpack, get_args, get_type_hints

from pydantic import BaseModel

from aioftrackjobs.actions.forms import Form
from aioftrackjobs.actions.launch import Launch
from aioftrackjobs.config.settings import require, require_flag, require_name, require_seconds
from aioftrackjobs.errors import ArgumentError
from aioftrackjobs.models import Entity
from aioftrackjobs.running.running_job import RunningJob

#: Of what there is one launch at a time.
Unique: TypeAlias = Literal["selection", "user", "action"]

#: Whether an action is offered; it may be a coroutine function.
Discover: TypeAlias = Callable[[Launch], bool | Awaitable[bool]]

#: The choices of a field: values, or pairs of value and label.
FindChoices: TypeAlias = Callable[[Launch], Awaitable[Iterable[Any]]]

#: What fields of the form begin with, by name.
FindDefaults: TypeAlias = Callable[[Launch], Awaitable[Mapping[str, Any]]]

#: A parameter of an action's function.
_Role: TypeAlias = Literal["launch", "form", "job"]

_PARAMETERS = "parameters that are annotated with Launch, RunningJob or a pydantic model"


class FromLabel:
    """Stands for a text that is made from the label: the default of ``job``."""

    def __repr__(self) -> str:
        return "FROM_LABEL"


FROM_LABEL = FromLabel()


@dataclass(frozen=True, eq=False, slots=True, kw_only=True)
class Action:
    """One action.

    Attributes:
        identifier: Names it in events; unique among all services of a studio.
        label: Its text in the menu.
        variant: Follows the label; actions with one label share a group.
        description: Says more.
        icon: Address of an image, or the name of an icon.
        types: Names of the entity types it is offered for; none for all.
        many: Whether it takes several entities.
        roles: Names of roles of which a user needs one; none for all users.
        projects: Names or ids of projects that the selection must belong to; none for all.
        discover: Decides whether it is offered, after all else has.
        job: The text of its Jobs; None to run as none.
        unique: Of what there is one launch at a time.
        timeout: Seconds that it may take; None for no limit.
        form: Its form; None for none.
        choices: Find the choices of some fields of the form.
        defaults: Finds what some fields begin with.
        function: What it does.
        parameters: Which parameter of the function gets what.
    """

    identifier: str
    label: str
    variant: str | None
    description: str | None
    icon: str | None
    types: tuple[str, ...]
    many: bool
    roles: frozenset[str]
    projects: frozenset[str]
    discover: Discover | None
    job: str | None
    unique: Unique | None
    timeout: float | None
    form: Form | None
    choices: Mapping[str, FindChoices]
    defaults: FindDefaults | None
    function: Callable[..., Awaitable[Any]]
    parameters: Mapping[str, _Role]

    @property
    def title(self) -> str:
        """Label and variant."""
        return f"{self.label} - {self.variant}" if self.variant else self.label

    def item(self) -> dict[str, Any]:
        """Return the action as the web interface lists it."""
        shown = {
            "label": self.label,
            "variant": self.variant,
            "description": self.description,
            "icon": self.icon,
            "actionIdentifier": self.identifier,
        }
        return {name: value for name, value in shown.items() if value is not None}

    def call(
        self, launch: Launch, form: BaseModel | None, job: RunningJob | None
    ) -> Awaitable[Any]:
        """Call the function with what its parameters are annotated with."""
        given = {"launch": launch, "form": form, "job": job}
        return self.function(**{name: given[role] for name, role in self.parameters.items()})


class Options(TypedDict):
    """What is said about an action, see :meth:`.Actions.action`."""

    label: str
    variant: str | None
    description: str | None
    icon: str | None
    on: object
    many: bool
    roles: object
    projects: object
    discover: Discover | None
    job: str | FromLabel | None
    unique: Unique | None
    timeout: float | None
    identifier: str | None
    choices: Mapping[str, FindChoices] | None
    defaults: FindDefaults | None


def declare(
    function: Callable[..., Awaitable[Any]], frame: FrameType | None, **options: Unpack[Options]
) -> Action:
    """Return an action, after all of its declaration was checked.

    Args:
        function: What it does.
        frame: Where it is defined, for the names in its annotations.
        options: What is said about it.

    Raises:
        ArgumentError: Something about the declaration or the function is wrong.
    """
    _check(options)
    job, choices, label = options["job"], options["choices"] or {}, options["label"]
    parameters, model = _parameters_of(function, frame, has_job=job is not None)
    for name, given in (("choices", choices), ("defaults", options["defaults"])):
        if given and model is None:
            raise ArgumentError(name, "None without a form", "something")
    title = f"{label} - {options['variant']}" if options["variant"] else label
    return Action(
        identifier=options["identifier"] or _without_partial(function).__name__,
        label=label,
        variant=options["variant"],
        description=options["description"] or _first_line(_without_partial(function)),
        icon=options["icon"],
        types=tuple(map(_type_name, _several("on", options["on"], type))),
        many=options["many"],
        roles=frozenset(_texts("roles", options["roles"])),
        projects=frozenset(_texts("projects", options["projects"])),
        discover=options["discover"],
        job=title if isinstance(job, FromLabel) else job,
        unique=options["unique"],
        timeout=options["timeout"],
        form=None if model is None else Form(model, tuple(choices)),
        choices=dict(choices),
        defaults=options["defaults"],
        function=function,
        parameters=parameters,
    )


def _check(options: Options) -> None:
    require_name("label", options["label"])
    for name in ("variant", "icon", "description", "identifier"):
        require_name(name, options[name], optional=True)
    require_flag("many", options["many"])
    unique, discover, job = options["unique"], options["discover"], options["job"]
    require(unique is None or unique in get_args(Unique), "unique", _names(Unique), unique)
    require(discover is None or callable(discover), "discover", "a function", discover)
    if not isinstance(job, FromLabel):
        require_name("job", job, optional=True)
    if options["timeout"] is not None:
        require_seconds("timeout", options["timeout"], above=True)
    choices, defaults = options["choices"], options["defaults"]
    is_valid = defaults is None or inspect.iscoroutinefunction(defaults)
    require(is_valid, "defaults", "a coroutine function", defaults)
    require(choices is None or isinstance(choices, Mapping), "choices", "a mapping", choices)
    for field, find in (choices or {}).items():
        is_valid = inspect.iscoroutinefunction(find)
        require(is_valid, f"choices[{field!r}]", "a coroutine function", find)


def _names(literal: Any) -> str:
    return ", ".join(map(repr, get_args(literal))) + " or None"


def _first_line(function: object) -> str | None:
    text = inspect.getdoc(function)
    return re.split(r"\n\s*\n", text)[0].replace("\n", " ") if text else None


def _several(argument: str, value: object, *kinds: type) -> list[Any]:
    if value is None:
        return []
    if isinstance(value, (str, *kinds)):
        return [value]
    is_several = isinstance(value, Iterable) and not isinstance(value, Mapping | bytes)
    require(is_several, argument, "a name, or several of them", value)
    return list(value)  # type: ignore[call-overload,no-any-return]


def _texts(argument: str, value: object) -> list[str]:
    found = _several(argument, value)
    for each in found:
        require_name(f"each of {argument}", each)
    return found


def _type_name(kind: object) -> str:
    if isinstance(kind, type) and issubclass(kind, Entity):
        return kind.entity_type
    require_name("on", kind, "an entity type, or several of them,")
    return str(kind)


def _parameters_of(
    function: object, frame: FrameType | None, *, has_job: bool
) -> tuple[dict[str, _Role], type[BaseModel] | None]:
    """Return which parameter of *function* gets what, and the model of the form."""
    name = getattr(_without_partial(function), "__qualname__", repr(function))
    if not inspect.iscoroutinefunction(function):
        raise ArgumentError(
            name, "a coroutine function (async def)", f"a {type(function).__name__}"
        )
    hints = _hints_of(function, name, frame)
    roles: dict[str, _Role] = {}
    model: type[BaseModel] | None = None
    for parameter in inspect.signature(function).parameters.values():
        annotation, place = hints.get(parameter.name), f"{name}({parameter.name})"
        role = _role_of(annotation)
        is_passed = parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)
        if role is None or not is_passed:
            if parameter.default is not parameter.empty and is_passed:
                continue
            given = "one without" if annotation is None else f"one with {annotation!r}"
            raise ArgumentError(place, _PARAMETERS, given)
        if role in roles.values():
            raise ArgumentError(place, "the only one of its kind", "a second one")
        if role == "job" and not has_job:
            raise ArgumentError(place, "left out with job=None", "a RunningJob")
        if role == "form":
            model = annotation
        roles[parameter.name] = role
    return roles, model


def _hints_of(function: Any, name: str, frame: FrameType | None) -> dict[str, Any]:
    local = dict(frame.f_locals) if frame is not None else None
    try:
        return get_type_hints(inspect.unwrap(_without_partial(function)), localns=local)
    except NameError as exc:
        missing = f"{exc.name!r}, which is not defined when {name} is decorated"
        raise ArgumentError(f"an annotation of {name}", "imported at run time", missing) from exc
    except Exception as exc:
        place, problem = f"an annotation of {name}", f"one that is not ({exc})"
        raise ArgumentError(place, "one that Python can evaluate", problem) from exc


def _without_partial(function: Any) -> Any:
    while isinstance(function, partial):
        function = function.func
    return function


def _role_of(annotation: object) -> _Role | None:
    if not isinstance(annotation, type):
        return None
    if issubclass(annotation, Launch):
        return "launch"
    if issubclass(annotation, RunningJob):
        return "job"
    is_form = issubclass(annotation, BaseModel) and not issubclass(annotation, Entity)
    return "form" if is_form else None
