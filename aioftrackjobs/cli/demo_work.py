"""The work of the demo, written as a studio would: one Job for each shot, and three others."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from itertools import cycle, islice
from pathlib import Path

import anyio
from anyio.abc import TaskStatus

from aioftrackjobs import AsyncSession, JobStoppedError, RunningJob, job_context
from aioftrackjobs.actions import Actions

#: Bytes of one encoded frame.
_FRAME_SIZE = 48 * 1024
#: Names of the Jobs that are no shots: one whose work is a command, one that is stopped, and one
#: that is started in the menu of actions.
OTHERS = SHEET, CLOTH, DAILIES = "sheet", "cloth", "dailies"
#: The command: any program whose output shows its progress.
_COMMAND = """
import time
for percent in range(0, 101, 5):
    print(f"openjd_progress: {percent}")
    time.sleep(0.08)
"""


class TranscodeError(Exception):
    """A shot cannot be transcoded."""


@dataclass(frozen=True, slots=True)
class Shot:
    """A shot to transcode.

    Attributes:
        name: Name of the shot.
        artist: Name of the user to whom the Job is shown.
        frames: Frame numbers of its plate.
        missing: A frame that does not exist; None if all do.
        pace: Seconds that one frame takes.
    """

    name: str
    artist: str
    frames: range
    missing: int | None
    pace: float


async def transcode(session: AsyncSession, shot: Shot, folder: Path) -> None:
    """Transcode one shot to a movie in *folder*, as a Job of its artist."""
    movie = folder / f"{shot.name}.mov"
    async with job_context(
        session,
        user=shot.artist,
        description=f"Transcode {shot.name}",
        data={"shot": shot.name},  # more data of the Job, which users do not see
        interval=0.2,  # seconds between two updates; keep the default for longer work
    ) as job:
        async with await anyio.open_file(movie, "wb") as file:
            async for frame in job.track(shot.frames):  # reports the progress
                await file.write(await encode(shot, frame))
        await job.attach(movie)


async def make_sheet(session: AsyncSession) -> None:
    """Run a command as a Job: its lines of OpenJD are the progress."""
    async with job_context(
        session,
        user="noor",
        description="Make a contact sheet",
        data={"shot": SHEET},
        interval=0.2,
    ) as job:
        await job.run([sys.executable, "-u", "-c", _COMMAND], quiet=True)


async def simulate(
    session: AsyncSession, *, task_status: TaskStatus[str] = anyio.TASK_STATUS_IGNORED
) -> None:
    """Simulate cloth until someone stops the Job, whose id is what this starts with."""
    with suppress(JobStoppedError):
        async with job_context(
            session,
            user="noor",
            description="Simulate cloth",
            data={"shot": CLOTH},
            interval=0.2,
        ) as job:
            task_status.started(job.id)
            async for _ in job.track(range(1000)):
                await anyio.sleep(0.01)


#: What the menu of ftrack's web interface offers.
menu: Actions = Actions()


@menu.action("Make dailies", identifier="aioftrackjobs.demo.dailies")
async def make_dailies(job: RunningJob) -> str:
    """Runs as a Job of the user who has clicked."""
    async for _ in job.track(range(20)):
        await anyio.sleep(0.05)
    return "2 shots"


async def encode(shot: Shot, frame: int) -> bytes:
    """Return one frame of the movie. Takes time, as a real encoder does.

    Raises:
        TranscodeError: The frame is missing.
    """
    await anyio.sleep(shot.pace)
    if frame == shot.missing:
        raise TranscodeError(f"{shot.name}.{frame}.exr is missing")
    seed = hashlib.sha256(f"{shot.name}.{frame}".encode()).digest()
    return seed * (_FRAME_SIZE // len(seed))


def plan_shots(count: int) -> Iterator[Shot]:
    """Yield *count* shots of different lengths. The third one, or the last, has a missing frame."""
    broken = min(2, count - 1)
    lengths = islice(cycle((40, 64, 56, 32, 48)), count)
    artists = cycle(("maya", "jenkins"))
    for index, (length, artist) in enumerate(zip(lengths, artists, strict=False)):
        frames = range(1001, 1001 + length)
        missing = frames[length * 3 // 5] if index == broken else None
        yield Shot(f"sh{index + 1:02}0", artist, frames, missing, pace=0.04)
