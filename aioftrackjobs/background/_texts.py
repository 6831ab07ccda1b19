"""Texts of values and errors of the user's, which may raise anything when they are shown.

``str(value)`` runs the user's code. It may raise an error, also one that would end the event loop,
or return a subclass of str with methods of its own, which raise later and elsewhere. An error may
have thousands of causes and frames, and source files that are gone, or that block when they are
read. Nothing here raises an error, and each text is limited in length and in what it costs, except
for the time that the user's own code takes.
"""

from __future__ import annotations

import linecache
import stat
import traceback
from collections import deque
from collections.abc import Callable, Iterator
from functools import partial
from itertools import islice
from pathlib import Path
from types import CodeType, TracebackType
from typing import Any

#: Errors of a chain or of nested groups that are shown: causes, members of a group, levels of
#: groups, and of all together.
_CAUSES, _MEMBERS, _LEVELS, _ERRORS = 20, 15, 10, 50

#: Frames of a traceback that are shown: the outermost and the innermost.
_FIRST, _LAST = 30, 90

#: Characters of the text of an error, or of a note, and of a line of source code.
_MESSAGE, _LINE = 10_000, 500

#: Notes of an error that are shown.
_NOTES = 20

#: Characters of the text of a whole error.
_WHOLE = 200_000

#: Bytes of a source file that is read for its lines.
_SOURCE = 10_000_000

#: Errors inside of groups that are looked at.
_LEAVES = 1000

_CAUSED = "\nThe above exception was the direct cause of the following exception:\n"
_DURING = "\nDuring handling of the above exception, another exception occurred:\n"
_LEFT_OUT = "[more errors are left out]"


def text_of(value: object) -> str | None:
    """Return ``str(value)``; None for None, and if that raises an error.

    No error is let through, not even a KeyboardInterrupt: no cancellation arrives in a function
    that does not await, and one value must not end the work of all others.
    """
    if value is None or type(value) is str:
        return value
    try:
        return str.__str__(str(value))  # of a subclass, only the text
    except BaseException:  # noqa: BLE001 - see above
        return None


def show_value(value: object, length: int = 60) -> str:
    """Return the beginning of ``repr(value)``, or its type if that raises an error."""
    try:
        return str.__str__(repr(value))[:length]
    except BaseException:  # noqa: BLE001 - as in text_of()
        return f"a value of type {type_name(value)}"


def type_name(value: object) -> str:
    """Return the name of the type of *value*, whatever its metaclass says."""
    name: str = type.__dict__["__name__"].__get__(type(value))
    return name


def name_of_function(function: object) -> str:
    """Return the qualified name of *function*, which may be a partial of one."""
    while isinstance(function, partial):
        function = function.func
    return str(getattr(function, "__qualname__", type_name(function)))


def leaves_of(error: BaseException) -> list[BaseException]:
    """Return the errors inside nested groups, the first thousand at most, or the error itself."""
    leaves: list[BaseException] = []
    unseen = [error]
    while unseen and len(leaves) < _LEAVES:
        each = unseen.pop()
        if isinstance(each, BaseExceptionGroup):
            unseen.extend(reversed(_members(each)))
        else:
            leaves.append(each)
    return leaves


def format_error(error: BaseException, redact: Callable[[str], str] = str) -> str:
    """Return the traceback of *error*, with causes, groups and notes, as Python shows it.

    Of what is very long, the middle is left out.

    Args:
        error: Any error.
        redact: Removes secrets from the text.
    """
    try:
        text = redact("\n".join(_Formatter(redact).lines(error, _LEVELS)))
    except BaseException:  # noqa: BLE001 - as in text_of()
        return f"{type_name(error)}, whose traceback cannot be shown\n"
    if len(text) > _WHOLE:
        third = _WHOLE // 3
        left_out = len(text) - _WHOLE
        text = f"{text[:third]}\n[{left_out} characters are left out]\n{text[-2 * third :]}"
    return f"{text}\n"


def _own(error: BaseException, name: str) -> Any:
    """Return an attribute that each exception has, whatever a subclass has put in its place."""
    return BaseException.__dict__[name].__get__(error)


def _members(group: BaseExceptionGroup[BaseException]) -> tuple[BaseException, ...]:
    members: tuple[BaseException, ...] = BaseExceptionGroup.__dict__["exceptions"].__get__(group)
    return members


