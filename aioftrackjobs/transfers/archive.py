"""Writing directories and sequences of files to one zip archive, piece by piece.

The members of a directory are sorted by name; a sequence keeps its order. A symbolic link to a file
of the same directory tree is archived as that file. A link to a directory of the tree is left out,
because the archive contains that directory anyway. A link out of the tree raises TransferError.
"""

from __future__ import annotations

import os
import re
import stat
import zipfile
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from aioftrackjobs.errors import FileChangedError, TransferError

#: Bytes that are read, compressed and written at once.
_CHUNK = 1024 * 1024

#: Files that are compressed already. Compressing them again would take time and save no space.
_COMPRESSED = frozenset(
    """
    .7z .aac .abc .avi .avif .br .bz2 .docx .exr .flac .gif .gz .heic .jp2 .jpeg .jpg .jxl .lz4
    .m4a .m4v .mkv .mov .mp3 .mp4 .mpeg .mpg .mxf .ogg .opus .pdf .png .pptx .r3d .rar .tgz .tx
    .usdz .vdb .webm .webp .wmv .woff2 .xlsx .xz .zip .zst
    """.split()  # noqa: SIM905 - read as a list of words
)


@dataclass(frozen=True, slots=True)
class Member:
    """A file or directory to archive.

    Attributes:
        name: Its path in the archive. The name of a directory ends with a slash.
        path: Its path on disk, which is not a symbolic link.
    """

    name: str
    path: Path

    def __post_init__(self) -> None:
        try:
            self.name.encode()
        except UnicodeEncodeError:
            raise TransferError(f"the name of {self.path!r} is not valid text") from None


def members_of_directory(path: Path) -> list[Member]:
    """Return the directory and everything in it, named relative to its parent.

    Raises:
        TransferError: A member cannot be archived.
    """
    root = path.resolve()
    return list(_walk(root, f"{root.name or 'files'}/", root))


def members_of_files(paths: Sequence[Path]) -> list[Member]:
    """Return the files at *paths*, and everything in the directories at *paths*, in this order.

    Names are relative to the deepest directory that contains all of *paths*.

    Raises:
        TransferError: A member cannot be archived.
    """
    absolute = list(dict.fromkeys(Path(os.path.abspath(path)) for path in paths))  # noqa: PTH100
    try:
        common = os.path.commonpath([path.parent for path in absolute])
    except ValueError:  # on several drives
        raise TransferError("files on several drives cannot share an archive") from None
    members: list[Member] = []
    for path in absolute:
        name = path.relative_to(common).as_posix()
        actual = _resolve(path)
        if actual.is_dir():
            members += _walk(actual, f"{name}/", actual)
        else:
            members.append(Member(name, actual))
    return members


def common_name(paths: Sequence[Path]) -> str:
    """Return the common start of the names of *paths* without the frame number.

    If they have none, return the name of their directory.
    """
    common = os.path.commonprefix([path.name for path in paths])  # noqa: RUF071 - of characters
    if common in {path.name for path in paths}:
        common = Path(common).stem
    return re.sub(r"(^|[\W_]+)\d*$", "", common) or paths[0].resolve().parent.name


def write_archive(target: BinaryIO, members: Iterable[Member]) -> Generator[None, None, None]:
    """Write the archive of *members* to *target*; yield after each piece.

    Raises:
        TransferError: A file cannot be read.
        FileChangedError: A file changed while it was read.
    """
    with zipfile.ZipFile(target, "w") as archive:
        for member in members:
            if member.name.endswith("/"):
                archive.writestr(_describe(member), b"")
            else:
                yield from _add_file(archive, member)
            yield


def _walk(folder: Path, name: str, root: Path) -> Iterator[Member]:
    yield Member(name, folder)
    with transfer_errors(f"{folder} cannot be read"), os.scandir(folder) as found:
        entries = sorted(found, key=lambda entry: entry.name)
    for entry in entries:
        path = Path(entry.path)
        if entry.is_symlink():
            actual = _resolve(path)
            if not actual.is_relative_to(root):
                raise TransferError(f"{path} is a link that points out of {root}")
            if not actual.is_dir():
                yield Member(f"{name}{entry.name}", actual)
        elif entry.is_dir():
            yield from _walk(path, f"{name}{entry.name}/", root)
        else:
            yield Member(f"{name}{entry.name}", path)


def _resolve(path: Path) -> Path:
    try:
        return path.resolve(strict=True)
    except (OSError, RuntimeError, ValueError) as exc:  # a cycle of links, before Python 3.13
        reason = getattr(exc, "strerror", None) or exc
        raise TransferError(f"{path} cannot be read: {reason}") from exc


def _describe(member: Member) -> zipfile.ZipInfo:
    with transfer_errors(f"{member.path} cannot be read"):
        info = zipfile.ZipInfo.from_file(member.path, member.name, strict_timestamps=False)
    if not info.is_dir() and member.path.suffix.lower() not in _COMPRESSED:
        info.compress_type = zipfile.ZIP_DEFLATED
    return info


def _add_file(archive: zipfile.ZipFile, member: Member) -> Iterator[None]:
    problem = f"{member.path} cannot be read"
    with open_regular(member.path, follow=False) as source:
        before = os.fstat(source.fileno())
        info = _describe(member)
        info.file_size = left = before.st_size  # zipfile decides by it whether sizes need 64 bits
        with archive.open(info, "w") as entry:
            while left:
                with transfer_errors(problem):
                    chunk = source.read(min(_CHUNK, left))
                if not chunk:
                    break
                left -= len(chunk)
                entry.write(chunk)
                yield
        after = os.fstat(source.fileno())
        if left or (after.st_size, after.st_mtime_ns) != (before.st_size, before.st_mtime_ns):
            raise FileChangedError(f"{member.path} changed while it was archived")


# Reading files, here and in the modules that import this one


@contextmanager
def transfer_errors(problem: str) -> Iterator[None]:
    """Raise an OSError of the block as TransferError, which begins with *problem*."""
    try:
        yield
    except OSError as exc:
        raise TransferError(f"{problem}: {exc.strerror or exc}") from exc


def open_regular(path: Path, *, follow: bool = True) -> BinaryIO:
    """Open a regular file for reading.

    Args:
        path: Its path.
        follow: Whether the path may be a symbolic link.

    Raises:
        TransferError: The file is not a regular file, or cannot be read.
    """
    # Non-blocking, because opening a named pipe would wait for a writer.
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    if not follow:
        flags |= getattr(os, "O_NOFOLLOW", 0)
    try:
        with transfer_errors(f"{path} cannot be read"):
            descriptor = os.open(path, flags)
    except ValueError as exc:  # the system accepts no such name
        raise TransferError(f"{str(path)!r} is not a path: {exc}") from exc
    with ExitStack() as on_error:
        on_error.callback(os.close, descriptor)
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise TransferError(f"{path} is not a regular file")
        file = os.fdopen(descriptor, "rb", buffering=0)
        on_error.pop_all()
    return file
