"""A script that users see as a Job: it measures the size of each kind of file in a folder.

Set FTRACK_SERVER, FTRACK_API_USER and FTRACK_API_KEY, then:

    python report_job.py /mnt/projects/demo
"""

from __future__ import annotations

import argparse
from collections import Counter
from pathlib import Path

import anyio
from anyio.to_thread import run_sync

from aioftrackjobs import AsyncSession, job_context


async def report(root: Path) -> None:
    """Create a Job for the user of the session, and attach the report to it."""
    async with (
        AsyncSession() as session,
        # The Job is running from here on. When the block ends, the Job is done; if the block
        # raises an error, it is failed, with the reason in its description and a traceback.
        job_context(session, description=f"Disk report of {root.name}") as job,
    ):
        sizes: Counter[str] = Counter()
        folders = sorted(await run_sync(list_folders, root))
        async for folder in job.track(folders):  # reports "12 of 40", at most once a second
            # Disks are slow, so a thread measures the folder while the Job reports its progress.
            sizes.update(await run_sync(measure, folder))

        lines = [f"{kind},{size}" for kind, size in sizes.most_common()]
        text = "\n".join(["kind,bytes", *lines, ""])
        await job.attach(text.encode(), name="disk_report.csv")  # or a path
        print(f"Job {job.id}: {sum(sizes.values())} bytes in {len(folders)} folders")


def list_folders(root: Path) -> list[Path]:
    """Return *root* and all folders in it."""
    if not root.is_dir():
        raise NotADirectoryError(f"{root} is not a folder")
    return [root, *(path for path in root.rglob("*") if path.is_dir())]


def measure(folder: Path) -> Counter[str]:
    """Return the bytes of each kind of file in *folder*, without the folders in it."""
    sizes: Counter[str] = Counter()
    for path in folder.iterdir():
        if path.is_file():
            sizes[path.suffix or "other"] += path.stat().st_size
    return sizes


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    anyio.run(report, parser.parse_args().folder)
