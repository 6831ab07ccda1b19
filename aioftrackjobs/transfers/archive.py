"""Directories and sequences of files as one zip archive, written piece by piece.

What is in it has the order of its names, or the order in which files were given. Symbolic links
in a directory never lead out of it: those to its files are archived as the files, those to its
directories are left out, as what is there is in the archive anyway, and others are refused.
"""

from __future__ import annotations

import os
import re
import stat
import time
import zipfile
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from aioftrackjobs.errors import FileChangedError, TransferError

#: Bytes that are read, compressed and written at once.
_CHUNK = 1024 * 1024

#: Files that are compressed already: to do it again takes time, and makes them no smaller.
_COMPRESSED = frozenset(
    """
    .7z .aac .abc .avi .avif .br .bz2 .docx .exr .flac .gif .gz .heic .jp2 .jpeg .jpg .jxl .lz4
    .m4a .m4v .mkv .mov .mp3 .mp4 .mpeg .mpg .mxf .ogg .opus .pdf .png .pptx .r3d .rar .tgz .tx
    .usdz .vdb .webm .webp .wmv .woff2 .xlsx .xz .zip .zst
    """.split()  # noqa: SIM905 - read as a list of words
)

#: What a zip file can say about times begins here; it ends in 2107.
_FIRST_YEAR, _LAST_YEAR = 1980, 2107

_DIRECTORY_BIT = 0x10


@dataclass(frozen=True, slots=True)
class Member:
    """Something to archive.

    Attributes:
        name: Its path in the archive; that of a directory ends with a slash.
        path: Where it is; no symbolic link.
    """

    name: str
    path: Path

    def __post_init__(self) -> None:
        try:
            self.name.encode()
        except UnicodeEncodeError:
            raise TransferError(f"the name of {self.path!r} is no text") from None


def members_of_directory(path: Path) -> list[Member]:
    """Return all that is in the directory, under its name.

    Raises:
        TransferError: Something in it cannot be archived.
    """
    root = path.resolve()
    return list(_walk(root, f"{root.name or 'files'}/", root))


def members_of_files(paths: Sequence[Path]) -> list[Member]:
    """Return the files, and all that is in the directories, at *paths*, in this order.

    They keep what of their paths tells them apart.

    Raises:
        TransferError: One cannot be archived.
    """
    absolute = list(dict.fromkeys(Path(os.path.abspath(path)) for path in paths))  # noqa: PTH100
    try:
        common = os.path.commonpath([path.parent for path in absolute])
    except ValueError:  # on several drives
        raise TransferError("files on several drives have no place in one archive") from None
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
    """Return what the names of *paths* have in common, without frames, or where they are."""
    common = os.path.commonprefix([path.name for path in paths])  # noqa: RUF071 - of characters
    if common in {path.name for path in paths}:
        common = Path(common).stem
    return re.sub(r"(^|[\W_]+)\d*$", "", common) or paths[0].resolve().parent.name


def write_archive(target: BinaryIO, members: Iterable[Member]) -> Generator[None, None, None]:
    """Write the archive of *members* to *target*; one step for each piece of it.

    Raises:
        TransferError: A file cannot be read.
        FileChangedError: One changed while it was read.
    """
    with zipfile.ZipFile(target, "w") as archive:
        for member in members:
            if member.name.endswith("/"):
                found = _status(member.path)
                archive.writestr(_describe(member, found), b"")
            else:
                yield from _add_file(archive, member)
            yield


def _walk(folder: Path, name: str, root: Path) -> Iterator[Member]:
    yield Member(name, folder)
    try:
        with os.scandir(folder) as found:
            entries = sorted(found, key=lambda entry: entry.name)
    except OSError as exc:
        raise TransferError(f"{folder} cannot be read: {exc.strerror}") from exc
    for entry in entries:
        path = Path(entry.path)
        if entry.is_symlink():
            actual = _resolve(path)
            if not actual.is_relative_to(root):
                raise TransferError(f"{path} is a link that leads out of {root}")
            if not actual.is_dir():
                yield Member(f"{name}{entry.name}", actual)
        elif entry.is_dir():
            yield from _walk(path, f"{name}{entry.name}/", root)
        else:
            yield Member(f"{name}{entry.name}", path)


def _resolve(path: Path) -> Path:
    try:
        return path.resolve(strict=True)
    except (OSError, RuntimeError) as exc:  # the latter, before Python 3.13: links in a circle
        reason = getattr(exc, "strerror", None) or exc
        raise TransferError(f"{path} cannot be read: {reason}") from exc


def _status(path: Path) -> os.stat_result:
    try:
        return path.stat()
    except OSError as exc:
        raise TransferError(f"{path} cannot be read: {exc.strerror}") from exc


def _describe(member: Member, found: os.stat_result) -> zipfile.ZipInfo:
    moment = time.localtime(max(found.st_mtime, 0))[:6]
    if moment[0] < _FIRST_YEAR:
        moment = (_FIRST_YEAR, 1, 1, 0, 0, 0)
    elif moment[0] > _LAST_YEAR:
        moment = (_LAST_YEAR, 12, 31, 23, 59, 58)
    info = zipfile.ZipInfo(member.name, moment)
    info.external_attr = (found.st_mode & 0xFFFF) << 16
    if stat.S_ISDIR(found.st_mode):
        info.external_attr |= _DIRECTORY_BIT
        return info
    info.file_size = found.st_size  # tells zipfile whether the sizes need 64 bits
    if member.path.suffix.lower() not in _COMPRESSED:
        info.compress_type = zipfile.ZIP_DEFLATED
    return info


def _add_file(archive: zipfile.ZipFile, member: Member) -> Iterator[None]:
    with open_regular(member.path, follow=False) as source:
        found = os.fstat(source.fileno())
        with archive.open(_describe(member, found), "w") as entry:
            left = found.st_size
            while chunk := _read(source, member.path, min(_CHUNK, left)):
                left -= len(chunk)
                entry.write(chunk)
                yield
        after = os.fstat(source.fileno())
        if left or (after.st_size, after.st_mtime_ns) != (found.st_size, found.st_mtime_ns):
            raise FileChangedError(f"{member.path} changed while it was archived")


def _read(source: BinaryIO, path: Path, size: int) -> bytes:
    try:
        return source.read(size) if size else b""
    except OSError as exc:
        raise TransferError(f"{path} cannot be read: {exc.strerror}") from exc


def open_regular(path: Path, *, follow: bool = True) -> BinaryIO:
    """Open a regular file, and nothing else.

    Args:
        path: Where it is.
        follow: Whether it may be a symbolic link.

    Raises:
        TransferError: It is none, or cannot be read.
    """
    # Not blocking: a named pipe would wait for a writer for ever.
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    if not follow:
        flags |= getattr(os, "O_NOFOLLOW", 0)
    try:
        descriptor = os.open(path, flags)
    except OSError as exc:
        raise TransferError(f"{path} cannot be read: {exc.strerror}") from exc
    except ValueError as exc:  # no system takes such a name
        raise TransferError(f"{str(path)!r} is no path: {exc}") from exc
    with ExitStack() as refused:
        refused.callback(os.close, descriptor)
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise TransferError(f"{path} is no regular file")
        file = os.fdopen(descriptor, "rb", buffering=0)
        refused.pop_all()
    return file
