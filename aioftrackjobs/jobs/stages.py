"""Progress arithmetic: how much of a Job's work is done, also if it has stages. Pure: no I/O.

A :class:`Work` is the work of a Job or of one of its stages, which may have stages in turn. Each
stage has a share of the work that it belongs to. The share is fixed when the stage begins, so that
a stage that comes later takes from what is left, and progress does not run backwards.

Nothing here raises an error for what a user passes: progress must never end the work. A method
returns what is wrong with its arguments, or None.
"""

from __future__ import annotations

import math

from aioftrackjobs.background import show_value
from aioftrackjobs.jobs.progress import Progress

#: By how much sums of fractions may be wrong: not enough to show.
_TOLERANCE = 1e-6

#: Integers with fewer bits are floats without an error.
_BITS = 1000

#: The weight of what may follow a stage that is the only one known.
_UNKNOWN_REST = 1.0


class Work:
    """Work of which some is done: that of a Job, or of a stage.

    Args:
        within: The work that a stage belongs to; None for that of a Job.
        name: What a stage is called.
        weight: The share of the stage, in relation to other stages, or to the total of *within*.
        total: How much work it is, in the unit of what is reported; None if that is not known.
    """

    __slots__ = (
        "_count",
        "_done",
        "_lasting_message",
        "_latest_message",
        "_measured",
        "_stages",
        "_total",
        "_total_is_given",
        "ended",
        "name",
        "share",
        "weight",
        "within",
    )

    def __init__(
        self,
        within: Work | None = None,
        name: str = "",
        weight: float = 1.0,
        total: float | None = None,
    ) -> None:
        self.within: Work | None = within
        self.name: str = name
        self.weight: float = weight
        self.share: float | None = None
        self.ended: bool = False
        self._lasting_message: str | None = None
        self._latest_message: str | None = None  # of the latest report alone
        self._total = total
        self._total_is_given = total is not None
        self._count = 0.0
        self._done = 0.0  # the fraction that was reported, and what ended stages have done
        self._measured = False  # whether there is a fraction at all
        self._stages: list[Work] = []
        if within is not None:
            within._stages.append(self)

    @property
    def given_total(self) -> float | None:
        """How much work a stage is, if that was said when it was made."""
        return self._total if self._total_is_given else None

    @property
    def fraction(self) -> float:
        """The part that is done, from 0 to 1."""
        return 1.0 if self.ended else min(max(self._done + self._done_in_stages(), 0.0), 1.0)

    def _done_in_stages(self) -> float:
        if not self._stages:
            return 0.0
        return sum(each.share * each.fraction for each in self._stages if each.share)

    def progress(self, done: object, message: str | None, total: object) -> str | None:
        """Set how much is done: a fraction, or an amount of *total*."""
        self._latest_message = message
        amount = number(done)
        whole = None if total is None else number(total)
        if amount is None or (total is not None and not whole):
            return (
                f"{show_value(done)} of {show_value(total)}"
                if total is not None
                else show_value(done)
            )
        if whole is not None:
            self._total = whole
        else:
            whole = self.given_total
        if whole is None and amount > 1 + _TOLERANCE:
            self._measured = bool(self._stages)
            self._count = amount
            self._latest_message = _join(show_number(amount), self.message)
            return f"{show_number(amount)} without a total"
        fraction = min(amount / (whole or 1.0), 1.0)
        self._count = amount if whole is not None else fraction * (self._total or 0.0)
        self._done = fraction - self._done_in_stages()
        self._measured = True
        return None

    def advance(self, amount: object, message: str | None) -> str | None:
        """Add to what is done, in the unit of the total; without a total, it is only counted."""
        added = number(amount)
        if message is not None:
            self._latest_message = message
        if added is None:
            return show_value(amount)
        self._count += added
        if self._total:
            self._done += added / self._total
            self._measured = True
        if message is None:
            self.show_count()
        return None

    def show_count(self) -> None:
        """Let the message be how much is done."""
        count = show_number(self._count)
        count = f"{count} of {show_number(self._total)}" if self._total else count
        self._latest_message = _join(self._lasting_message, count)

    @property
    def message(self) -> str | None:
        """What is being done; the message of the latest report, or else one that was set."""
        return self._latest_message or self._lasting_message

    @message.setter
    def message(self, text: str | None) -> None:
        self._lasting_message, self._latest_message = text, None

    def expect(self, total: float) -> None:
        """Set how much work there is."""
        self._total = total

    # Stages

    def begin(self) -> None:
        """Fix the share of a stage, and of all others that are planned beside it by now.

        A total gives each its part. Otherwise they share what is left. If the stage is the only one
        that is known, others may follow, so that it gets only a part of that.
        """
        within = self.within
        if within is None or self.share is not None:
            return
        planned = [each for each in within._stages if each.share is None]
        given = sum(each.share * (1 - each.fraction) for each in within._stages if each.share)
        left = max(1.0 - within.fraction - given, 0.0)
        weights = sum(each.weight for each in planned)
        rest = 0.0 if len(planned) > 1 else _UNKNOWN_REST
        for each in planned:
            if within._total:
                each.share = min(each.weight / within._total, left)
                left -= each.share
            else:
                each.share = left * each.weight / (weights + rest) if weights else 0.0
        within._measured = True

    def end(self, *, succeeded: bool) -> None:
        """End a stage. All of it is done then, unless it failed."""
        within = self.within
        if within is None or self.ended or self not in within._stages:
            return
        fraction = 1.0 if succeeded else self.fraction
        within._stages.remove(self)
        within._count += self.weight * fraction
        if self.share:
            within._done += self.share * fraction
        self.ended = True

    # What is shown

    def shown(self) -> Progress:
        """Return the progress of the whole Job, with what this part of it is doing."""
        if self.within is None:
            return Progress(round(self.fraction, 4) if self._measured else None, self.message)
        job, parts = self, [self.message]
        while job.within is not None:
            parts.insert(0, job.name)
            job = job.within
        message = ": ".join(filter(None, parts)) or None
        return Progress(round(job.fraction, 4) if job._measured else None, message)


def number(value: object) -> float | None:
    """Return a number that is not negative as a float; None for everything else."""
    if type(value) is int and value.bit_length() < _BITS:
        value = float(value)
    elif type(value) is not float:
        if issubclass(type(value), (str, bytes, bytearray)):
            return None
        try:
            value = float(value)  # type: ignore[arg-type]  # a Decimal or a number of numpy, too
        except BaseException:  # noqa: BLE001 - any object may be passed, as to text_of()
            return None
    if not math.isfinite(value) or value < -_TOLERANCE:
        return None
    return max(value, 0.0)


def _join(*parts: str | None) -> str:
    return ", ".join(filter(None, parts))


def show_number(value: float) -> str:
    """Return *value* as people read it."""
    return str(int(value)) if value.is_integer() else f"{value:.6g}"


class _Odd:
    """Stands for a value that is no number."""

    __slots__ = ("_shown",)

    def __init__(self, value: object) -> None:
        self._shown = show_value(value)

    def __repr__(self) -> str:
        return self._shown


def plain(value: object) -> object:
    """Return *value* as a number that runs no code of the user's, or what stands for it."""
    if value is None or type(value) is float or type(value) is int:
        return value
    known = number(value)
    return _Odd(value) if known is None else known
