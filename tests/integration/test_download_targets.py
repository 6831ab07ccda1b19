"""Where a download may be written, and what it keeps of a file that was there before."""

from __future__ import annotations

import os
import socket
import stat
from pathlib import Path

import anyio
import pytest

from aioftrackjobs import AsyncSession, FileComponent, TransferError
from aioftrackjobs.transfers import partial_file

BODY = b"the content of the file"


@pytest.fixture
async def component(session: AsyncSession) -> FileComponent:
    return await session.create_component(BODY, name="x.txt")


def special(kind: str, folder: Path) -> Path:
    path = folder / "special"
    match kind:
        case "device":  # of its own, so that a failing test does not replace that of the system
            try:
                os.mknod(path, stat.S_IFCHR | 0o600, os.makedev(1, 3))
            except OSError:
                pytest.skip("only root can make a device")
        case "fifo":
            os.mkfifo(path)
        case "socket":
            with socket.socket(socket.AF_UNIX) as made:
                made.bind(str(path))
        case "folder":
            path.mkdir()
        case _:
            raise AssertionError(kind)
    return path


@pytest.mark.every_loop
@pytest.mark.either_loop
@pytest.mark.parametrize("resume", [False, True])
@pytest.mark.parametrize("through", ["itself", "a link"])
@pytest.mark.parametrize("kind", ["device", "fifo", "socket", "folder"])
async def test_only_a_regular_file_is_replaced(
    session: AsyncSession,
    component: FileComponent,
    tmp_path: Path,
    kind: str,
    through: str,
    *,
    resume: bool,
) -> None:
    path = special(kind, tmp_path)
    before = path.stat()
    target = path
    if through == "a link":
        target = tmp_path / "link"
        target.symlink_to(path)
    names = set(tmp_path.iterdir())

    with pytest.raises(TransferError, match=r"is a (device|directory|named pipe|socket)") as caught:
        await session.download(component, target, resume=resume)

    assert str(target) in str(caught.value)
    assert os.path.samestat(path.stat(), before)
    assert set(tmp_path.iterdir()) == names


@pytest.mark.parametrize("resume", [False, True])
@pytest.mark.parametrize("exists", [False, True])
async def test_a_link_is_followed(
    session: AsyncSession,
    component: FileComponent,
    tmp_path: Path,
    *,
    exists: bool,
    resume: bool,
) -> None:
    """As ``cp`` and shells do; the link stays, and so does what leads to it."""
    folder = tmp_path / "real"
    folder.mkdir()
    real = folder / "file"
    if exists:
        real.write_bytes(b"old")
    second, first = tmp_path / "second", tmp_path / "first"
    second.symlink_to("real/file")
    first.symlink_to(second)

    await session.download(component, first, resume=resume)

    assert first.readlink() == second
    assert second.readlink() == Path("real/file")
    assert real.read_bytes() == BODY
    assert {path.name for path in folder.iterdir()} == {"file"}


async def test_a_circle_of_links_is_an_error(
    session: AsyncSession, component: FileComponent, tmp_path: Path
) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    one.symlink_to(other)
    other.symlink_to(one)

    with pytest.raises(TransferError, match="cannot be written"):
        await session.download(component, one)

    assert {path.name for path in tmp_path.iterdir()} == {"one", "other"}


@pytest.mark.parametrize("resume", [False, True])
@pytest.mark.parametrize("mode", [0o600, 0o640, 0o755, 0o444, 0o777])
async def test_a_file_keeps_its_mode(
    session: AsyncSession, component: FileComponent, tmp_path: Path, mode: int, *, resume: bool
) -> None:
    target = tmp_path / "file"
    target.touch()
    target.chmod(mode)
    modes: set[int] = set()

    def note(*_: object) -> None:
        modes.update(stat.S_IMODE(path.stat().st_mode) for path in tmp_path.glob(".*.part"))

    await session.download(component, target, resume=resume, progress=note)

    assert target.read_bytes() == BODY
    assert stat.S_IMODE(target.stat().st_mode) == mode
    assert not any(seen & ~mode & 0o077 for seen in modes), "others could read it meanwhile"


async def test_a_new_file_has_the_mode_of_the_process(
    session: AsyncSession, component: FileComponent, tmp_path: Path
) -> None:
    (tmp_path / "other").touch()

    await session.download(component, tmp_path / "file")

    assert (tmp_path / "file").stat().st_mode == (tmp_path / "other").stat().st_mode


