"""Files on disks: copied in worker threads, and visible under their names only when complete."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from uuid import uuid4

import anyio
from anyio.to_thread import run_sync

from aioftrackjobs.errors import FileChangedError, MissingFileError, TransferError
from aioftrackjobs.transfers.archive import open_regular, transfer_errors

_BLOCK = 1024 * 1024
#: Bytes that a thread copies in a turn.
_AT_ONCE = 32 * _BLOCK
#: Characters of a name that a temporary name repeats, so that people know what it is.
_LONGEST_STEM = 40


@asynccontextmanager
async def made_beside(target: Path, undo: list[Callable[[], object]]) -> AsyncIterator[Path]:
    """Give a temporary path beside *target*, which becomes *target* at the end of the block.

    Args:
        target: Must not exist; the folders above it are made.
        undo: Gets what removes the target, and the folders, again.

    Raises:
        TransferError: There is such a file, or it cannot be written.
    """
    with transfer_errors(f"{target} cannot be written"):
        await run_sync(_make_folders, target.parent, undo)
    _, dot, suffix = target.name.rpartition(".")
    path = target.with_name(f".{target.stem[:_LONGEST_STEM]}.{uuid4().hex}{dot and '.' + suffix}")
    try:
        await run_sync(_require_free, target)
        yield path
        with transfer_errors(f"{target} cannot be written"):
            await run_sync(_publish, path, target)
        undo.append(target.unlink)
    finally:
        with anyio.CancelScope(shield=True):
            await run_sync(lambda: path.unlink(missing_ok=True))


def make_folder(path: Path, undo: list[Callable[[], object]]) -> None:
    """Make the folder *path*, unless it is there; blocks.

    Raises:
        TransferError: It cannot be made.
    """
    with transfer_errors(f"{path} cannot be made"):
        _make_folders(path, undo)


def _make_folders(folder: Path, undo: list[Callable[[], object]]) -> None:
    missing = []
    while not folder.is_dir():
        missing.append(folder)
        folder = folder.parent
    for each in reversed(missing):
        # Before it is made, since other threads may make folders in it at once: theirs must be
        # removed first.
        removal = each.rmdir
        undo.append(removal)
        try:
            each.mkdir()
        except OSError as exc:
            undo.remove(removal)
            if not isinstance(exc, FileExistsError):  # another one has made it just now
                raise


def _require_free(target: Path) -> None:
    if target.exists():
        raise TransferError(f"{target} exists already, and no location says what it is")


def _publish(path: Path, target: Path) -> None:
    """Rename *path*; never in the place of another file, as far as the file system can."""
    try:
        os.link(path, target)  # atomic, and refused if there is a file by now
    except FileExistsError:
        _require_free(target)
        raise
    except OSError:  # network drives may have no links
        _require_free(target)
        path.rename(target)


async def copy_file(
    source: Path, target: Path, expected: int | None, check: Callable[[], object]
) -> None:
    """Copy a file in worker threads.

    Args:
        source: A file.
        target: Is made.
        expected: Its size in bytes, if that is known.
        check: Called on the event loop between two turns of a thread; may raise to end the copy.

    Raises:
        MissingFileError: There is no *source*.
        FileChangedError: It changed while it was copied.
        TransferError: It cannot be read or written, or has another size.
    """

    def copy_some() -> bool:
        left = _AT_ONCE
        while left > 0:
            if not (block := reading.read(_BLOCK)):
                return False
            writing.write(block)
            left -= len(block)
        return True

    if not await run_sync(source.is_file):
        raise MissingFileError(f"there is no file {source}, though the location says so")
    with (
        transfer_errors(f"{source} cannot be copied to {target}"),
        await run_sync(open_regular, source) as reading,
    ):
        before = os.fstat(reading.fileno())
        if expected and before.st_size != expected:
            raise TransferError(
                f"{source} has {before.st_size} bytes, and its component says {expected}; "
                "correct the component's size if the file is right"
            )
        with await run_sync(lambda: target.open("xb")) as writing:
            while await run_sync(copy_some):
                check()
            after, size = os.fstat(reading.fileno()), writing.tell()
    if (before.st_mtime_ns, before.st_size) != (after.st_mtime_ns, size):
        raise FileChangedError(f"{source} changed while it was copied")
