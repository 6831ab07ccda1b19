"""Where a journal can be: its path, whose file is there, who can read it, and how it is replaced.

A file of another program is refused, and left as it is. A journal names itself by the application
id in its header. A journal that is damaged is moved aside, where people can look at it, and a new
one takes its place.

This package never opens the file of a journal that others may have opened, except through SQLite.
If it did, closing it again would release the locks that other sessions of this process hold on it,
and another process could then delete their entries (sqlite.org/howtocorrupt.html, 2.2).
"""

from __future__ import annotations

import errno
import os
import sqlite3
import stat
import sys
import tempfile
from contextlib import closing, suppress
from pathlib import Path

from aioftrackjobs.journal._rows import decode_text

#: In the header of each journal, at byte 68; and the version of what it contains.
APPLICATION_ID, VERSION = 0x6674_4A62, 1

_ID_AT = 68

#: Bytes of a database, at least.
_SMALLEST = 512

#: The tables of a journal, by their names.
TABLES = {
    "owners": """CREATE TABLE owners (
    token TEXT PRIMARY KEY,
    host TEXT NOT NULL,
    pid INTEGER NOT NULL,
    place TEXT NOT NULL,
    started TEXT NOT NULL,
    seen REAL NOT NULL,
    ended INTEGER NOT NULL DEFAULT 0
) WITHOUT ROWID""",
    "entries": """CREATE TABLE entries (
    server TEXT NOT NULL,
    kind TEXT NOT NULL,
    id TEXT NOT NULL,
    api_user TEXT NOT NULL,
    owner TEXT NOT NULL,
    holder TEXT NOT NULL,
    since REAL NOT NULL,
    final_report TEXT,
    lost_host TEXT,
    lost_at REAL,
    PRIMARY KEY (server, kind, id)
) WITHOUT ROWID""",
    "set_aside": "CREATE TABLE set_aside (found REAL, kind TEXT, content TEXT)",
}

#: Errors of the operating system that say that a path is wrong, and not that a disk fails.
_WRONG_PATH = frozenset(
    {
        errno.EACCES,
        errno.EINVAL,
        errno.EISDIR,
        errno.ELOOP,
        errno.ENOENT,
        errno.ENAMETOOLONG,
        errno.ENOTDIR,
        errno.EPERM,
        errno.EROFS,
    }
)

#: Characters of the file's name that the name of another file beside it begins with.
_PREFIX = 32

#: What is read and written by the owner alone.
_PRIVATE = 0o600

#: The files that SQLite has beside a database.
_LOG, _INDEX = "-wal", "-shm"

#: Damaged journals that are kept.
_KEPT = 9


class UnusableJournalError(Exception):
    """The file cannot be used as a journal."""


class DamagedJournalError(UnusableJournalError):
    """The file is a journal, and is damaged: it is to be moved aside."""


class ForeignFileError(UnusableJournalError):
    """The file is of another program, or of a later version of this package."""


def find_problem(path: Path) -> str | None:
    """Make the file unless it is there; return why *path* can hold no journal, None if it may.

    A disk that fails or is full is no such reason, as it may work later; nor is a journal that is
    damaged, as it is replaced.
    """
    try:
        folder = Path(os.path.realpath(path)).parent
        with suppress(FileNotFoundError):  # SQLite needs a file whose name is longer
            path.with_name(f"{path.name}-journal").stat()
        create(path)
        require_ordinary(path)
        if not _is_permitted(path, os.R_OK | os.W_OK):
            return "this process may not write to it"
        if not _is_permitted(folder, os.W_OK | os.X_OK):
            return f"this process may not write to its folder {folder}, where SQLite needs files"
        require_own(path)
        make_private(path)
        sqlite3.connect(path).close()
    except OSError as exc:
        if exc.errno == errno.ENOENT and not folder.is_dir():
            return f"there is no folder {folder}"
        return exc.strerror if exc.errno in _WRONG_PATH else None
    except sqlite3.Error as exc:
        code = getattr(exc, "sqlite_errorcode", 0) & 0xFF
        return str(exc) if code in (sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY) else None
    except DamagedJournalError:
        return None
    except (ValueError, UnusableJournalError) as exc:
        return str(exc)
    return None


def _is_permitted(path: Path, mode: int) -> bool:
    return os.access(path, mode, effective_ids=os.access in os.supports_effective_ids)


def require_ordinary(path: Path) -> None:
    """Raise unless *path* is an ordinary file, also at the end of a symbolic link.

    Raises:
        UnusableJournalError: It is a folder, a pipe or a device, which might block.
    """
    for each in (path, *(_beside(path, name) for name in (_LOG, _INDEX))):
        with suppress(FileNotFoundError):
            mode = each.stat().st_mode
            if not stat.S_ISREG(mode):
                name = "it" if each is path else str(each)
                kind = "a folder" if stat.S_ISDIR(mode) else "no ordinary file"
                raise UnusableJournalError(f"{name} is {kind}")


def _beside(path: Path, suffix: str) -> Path:
    return path.with_name(path.name + suffix)


