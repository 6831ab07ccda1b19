"""Progress in the output of a program: which of its lines say how far it is. No I/O.

The lines of OpenJD count always. All others need a preset (see :mod:`.presets`), or a regular
expression of the user's.
"""

from __future__ import annotations

import re

from aioftrackjobs.commands.presets import PRESETS, RSYNC_WHOLE, Preset

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

#: openjd-sessions, ActionMonitoringFilter.
OPENJD_NEEDLE = b"openjd_"
_OPENJD = r"^openjd_(progress|status|fail|env|redacted_env): (.+)$"
#: What comes before it in a line does not matter: colours, or a bar that a carriage return ends.
_HIDDEN_PART = r'(openjd_(?:redacted_)?env: *"?[^=\r\n]*=?)[^\r\n]*'
_ASSIGNMENT = r'(?s)^"?[A-Za-z_][A-Za-z0-9_]*=(.*?)"?$'

#: What is shown in the log in place of a hidden value.
HIDDEN = "********"

#: Characters of a line that patterns are searched in. Many, such as (\d+)%, take a time that grows
#: with the square of the length of a number, and nothing else runs meanwhile.
LONGEST_SEARCHED = 4096

#: Values that are shorter are not searched in the log: they would hide half of it.
_SHORTEST_SECRET = 3

#: Colours, movements of the cursor, titles of windows.
_ANSI = r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[@-Z\\-_])"

#: A regular expression with one of these may find something in a line alone that it does not find
#: in the same line between others.
_NEEDS_LINES = r"\\[AZ]|\(\?<?[=!]"

#: A percentage that is lower by this much than the one before is that of the next frame.
_NEXT_FRAME = 0.5

#: The bytes of output, the most frequent ones first; others are rare.
_COMMON = b" etaonirsldcmuhpfgybwvk0123456789./_-:=,SRFDABCEPT[]()x"
_RARE = 256

#: Bytes that are looked at in turn before a text is searched as a whole.
_MOST_CANDIDATES = 64

_FRAMES = r"(-?\d+)(?:-(-?\d+)(?:[x:](\d+))?)?"

#: More frames than that are a mistake of typing.
_MOST_FRAMES = 1_000_000


class Reading:
    """What a line says.

    Attributes:
        fraction: How far the program is, from 0 to 1; None if the line does not say.
        message: What it is doing; None if the line does not say.
    """

    __slots__ = ("fraction", "message")

    def __init__(self, fraction: float | None = None, message: str | None = None) -> None:
        self.fraction: float | None = fraction
        self.message: str | None = message

    def __repr__(self) -> str:
        return f"Reading({self.fraction}, {self.message!r})"