@pytest.mark.parametrize("resume", [False, True])
@pytest.mark.parametrize("letter", ["x", "é", "影", "🎬"])
@pytest.mark.parametrize("length", [238, 240, 241, 251, 254, 255])
async def test_a_name_may_be_as_long_as_the_file_system_allows(
    session: AsyncSession,
    component: FileComponent,
    tmp_path: Path,
    letter: str,
    length: int,
    *,
    resume: bool,
) -> None:
    width = len(letter.encode())
    name = letter * (length // width)
    name += "y" * (length - len(name.encode()))

    await session.download(component, tmp_path / name, resume=resume)

    assert (tmp_path / name).read_bytes() == BODY
    assert [path.name for path in tmp_path.iterdir()] == [name]


async def test_long_names_with_the_same_beginning_are_resumed_apart(tmp_path: Path) -> None:
    files = []
    for last in "ab":
        file = partial_file.PartialFile(tmp_path / ("x" * 250 + last), "c", lasting=True)
        file.open()
        file.restart('"tag"')
        file.write([last.encode()])
        files.append(file)
    for file in files:
        file.finish()

    assert [path.read_bytes() for path in sorted(tmp_path.iterdir())] == [b"a", b"b"]


async def test_a_longer_name_is_an_error(
    session: AsyncSession, component: FileComponent, tmp_path: Path
) -> None:
    with pytest.raises(TransferError, match="name too long"):
        await session.download(component, tmp_path / ("x" * 256))

    assert not list(tmp_path.iterdir())


async def test_what_others_have_placed_for_a_resumed_download_is_not_followed(
    session: AsyncSession, component: FileComponent, tmp_path: Path
) -> None:
    """In a folder that others may write to, they know the names of the partial file."""
    victim = tmp_path / "victim"
    victim.write_bytes(b"precious")
    target = tmp_path / "f"
    note = tmp_path / ".f.part.json"

    note.symlink_to(victim)
    await session.download(component, target, resume=True)
    os.mkfifo(note)
    with anyio.fail_after(20):
        await session.download(component, target, resume=True)
    for make in (lambda path: path.symlink_to(victim), os.mkfifo, os.mkdir):
        part = tmp_path / ".f.part"
        make(part)
        with anyio.fail_after(20), pytest.raises(TransferError):
            await session.download(component, target, resume=True)
        part.rmdir() if part.is_dir() and not part.is_symlink() else part.unlink()

    assert victim.read_bytes() == b"precious"


async def test_a_file_that_is_being_uploaded_may_be_the_target(
    session: AsyncSession, component: FileComponent, tmp_path: Path
) -> None:
    """The upload goes on with the file that it has opened."""
    target = tmp_path / "x.txt"
    target.write_bytes(b"uploaded" * 1_000_000)
    replaced = anyio.Event()

    async with anyio.create_task_group() as group:

        async def replace() -> None:
            await session.download(component, target)
            replaced.set()

        def begun(*_: object) -> None:
            if not group_started:
                group_started.append(True)
                group.start_soon(replace)

        group_started: list[bool] = []
        sent = await session.create_component(target, progress=begun)
        await replaced.wait()

    assert target.read_bytes() == BODY
    await session.download(sent, tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == b"uploaded" * 1_000_000


async def test_downloads_to_the_same_target_at_once_leave_one_whole_file(
    session: AsyncSession, component: FileComponent, tmp_path: Path
) -> None:
    target = tmp_path / "x"
    other = await session.create_component(b"other" * 1_000_000, name="y")
    async with anyio.create_task_group() as group:
        for each in [component, other] * 4:
            group.start_soon(session.download, each, target)

    assert target.read_bytes() in (BODY, b"other" * 1_000_000)
    assert [path.name for path in tmp_path.iterdir()] == ["x"]


@pytest.mark.every_loop
@pytest.mark.either_loop
@pytest.mark.parametrize("resume", [False, True])
@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full")
async def test_a_full_disk_leaves_the_old_file(
    session: AsyncSession,
    component: FileComponent,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    *,
    resume: bool,
) -> None:
    """The system may report it only when the file is closed, as network file systems do."""
    target = tmp_path / "x"
    target.write_bytes(b"old")
    real_close, real_writev = os.close, os.writev
    part = str(tmp_path / ".x")

    def full_at_close(descriptor: int) -> None:
        path = str(Path(f"/proc/self/fd/{descriptor}").readlink())
        real_close(descriptor)
        if path.startswith(part):
            raise OSError(28, "No space left on device")

    def full(descriptor: int, pieces: list[memoryview]) -> int:
        raise OSError(28, "No space left on device")

    for name, function in (("close", full_at_close), ("writev", full)):
        monkeypatch.setattr(os, name, function)
        with pytest.raises(TransferError, match=r"cannot be written: No space"):
            await session.download(component, target, resume=resume)
        monkeypatch.setattr(os, "close", real_close)
        monkeypatch.setattr(os, "writev", real_writev)
        assert target.read_bytes() == b"old"

    await session.download(component, target, resume=resume)
    assert target.read_bytes() == BODY
    assert [path.name for path in tmp_path.iterdir()] == ["x"]


async def test_what_becomes_a_device_meanwhile_is_not_replaced(
    session: AsyncSession, component: FileComponent, tmp_path: Path
) -> None:
    target = tmp_path / "x"

    def note(*_: object) -> None:
        if not target.exists():
            os.mkfifo(target)

    with pytest.raises(TransferError, match="is a named pipe"):
        await session.download(component, target, progress=note)

    assert [path.name for path in tmp_path.iterdir()] == ["x"]
    assert stat.S_ISFIFO(target.stat().st_mode)


async def test_a_relative_path_is_that_of_the_call(
    session: AsyncSession,
    component: FileComponent,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    here, elsewhere = tmp_path / "here", tmp_path / "elsewhere"
    here.mkdir()
    elsewhere.mkdir()
    monkeypatch.chdir(here)

    await session.download(component, "x", progress=lambda *_: os.chdir(elsewhere))

    assert (here / "x").read_bytes() == BODY
    assert not list(elsewhere.iterdir())
