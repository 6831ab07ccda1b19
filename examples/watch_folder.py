"""A service that publishes the films and pictures that appear in a folder.

    python watch_folder.py /mnt/incoming

A file is named after its task: ``demo_sh010_comp_v003.mov``. It becomes a version, which ftrack
encodes for the browser, and its task waits for a review. Then the file moves to the folder "done".
Each file has a Job, so that its artist sees what happens to it. Tests are in test_watch_folder.py.

It is like the watch folder of https://github.com/ftrackhq/ftrack-recipes, which has 290 lines.
"""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import AsyncGenerator
from pathlib import Path

import anyio
from anyio.to_thread import run_sync

from aioftrackjobs import AsyncSession, Entity, job_context, shutdown_on_signals

NAME = re.compile(
    r"(?P<project>[^_]+)_(?P<shot>.+)_(?P<task>[^_]+)_v(?P<version>\d+)\.(mov|mp4|qt|png|jpg)", re.I
)
#: Where a file goes when it is published, when it is there already, and when it cannot be.
DONE, DUPLICATE, FAILED = "done", "duplicates", "failed"

#: What shows that a file is still being written.
Change = tuple[int, int]


async def publish(session: AsyncSession, path: Path) -> None:
    """Publish one file as a Job, and wait until it is encoded.

    Raises:
        ValueError: Its name is not that of a task's version.
        NoResultFoundError: There is no such task.
    """
    async with job_context(session, description=f"Publish {path.name}") as job:
        if (named := NAME.fullmatch(path.name)) is None:
            raise ValueError("name it as in demo_sh010_comp_v003.mov")
        task = await session.query(
            "select name, parent_id from Task where name is {task} and parent.name is {shot}"
            " and project.name is {project}",
            **{name: named[name] for name in ("task", "shot", "project")},
        ).one()
        version = await version_of(session, task, path.stem, int(named["version"]))
        job.progress(0.1, "uploading")
        encoding = await session.encode_media(path, version=version, keep_original=True)
        job.progress(0.5, "encoding")
        if not (await encoding.wait()).is_done:
            job.fail("ftrack cannot encode it (click to see why)")
        review = await session.query('Status where name is "Pending review"').one()
        async with session.unit_of_work():
            task["status_id"] = review["id"]


async def version_of(session: AsyncSession, task: Entity, name: str, number: int) -> Entity:
    """Return the version of the asset *name*, which is made if it is new."""
    kind = await session.query('AssetType where name is "Upload"').first()
    place = {"name": name, "context_id": task["parent_id"]}
    more = {} if kind is None else {"type_id": kind["id"]}
    asset = await session.ensure("Asset", place | more, identifying_keys=[*place])
    values = {"asset_id": asset["id"], "task_id": task["id"], "version": number}
    return await session.ensure("AssetVersion", values)


async def take(session: AsyncSession, path: Path) -> None:
    """Publish a file, and move it to the folder that says what became of it."""
    end = DUPLICATE if (path.parent / DONE / path.name).exists() else DONE
    if end == DONE:
        try:
            await publish(session, path)
        except Exception:
            logging.exception("%s is not published", path)
            end = FAILED
    await run_sync(move, path, path.parent / end)


def move(path: Path, folder: Path) -> None:
    """Move a file to a folder."""
    folder.mkdir(exist_ok=True)
    path.replace(folder / path.name)


def look(folder: Path) -> dict[Path, Change]:
    """Return the files in a folder, with what changes while they are written."""
    found = {path: path.stat() for path in folder.iterdir() if not path.name.startswith(".")}
    return {
        path: (facts.st_size, facts.st_mtime_ns) for path, facts in found.items() if path.is_file()
    }


async def watch(
    session: AsyncSession, folder: Path, pause: float = 3.0
) -> AsyncGenerator[Path, None]:
    """Publish each file that was not written to for *pause* seconds; yield those that are taken."""
    before: dict[Path, Change] = {}
    while True:
        found = await run_sync(look, folder)
        for path, change in found.items():
            if before.get(path) == change:
                await take(session, path)
                yield path
        before = found
        await anyio.sleep(pause)


async def main() -> None:
    """Watch the folder that the command line names, until a signal ends the program."""
    logging.basicConfig(level=logging.INFO)
    async with AsyncSession() as session, shutdown_on_signals(session):
        async for path in watch(session, Path(sys.argv[1])):
            logging.info("%s is taken", path)


if __name__ == "__main__":
    anyio.run(main)
