"""The service behind the actions: events in, replies out, and the Jobs in between.

Whatever an event, a form, a function or the server is like, it ends one launch at most. The reply
to a launch leaves when its Job exists; the work goes on in the task group of the service.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Hashable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import anyio
from anyio.abc import TaskGroup
from pydantic import BaseModel

from aioftrackjobs.actions.action_event import ActionEvent, read_event
from aioftrackjobs.actions.declaration import Action
from aioftrackjobs.actions.discovery import READ_LIMIT, Discovery, is_fault
from aioftrackjobs.actions.forms import Choices
from aioftrackjobs.actions.launch import Launch
from aioftrackjobs.background import SafeLogger, format_error
from aioftrackjobs.jobs.ending import describe_failure
from aioftrackjobs.jobs.progress import one_line
from aioftrackjobs.models import Job, JobState, known_state
from aioftrackjobs.running.running_job import RunningJob, job_context
from aioftrackjobs.session import AsyncSession, connection_of, context_of

logger: SafeLogger = SafeLogger(__name__)

#: Sends an event to the web interface: topic, data, target.
Publish: TypeAlias = Callable[[str, Mapping[str, Any], str], Awaitable[None]]

Reply: TypeAlias = dict[str, Any]

#: Topic of what the web interface shows without having launched something.
_SHOW = "ftrack.action.trigger-user-interface"

#: Seconds that an action without a Job may take, if it has no time-out of its own.
_QUICK_LIMIT = 30.0


@dataclass(eq=False, slots=True)
class Run:
    """One launch that runs as a Job.

    Attributes:
        action: The action.
        launch: Who has clicked, on what.
        form: What was entered.
        reply: The reply to the launch; None before the Job exists.
        job: The Job, once it exists.
        error: What the function has raised.
    """

    action: Action
    launch: Launch
    form: BaseModel | None
    reply: Reply | None = None
    job: Job | None = None
    error: BaseException | None = None
    _replied: anyio.Event = field(default_factory=anyio.Event)

    def set_reply(self, reply: Reply) -> None:
        """Set the reply; only the first call has an effect."""
        if self.reply is None:
            self.reply = reply
            self._replied.set()

    async def wait_for_reply(self) -> Reply:
        """Wait until the reply is known, and return it."""
        await self._replied.wait()
        assert self.reply is not None  # noqa: S101 - for type checkers
        return self.reply

    @property
    def state(self) -> JobState | None:
        """The state of the Job, as far as the server has confirmed it."""
        return None if self.job is None else known_state(self.job)


class ActionService:
    """Replies to discoveries and launches of some actions.

    Args:
        session: Does what the service needs, and runs the Jobs.
        actions: The actions.
        group: Where the work goes on.
        publish: Sends messages to the web interface.
        concurrency: How many Jobs work at the same time; the others wait for their turn.

    Attributes:
        on_run: Called with each launch that runs as a Job, when it begins.
    """

    def __init__(
        self,
        session: AsyncSession,
        actions: Iterable[Action],
        group: TaskGroup,
        publish: Publish,
        *,
        concurrency: int,
    ) -> None:
        self._session = session
        self._actions = {action.identifier: action for action in actions}
        self._discovery = Discovery(session, self._actions.values())
        self._group = group
        self._publish = publish
        self._turns = anyio.Semaphore(concurrency)
        self._unique = set[Hashable]()
        self.on_run: Callable[[Run], None] = lambda _: None

    async def discover(self, event: object) -> Reply | None:
        """Return the items that are offered; None for no reply."""
        try:
            return await self._discovery.reply(read_event(event))
        except BaseException as exc:
            if not is_fault(exc):
                raise
            self._log(exc, "a discovery of actions failed")
            return None

    async def launch(self, event: object) -> Reply | None:
        """Launch what *event* names; return the reply, or None if it is no action of this service.

        That is a form to fill in, or a result: ``{"success": True, "message": "..."}``.
        """
        action: Action | None = None
        try:
            read = read_event(event)
            action = self._actions.get(read.identifier or "")
            if action is None:
                return None
            return await self._launch(action, read)
        except BaseException as exc:
            if not is_fault(exc):
                raise
            title = action.title if action else "an action"
            self._log(exc, f"the launch of {title!r} failed")
            return self._refusal(f"{title} could not be launched: {describe_failure(exc)}")

    async def _launch(self, action: Action, event: ActionEvent) -> Reply:
        if not await self._discovery.offered(event, [action]):
            return self._refusal(f"{action.title} is not available here, or not for you.")
        with anyio.fail_after(READ_LIMIT):
            person = await self._discovery.people.who(event)
        launch, form = Launch(self._session, event, person.user), None
        if action.form is not None:
            choices = await _choices_of(action, launch)
            if not event.values:  # some clients send an empty object with the first launch
                defaults = await _defaults_of(action, launch)
                return _checked(action.form.show(action.title, choices, defaults=defaults))
            form, errors = action.form.read(event.values, choices)
            if form is None:
                again = action.form.show(action.title, choices, values=event.values, errors=errors)
                return _checked(again)
        if action.job is None:
            return await self._run_now(action, launch, form)
        return await self._begin(Run(action, launch, form), _key_of(action, event))

    # Without a Job

    async def _run_now(self, action: Action, launch: Launch, form: BaseModel | None) -> Reply:
        limit = action.timeout or _QUICK_LIMIT
        with anyio.move_on_after(limit):
            try:
                return _checked(_reply_of(action, await action.call(launch, form, None)))
            except BaseException as exc:
                if not is_fault(exc):
                    raise
                self._log(exc, f"the action {action.title!r} failed")
                return self._refusal(f"{action.title} has failed: {describe_failure(exc)}")
        logger.warning(
            "the action %(action)r took longer than %(seconds)g s",
            action=action.title,
            seconds=limit,
        )
        return self._refusal(f"{action.title} took longer than {limit:g} s and was ended.")

    # As a Job

    async def _begin(self, run: Run, key: Hashable) -> Reply:
        if key is not None and key in self._unique:
            what = _RUNNING_ALREADY[run.action.unique or "action"]
            return self._refusal(f"{run.action.title} is running already{what}.")
        if key is not None:
            self._unique.add(key)
        self.on_run(run)
        try:
            self._group.start_soon(self._work, run, key)
        except BaseException:
            self._unique.discard(key)
            raise
        return await run.wait_for_reply()

    async def _work(self, run: Run, key: Hashable) -> None:
        title = run.action.title
        text: str | None = None
        try:
            text = await self._run_job(run)
        except BaseException as exc:
            run.error = exc
            if not is_fault(exc):
                raise
            logger.info(
                "the action %(action)r failed: %(error)s", action=title, error=describe_failure(exc)
            )
        finally:
            self._unique.discard(key)
            run.set_reply(self._refusal(f"{title} could not begin{_because(run.error)}."))
        if run.job is not None:
            await self._tell(run, text)

    async def _run_job(self, run: Run) -> str | None:
        """Run the function as a Job; return its text if it has one."""
        action, text = run.action, None
        async with job_context(self._session, user=run.launch.user, description=action.job) as job:
            run.job = job.entity
            run.set_reply({"success": True, "message": f"{action.title} has started."})
            await self._wait_for_turn(job)
            try:
                with anyio.move_on_after(action.timeout) as scope:
                    text = await action.call(run.launch, run.form, job)
            finally:
                self._turns.release()
            if scope.cancelled_caught:
                job.fail(f"timed out after {action.timeout:g} s")
            elif isinstance(text, str) and text.strip():
                job.finish(text)
            elif text is not None:
                logger.warning(
                    "the action %(action)r returned what is no text", action=action.title
                )
        return text if isinstance(text, str) and text.strip() else None

    async def _wait_for_turn(self, job: RunningJob) -> None:
        try:
            self._turns.acquire_nowait()
        except anyio.WouldBlock:
            job.message = "waiting for its turn"
            await self._turns.acquire()
            job.message = ""

    async def _tell(self, run: Run, text: str | None) -> None:
        """Tell the user how the Job has ended."""
        state, user = run.state, run.launch.user
        title = run.action.title
        if user is None:
            return
        is_failed = run.error is not None or (state is not None and state.is_failed)
        shown = state.description if state is not None and state.has_ended else None
        if is_failed:
            text = shown or f"{title} has failed{_because(run.error)}."
        elif text is None:
            text = f"{title} is done." if shown in (None, run.action.job) else shown
        target = f'applicationId=ftrack.client.web and user.id="{user.id}"'
        data = {"type": "message", "success": not is_failed, "message": self._line(text or title)}
        try:
            await self._publish(_SHOW, data, target)
        except Exception as exc:  # noqa: BLE001 - the Job shows it as well
            logger.warning(
                "the end of %(action)r was not shown: %(error)s",
                action=title,
                error=describe_failure(exc),
            )

    def _log(self, error: BaseException, what: str) -> None:
        logger.error(
            "%(work)s: %(error)s",
            work=what,
            error=format_error(error, context_of(self._session).redact),
        )

    def _line(self, text: str) -> str:
        return one_line(text, connection_of(self._session).credentials.api_key)

    def _refusal(self, message: str) -> Reply:
        return {"success": False, "message": self._line(message)}


_RUNNING_ALREADY = {"selection": " for this selection", "user": " for you", "action": ""}


def _because(error: BaseException | None) -> str:
    return "" if error is None else f": {describe_failure(error)}"


def _key_of(action: Action, event: ActionEvent) -> Hashable:
    """Return what no other launch may have while this one runs; None if any may."""
    match action.unique:
        case "selection":
            return action.identifier, event.ids
        case "user":
            return action.identifier, event.user_id or event.username
        case "action":
            return (action.identifier,)
        case _:
            return None


async def _choices_of(action: Action, launch: Launch) -> dict[str, Choices]:
    """Return the choices of the dynamic fields, as pairs of value and label.

    Raises:
        TimeoutError: They were not found in time.
    """
    found: dict[str, Choices] = {}
    with anyio.fail_after(_QUICK_LIMIT):
        for name, find in action.choices.items():
            pairs = [
                each if isinstance(each, tuple) else (each, each) for each in await find(launch)
            ]
            found[name] = [(value, str(label)) for value, label in pairs]
    return found


async def _defaults_of(action: Action, launch: Launch) -> Mapping[str, Any]:
    """Return what some fields begin with.

    Raises:
        TimeoutError: That was not found in time.
    """
    if action.defaults is None:
        return {}
    with anyio.fail_after(_QUICK_LIMIT):
        return await action.defaults(launch)


def _reply_of(action: Action, result: object) -> Reply:
    """Return the reply that the function of an action without a Job means.

    Raises:
        TypeError: It means none.
    """
    match result:
        case None:
            return {"success": True, "message": f"{action.title} is done."}
        case bool():
            return {"success": result, "message": f"{action.title} {_ENDED[result]}."}
        case str():
            return {"success": True, "message": result}
        case Mapping():
            return dict(result) if "items" in result else {"success": True, **result}
        case list():
            return {"type": "form", "title": action.title, "items": result}
        case _:
            raise TypeError(f"an action cannot return a {type(result).__name__}")


_ENDED = {True: "is done", False: "has failed"}


def _checked(reply: Reply) -> Reply:
    """Return *reply*, of which an event can hold each part.

    Raises:
        TypeError, ValueError: It cannot.
    """
    json.dumps(reply, allow_nan=False)
    return reply
