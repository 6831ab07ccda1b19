"""The block of ``job_context``: its arguments, what they name, and how it decorates functions."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial, wraps
from inspect import (
    isasyncgenfunction,
    isawaitable,
    isclass,
    iscoroutine,
    iscoroutinefunction,
    isgeneratorfunction,
)
from types import TracebackType
from typing import Any, Generic, NamedTuple, ParamSpec, TypeVar, cast
from uuid import UUID

from aioftrackjobs.config.settings import (
    is_id,
    require,
    require_flag,
    require_seconds,
    require_text,
)
from aioftrackjobs.entities.context import EntityContext
from aioftrackjobs.entities.queries import Query, fetch_entity, key_reference
from aioftrackjobs.errors import (
    ArgumentError,
    MultipleResultsFoundError,
    NoResultFoundError,
)
from aioftrackjobs.jobs.data import parse_given_data
from aioftrackjobs.jobs.stopping import STOP_ON
from aioftrackjobs.models import Entity, Job, User, job_data_text
from aioftrackjobs.protocol.query import bind

S = TypeVar("S")
T = TypeVar("T")
P = ParamSpec("P")
F = TypeVar("F", bound=Callable[..., Coroutine[Any, Any, Any]])

_SESSION = "a session, or a function that returns one"


def block_context(
    session_type: type[object],
) -> Callable[[Callable[P, AsyncIterator[T]]], Callable[P, BlockContext[T]]]:
    """Return a decorator for ``job_context``, which yields once: it returns its block instead.

    The arguments are checked when it is called. As a decorator, that is long before a block.

    Args:
        session_type: The class of sessions, which is the first argument.
    """

    def decorate(function: Callable[P, AsyncIterator[T]]) -> Callable[P, BlockContext[T]]:
        open_block = asynccontextmanager(function)

        @wraps(function)
        def make(*args: P.args, **kwargs: P.kwargs) -> BlockContext[T]:
            block = BlockContext(partial(open_block, *args, **kwargs))
            check_arguments(session_type, *args, **kwargs)
            return block

        return make

    return decorate


class BlockContext(AbstractAsyncContextManager[T], Generic[T]):
    """A block to enter once with ``async with``, or to run around each call of a function.

    Args:
        make: Returns the context manager of one block.
    """

    def __init__(self, make: Callable[[], AbstractAsyncContextManager[T]]) -> None:
        self._make = make
        self._is_entered = False
        self._block = make()  # at once, so that a missing or unknown argument is an error here

    # No coroutines of their own: each would be one more frame in every traceback of the block.

    def __aenter__(self) -> Coroutine[Any, Any, T]:
        if self._is_entered:
            raise RuntimeError("a block is entered once; call job_context(...) again for each Job")
        self._is_entered = True
        return self._block.__aenter__()

    def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> Coroutine[Any, Any, bool | None]:
        return self._block.__aexit__(kind, error, trace)

    def __call__(self, function: F) -> F:
        """Return the coroutine *function* with a block of its own around each call.

        Raises:
            TypeError: *function* is no coroutine function.
        """
        _require_coroutine_function(function)

        @wraps(function)
        async def run(*args: Any, **kwargs: Any) -> Any:
            async with self._make():
                return await function(*args, **kwargs)

        return cast("F", run)


def _require_coroutine_function(function: object) -> None:
    """Raise TypeError for what a block cannot be put around; it says what to write."""
    call = None if isclass(function) else getattr(function, "__call__", None)  # noqa: B004
    if iscoroutinefunction(function) or iscoroutinefunction(call):
        return
    name = getattr(function, "__qualname__", None) or repr(function)
    inside = 'write "async with job_context(...)"'
    if isinstance(function, (staticmethod, classmethod)):
        problem = f"put @{type(function).__name__} above it, not below"
    elif isasyncgenfunction(function) or isgeneratorfunction(function):
        problem = f"{name} is a generator; {inside} in its body, or around the loop over it"
    elif isclass(function):
        problem = f"{name} is a class; decorate its coroutine functions, or {inside} in them"
    elif isawaitable(function):
        problem = f"{name} was called; decorate the function, and call what that returns"
    elif callable(function):
        problem = f"{name} is no coroutine function; declare it with async def"
    else:
        problem = f"{name} is no function"
    raise TypeError(f"job_context cannot decorate this: {problem}")


# Arguments


class GivenJob(NamedTuple):
    """The arguments of ``job_context`` that say which Job a block is about.

    Attributes:
        job: A Job that exists, or its id; None to create one.
        user: The user that sees the new Job, or its id or name; the session's own user if None.
        data: What the program keeps in its ``data``.
        take_over: Take it from an owner that may still run it.
        new_id: The id that a new Job gets; a random one if None.
    """

    job: Entity | str | UUID | None
    user: Entity | str | UUID | None
    data: Mapping[str, Any] | str | None
    take_over: bool
    new_id: str | UUID | None = None


def check_arguments(
    session_type: type[object],
    session: Any,
    *,
    job: Any = None,
    user: Any = None,
    description: Any = None,
    data: Any = None,
    grace: Any = 0.0,
    attach_traceback: Any = True,
    interval: Any = 0.0,
    stop_on: Any = "request",
    take_over: Any = False,
    join: Any = False,
    new_id: Any = None,
    retry_on: Any = (),
    attach_log: Any = False,
    **_: object,
) -> None:
    """Raise ArgumentError if an argument of ``job_context`` has a wrong type or value.

    Raises:
        UnserialisableValueError: JSON cannot hold a value inside *data*.
    """
    if callable(session) and (isclass(session) or iscoroutinefunction(session)):
        mistaken = "a class" if isclass(session) else "what is to be decorated"
        raise ArgumentError("session", f"{_SESSION} (write @job_context(session))", mistaken)
    if not isinstance(session, session_type):
        require(callable(session), "session", _SESSION, session)
    if job is not None:
        require(_names(Job, job), "job", "a Job or its id", job)
    if user is not None:
        require(_names(User, user), "user", "a User, its id or its name", user)
    if description is not None and type(description) is not str:
        require_text("description", description, optional=True)
    if data is not None:
        given = parse_given_data(data) if isinstance(data, str) else data
        require(isinstance(given, Mapping), "data", "a mapping, or text of a JSON object", data)
        job_data_text(given)
    if type(grace) is not float or not grace >= 0:  # no call in the usual case
        require_seconds("grace", grace)
    if type(interval) is not float or not interval >= 0:
        require_seconds("interval", interval)
    if not isinstance(stop_on, str) or str.__str__(stop_on) not in STOP_ON:
        require(False, "stop_on", " or ".join(map(repr, STOP_ON)), stop_on)  # noqa: FBT003
    if type(attach_traceback) is not bool or attach_log is not False:
        require_flag("attach_traceback", attach_traceback)
        require_flag("attach_log", attach_log)
    if take_over is not False or join is not False or new_id is not None or retry_on != ():
        _check_ownership(job, take_over, join, new_id)
        kinds = retry_on if isinstance(retry_on, tuple) else (retry_on,)
        are_errors = all(isclass(each) and issubclass(each, BaseException) for each in kinds)
        require(are_errors, "retry_on", "a class of errors, or a tuple of them", retry_on)


def _check_ownership(job: object, take_over: object, join: object, new_id: object) -> None:
    for name, value in (("take_over", take_over), ("join", join)):
        require_flag(name, value)
        if value and job is None:
            raise ArgumentError(name, "False without a job", "True")
    if take_over and join:
        raise ArgumentError("join", "False with take_over=True", "True")
    if new_id is not None:
        require(job is None, "new_id", "None with a job", new_id)
        is_uuid = isinstance(new_id, UUID) or (
            isinstance(new_id, str) and _uuid_text(str.__str__(new_id)) is not None
        )
        require(is_uuid, "new_id", "a UUID", new_id)


def _names(model: type[Entity], value: object) -> bool:
    return isinstance(value, (model, UUID)) or is_id(value)


def session_from(given: object, kind: type[S]) -> S:
    """Return the session that the function *given* returns.

    Raises:
        ArgumentError: It returns no session.
    """
    found = cast("Callable[[], object]", given)()
    if not isinstance(found, kind):
        if iscoroutine(found):
            found.close()  # it is not awaited
        require(False, "what session() returns", "a session", found)  # noqa: FBT003
    return cast("S", found)


async def find_user(entities: EntityContext, user: Entity | str | UUID) -> User:
    """Return the user that *user* is, or whose id or name it is.

    Raises:
        NoResultFoundError: There is none.
        MultipleResultsFoundError: There are several.
        EntityError: It is recorded, and not yet committed.
    """
    if isinstance(user, Entity):
        await entities.require_created(user.__ftrack_reference__())
        return cast("User", user)
    text = str(user)
    as_id = _uuid_text(text)
    ids = {text, as_id or text}
    # What looks like an id may be a name all the same, unless it is a UUID object.
    criteria = "id in {ids}" if isinstance(user, UUID) else "username is {text} or id in {ids}"
    given = {"ids": ids} if isinstance(user, UUID) else {"ids": ids, "text": text}
    expression = bind(f"User where {criteria}", given)
    query: Query[Entity] = Query(entities, expression)
    users = await query.of(User).all()
    with_id = [each for each in users if each.id in ids]
    with_name = [each for each in users if each.id not in ids]
    likely = (with_id or with_name) if as_id else (with_name or with_id)
    if not likely:
        raise NoResultFoundError(expression)
    if len(likely) > 1:
        raise MultipleResultsFoundError(expression)
    return likely[0]


async def find_job(entities: EntityContext, job: Entity | str | UUID) -> Job:
    """Return the Job that *job* is, or whose id it is, as the server has it now.

    It may be a Job of another session, or of none.

    Raises:
        NoResultFoundError: There is none.
        EntityError: It is recorded, and not yet committed.
    """
    if isinstance(job, Entity):
        reference = job.__ftrack_reference__()
    else:
        reference = key_reference(entities.model(Job), str(job))
    await entities.require_created(reference)
    found = await fetch_entity(entities, reference)
    if not isinstance(found, Job):
        raise NoResultFoundError(f'Job where id is "{reference.key[0][1]}"')
    return found


def _uuid_text(text: str) -> str | None:
    """Return *text* as the server spells ids, if it is one in any spelling."""
    try:
        return str(UUID(text))
    except ValueError:
        return None
