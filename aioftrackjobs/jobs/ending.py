"""How a Job ends: what the block has decided, or what the error says that left it. No I/O.

``finish``, ``fail`` and ``requeue`` decide the end, and the first call wins. A cancellation that
comes later changes nothing, because it says nothing about the work. An error of the block does: a
Job whose block raises an error after ``finish`` has failed. After ``requeue`` it stays queued: an
error is how a program leaves a task to its engine.

Why a block was cancelled is shown as far as the event loop shows it. A cancellation carries little:
asyncio passes on the message of ``task.cancel("why")``, anyio and trio say whether a deadline has
passed. ``asyncio.timeout`` and ``asyncio.TaskGroup`` cancel without a message, so the task is
searched for them. They are found while the task is suspended, in the coroutines that it awaits and
in its callbacks. Nothing is guessed: where nothing is found, the block was just "cancelled".
"""

from __future__ import annotations

import gc
import signal
import sys
from collections.abc import Callable, Iterator
from functools import partial
from types import (
    AsyncGeneratorType,
    CellType,
    CoroutineType,
    FunctionType,
    GeneratorType,
    MethodType,
)
from typing import Any, NamedTuple

import anyio

from aioftrackjobs.background import SafeLogger, leaves_of, text_of, type_name
from aioftrackjobs.errors import SessionStateError
from aioftrackjobs.models import JobStatus

logger: SafeLogger = SafeLogger(__name__)

#: What a cancel scope of anyio writes into a CancelledError, with the reason behind it if it has
#: one. Earlier versions of anyio write "by" for "via".
_SCOPES = ("Cancelled via cancel scope ", "Cancelled by cancel scope ")
_SCOPE_REASON = "; reason: "
_SCOPE_DEADLINE = "deadline exceeded"

#: What a nursery of trio writes before the error for which it has cancelled its tasks.
_NURSERY_REASON = " raised exception "

_BY_FAILURE = "cancelled because another task failed"

#: Coroutines that are followed from a task inwards, and tasks that are followed from it outwards.
_DEEPEST, _FARTHEST = 500, 50

#: Cancellations that one after the other were raised in the place of another.
_LONGEST_CHAIN = 100

#: Seconds from here on are shown without decimal places.
_EXACT = 10

_SUSPENDED = (CoroutineType, AsyncGeneratorType, GeneratorType)


#: Why a Job fails that runs when its session is closed.
CLOSED = "the session was closed while the Job was running"


#: What a Job says that is queued again, if nothing else was said.
QUEUED_AGAIN = "queued again"


class End(NamedTuple):
    """How a Job ends.

    Attributes:
        status: Its final status; queued if the work is to be tried again.
        text: What was done, why the Job failed, or when it is tried again; None if nothing was
            said.
    """

    status: JobStatus
    text: str | None = None


def end_of_block(
    error: BaseException,
    decided: End | None,
    describe: Callable[[BaseException], str],
    *,
    was_stopped: bool = False,
    retry_on: tuple[type[BaseException], ...] = (),
    shutdown_reason: str | None = None,
    is_closing: bool = False,
) -> End:
    """Return how a Job ends whose block was left by *error*.

    Args:
        error: The error, or a group of errors.
        decided: What the block has decided before.
        describe: Returns why the block was interrupted.
        was_stopped: Whether *error* says that another user or program has stopped the Job.
        retry_on: Errors after which the work is tried again.
        shutdown_reason: Why all blocks are being cancelled; None if they are not.
        is_closing: Whether the session is being closed.
    """
    if is_closing and isinstance(error, SessionStateError):
        return decided or End(JobStatus.FAILED, CLOSED)
    if retry_on and not was_stopped and _is_of(error, retry_on):
        is_queued = decided is not None and decided.status is JobStatus.QUEUED
        return decided if is_queued and decided else End(JobStatus.QUEUED, _why_again(error))
    if shutdown_reason is not None and not (decided or isinstance(error, Exception)):
        return End(JobStatus.FAILED, shutdown_reason)
    if was_stopped:  # as by a cancellation, the work may have ended before
        return decided or End(JobStatus.FAILED, text_of(error))
    try:
        return _judge(error, decided, describe)
    except BaseException:  # noqa: BLE001 - a class of the user's may raise whatever it is asked
        return End(JobStatus.FAILED, type_name(error))


def _judge(
    error: BaseException, decided: End | None, describe: Callable[[BaseException], str]
) -> End:
    leaves = leaves_of(error)
    if any(map(_is_failure, leaves)):
        if decided is not None and decided.status is JobStatus.QUEUED:
            return decided  # the error is how the program leaves it to its engine
        if decided is not None and decided.status is JobStatus.FAILED and decided.text:
            return decided
        return End(JobStatus.FAILED, describe_failure(error))
    if decided is not None:
        return decided
    interruption = next(filter(is_interruption, leaves), None)
    if interruption is None:  # sys.exit() or sys.exit(0)
        return End(JobStatus.DONE)
    return End(JobStatus.FAILED, describe(interruption))


