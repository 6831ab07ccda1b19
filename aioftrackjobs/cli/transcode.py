"""The work of the demo, as a studio would write it: one Job for each shot."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import cycle, islice
from pathlib import Path

import anyio

from aioftrackjobs import AsyncSession, job_context

#: Bytes of one encoded frame.
_FRAME_SIZE = 48 * 1024


class TranscodeError(Exception):
    """A shot cannot be transcoded."""


@dataclass(frozen=True, slots=True)
class Shot:
    """What is to be transcoded.

    Attributes:
        artist: Name of the user who waits for it.
        frames: The frame numbers of its plate.
        missing: A frame that nobody rendered, if there is one.
        pace: Seconds that one frame takes.
    """

    name: str
    artist: str
    frames: range
    missing: int | None
    pace: float


async def transcode(session: AsyncSession, shot: Shot, folder: Path) -> None:
    """Transcode one shot to a movie in *folder*, as a Job of the artist who waits for it."""
    movie = folder / f"{shot.name}.mov"
    async with job_context(
        session,
        user=shot.artist,
        description=f"Transcode {shot.name}",
        data={"shot": shot.name},  # beside the description, which is all that users see of it
        interval=0.2,  # seconds between two reports; for work of hours leave it at 1
    ) as job:
        async with await anyio.open_file(movie, "wb") as file:
            async for frame in job.track(shot.frames):  # reports progress by itself
                await file.write(await encode(shot, frame))
        await job.attach(movie)


async def encode(shot: Shot, frame: int) -> bytes:
    """Return one frame of the movie; stands for what takes the time, such as ffmpeg.

    Raises:
        TranscodeError: The frame is missing.
    """
    await anyio.sleep(shot.pace)
    if frame == shot.missing:
        raise TranscodeError(f"{shot.name}.{frame}.exr is missing")
    seed = hashlib.sha256(f"{shot.name}.{frame}".encode()).digest()
    return seed * (_FRAME_SIZE // len(seed))


def plan_shots(count: int) -> Iterator[Shot]:
    """Make up *count* shots of different lengths; the third, or the last, lacks a frame."""
    broken = min(2, count - 1)
    lengths = islice(cycle((40, 64, 56, 32, 48)), count)
    artists = cycle(("maya", "jenkins"))
    for index, (length, artist) in enumerate(zip(lengths, artists, strict=False)):
        frames = range(1001, 1001 + length)
        missing = frames[length * 3 // 5] if index == broken else None
        yield Shot(f"sh{index + 1:02}0", artist, frames, missing, pace=0.04)
