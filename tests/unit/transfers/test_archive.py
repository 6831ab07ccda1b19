"""Directories and sequences of files as zip archives: their members, and rejected sources."""

from __future__ import annotations

import io
import os
import threading
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from aioftrackjobs.errors import FileChangedError, TransferError
from aioftrackjobs.transfers import archive as archive_module
from aioftrackjobs.transfers.archive import Member, common_name, write_archive
from aioftrackjobs.transfers.content import open_content


@pytest.fixture
def plates(tmp_path: Path) -> Path:
    """A directory with files, one in another directory, and an empty one."""
    root = tmp_path / "plates"
    (root / "sub").mkdir(parents=True)
    (root / "empty").mkdir()
    (root / "b.txt").write_bytes(b"b" * 10_000)
    (root / "a.exr").write_bytes(b"a" * 10_000)
    (root / "sub" / "größe.txt").write_bytes(b"")
    return root


async def packed(source: Any, name: str | None = None) -> tuple[str, dict[str, bytes]]:
    """Return the name of the archive, and its members in order."""
    async with open_content(source, name) as content:
        body = b"".join([chunk async for chunk in content.chunks()])
        assert content.size == len(body)
        await content.require_unchanged()
        with zipfile.ZipFile(io.BytesIO(body)) as archive:
            assert archive.testzip() is None
            return content.file_name, {each: archive.read(each) for each in archive.namelist()}


# Directories


async def test_a_directory_is_archived_in_the_order_of_names(plates: Path) -> None:
    name, found = await packed(plates)

    assert name == "plates.zip"
    assert list(found) == [
        "plates/",
        "plates/a.exr",
        "plates/b.txt",
        "plates/empty/",
        "plates/sub/",
        "plates/sub/größe.txt",
    ]
    assert found["plates/b.txt"] == b"b" * 10_000


async def test_the_current_directory_is_archived_under_its_name(
    plates: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(plates)

    name, found = await packed(".")

    assert name == "plates.zip"
    assert "plates/a.exr" in found


async def test_an_empty_directory_is_an_archive_too(tmp_path: Path) -> None:
    (tmp_path / "none").mkdir()

    assert await packed(tmp_path / "none") == ("none.zip", {"none/": b""})


@pytest.mark.parametrize("given", ["shot", "shot.zip", "shot.ZIP"])
async def test_the_name_of_an_archive_ends_with_zip(plates: Path, given: str) -> None:
    name, _ = await packed(plates, given)

    assert name.lower() == "shot.zip"


def test_compressed_files_are_stored(plates: Path) -> None:
    target = io.BytesIO()

    for _ in write_archive(target, archive_module.members_of_directory(plates)):
        pass

    with zipfile.ZipFile(target) as archive:
        kinds = {info.filename: info.compress_type for info in archive.infolist()}
    assert kinds["plates/a.exr"] == zipfile.ZIP_STORED
    assert kinds["plates/b.txt"] == zipfile.ZIP_DEFLATED


async def test_the_same_files_make_the_same_archive(plates: Path) -> None:
    bodies = []
    for _ in range(2):
        async with open_content(plates) as content:
            bodies.append([chunk async for chunk in content.chunks()])

    assert bodies[0] == bodies[1]


# Symbolic links


async def test_links_inside_a_directory_are_archived_once(plates: Path) -> None:
    (plates / "latest.txt").symlink_to("b.txt")
    (plates / "again").symlink_to(".")

    _, found = await packed(plates)

    assert found["plates/latest.txt"] == b"b" * 10_000
    assert [name for name in found if "again" in name] == []


@pytest.mark.parametrize(
    ("target", "reason"),
    [("../secret", "points out of"), ("gone", "No such file"), ("loop", "symbolic link|loop")],
)
async def test_links_out_of_the_directory_are_rejected(
    plates: Path, target: str, reason: str
) -> None:
    (plates.parent / "secret").write_bytes(b"secret")
    (plates / "loop").symlink_to(target)

    with pytest.raises(TransferError, match=reason):
        await packed(plates)


async def test_a_link_to_a_directory_may_be_the_source(plates: Path) -> None:
    link = plates.parent / "link"
    link.symlink_to(plates)

    assert len((await packed(link))[1]) == 6


# Sequences


@pytest.mark.parametrize("kind", [list, tuple, iter])
async def test_a_sequence_is_archived_in_its_order(tmp_path: Path, kind: Any) -> None:
    frames = [tmp_path / f"sh010.{number:04}.exr" for number in (2, 1, 3)]
    for frame in frames:
        frame.write_bytes(frame.name.encode())

    name, found = await packed(kind([*frames, str(frames[0])]))

    assert name == "sh010.zip"
    assert found == {frame.name: frame.name.encode() for frame in frames}


async def test_files_from_several_directories_keep_their_relative_paths(plates: Path) -> None:
    name, found = await packed([plates / "a.exr", plates / "sub", plates.parent / "plates/b.txt"])

    assert name == "plates.zip"
    assert list(found) == ["a.exr", "sub/", "sub/größe.txt", "b.txt"]


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["a.0001.exr", "a.0002.exr"], "a"),
        (["sh010_v001.1001.exr", "sh010_v001.1002.exr"], "sh010_v001"),
        (["report.pdf"], "report"),
        (["a.0001.exr"], "a"),
        (["x.exr", "y.exr"], "folder"),
        (["0001.exr", "0002.exr"], "folder"),
    ],
)
def test_an_archive_has_the_common_name_of_its_files(
    tmp_path: Path, names: list[str], expected: str
) -> None:
    assert common_name([tmp_path / "folder" / name for name in names]) == expected


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ([], "is empty"),
        ([b"x"], "contains paths, not bytes"),
        (["missing.exr"], "missing.exr cannot be read: No such file"),
    ],
)
async def test_other_sequences_are_rejected(source: Any, reason: str) -> None:
    with pytest.raises(TransferError, match=reason):
        await packed(source)


