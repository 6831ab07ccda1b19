"""What becomes of a fault in background work: it ends no more than the piece of work that has it.

A *fault* is an error that the work has not expected: a defect of this package, or a value or a
function of the user's that raises. It is logged once, and everything else goes on. Two things are
no faults: a cancellation of the task, and an interruption by Ctrl-C, which is for the program.
"""

from __future__ import annotations

import logging
import re
import signal
from contextlib import suppress
from typing import TYPE_CHECKING, Any, cast

import anyio
import sniffio

from aioftrackjobs.background._texts import format_error, leaves_of, show_value, text_of, type_name
from aioftrackjobs.errors import SessionStateError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from types import TracebackType

#: Names of values that a record has by their ids.
_BY_ID = frozenset({"job", "component"})

#: What no handler is given of an address: its parameters, and the user of a proxy.
_ADDRESS_PARAMETERS = r"(?i)\b(https?://[^\s?#\"'<>]+)[?#][^\s\"'<>]*"
_ADDRESS_USER = r"(?<=://)[^\s/?#@'\"]+@"

#: Kinds of faults that are known, so that each is logged once.
_KNOWN_FAULTS = 100


class SafeLogger:
    """The logger of a module, which raises no error of a handler, a filter or an argument.

    What is logged is about work that goes on, or about an error that is more important. A handler
    of the program that fails must not change that.

    Messages are constants, by which records can be counted; what varies in them has a name::

        logger.warning("%(job)r: its text was not written: %(error)s", job=job, error=error)

    A record has the message as ``ftrack_message``, and each value as ``ftrack_`` and its name, as a
    number or text: ``ftrack_error``. A Job and a component are there by their ids, as
    ``ftrack_job_id`` and ``ftrack_component_id``.

    Args:
        name: The name of the logger.
    """

    __slots__ = ("_logger",)

    def __init__(self, name: str) -> None:
        self._logger = logging.getLogger(name)

    def debug(self, message: str, /, *, exc_info: bool = False, **values: object) -> None:
        """Log at the level DEBUG."""
        self._log(logging.DEBUG, message, values, exc_info=exc_info)

    def info(self, message: str, /, **values: object) -> None:
        """Log at the level INFO."""
        self._log(logging.INFO, message, values)

    def warning(
        self,
        message: str,
        /,
        *,
        exc_info: bool = False,
        stacklevel: int = 1,
        **values: object,
    ) -> None:
        """Log at the level WARNING.

        Args:
            message: With a place for each of *values*, as ``%(name)s``.
            exc_info: Whether to add the traceback of the error that is being handled.
            stacklevel: Which frame logs, counted from the caller as 1.
            values: What is shown there.
        """
        self._log(logging.WARNING, message, values, exc_info=exc_info, depth=stacklevel)

    def error(self, message: str, /, **values: object) -> None:
        """Log at the level ERROR."""
        self._log(logging.ERROR, message, values)

    def _log(
        self,
        level: int,
        message: str,
        values: Mapping[str, Any],
        *,
        exc_info: bool = False,
        depth: int = 1,
    ) -> None:
        if not self._logger.isEnabledFor(level):
            return
        try:
            shown = {
                name: _shown(value) if issubclass(type(value), BaseException) else value
                for name, value in values.items()
            }
            extra = {"ftrack_message": message, **dict(map(_field, shown, shown.values()))}
            args = (shown,) if shown else ()
            self._logger.log(
                level, message, *args, exc_info=exc_info, stacklevel=depth + 2, extra=extra
            )
        except KeyboardInterrupt:  # it arrives while a handler waits for its output
            raise
        except BaseException:  # noqa: BLE001 - there is no other place to report it to
            return


def _shown(error: Any) -> str:
    text = text_of(error)
    return show_value(error) if text is None else text


def _id_of(value: Any) -> str:
    """Return the id of an entity, or of what reports one; an empty text if there is none."""
    try:
        return text_of(value.id if hasattr(value, "id") else value.entity.id) or ""
    except BaseException:  # noqa: BLE001 - as in text_of()
        return ""