def _is_of(error: BaseException, kinds: tuple[type[BaseException], ...]) -> bool:
    """Return whether *error* is of *kinds*, or is a group in which nothing else has failed."""
    if issubclass(type(error), kinds):  # by its type, as except does
        return True
    failures = [leaf for leaf in leaves_of(error) if _is_failure(leaf)]
    return bool(failures) and all(issubclass(type(leaf), kinds) for leaf in failures)


def _why_again(error: BaseException) -> str:
    try:
        return f"{QUEUED_AGAIN}: {describe_failure(error)}"
    except BaseException:  # noqa: BLE001 - a class of the user's may raise whatever it is asked
        return f"{QUEUED_AGAIN}: {type_name(error)}"


def is_cancellation(error: BaseException) -> bool:
    """Return whether *error* is how an event loop cancels a task."""
    known = (("asyncio", "CancelledError"), ("trio", "Cancelled"))
    loops = ((sys.modules[module], name) for module, name in known if module in sys.modules)
    return any(isinstance(error, getattr(module, name, ())) for module, name in loops)


def is_interruption(error: BaseException) -> bool:
    """Return whether *error* came from outside of the block, and says nothing about the work."""
    return isinstance(error, (KeyboardInterrupt, GeneratorExit)) or is_cancellation(error)


def _is_failure(error: BaseException) -> bool:
    if isinstance(error, SystemExit):
        return _exit_code(error) != 0
    return not is_interruption(error)


def _exit_code(error: SystemExit) -> int | None:
    """Return the number that the process exits with; None for a text, which exits with 1."""
    code: object = SystemExit.__dict__["code"].__get__(error)  # not what a subclass says
    if code is None:
        return 0
    return int.__index__(code) if isinstance(code, int) else None


def describe_failure(error: BaseException) -> str:
    """Return why a block failed by *error*: by its first error, and how many more there are."""
    leaves = leaves_of(error)
    first, *others = [leaf for leaf in leaves if _is_failure(leaf)] or leaves
    return f"{describe_error(first)} (and {len(others)} more)" if others else describe_error(first)


def describe_error(error: BaseException) -> str:
    """Return what *error*, which is no group, says."""
    match error:
        case KeyboardInterrupt():
            return "interrupted"
        case GeneratorExit():
            return "closed before its end"
        case SystemExit() if (code := _exit_code(error)) is not None:
            return f"the process exits with {code}"
        case SystemExit():  # the interpreter prints it, and exits with 1
            shown = text_of(SystemExit.__dict__["code"].__get__(error))
            return shown or "the process exits with 1"
        case _ if is_cancellation(error):
            return "cancelled"
        case _:
            return ": ".join(filter(None, (type_name(error), text_of(error))))


# Interruptions


def describe_interruption(error: BaseException, task: Any, seconds: float) -> str:
    """Return why the block was interrupted: ``timed out after 5 s``, or ``cancelled: by maya``.

    Args:
        error: The cancellation, or another interruption.
        task: The asyncio task that it ended, while that is suspended; None on trio.
        seconds: How long the block has run.
    """
    if not is_cancellation(error):
        return describe_error(error)
    try:
        return _describe_cancellation(error, task, seconds)
    except Exception:  # in a program that has changed parts of asyncio
        logger.debug("the reason of a cancellation was not found", exc_info=True)
        return "cancelled"


def _describe_cancellation(error: BaseException, task: Any, seconds: float) -> str:
    digits = 0 if seconds >= _EXACT else 1 if seconds >= 1 else 2
    timed_out = f"timed out after {seconds:.{digits}f} s"
    source = getattr(error, "source", None)
    if source == "deadline":
        return timed_out
    reason = getattr(error, "reason", None) if source else _message(error)
    if reason == _SCOPE_DEADLINE:
        return timed_out
    if source == "KeyboardInterrupt":
        return "interrupted"
    if isinstance(reason, str) and reason.strip():
        failure = reason.partition(_NURSERY_REASON)[2] if source == "nursery" else ""
        return f"{_BY_FAILURE}: {failure}" if failure else f"cancelled: {reason}"
    return "cancelled" if task is None else _find_reason(task, timed_out)


def _find_reason(task: Any, timed_out: str) -> str:
    """Return why *task* was cancelled, or *timed_out*, if what it is in shows that."""
    for each in _surroundings(task):
        if _has_expired(each):
            return timed_out
        if (other := _failure_in(each)) is not None:
            reason = "cancelled" if isinstance(other, SystemExit) else _BY_FAILURE
            return f"{reason}: {describe_failure(other)}"
        if message := _message_to_group(each):
            return f"cancelled: {message}"
    return "interrupted" if _is_interrupted() else "cancelled"


