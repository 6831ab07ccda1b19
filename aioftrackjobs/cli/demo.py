"""``aioftrackjobs demo``: Jobs on the embedded server, from start to end in a few seconds."""

from __future__ import annotations

import errno
import hashlib
import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NoReturn

import anyio
from anyio.to_thread import run_sync
from rich.console import Console

from aioftrackjobs import AsyncSession, Job, JobStatus, TransferError
from aioftrackjobs.cli.demo_view import (
    NARROW,
    LiveView,
    attachments,
    fetch_ended,
    file_name,
    job_table,
    shot_of,
)
from aioftrackjobs.cli.demo_work import (
    SHEET,
    Shot,
    TranscodeError,
    make_sheet,
    plan_shots,
    transcode,
)
from aioftrackjobs.devserver import ServerHandle, running

_CLOSING = """\
{failed} failed on purpose: a frame is missing, and the exception left job_context.
That marked the Job as failed, put the reason into its description and attached
the traceback.

To do the same with the ftrack server of your studio:

    export FTRACK_SERVER=https://your-studio.ftrackapp.com
    export FTRACK_API_USER=you@your-studio.com
    export FTRACK_API_KEY=...

    async with AsyncSession() as session:
        async with job_context(session, description="Transcode sh010") as job:
            async for frame in job.track(frames):
                await encode(frame)
            await job.attach("sh010.mov")

What to try next, without a studio:

    aioftrackjobs serve                   a server, with a jobs page
    aioftrackjobs run -- rsync -a a/ b/   any command as a Job
    aioftrackjobs jobs                    the Jobs in the terminal

docs/ has a page for each of them.
"""
#: Commands run as Jobs on Linux and macOS.
_HAS_COMMANDS = sys.platform != "win32"


class _Console(Console):
    """A console that raises BrokenPipeError, where rich would exit the program."""

    def on_broken_pipe(self) -> NoReturn:
        """Raise the error again that rich has caught."""
        raise


def run(count: int) -> None:
    """Run *count* Jobs, and show them on the terminal.

    Raises:
        BrokenPipeError: The program that reads the output has ended.
    """
    shots = list(plan_shots(count))
    is_broken = False
    with TemporaryDirectory(prefix="aioftrackjobs-demo-") as folder:
        try:
            anyio.run(_demonstrate, shots, Path(folder), _Console(highlight=False))
        except* BrokenPipeError:
            is_broken = True
    if is_broken:
        raise BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE))


async def _demonstrate(shots: Sequence[Shot], folder: Path, console: Console) -> None:
    async with running() as server, _open(server) as session, _open(server) as viewer:
        sheet = [SHEET] if _HAS_COMMANDS else []
        command = " and a command" if sheet else ""
        intro = f"{len(shots)} Jobs{command} run on a local ftrack server, {server.url}:\n"
        console.print(intro, soft_wrap=True)
        view = LiveView(viewer, console, [*(shot.name for shot in shots), *sheet])
        await _transcode_all(session, shots, folder, view)
        jobs = await fetch_ended(viewer)
        console.print(await _verify_one(viewer, jobs, folder), soft_wrap=True)
    console.print("What the server has stored:")
    console.print(job_table(jobs, is_narrow=console.width < NARROW))
    failed = next(shot_of(job) for job in jobs if job.status == JobStatus.FAILED)
    console.print(_CLOSING.format(failed=failed), end="", markup=False, soft_wrap=True)


def _open(server: ServerHandle) -> AsyncSession:
    return AsyncSession(server.url, server.api_key, server.api_user)


async def _transcode_all(
    session: AsyncSession, shots: Sequence[Shot], folder: Path, view: LiveView
) -> None:
    ended = anyio.Event()
    async with anyio.create_task_group() as watching:
        watching.start_soon(view.follow, ended)
        async with anyio.create_task_group() as work:
            for shot in shots:
                work.start_soon(_try_transcode, session, shot, folder)
            if _HAS_COMMANDS:
                work.start_soon(make_sheet, session)
        ended.set()


async def _try_transcode(session: AsyncSession, shot: Shot, folder: Path) -> None:
    """Transcode *shot*. Its Job reports a failure; the other shots go on."""
    with suppress(TranscodeError):
        await transcode(session, shot, folder)


async def _verify_one(session: AsyncSession, jobs: Sequence[Job], folder: Path) -> str:
    """Download the attachment of the first Job that is done, and compare it with the original."""
    job = next(job for job in jobs if job.status == JobStatus.DONE)
    (component,) = attachments(job)
    name = file_name(component)
    copy = await session.download(component, folder / f"copy of {name}")
    sent, received = [await run_sync(_sha256, path) for path in (folder / name, copy)]
    if sent != received:
        raise TransferError(f"{name} was damaged: its SHA-256 is {received}, not {sent}")
    return f"\nDownloaded {name} and compared it: SHA-256 {sent[:16]}..., as uploaded.\n"


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