# Files that cannot be read, or change


async def test_a_named_pipe_is_rejected(plates: Path) -> None:
    os.mkfifo(plates / "pipe")

    with pytest.raises(TransferError, match="pipe is not a regular file"):
        await packed(plates)


async def test_a_file_that_may_not_be_read_is_named(
    plates: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real_open = os.open

    def refuse(path: Any, *args: Any) -> int:
        if str(path).endswith("b.txt"):
            raise PermissionError(13, "Permission denied")
        return real_open(path, *args)

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(TransferError, match=r"b\.txt cannot be read: Permission denied"):
        await packed(plates)


@pytest.mark.skipif(os.name == "nt", reason="names are text there")
async def test_a_name_that_is_not_valid_text_is_rejected(plates: Path) -> None:
    Path(os.fsdecode(os.fsencode(plates) + b"/\xff.txt")).write_bytes(b"")

    with pytest.raises(TransferError, match="is not valid text"):
        await packed(plates)


@pytest.mark.parametrize("change", ["grow", "shrink", "rewrite"])
def test_a_file_that_changes_while_it_is_archived_raises(tmp_path: Path, change: str) -> None:
    path = tmp_path / "a.exr"
    path.write_bytes(b"x" * (archive_module._CHUNK + 100))
    steps = write_archive(io.BytesIO(), [Member("a.exr", path)])
    next(steps)

    if change == "shrink":
        os.truncate(path, 10)
    else:
        with path.open("ab" if change == "grow" else "r+b") as file:
            file.write(b"more")
        os.utime(path, ns=(0, 0))

    with pytest.raises(FileChangedError, match=r"a\.exr changed"):
        list(steps)


async def test_an_archive_is_abandoned_when_its_caller_is_cancelled(
    plates: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import asyncio

    from aioftrackjobs.transfers import spool as spool_module

    started, go_on, ended = threading.Event(), threading.Event(), threading.Event()

    def write_slowly(target: Any, members: Any) -> Iterator[None]:
        try:
            started.set()
            go_on.wait(5)
            yield
            raise AssertionError("it was not abandoned")
        finally:
            ended.set()

    monkeypatch.setattr(spool_module, "write_archive", write_slowly)
    task = asyncio.create_task(packed(plates))
    await asyncio.to_thread(started.wait, 5)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    go_on.set()

    assert await asyncio.to_thread(ended.wait, 5)