def _is_interrupted() -> bool:
    """Return whether Ctrl-C has made ``asyncio.run`` cancel the program."""
    handler = signal.getsignal(signal.SIGINT)
    runner = getattr(handler.func, "__self__", None) if isinstance(handler, partial) else None
    return bool(getattr(runner, "_interrupt_count", 0))


def _message(error: BaseException | None) -> str | None:
    """Return the message of a CancelledError of asyncio, or the reason of anyio's cancel scope."""
    for _ in range(_LONGEST_CHAIN):
        if error is None or not is_cancellation(error):
            break
        if error.args and (text := text_of(error.args[0])):
            if not text.startswith(_SCOPES):
                return text
            return text.partition(_SCOPE_REASON)[2] or None
        error = error.__context__  # it was caught, and another one was raised
    return None


def _has_expired(found: Any) -> bool:
    """Return whether *found* is a time-out of asyncio, or a scope of anyio, that has passed."""
    asyncio = sys.modules["asyncio"]
    if isinstance(found, anyio.CancelScope):  # versions of anyio before 4.11 give no reason
        return found.cancel_called and found.deadline <= anyio.current_time()
    if isinstance(found, asyncio.Timeout):
        return bool(found.expired())
    if isinstance(found, partial) and getattr(found.func, "__name__", "") == "_release_waiter":
        (waiter,) = found.args  # of wait_for() before Python 3.12
        return bool(waiter.done() and not waiter.cancelled())
    return False


def _failure_in(found: Any) -> BaseException | None:
    """Return the error for which *found* has cancelled its tasks, if it is a task group."""
    for name in ("_errors", "_exceptions") if _is_group(found) else ():  # asyncio's, and anyio's
        errors = getattr(found, name, None)
        if isinstance(errors, list) and errors:
            first: BaseException = errors[0]
            return first
    return None


def _message_to_group(found: object) -> str | None:
    """Return why a task group was cancelled that *found*, its exit, waits in: it keeps that."""
    if not (isinstance(found, CoroutineType) and found.cr_code.co_name in ("__aexit__", "_aexit")):
        return None
    held = gc.get_referents(found)
    if not any(map(_is_group, held)):
        return None
    messages = (_message(each) for each in held if isinstance(each, BaseException))
    return next(filter(None, messages), None)


def _is_group(found: object) -> bool:
    kind = type(found)
    return kind.__name__ == "TaskGroup" and kind.__module__.startswith(("asyncio.", "anyio."))


def _surroundings(task: Any) -> Iterator[object]:
    """Return what may have cancelled *task*: what it is inside of, and what awaits it.

    A task that is cancelled cancels the tasks that it awaits, so these are searched, too.
    """
    asyncio = sys.modules["asyncio"]
    unseen, seen = [task], set[int]()
    while unseen and len(seen) < _FARTHEST:
        each = unseen.pop(0)
        if id(each) in seen:
            continue
        seen.add(id(each))
        if isinstance(each, asyncio.Task):
            yield from _entered(each.get_coro())
        for waiting in _waiting_for(each):
            yield waiting
            if _is_group(waiting):
                scope = getattr(waiting, "cancel_scope", None)
                parent = getattr(waiting, "_parent_task", getattr(scope, "_host_task", None))
                unseen += [] if parent is None else [parent]
            elif isinstance(waiting, asyncio.Future):
                unseen.append(waiting)


def _entered(awaited: object) -> Iterator[object]:
    """Return what the coroutines from *awaited* inwards hold, context managers among it."""
    for _ in range(_DEEPEST):
        if awaited is None:
            return
        held = gc.get_referents(awaited)
        for each in held:
            owner = each.__self__ if isinstance(each, MethodType) else each
            yield owner
            if isinstance(each, MethodType) and type(owner).__module__ == "contextlib":
                # A context manager that is a generator may be in another one.
                inner = gc.get_referents(getattr(owner, "gen", None))
                yield from (each.__self__ for each in inner if isinstance(each, MethodType))
        following = (getattr(awaited, name, None) for name in ("cr_await", "ag_await"))
        others = (each for each in held if isinstance(each, _SUSPENDED))
        awaited = next((each for each in following if each is not None), None) or next(others, None)


def _waiting_for(future: Any) -> Iterator[object]:
    """Return what is called when *future* is done: a task, a task group, or another future."""
    for callback, *_ in getattr(future, "_callbacks", None) or ():
        if isinstance(callback, FunctionType):
            yield from (each for cell in callback.__closure__ or () for each in _content(cell))
        elif isinstance(callback, partial):
            yield from callback.args
        elif (owner := getattr(callback, "__self__", None)) is not None:
            yield owner


def _content(cell: CellType) -> Iterator[object]:
    try:
        yield cell.cell_contents
    except ValueError:  # it is empty
        return
