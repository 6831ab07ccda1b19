"""How a Job ends: what the block has decided, or what the error says that left it. Pure: no I/O.

``finish`` and ``fail`` decide the end, and the first call wins. A cancellation that comes later
changes nothing, because it says nothing about the work. An error of the block does: a Job whose
block raises an error after ``finish`` has failed.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import NamedTuple

from aioftrackjobs.jobs.texts import text_of
from aioftrackjobs.models import JobStatus


class End(NamedTuple):
    """How a Job ends.

    Attributes:
        status: Its final status.
        text: What was done, or why the Job failed; None if nothing was said.
    """

    status: JobStatus
    text: str | None = None


def end_of_block(
    error: BaseException, decided: End | None, describe: Callable[[BaseException], str]
) -> End:
    """Return how a Job ends whose block was left by *error*.

    Args:
        error: The error, or a group of errors.
        decided: What the block has decided before.
        describe: Returns why the block was interrupted.
    """
    leaves = leaves_of(error)
    if any(map(_is_failure, leaves)):
        if decided is not None and decided.status is JobStatus.FAILED and decided.text:
            return decided
        return End(JobStatus.FAILED, describe_failure(error))
    if decided is not None:
        return decided
    interruption = next(filter(is_interruption, leaves), None)
    if interruption is None:  # sys.exit() or sys.exit(0)
        return End(JobStatus.DONE)
    return End(JobStatus.FAILED, describe(interruption))


def leaves_of(error: BaseException) -> list[BaseException]:
    """Return the errors inside nested groups, or the error itself."""
    if not isinstance(error, BaseExceptionGroup):
        return [error]
    return [leaf for member in error.exceptions for leaf in leaves_of(member)]


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
        return not (error.code is None or (isinstance(error.code, int) and error.code == 0))
    return not is_interruption(error)


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
        case SystemExit(code=int() | None as code):
            return f"the process exits with {int(code or 0)}"
        case SystemExit(code=shown):  # the interpreter prints it, and exits with 1
            return text_of(shown) or "the process exits with 1"
        case _ if is_cancellation(error):
            return "cancelled"
        case _:
            return ": ".join(filter(None, (type(error).__name__, text_of(error))))
