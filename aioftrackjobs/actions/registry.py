"""Actions: the registry of what a service offers. It has no session and does no I/O."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from typing import Any, TypeVar

from aioftrackjobs.actions.declaration import (
    FROM_LABEL,
    Action,
    Discover,
    FindChoices,
    FindDefaults,
    FromLabel,
    Unique,
    declare,
)
from aioftrackjobs.actions.trial import LaunchOutcome, try_discovery, try_launch
from aioftrackjobs.config.settings import require, require_count
from aioftrackjobs.errors import ArgumentError
from aioftrackjobs.models import Entity
from aioftrackjobs.session import AsyncSession

F = TypeVar("F", bound=Callable[..., Awaitable[Any]])


class Actions:
    """The actions of a service.

    ::

        actions = Actions()

        @actions.action("Deliver", on="AssetVersion", roles={"Project manager"})
        async def deliver(launch: Launch, form: Delivery, job: RunningJob) -> str:
            ...
            return "3 versions delivered"

        async with AsyncSession() as session:
            await actions.serve(session)
    """

    def __init__(self) -> None:
        self._actions: dict[str, Action] = {}

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {', '.join(self._actions) or 'without any'}>"

    def __iter__(self) -> Iterator[Action]:
        return iter(tuple(self._actions.values()))

    def __len__(self) -> int:
        return len(self._actions)

    def action(
        self,
        label: str,
        *,
        variant: str | None = None,
        description: str | None = None,
        icon: str | None = None,
        on: type[Entity] | str | Iterable[type[Entity] | str] | None = None,
        many: bool = True,
        roles: str | Iterable[str] | None = None,
        projects: str | Iterable[str] | None = None,
        discover: Discover | None = None,
        job: str | FromLabel | None = FROM_LABEL,
        unique: Unique | None = None,
        timeout: float | None = None,
        identifier: str | None = None,
        choices: Mapping[str, FindChoices] | None = None,
        defaults: FindDefaults | None = None,
    ) -> Callable[[F], F]:
        """Return a decorator that makes a coroutine function an action, and returns it unchanged.

        Its parameters get what they are annotated with: :class:`Launch`, :class:`RunningJob`, and
        a pydantic model, which is the form. All of them can be left out.

        Args:
            label: The text in the menu.
            variant: Follows the label. Actions with the same label share a group in the menu.
            description: Says more. Default: the first paragraph of the function's docstring.
            icon: The address of an image, or the name of an icon.
            on: Types of the entities that it is offered for: models, or names of entity types.
                Default: any selection, also an empty one. Events do not distinguish a ``Shot``
                from a ``Task``, so that it is offered for both.
            many: Whether it takes more than one entity.
            roles: Names of security roles of which a user needs one.
            projects: Names or ids of the projects that all of the selection must belong to.
            discover: Called with a :class:`Launch`, after all else fits; returns whether the
                action is offered. It may be a coroutine function, and has one second.
            job: The text of its Jobs. Default: label and variant. None to run without a Job; then
                what the function returns is the reply, and it should take a few seconds at most.
            unique: "selection" if it cannot be launched twice at a time for the same selection,
                "user" for the same user, "action" at all.
            timeout: Seconds after which the function is cancelled, and its Job fails.
            identifier: Names it in events; no other service of the studio may have the same.
                Default: the name of the function.
            choices: For fields of the form, coroutine functions that get a :class:`Launch` and
                return what can be chosen: values, or pairs of value and label.
            defaults: A coroutine function that gets a :class:`Launch`, and returns what fields of
                the form begin with, in place of their defaults.

        Raises:
            ArgumentError: Something about the declaration or the function is wrong, or there is an
                action with this identifier.
        """
        frame = inspect.currentframe()
        caller = frame.f_back if frame is not None else None

        def decorate(function: F) -> F:
            self._add(
                declare(
                    function,
                    caller,
                    label=label,
                    variant=variant,
                    description=description,
                    icon=icon,
                    on=on,
                    many=many,
                    roles=roles,
                    projects=projects,
                    discover=discover,
                    job=job,
                    unique=unique,
                    timeout=timeout,
                    identifier=identifier,
                    choices=choices,
                    defaults=defaults,
                )
            )
            return function

        return decorate

    def _add(self, action: Action) -> None:
        if action.identifier in self._actions:
            raise ArgumentError("identifier", "another one for each action", action.identifier)
        self._actions[action.identifier] = action

    def include(self, other: Actions) -> None:
        """Offer the actions of *other*, too, such as :data:`stop_my_jobs`.

        Raises:
            ArgumentError: One of them has the identifier of an action here.
        """
        require(isinstance(other, Actions), "other", "Actions", other)
        for action in other:
            self._add(action)

    async def serve(self, session: AsyncSession, *, concurrency: int = 8) -> None:
        """Offer the actions to all users, until this is cancelled.

        Jobs that run then fail, as those of every block that is cancelled.

        Args:
            session: An open session. A global API key is needed only for ``launch.as_user()``.
            concurrency: How many Jobs work at the same time. Others are created at once, and wait
                for their turn.

        Raises:
            ArgumentError: An argument has a wrong type or value, or there are no actions.
            SessionStateError: The session is closed.
        """
        from aioftrackjobs.actions.serving import serve  # late: tests of actions need no hub

        require(isinstance(session, AsyncSession), "session", "an open session", session)
        require_count("concurrency", concurrency)
        require(bool(self._actions), "actions", "at least one action", len(self))
        await serve(session, self, concurrency=concurrency)

    async def launch_for_test(
        self,
        session: AsyncSession,
        name: str,
        *,
        selection: Iterable[Any] = (),
        values: Mapping[str, Any] | None = None,
        user: str | None = None,
    ) -> LaunchOutcome:
        """Launch an action as a click would, wait for its end, and return what came out.

        It needs no event hub::

            outcome = await actions.launch_for_test(session, "deliver", selection=[version])
            assert outcome.job.is_done

        Args:
            session: An open session, as that of the fixture ``ftrack_session``.
            name: The identifier of the action: by default, the name of its function.
            selection: Entities, or pairs of entity type and id.
            values: What is entered into the form; ``{}`` to leave it as it is. Without values,
                the reply is the form.
            user: The name of who clicks; the user of the session if None.

        Raises:
            ArgumentError: There is no such action, or *selection* has something else.
        """
        require(name in self._actions, "name", f"one of {', '.join(self._actions)}", name)
        return await try_launch(session, self, name, selection, values, user)

    async def discover_for_test(
        self, session: AsyncSession, *, selection: Iterable[Any] = (), user: str | None = None
    ) -> list[dict[str, Any]]:
        """Return the items that are offered for *selection*, as the web interface gets them.

        Args:
            session: An open session.
            selection: Entities, or pairs of entity type and id.
            user: The name of who looks at the menu; the user of the session if None.

        Raises:
            ArgumentError: *selection* has something else.
        """
        return await try_discovery(session, self, selection, user)