def make_private(path: Path) -> None:
    """Let only its owner read the journal, whichever program has made it.

    Raises:
        UnusableJournalError: It belongs to another user.
    """
    if sys.platform == "win32":
        return
    for each in (path, *(_beside(Path(os.path.realpath(path)), name) for name in (_LOG, _INDEX))):
        with suppress(FileNotFoundError):
            mode = stat.S_IMODE(each.stat().st_mode)
            if mode & ~_PRIVATE:
                try:
                    each.chmod(_PRIVATE)
                except PermissionError as exc:
                    raise UnusableJournalError(
                        f"other users can read {each}, and only its owner can change that: "
                        "chmod 600"
                    ) from exc


# Whose file it is


def require_own(path: Path) -> None:
    """Raise unless the file is a journal, or empty. It is only read, and no lock is needed.

    Raises:
        ForeignFileError: It is not.
        DamagedJournalError: It is, and its header is damaged.
    """
    size = path.stat().st_size
    if size == 0:
        return
    if size < _SMALLEST:
        _require_own_header(path)
    # Neither the file nor those beside it are touched, whatever they are.
    address = f"{Path(os.path.realpath(path)).as_uri()}?mode=ro&immutable=1"
    try:
        with closing(sqlite3.connect(address, uri=True)) as database:
            require_own_database(database)
    except sqlite3.DatabaseError as exc:
        if is_damage(exc):
            _require_own_header(path)
        raise


def require_own_database(database: sqlite3.Connection) -> None:
    """Raise unless an open *database* is a journal, or empty.

    Raises:
        ForeignFileError: It is not.
        sqlite3.DatabaseError: It is damaged, or it is no database.
    """
    database.text_factory = decode_text
    (number,) = database.execute("PRAGMA application_id").fetchone()
    (version,) = database.execute("PRAGMA user_version").fetchone()
    if number == APPLICATION_ID:
        if version > VERSION:
            raise ForeignFileError(
                f"it is of version {version}, and this is {VERSION}; update aioftrackjobs, or use "
                "another file"
            )
        return
    tables = dict(database.execute("SELECT name, sql FROM sqlite_master").fetchall())
    is_ours = all(tables.get(name) == TABLES[name] for name in ("owners", "entries"))
    if (tables or number or version) and not is_ours:
        raise ForeignFileError("it is the database of another program; use another file")


def _require_own_header(path: Path) -> None:
    """Raise that a file which SQLite cannot read is a journal, or the file of another program."""
    with path.open("rb") as file:  # it is no database, which no process could have open
        header = file.read(100)
    if header[_ID_AT : _ID_AT + 4] == APPLICATION_ID.to_bytes(4, "big"):
        raise DamagedJournalError("its header is damaged")
    raise ForeignFileError("it is no SQLite database; use another file")


def is_damage(error: sqlite3.Error) -> bool:
    """Return whether *error* says that the content of a file is wrong."""
    code = getattr(error, "sqlite_errorcode", 0)
    is_cut_off = code == sqlite3.SQLITE_IOERR_SHORT_READ
    return is_cut_off or code & 0xFF in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


# Making and replacing it


def create(path: Path) -> None:
    """Make the file unless it is there, so that only its owner can read it.

    It appears under its name when it is complete.
    """
    if path.exists():
        return
    path = Path(os.path.realpath(path))  # it may be a symbolic link to a file that is not there
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f"{path.name[:_PREFIX]}.")
    os.close(descriptor)
    made = Path(name)
    try:
        with closing(sqlite3.connect(made, isolation_level=None)) as database:
            fill(database)
        os.link(made, path)
    except FileExistsError:
        pass  # another process was faster
    except (OSError, NotImplementedError, AttributeError):  # a file system without hard links
        with suppress(FileExistsError):
            os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, _PRIVATE))
    finally:
        made.unlink()


def fill(database: sqlite3.Connection) -> None:
    """Make a *database* a journal, in one transaction, unless it is one.

    Raises:
        ForeignFileError: It is that of another program.
    """
    require_own_database(database)
    if _is_complete(database):
        return
    database.execute("BEGIN IMMEDIATE")
    try:
        require_own_database(database)
        for name in TABLES.keys() - _names_of_tables(database):
            database.execute(TABLES[name])
        database.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        database.execute(f"PRAGMA user_version = {VERSION}")
        database.execute("COMMIT")
    except BaseException:
        if database.in_transaction:
            database.execute("ROLLBACK")
        raise


def _is_complete(database: sqlite3.Connection) -> bool:
    (number,) = database.execute("PRAGMA application_id").fetchone()
    return number == APPLICATION_ID and TABLES.keys() <= _names_of_tables(database)


def _names_of_tables(database: sqlite3.Connection) -> set[str]:
    return {name for (name,) in database.execute("SELECT name FROM sqlite_master")}


def set_aside(path: Path) -> Path | None:
    """Move a damaged journal to another name, so that a new one can be made.

    Returns:
        The new name; None if there was nothing in the file.
    """
    path = Path(os.path.realpath(path))
    names = [path.with_name(f"{path.name[:200]}.damaged-{n}") for n in range(1, _KEPT + 1)]
    target = next((each for each in names if not each.exists()), names[-1])
    is_empty = path.stat().st_size == 0
    # First of all the database: SQLite deletes the log of one that has its name when it closes it.
    path.replace(target)
    with suppress(FileNotFoundError):
        _beside(path, _LOG).replace(_beside(target, _LOG))
    with suppress(FileNotFoundError):  # it is about the log, and made anew
        _beside(path, _INDEX).unlink()
    if is_empty:
        target.unlink()
        with suppress(FileNotFoundError):
            _beside(target, _LOG).unlink()
    return None if is_empty else target