class _Formatter:
    """Formats one error, and those that are connected to it."""

    def __init__(self, redact: Callable[[str], str]) -> None:
        self._redact = redact
        self._left = _ERRORS

    def lines(self, error: BaseException, levels: int) -> Iterator[str]:
        """Return the lines about *error*, whose groups are shown to some *levels*."""
        chain, link = [(error, "")], _cause_of(error)
        seen = {id(error)}
        while link is not None and id(link[0]) not in seen:
            if len(chain) == _CAUSES:
                yield _LEFT_OUT
                break
            seen.add(id(link[0]))
            chain.append(link)
            link = _cause_of(link[0])
        for each, connection in reversed(chain):
            if self._left <= 0:
                yield _LEFT_OUT
                return
            self._left -= 1
            yield from self._lines_of_one(each, levels)
            if connection:
                yield connection

    def _lines_of_one(self, error: BaseException, levels: int) -> Iterator[str]:
        is_group = isinstance(error, BaseExceptionGroup)
        trace = _own(error, "__traceback__")
        if trace is not None:
            kind = "Exception Group Traceback" if is_group else "Traceback"
            yield f"{kind} (most recent call last):"
            yield from _frames(trace)
        if isinstance(error, SyntaxError):
            yield from self._place(error)
        text = self._message(text_of(error))
        yield f"{_full_name(error)}: {text}" if text else _full_name(error)
        yield from self._notes(error)
        if not isinstance(error, BaseExceptionGroup):
            return
        members = _members(error)
        if levels == 0:
            yield "  [of the groups in this one, only the errors are shown]"
            members = tuple(leaves_of(error))
        for number, member in enumerate(members[:_MEMBERS], 1):
            yield f"  +---------------- {number} ----------------"
            for line in self.lines(member, levels - 1):
                yield from (f"  | {each}" for each in line.split("\n"))
        if len(members) > _MEMBERS:
            yield "  +---------------- and more"

    def _message(self, text: str | None) -> str:
        if text is None or len(text) <= _MESSAGE:
            return text or ""
        # First without secrets, because the cut could leave a part of one.
        return f"{self._redact(text[: 2 * _MESSAGE])[:_MESSAGE]} [cut]"

    def _place(self, error: SyntaxError) -> Iterator[str]:
        try:
            filename, number, line = error.filename, error.lineno, error.text
        except BaseException:  # noqa: BLE001 - as in text_of()
            return
        if type(filename) is str and type(number) is int:
            yield f'  File "{filename}", line {number}'
        if type(line) is str:
            yield f"    {self._message(line.strip())}"

    def _notes(self, error: BaseException) -> Iterator[str]:
        try:
            notes = getattr(error, "__notes__", None)
        except BaseException:  # noqa: BLE001 - as in text_of()
            return
        if type(notes) is list or type(notes) is tuple:
            for note in notes[:_NOTES]:
                shown = text_of(note)
                yield self._message(show_value(note) if shown is None else shown)
        elif notes is not None:
            yield show_value(notes)


def _cause_of(error: BaseException) -> tuple[BaseException, str] | None:
    """Return the error that *error* was raised from, and how they are connected."""
    if (cause := _own(error, "__cause__")) is not None:
        return cause, _CAUSED
    context = _own(error, "__context__")
    return None if context is None or _own(error, "__suppress_context__") else (context, _DURING)


def _full_name(error: BaseException) -> str:
    kind = type(error)
    name: str = type.__dict__["__qualname__"].__get__(kind)
    module = vars(kind).get("__module__")
    return name if type(module) is not str or module == "builtins" else f"{module}.{name}"


def _frames(trace: TracebackType) -> Iterator[str]:
    first: list[TracebackType] = []
    last = deque[TracebackType](maxlen=_LAST)
    following: TracebackType | None = trace
    number = 0
    while following is not None:
        (first if number < _FIRST else last).append(following)
        following, number = following.tb_next, number + 1
    yield from _shown(first)
    if number > _FIRST + _LAST:
        yield f"  [{number - _FIRST - _LAST} frames are left out]"
    yield from _shown(last)


def _shown(traces: list[TracebackType] | deque[TracebackType]) -> Iterator[str]:
    frames = [_summary(each) for each in traces]
    try:
        text = "".join(traceback.StackSummary.from_list(frames).format())
    except BaseException:  # noqa: BLE001 - as in text_of()
        for each in frames:
            yield f'  File "{each.filename}", line {each.lineno}, in {each.name}'
    else:
        yield from text.splitlines()


def _summary(trace: TracebackType) -> traceback.FrameSummary:
    code, number = trace.tb_frame.f_code, trace.tb_lineno or 0
    line = _source_line(trace, number)
    places = _places(code, trace.tb_lasti) if line else {}
    return traceback.FrameSummary(
        code.co_filename, number, code.co_name, lookup_line=False, line=line, **places
    )


def _places(code: CodeType, instruction: int) -> dict[str, Any]:
    """Return what of a line is to be marked."""
    found = next(islice(code.co_positions(), max(instruction // 2, 0), None), (None,) * 4)
    return dict(zip(("end_lineno", "colno", "end_colno"), found[1:], strict=True))


def _source_line(trace: TracebackType, number: int) -> str:
    """Return a line of the source code; "" if there is none that can be read."""
    filename = trace.tb_frame.f_code.co_filename
    try:
        if filename not in linecache.cache and not _may_be_read(filename):
            return ""
        line = linecache.getline(filename, number, trace.tb_frame.f_globals)
    except BaseException:  # noqa: BLE001 - a loader of the user's may raise anything
        return ""
    return line if len(line) <= _LINE else ""


def _may_be_read(filename: str) -> bool:
    """Return whether a source file ends, and does not block; one that is gone may be in a zip."""
    try:
        found = Path(filename).stat()
    except (OSError, ValueError):
        return True
    return stat.S_ISREG(found.st_mode) and found.st_size <= _SOURCE