class ProgressReader:
    """Reads the lines of one run of a program.

    Args:
        preset: The name of a preset; None for none.
        pattern: A regular expression of the user's, with one group for a percentage, or two for
            what is done and the total; None for none.
        frames: The frames that the program renders, as ``"1001-1100"``, if a percentage is that of
            one of them.
        duration: Seconds of the film that ffmpeg writes; None if only its output says it.
        command: The command line, by which two kinds of output of rsync are told apart.

    Raises:
        ValueError: One of them is wrong; the text says what is right.

    Attributes:
        failure: What OpenJD said of why the program fails; None if it has not.
        secrets: Values that must not be shown.
    """

    def __init__(
        self,
        *,
        preset: str | None = None,
        pattern: str | re.Pattern[str] | None = None,
        frames: str | None = None,
        duration: float | None = None,
        command: Sequence[str] = (),
    ) -> None:
        self._own = None if pattern is None else _compiled(pattern)
        self._preset = None if preset is None else _preset(preset, command)
        needles, self._filter = self._find_filter()
        self._needles = [Needle(each) for each in needles]
        self._frames = None if frames is None else parse_frames(frames)
        self._is_ffmpeg = preset == "ffmpeg"
        self.duration = duration
        self.failure: str | None = None
        self.secrets: list[str] = []
        self._index: int | None = None  # of the frame that it is at
        self._fraction = 0.0  # of this frame

    def _find_filter(self) -> tuple[list[bytes], re.Pattern[str] | None]:
        """Return texts of which each line that counts has one, or what finds the other lines."""
        needles = [OPENJD_NEEDLE]
        if self._preset is not None:
            needles += [each.encode() for each in self._preset.needles]
        if self._own is None:
            return needles, None
        if literal := _literal_in(self._own):
            return [*needles, literal], None
        if re.search(_NEEDS_LINES, self._own.pattern):
            return [*needles, b""], None  # all lines
        return needles, re.compile(self._own.pattern, self._own.flags | re.MULTILINE)

    @property
    def needs_duration(self) -> bool:
        """Whether progress would be known if the length of the film were."""
        return self._is_ffmpeg and self.duration is None and self._frames is None

    def may_have_progress(self, data: bytes | bytearray, begin: int, end: int) -> bool:
        """Return whether a line in a part of *data* may mean something, so that it is to be read.

        This is what makes it possible to read gigabytes a second.
        """
        for needle in self._needles:
            if needle.is_in(data, begin, end):
                return True
        if self._filter is None:
            return False
        text = bytes(data[begin:end]).decode("utf-8", "replace")
        lines = without_codes(text).replace("\r", "\n").split("\n")
        searched = "\n".join([line[:LONGEST_SEARCHED] for line in lines])
        return self._filter.search(searched) is not None

    def read_lines(self, data: bytes, longest: int) -> list[Reading]:
        """Return what the lines of *data* say, in their order.

        Where a line means the same whatever came before, only the last one that says how far the
        program is counts: the others were true for less than a millisecond.

        Args:
            data: Whole lines, which end with a line feed or a carriage return.
            longest: Bytes of a line that are read.
        """
        lines = data.replace(b"\r", b"\n").split(b"\n")
        if self._filter is None:
            needles = [each.text for each in self._needles]
            lines = [line for line in lines if any(needle in line for needle in needles)]
        is_latest_enough = self._is_stateless and OPENJD_NEEDLE not in data
        readings = []
        for line in reversed(lines) if is_latest_enough else lines:
            reading = self.read(line[:longest].decode("utf-8", "replace")) if line else None
            if reading is not None:
                readings.append(reading)
                if is_latest_enough:
                    break
        return readings

    @property
    def _is_stateless(self) -> bool:
        """Whether a line of the program means the same whatever came before, and has no text."""
        if self._frames is not None or self._is_ffmpeg:
            return False
        patterns = self._preset.patterns if self._preset is not None else ()
        return not any("(?P<at>" in pattern for pattern in patterns)

    def read(self, line: str) -> Reading | None:
        """Return what a *line* says, without its end; None if it says nothing."""
        if "\x1b" in line:
            line = without_codes(line)
        if OPENJD_NEEDLE.decode() in line and (match := re.match(_OPENJD, line.strip())):
            return self._read_openjd(match[1], match[2])
        line = line[:LONGEST_SEARCHED]
        if self._own is not None and (own := self._own.search(line)):
            return self._of_frame(self._read_own(own), None)
        for pattern in self._preset.patterns if self._preset is not None else ():
            if match := re.search(pattern, line):
                found = match.groupdict()
                return self._read_ffmpeg(found) if self._is_ffmpeg else self._read_preset(found)
        return None

    def _read_openjd(self, kind: str, text: str) -> Reading | None:
        if kind == "progress":
            percent = _number(text)
            is_known = percent is not None and 0 <= percent <= 100
            return Reading(percent / 100) if percent is not None and is_known else None
        if kind == "status":
            return Reading(message=text)
        if kind == "fail":
            self.failure = text
        elif kind == "redacted_env" and (match := re.match(_ASSIGNMENT, text)):
            lines = match[1].replace("\\n", "\n").splitlines()
            self.secrets += [each for each in lines if len(each) >= _SHORTEST_SECRET]
        return None

    def _read_own(self, match: re.Match[str]) -> float | None:
        done = _number(match[1])
        if match.re.groups == 1:
            return None if done is None else _fraction(done, 100)
        return _fraction(done, _number(match[2]))

    def _read_preset(self, found: dict[str, str | None]) -> Reading | None:
        fraction: float | None = None
        total = _number(found.get("total"))
        if (percent := _number(found.get("percent"))) is not None:
            fraction = _fraction(percent, 100)
        elif (left := _number(found.get("left"))) is not None and total:
            fraction = _fraction(total - left, total)
        elif (nth := _number(found.get("nth"))) is not None:
            fraction = _fraction(nth - 1, total)
        elif (done := _number(found.get("done"))) is not None:
            fraction = _fraction(done, total)
        if finished := found.get("finished"):
            return self._of_frame(1.0, int(finished)) if self._frames else None
        at = found.get("at")
        if self._preset is not None and not self._preset.of_frame:
            return Reading(fraction, None if at is None else f"frame {at}")
        return self._of_frame(fraction, None if at is None else int(at))

    def _read_ffmpeg(self, found: dict[str, str | None]) -> Reading | None:
        if found.get("end"):
            return Reading(1.0)
        if length := found.get("length"):
            self.duration = self.duration or _seconds(length)
            return None
        if count := found.get("count"):
            return Reading(_fraction(float(count), len(self._frames))) if self._frames else None
        if self._frames:
            return None
        clock, microseconds = found.get("clock"), found.get("microseconds")
        seconds = _seconds(clock) if clock else float(microseconds or 0) / 1e6
        return Reading(_fraction(seconds, self.duration)) if self.duration else None

    def _of_frame(self, fraction: float | None, at: int | None) -> Reading | None:
        """Return how far all frames are, if *fraction* is that of the frame *at*."""
        message = None if at is None else f"frame {at}"
        if self._frames is None:
            return Reading(fraction, message) if fraction is not None or message else None
        if at is not None:
            if at not in self._frames:
                return None
            index = self._frames[at]
            if index != self._index:
                self._index, self._fraction = index, 0.0
        elif self._index is None:
            self._index = 0
        elif fraction is not None and fraction < self._fraction - _NEXT_FRAME:
            self._index = min(self._index + 1, len(self._frames) - 1)
        if fraction is not None:
            self._fraction = fraction
        assert self._index is not None  # noqa: S101 - for type checkers
        if message is None:
            message = f"frame {list(self._frames)[self._index]}"
        return Reading((self._index + self._fraction) / len(self._frames), message)

    def hide(self, text: str) -> str:
        """Return *text*, some lines of the output, without values that must not be shown."""
        if OPENJD_NEEDLE.decode() in text:
            text = re.sub(_HIDDEN_PART, rf"\1{HIDDEN}", text)
        for secret in sorted(self.secrets, key=len, reverse=True):
            text = text.replace(secret, HIDDEN)
        return text


