"""Which actions are offered to whom: from the event and what is kept of users, in one reply."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Sequence
from typing import Any

import anyio

from aioftrackjobs.actions.action_event import ActionEvent, matches
from aioftrackjobs.actions.declaration import Action
from aioftrackjobs.actions.launch import Launch
from aioftrackjobs.actions.people import People, Person
from aioftrackjobs.background import SafeLogger, is_cancellation_of_task, leaves_of
from aioftrackjobs.errors import FtrackJobsError
from aioftrackjobs.session import AsyncSession

logger: SafeLogger = SafeLogger(__name__)

#: Seconds that the function of an action may take to decide whether it is offered.
DISCOVER_LIMIT = 1.0

#: Seconds for the query of a user or of projects; later replies come too late for the menu.
READ_LIMIT = 5.0


class Discovery:
    """Decides which actions are offered.

    Args:
        session: The session that serves the actions.
        actions: All of them.
    """

    def __init__(self, session: AsyncSession, actions: Iterable[Action]) -> None:
        self._session = session
        self._actions = tuple(actions)
        self._items = {action: action.item() for action in self._actions}
        needs_roles = any(action.roles for action in self._actions)
        self.people: People = People(session, needs_roles=needs_roles)

    async def reply(self, event: ActionEvent) -> dict[str, Any] | None:
        """Return the items of all actions that are offered; None if there are none."""
        offered = await self.offered(event, self._actions)
        return {"items": [self._items[action] for action in offered]} if offered else None

    async def offered(self, event: ActionEvent, actions: Sequence[Action]) -> list[Action]:
        """Return those of *actions* that are offered for a selection, to a user.

        What cannot be found out, because the server does not respond, is not offered.
        """
        kinds = {(each.types, each.many) for each in actions}  # few, also of a hundred actions
        fits = {kind for kind in kinds if matches(event.selection, kind[0], many=kind[1])}
        fitting = [each for each in actions if (each.types, each.many) in fits]
        person: Person | None = None
        if any(each.roles or each.discover for each in fitting):
            person = await self._who(event)
            roles = frozenset[str]() if person is None else person.roles
            fitting = [each for each in fitting if not each.roles or each.roles & roles]
        if any(each.projects for each in fitting):
            projects = await self._projects_of(event)
            fitting = [each for each in fitting if _is_in(each, projects)]
        if not any(each.discover for each in fitting):
            return fitting
        launch = Launch(self._session, event, person.user if person else None)
        return await self._decide(fitting, launch)

    async def _who(self, event: ActionEvent) -> Person | None:
        try:
            with anyio.fail_after(READ_LIMIT):
                return await self.people.who(event)
        except (FtrackJobsError, TimeoutError) as exc:
            logger.warning("actions for certain users are not offered: %(error)s", error=_text(exc))
            return None

    async def _projects_of(self, event: ActionEvent) -> list[frozenset[str]]:
        try:
            with anyio.fail_after(READ_LIMIT):
                return await self.people.projects_of(event)
        except (FtrackJobsError, TimeoutError) as exc:
            logger.warning(
                "actions for certain projects are not offered: %(error)s", error=_text(exc)
            )
            return []

    async def _decide(self, actions: Sequence[Action], launch: Launch) -> list[Action]:
        offered = {action for action in actions if action.discover is None}

        async def decide(action: Action) -> None:
            if await _is_offered(action, launch):
                offered.add(action)

        async with anyio.create_task_group() as group:
            for action in actions:
                if action.discover is not None:
                    group.start_soon(decide, action)
        return [action for action in actions if action in offered]


def is_fault(error: BaseException) -> bool:
    """Return whether *error* of a user's function is one of the function alone.

    It may be anything: ``sys.exit`` in a library, or the CancelledError of a task that the function
    has waited for. The cancellation of the running task is no fault, and no Ctrl-C is.
    """
    is_interruption = any(
        isinstance(each, KeyboardInterrupt | GeneratorExit) for each in leaves_of(error)
    )
    return not (is_interruption or is_cancellation_of_task(error))


def _text(error: Exception) -> str:
    return str(error) or f"the server did not respond in {READ_LIMIT:g} s"


def _is_in(action: Action, projects: Sequence[frozenset[str]]) -> bool:
    """Return whether all of the selection belongs to projects of *action*."""
    return not action.projects or (
        bool(projects) and all(names & action.projects for names in projects)
    )


async def _is_offered(action: Action, launch: Launch) -> bool:
    """Return what the function of *action* decides, in limited time."""
    assert action.discover is not None  # noqa: S101 - for type checkers
    began, decided = anyio.current_time(), False
    with anyio.move_on_after(DISCOVER_LIMIT) as scope:
        try:
            decision = action.discover(launch)
            decided = bool(await decision if inspect.isawaitable(decision) else decision)
        except BaseException as exc:
            if not is_fault(exc):
                raise
            logger.warning(
                "the action %(action)r is not offered: discover has failed",
                action=action.title,
                exc_info=True,
            )
            return False
    # A function that blocks the event loop is not cancelled.
    if scope.cancelled_caught or anyio.current_time() - began > DISCOVER_LIMIT:
        logger.warning(
            "the action %(action)r is not offered: discover took longer than %(seconds)g s",
            action=action.title,
            seconds=DISCOVER_LIMIT,
        )
        return False
    return decided
