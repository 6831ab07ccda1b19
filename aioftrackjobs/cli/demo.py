"""``aioftrackjobs demo``: Jobs on the embedded server, from start to end in a few seconds."""

from __future__ import annotations

import errno
import hashlib
import os
import sys
import textwrap
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
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
    OTHERS,
    SHEET,
    Shot,
    TranscodeError,
    make_sheet,
    menu,
    plan_shots,
    simulate,
    transcode,
)
from aioftrackjobs.devserver import ServerHandle, running

_EXPLANATIONS = (
    "{failed} failed on purpose: a frame is missing, and the exception left job_context. That "
    "marked the Job as failed, put the reason into its description and attached the traceback.",
    "cloth was stopped by another session, as with the jobs page, or aioftrackjobs stop. Its task "
    "was cancelled, and the Job says by whom and why.",
    "dailies was started by a click in the menu of actions, and belongs to who has clicked.",
    "To do the same with the ftrack server of your studio:",
)

_CODE = """
    export FTRACK_SERVER=https://your-studio.ftrackapp.com
    export FTRACK_API_USER=you@your-studio.com
    export FTRACK_API_KEY=...

    async with AsyncSession() as session:
        async with job_context(session, description="Transcode sh010") as job:
            async for frame in job.track(frames):
                await encode(frame)
            await job.attach("sh010.mov")

What to try next, without a studio:

"""

_NEXT = {
    "serve": "a server, with a jobs page",
    "run -- rsync -a a/ b/": "any command as a Job",
    "jobs": "the Jobs in the terminal",
    "stop JOB": "stop one, wherever it runs",
}

#: Seconds after which one Job is stopped.
_STOP_AFTER = 1.0
#: Seconds between two looks into the menu.
_PAUSE = 0.05
#: Seconds until its action is started, at most.
_CLICK_LIMIT = 10.0
#: Columns of the closing text, at most.
_WIDEST = 80
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
        others = [each for each in OTHERS if each != SHEET or _HAS_COMMANDS]
        count = len(shots) + len(others)
        console.print(f"{count} Jobs run on a local ftrack server, {server.url}:\n", soft_wrap=True)
        view = LiveView(viewer, console, [*(shot.name for shot in shots), *others])
        ended = anyio.Event()
        async with anyio.create_task_group() as watching:
            watching.start_soon(view.follow, ended)
            async with anyio.create_task_group() as work:
                for shot in shots:
                    work.start_soon(_try_transcode, session, shot, folder)
                if _HAS_COMMANDS:
                    work.start_soon(make_sheet, session)
                work.start_soon(_simulate_until_stopped, session, viewer)
                work.start_soon(_serve_one_click, server, session, viewer)
            ended.set()
        jobs = await fetch_ended(viewer)
        console.print(await _verify_one(viewer, jobs, folder), soft_wrap=True)
    console.print("What the server has stored:")
    console.print(job_table(jobs, is_narrow=console.width < NARROW))
    failed = next(shot_of(job) for job in jobs if job.status == JobStatus.FAILED)  # shots are first
    console.print(_closing(failed, console.width), end="", markup=False, soft_wrap=True)


def _closing(failed: str, width: int) -> str:
    width = min(width, _WIDEST)
    paragraphs = [textwrap.fill(each.format(failed=failed), width) for each in _EXPLANATIONS]
    column = 0 if width < NARROW else max(map(len, _NEXT)) + 3
    between = f"\n{' ' * 8}" if width < NARROW else ""
    commands = [
        f"    aioftrackjobs {name:{column}}{between}{what}\n" for name, what in _NEXT.items()
    ]
    end = textwrap.fill("docs/ has a page for each of them.", width)
    return "\n\n".join(paragraphs) + "\n" + _CODE + "".join(commands) + f"\n{end}\n"


def _open(server: ServerHandle) -> AsyncSession:
    return AsyncSession(server.url, server.api_key, server.api_user)


async def _simulate_until_stopped(session: AsyncSession, viewer: AsyncSession) -> None:
    async with anyio.create_task_group() as group:
        job_id: str = await group.start(simulate, session)
        await anyio.sleep(_STOP_AFTER)
        await viewer.stop_job(job_id, "wrong costume", by="maya")


async def _serve_one_click(
    server: ServerHandle, session: AsyncSession, viewer: AsyncSession
) -> None:
    """Serve the menu, start its action as the web interface does, and wait for the Job."""
    # Without the shield, an interrupt could come before the reply, and a warning would say so.
    with anyio.move_on_after(_CLICK_LIMIT, shield=True) as scope:
        async with anyio.create_task_group() as service:
            service.start_soon(menu.serve, session)
            find = partial(server.actions.discover, user="noor")
            while not (items := await run_sync(find)):  # noqa: ASYNC110 - nothing signals it
                await anyio.sleep(_PAUSE)
            await run_sync(partial(server.actions.launch, items[0], user="noor"))
            scope.shield, scope.deadline = False, float("inf")
            of_noor = 'Job where user.username is "noor" and data like "%dailies%"'
            await viewer.wait_for(await viewer.query(of_noor).one())
            service.cancel_scope.cancel()


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