class Needle:
    """A text that is searched in much output.

    A single byte is found twenty times as fast as a text, so that its rarest one is searched first.

    Attributes:
        text: The text; an empty one is everywhere.
    """

    __slots__ = ("_byte", "_place", "text")

    def __init__(self, text: bytes) -> None:
        self.text = text
        places = range(len(text))
        self._place = max(places, key=lambda at: _COMMON.find(text[at]) % _RARE, default=0)
        self._byte = text[self._place : self._place + 1]

    def is_in(self, data: bytes | bytearray, begin: int, end: int) -> bool:
        """Return whether it is in a part of *data*."""
        at, place = begin, self._place
        for _ in range(_MOST_CANDIDATES):
            at = data.find(self._byte, at, end)
            if at < 0:
                return False
            if data.startswith(self.text, max(at - place, begin), end):
                return True
            at += 1
        return data.find(self.text, max(at - place, begin), end) >= 0


def without_codes(text: str) -> str:
    """Return *text* without the codes that terminals act on."""
    return re.sub(_ANSI, "", text)


def parse_frames(text: str) -> dict[int, int]:
    """Return the frames that *text* names, as ``"1001-1100"`` or ``"1-9x2,20"``, with their place.

    Raises:
        ValueError: It names none.
    """
    frames: dict[int, int] = {}
    for part in text.replace(" ", "").split(","):
        match = re.fullmatch(_FRAMES, part)
        if match is None:
            raise ValueError(f"{text!r} are no frames such as 1001-1100, 1-9x2 or 5,8")
        first, step = int(match[1]), int(match[3] or 1)
        last = int(match[2]) if match[2] else first
        if last < first or not step or (last - first) // step >= _MOST_FRAMES:
            raise ValueError(f"{part!r} is no range of frames from the first to the last")
        for frame in range(first, last + 1, step):
            frames.setdefault(frame, len(frames))
    return frames


def _preset(name: str, command: Sequence[str]) -> Preset:
    if name not in PRESETS:
        known = ", ".join(PRESETS)
        raise ValueError(f"{name!r} is no preset; there are {known} (OpenJD is always on)")
    if name == "rsync" and "progress2" in " ".join(command):
        return RSYNC_WHOLE
    return PRESETS[name]


def _compiled(pattern: str | re.Pattern[str]) -> re.Pattern[str]:
    try:
        compiled = re.compile(pattern)
    except (re.error, RecursionError, OverflowError) as error:
        raise ValueError(f"{pattern!r} is no regular expression: {error}") from None
    if not isinstance(compiled.pattern, str):
        raise ValueError("the regular expression must be for text, not bytes")  # noqa: TRY004
    if compiled.groups not in (1, 2):
        raise ValueError(
            f"{compiled.pattern!r} has {compiled.groups} groups; it needs one for the percentage, "
            "or two for what is done and the total"
        )
    return compiled


def _literal_in(pattern: re.Pattern[str]) -> bytes | None:
    """Return the longest text that each line has in which *pattern* is found; None if unknown."""
    try:
        from importlib import import_module

        parts = list(import_module("re._parser").parse(pattern.pattern, pattern.flags))
    except Exception:  # noqa: BLE001 - a part of Python that may change
        return None
    if pattern.flags & (re.IGNORECASE | re.VERBOSE):
        return None
    texts, text = [], ""
    for kind, value in [*parts, (None, None)]:
        if str(kind) == "LITERAL" and value < 128:
            text += chr(value)
        else:
            texts.append(text)
            text = ""
    longest = max(texts, key=len)
    return longest.encode() if longest.strip() else None


def _number(text: str | None) -> float | None:
    try:
        return None if text is None else float(text.replace(",", "."))
    except ValueError:
        return None


def _fraction(done: float | None, total: float | None) -> float | None:
    if done is None or not total or done != done or total < 0:
        return None
    return min(max(done / total, 0.0), 1.0)


def _seconds(clock: str) -> float:
    hours, minutes, seconds = clock.split(":")
    return int(hours) * 3600 + int(minutes) * 60 + float(seconds)