def _field(name: str, value: object) -> tuple[str, str | float]:
    """Return the attribute of a record for a value: its name, and what handlers can write."""
    if name in _BY_ID:
        return f"ftrack_{name}_id", _id_of(value)
    if type(value) in (int, float):
        return f"ftrack_{name}", cast("float", value)
    text = text_of(value) or show_value(value)
    if "://" in text:  # no error has an address with a signature; this is for those of others
        text = re.sub(_ADDRESS_PARAMETERS, r"\1?***", re.sub(_ADDRESS_USER, "***@", text))
    return f"ftrack_{name}", text


logger = SafeLogger(__name__)


class FaultGuard:
    """Decides which errors of background work are faults, and logs each kind of them once.

    Args:
        redact: Removes secrets from the text of an error that is logged.

    Attributes:
        interrupt_program: Hands an interruption by Ctrl-C over to the program; None before the
            work has begun.
    """

    def __init__(self, redact: Callable[[str], str]) -> None:
        self._redact = redact
        self._known = set[tuple[str, str]]()
        self.interrupt_program: Callable[[], None] | None = None

    def survives(self, error: BaseException, what: str) -> bool:
        """Return whether *error* is a fault, which is logged then, so that other work goes on.

        An interruption by Ctrl-C is handed over to the program.

        Args:
            error: What has ended a piece of work.
            what: Names the work in the log.
        """
        if isinstance(error, (GeneratorExit, SessionStateError)) or is_cancellation_of_task(error):
            return False
        if self.interrupt_program is not None and any(
            isinstance(each, KeyboardInterrupt) for each in leaves_of(error)
        ):
            # Here it would end the work of all Jobs, which have their final status to send.
            self.interrupt_program()
            return True
        fault = (what, type_name(error))
        if fault in self._known:
            logger.debug("%(work)s failed again: %(error)s", work=what, error=error)
            return True
        if len(self._known) < _KNOWN_FAULTS:
            self._known.add(fault)
        text = format_error(error, self._redact)
        logger.error(
            "%(work)s failed, and everything else goes on: %(error)s", work=what, error=text
        )
        return True


class Surviving:
    """A context whose block may fail: a fault of it is logged, and the work goes on after it.

    It can be entered any number of times.

    Args:
        survives: Logs an error if it is a fault, and returns whether it is.
        what: Names the work in the log.
    """

    __slots__ = ("_survives", "_what")

    def __init__(self, survives: Callable[[BaseException, str], bool], what: str) -> None:
        self._survives = survives
        self._what = what

    def __enter__(self) -> None:
        pass

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> bool:
        return error is not None and self._survives(error, self._what)


def interrupt_asyncio(call_in_loop: Callable[[Callable[[], None]], object]) -> None:
    """Raise a KeyboardInterrupt in a callback: asyncio lets that out of its event loop."""

    def interrupt() -> None:
        raise KeyboardInterrupt

    with suppress(RuntimeError):  # the loop has ended by this, or something else
        call_in_loop(interrupt)


def interrupt_trio() -> None:
    """Do as Ctrl-C: trio raises a KeyboardInterrupt in its main task, or here if it may."""
    signal.raise_signal(signal.SIGINT)


def is_cancellation_of_task(error: BaseException) -> bool:
    """Return whether *error* is, or has in it, the cancellation of the running task.

    A foreign function may raise a CancelledError of asyncio although the task was not cancelled.
    """
    try:
        kind = anyio.get_cancelled_exc_class()
        library = sniffio.current_async_library()
    except Exception:  # noqa: BLE001 - there is no event loop any more
        return True
    is_kind = any(isinstance(each, kind) for each in leaves_of(error))
    if not is_kind or library != "asyncio":
        return is_kind
    import asyncio

    task = asyncio.current_task()
    return task is None or task.cancelling() > 0
