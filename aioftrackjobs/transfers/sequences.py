"""Numbered files, such as frames, as one component with a member for each of them.

A sequence is written as ``sh010.%04d.exr``, with the number of digits, and optionally with the
frames: ``sh010.%04d.exr [1001-1100]``, ``sh010.%d.exr [1, 3-5]``. Without them, it is all files
that are there.

Source:
    docs/protocol.md, section 5.4; the notation is that of the package clique.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from anyio.to_thread import run_sync

from aioftrackjobs.config.settings import require_values
from aioftrackjobs.entities.context import EntityContext
from aioftrackjobs.errors import ArgumentError, TransferError
from aioftrackjobs.models import SequenceComponent
from aioftrackjobs.transfers.content import open_content
from aioftrackjobs.transfers.control import Meter, ProgressCallback, for_each
from aioftrackjobs.transfers.upload import Registration

#: A text that names a sequence: what is before and after the number, its digits, the frames.
_PATTERN = re.compile(
    r"(?P<head>[^%]*)%(?:0?(?P<padding>\d+))?d(?P<tail>[^%\[\]]*?)(?:\s*\[(?P<frames>[\d,\s-]*)\])?"
)
_RANGE = re.compile(r"\s*(\d+)\s*(?:-\s*(\d+)\s*)?")

#: Frames that one sequence may have, so that a mistake like 1-10000000 is found.
_MOST_FRAMES = 100_000


class FrameFiles(NamedTuple):
    """The files of a sequence.

    Attributes:
        name: What they have in common, without the number and the extension.
        file_type: Extension with the leading dot; empty if there is none.
        padding: Number of digits; 0 if numbers are not padded.
        files: The path, the number as text, and the size in bytes of each.
    """

    name: str
    file_type: str
    padding: int
    files: Sequence[tuple[Path, str, int]]


def find_frames(pattern: str) -> FrameFiles:
    """Return the files that *pattern* names.

    Raises:
        ArgumentError: It names no sequence.
        TransferError: There are no such files, or one of them is missing.
    """
    match = _PATTERN.fullmatch(pattern)
    if match is None:
        raise ArgumentError("pattern", 'a path as in "sh010.%04d.exr [1001-1100]"', repr(pattern))
    head, tail, padding = match["head"], match["tail"], int(match["padding"] or 0)
    if match["frames"] is None:
        numbers = _numbers_on_disk(head, tail, padding)
    else:
        numbers = [f"{frame:0{padding}d}" for frame in _frames(pattern, match["frames"])]
    files = []
    for number in numbers:
        path = Path(f"{head}{number}{tail}")
        try:
            files.append((path, number, path.stat().st_size))
        except OSError as exc:
            raise TransferError(f"{path} cannot be read: {exc.strerror}") from exc
    if not files:
        raise TransferError(f"there are no files {pattern}")
    name = Path(head).name.rstrip("._- ") if Path(head).name else "sequence"
    return FrameFiles(name or "sequence", Path(f"x{tail}").suffix, padding, files)


def _frames(pattern: str, text: str) -> list[int]:
    """Return the numbers of the frames in *text*, each once, in ascending order."""
    frames: set[int] = set()
    for part in text.split(","):
        match = _RANGE.fullmatch(part)
        first, last = (int(match[1]), int(match[2] or match[1])) if match else (1, 0)
        if first > last or last - first >= _MOST_FRAMES:
            raise ArgumentError("pattern", "a path with frames as in [1-10, 15]", repr(pattern))
        frames.update(range(first, last + 1))
    return sorted(frames)


def _numbers_on_disk(head: str, tail: str, padding: int) -> list[str]:
    """Return the numbers of the files that are there, in ascending order."""
    digits = rf"\d{{{padding},}}" if padding else r"(?:0|[1-9]\d*)"
    start = Path(head).name if not head.endswith("/") else ""
    wanted = re.compile(rf"{re.escape(start)}({digits}){re.escape(tail)}")
    folder = Path(head[: len(head) - len(start)] or ".")
    try:
        names = [each.name for each in folder.iterdir()]
    except OSError as exc:
        raise TransferError(f"{folder} cannot be read: {exc.strerror}") from exc
    found = [match[1] for name in names if (match := wanted.fullmatch(name))]
    # 00100 is no number of a sequence with four digits.
    return sorted((each for each in found if len(each) == padding or each[0] != "0"), key=int)


async def upload_sequence(
    context: EntityContext,
    pattern: str,
    *,
    data: Mapping[str, Any],
    verified: bool,
    progress: ProgressCallback | None,
) -> SequenceComponent:
    """Upload the files that *pattern* names, and register them as one component in one commit.

    Raises:
        ArgumentError: An argument has a wrong type or value.
        TransferError: A file is missing, could not be read, or the server did not accept it.
        ServerError: The server refused to register the components. No file stays.
    """
    require_values("data", data)
    context.draft(SequenceComponent, data)  # before anything is read or sent
    frames = await run_sync(find_frames, pattern, abandon_on_cancel=True)
    registration = Registration(context)
    upload = _SequenceUpload(context, registration, frames, verified, progress)
    try:
        sequence = registration.add(
            SequenceComponent,
            {
                "name": frames.name,
                "file_type": frames.file_type,
                "padding": frames.padding,
                "size": sum(size for _, _, size in frames.files),
                **data,
            },
        )
        await upload.run(sequence)
    except BaseException as exc:
        await registration.withdraw(exc)
        raise
    await registration.commit()
    return sequence


class _SequenceUpload:
    """The uploads of the files of one sequence, several at a time."""

    def __init__(
        self,
        context: EntityContext,
        registration: Registration,
        frames: FrameFiles,
        verified: bool,  # noqa: FBT001 - handed on
        progress: ProgressCallback | None,
    ) -> None:
        self._limiter = context.connection.transfer_limiter
        self._registration = registration
        self._frames = frames
        self._verified = verified
        self._meter = Meter(sum(size for _, _, size in frames.files), progress)

    async def run(self, sequence: SequenceComponent) -> None:
        """Upload all files as members of *sequence*; the first error ends the others."""

        async def upload(numbered: tuple[int, tuple[Path, str, int]]) -> None:
            index, (path, number, _) = numbered
            await self._upload(index, path, {"name": number, "container": sequence})

        await for_each(enumerate(self._frames.files), upload)
        self._meter.finish(self._meter.total or 0)

    async def _upload(self, index: int, path: Path, data: Mapping[str, Any]) -> None:
        def count(done: int, _: int | None) -> None:
            self._meter.set(index, done)

        data = {**data, "file_type": self._frames.file_type}
        async with self._limiter.admit(), open_content(path, None) as content:
            await self._registration.send(content, data, verified=self._verified, progress=count)
