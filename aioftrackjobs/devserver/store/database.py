"""The SQLite database: one connection, one writer, one transaction for each batch.

Statements are SQLAlchemy Core. The few that write run as often as there are operations, so
their text is made once for each set of columns and handed to the driver as it is.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
import sqlite3
import threading
import time
from base64 import urlsafe_b64encode
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any, TypeAlias

import sqlalchemy as sa
from sqlalchemy.pool import StaticPool

from aioftrackjobs.devserver.api_errors import (
    ApiError,
    BusyError,
    DatabaseLockedError,
    DuplicateEntryError,
    IntegrityError,
    ValidationError,
)
from aioftrackjobs.devserver.errors import ServerStartError
from aioftrackjobs.devserver.limits import BoundedCache, Clock, Meter, unlimited
from aioftrackjobs.devserver.store.change_log import Change, ChangeLog
from aioftrackjobs.devserver.store.tables import ROW, Snapshot, Tables

_IN_MEMORY = ":memory:"
#: What SQLite adds to the name of a database for its other files.
_SIDE_FILES = ("-wal", "-shm", "-journal")
#: Steps of SQLite's virtual machine between two checks of the time: about a millisecond.
_STEPS = 20_000
#: Characters of the statements whose compiled form is cached; it takes up to 600 bytes for each.
_COMPILED = 128 * 1024
#: Characters of one statement that the driver may cache; it keeps 128, whatever their length.
_LONGEST_CACHED = 64 * 1024
#: Milliseconds that SQLite waits for another process; then other requests go on meanwhile.
_LOCK_WAIT = 100
#: Rows that are read before their size is counted.
_AT_ONCE = 1000
#: Bytes of a row beside its texts.
_BARE = 16
#: Seconds for which completed uploads are recorded: as long as the parts of others are kept.
_COMPLETED_KEPT = 24 * 3600.0
#: The size of the digest that signs addresses.
_SECRET_BYTES = 32
_SALT_BYTES = 16
_KEY_BYTES = 24
#: Tables for data that is not in entities: digests of users' keys, the hash of the schemas, a
#: secret, and the completed uploads in parts.
_CREATE_INTERNALS = (
    "CREATE TABLE _fact (name TEXT PRIMARY KEY, value TEXT NOT NULL)",
    "CREATE TABLE _api_key (digest BLOB, owner TEXT, salt TEXT, PRIMARY KEY (digest, owner))",
    "CREATE TABLE _completed (upload TEXT PRIMARY KEY, at REAL NOT NULL)",
)


def _size_of(rows: Sequence[sa.Row[Any]]) -> int:
    """Return about how many bytes *rows* have; fast, as it is called for every row."""
    texts = [len(each) for row in rows for each in row if type(each) is str or type(each) is bytes]
    return _BARE * len(rows) + sum(texts)


def key_digest(api_key: str) -> bytes:
    """Return what is stored of an API key: it shows nothing of the key, nor does its timing."""
    return hashlib.sha256(api_key.encode("utf-8", "surrogatepass")).digest()


def _make_private(database: Path) -> None:
    os.close(os.open(database, os.O_RDWR | os.O_CREAT, 0o600))
    for path in (database, *(database.with_name(database.name + end) for end in _SIDE_FILES)):
        with suppress(OSError):  # it is not there, or belongs to another user
            path.chmod(0o600)


#: Codes of SQLite's errors that say nothing about the statement.
_PASSING = frozenset({sqlite3.SQLITE_INTERRUPT, sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED})


class Transaction:
    """A transaction of one batch; others see its changes after the commit."""

    def __init__(self, store: Connection, read: Meter, clock: Clock) -> None:
        #: The tables in queries, and the columns with a foreign key, see :class:`Tables`.
        self.tables: Mapping[str, sa.TableClause] = store.tables.clauses
        self.references: Mapping[str, Mapping[str, tuple[str, str]]] = store.tables.references
        #: The user who makes the changes.
        self.username = ""
        self.clock = clock
        self._read = read
        self._store = store
        self._driver = store.driver

    def fetch(self, statement: sa.Select[Any], /, **parameters: Any) -> Sequence[sa.Row[Any]]:
        """Return all rows of *statement*."""
        found: list[sa.Row[Any]] = []
        try:
            with closing(self._store.connection.execute(statement, parameters)) as result:
                for rows in result.partitions(_AT_ONCE):
                    self._read(_size_of(rows))
                    found.extend(rows)
        except (sa.exc.OperationalError, OverflowError) as error:
            if _code(error) in _PASSING:
                raise
            reason = error.orig if isinstance(error, sa.exc.DBAPIError) else error
            raise ValidationError(f"The database cannot run this query: {reason}.") from None
        return found

    def read(self, table: str, key: Mapping[str, Any]) -> dict[str, Any] | None:
        """Return the row with the given *key*, None if there is none."""
        sql = f'SELECT * FROM "{table}"{_where(key)}'
        row = self._driver.execute(sql, tuple(key.values())).fetchone()
        if row is None:
            return None
        return dict(zip(self._store.tables.columns[table], row, strict=True))

    def value(self, table: str, name: str, value: Any, column: str) -> Any:
        """Return *column* of the row whose *name* is *value*, None if there is none."""
        sql = f'SELECT "{column}" FROM "{table}"{_where([name])}'
        row = self._driver.execute(sql, (value,)).fetchone()
        return row[0] if row else None

    def lowest(self, table: str, order: str, column: str) -> Any:
        """Return *column* of the row with the lowest *order*, None if there is none."""
        sql = f'SELECT "{column}" FROM "{table}" ORDER BY "{order}", "{ROW}" LIMIT 1'
        row = self._driver.execute(sql).fetchone()
        return row[0] if row else None

    def highest(self, table: str, key: Mapping[str, Any], column: str) -> Any:
        """Return the highest *column* of the rows that *key* finds, None if there is none."""
        sql = f'SELECT max("{column}") FROM "{table}"{_where(key)}'
        return self._driver.execute(sql, tuple(key.values())).fetchone()[0]

    def insert(self, table: str, values: Mapping[str, Any]) -> None:
        """Add a row."""
        names, places = '", "'.join(values), ", ".join("?" * len(values))
        try:
            sql = f'INSERT INTO "{table}" ("{names}") VALUES ({places})'
            self._driver.execute(sql, tuple(values.values()))
        except sqlite3.IntegrityError:
            raise DuplicateEntryError(f"There is a {table} with this key already.") from None

    def update(self, table: str, key: Mapping[str, Any], values: Mapping[str, Any]) -> int:
        """Change the rows that *key* finds, and return their number."""
        if not values:
            return 0
        changes = '" = ?, "'.join(values)
        sql = f'UPDATE "{table}" SET "{changes}" = ?{_where(key)}'
        return self._driver.execute(sql, (*values.values(), *key.values())).rowcount

    def delete(self, table: str, key: Mapping[str, Any]) -> int:
        """Remove the rows that *key* finds, and return their number."""
        sql = f'DELETE FROM "{table}"{_where(key)}'
        return self._driver.execute(sql, tuple(key.values())).rowcount

    def changes(self) -> Iterator[Change]:
        """Yield what was changed since the last call."""
        return iter(()) if self._store.log is None else self._store.log.take()

    def forget(self, table: str, column: str, highest: int) -> None:
        """Remove the rows whose *column* is *highest* at most."""
        self._driver.execute(f'DELETE FROM "{table}" WHERE "{column}" <= ?', (highest,))

    def set_api_key(self, owner: str, api_key: str | None = None) -> str:
        """Accept a chosen API key for *owner*, or a new one, and no earlier one; return it."""
        self._driver.execute("DELETE FROM _api_key WHERE owner = ?", (owner,))
        return self.make_api_key(owner) if api_key is None else self._add(owner, api_key, None)

    def make_api_key(self, owner: str) -> str:
        """Return a new API key for *owner*, which is accepted beside a chosen one.

        It can be made again from what is stored, so that the next server knows it, too.
        """
        salt = secrets.token_hex(_SALT_BYTES)
        return self._add(owner, self._made_key(owner, salt), salt)

    def _add(self, owner: str, api_key: str, salt: str | None) -> str:
        sql = "INSERT OR REPLACE INTO _api_key VALUES (?, ?, ?)"
        self._driver.execute(sql, (key_digest(api_key), owner, salt))
        return api_key

    def _made_key(self, owner: str, salt: str) -> str:
        made = hmac.digest(self._store.secret, f"api-key\0{owner}\0{salt}".encode(), "sha256")
        return urlsafe_b64encode(made[:_KEY_BYTES]).decode()

    def key_digests(self) -> list[tuple[str, bytes]]:
        """Return the digests of all API keys, each with its owner."""
        return self._driver.execute("SELECT owner, digest FROM _api_key").fetchall()

    def api_keys(self) -> dict[str, str]:
        """Return the API keys of all owners, but not those that were chosen."""
        made = "SELECT owner, salt FROM _api_key WHERE salt IS NOT NULL"
        return {owner: self._made_key(owner, salt) for owner, salt in self._driver.execute(made)}

    def complete(self, upload: str) -> None:
        """Record that an upload in parts is complete, in case the client repeats its request."""
        now = time.time()
        self._driver.execute("DELETE FROM _completed WHERE at < ?", (now - _COMPLETED_KEPT,))
        self._driver.execute("INSERT OR REPLACE INTO _completed VALUES (?, ?)", (upload, now))

    def is_completed(self, upload: str) -> bool:
        """Return whether an upload in parts was completed in the last day."""
        sql = "SELECT 1 FROM _completed WHERE upload = ?"
        return self._driver.execute(sql, (upload,)).fetchone() is not None


def _where(key: Iterable[str]) -> str:
    return "".join(
        f' {"AND" if number else "WHERE"} "{name}" = ?' for number, name in enumerate(key)
    )


#: Called before a commit; returns a function that is called after it.
Watcher: TypeAlias = Callable[[Transaction], Callable[[], None] | None]


class Connection:
    """A connection to a database, with one transaction after the other; from any thread.

    Raises:
        sa.exc.DatabaseError: If the database cannot be opened.
    """

    def __init__(
        self,
        tables: Tables,
        database: str,
        secret: bytes,
        stopping: threading.Event,
        *,
        is_beside: bool = False,
    ) -> None:
        self.tables = tables
        self.database = database
        self.secret = secret
        self._stopping = stopping
        self._lock = threading.Lock()
        self._clock = unlimited
        self._is_beside = is_beside
        self.log: ChangeLog | None = None
        self._watcher: Watcher = lambda _: None
        self._engine = sa.create_engine(
            sa.URL.create("sqlite", database=database),
            poolclass=StaticPool,
            # Transactions are begun and ended here, not by the driver.
            connect_args={"check_same_thread": False, "isolation_level": None},
        )
        compiled = BoundedCache(_COMPILED, lambda statement: len(statement.string))
        self.connection: sa.Connection = self._engine.connect().execution_options(
            compiled_cache=compiled
        )
        sa.event.listen(self._engine, "before_cursor_execute", self._check_length)
        self.driver: sqlite3.Connection = self.connection.connection.driver_connection  # type: ignore[assignment]
        self._running: Transaction | None = None
        self.driver.create_function(
            "acting_user", 0, lambda: getattr(self._running, "username", "")
        )
        self.driver.execute("PRAGMA foreign_keys = ON")
        self.driver.execute(f"PRAGMA busy_timeout = {_LOCK_WAIT}")
        self.driver.set_progress_handler(self._is_over, _STEPS)

    def _check_length(self, _: object, __: object, statement: str, *___: object) -> None:
        """Refuse a statement that the driver would cache, and that is long; beside it may run."""
        is_kept = not self._is_beside and self._clock is not unlimited
        if is_kept and len(statement) > _LONGEST_CACHED:
            raise self._clock.error()

    def _is_over(self) -> bool:
        """Return whether SQLite must give up what it does."""
        return self._stopping.is_set() or self._clock.is_over()

    @contextmanager
    def transaction(
        self, *, writes: bool = True, read: Meter = lambda _: None, clock: Clock = unlimited
    ) -> Iterator[Transaction]:
        """Enter a transaction; an error rolls it back, a clean exit commits it.

        Args:
            writes: Whether it changes anything.
            read: Counts the bytes that its queries find.
            clock: Says when its queries have taken too long.
        """
        with self._lock:
            self._clock = clock
            try:
                self.driver.execute("BEGIN IMMEDIATE" if writes else "BEGIN")
                transaction = Transaction(self, read, clock)
                self._running = transaction
                yield transaction
                after_commit = self._watcher(transaction) if writes else None
                self._commit()
            except (sqlite3.OperationalError, sa.exc.OperationalError) as error:
                code = _code(error)
                if code not in _PASSING:
                    raise
                if self._stopping.is_set():
                    raise BusyError("The server stops.", 1) from None
                if code == sqlite3.SQLITE_INTERRUPT:
                    raise clock.error() from None
                raise DatabaseLockedError from None
            finally:
                self._clock = unlimited
                if self.driver.in_transaction:  # a full disk has ended it already
                    self.driver.execute("ROLLBACK")
            if after_commit is not None:
                after_commit()  # before the lock is free, so that events are in order

    def _commit(self) -> None:
        try:
            self.driver.execute("COMMIT")
        except sqlite3.IntegrityError:
            raise self._broken_reference() from None

    def _broken_reference(self) -> ApiError:
        broken = self.driver.execute("PRAGMA foreign_key_check").fetchone()
        if broken is None:
            return IntegrityError("A reference points at an entity that does not exist.")
        table, row, target, number = broken
        key = next(
            line[3]
            for line in self.driver.execute(f'PRAGMA foreign_key_list("{table}")')
            if line[0] == number
        )
        found = self.driver.execute(
            f'SELECT "_type", "{key}" FROM "{table}" WHERE "_row" = ?', (row,)
        ).fetchone()
        return IntegrityError(
            f"{key} of a {found[0]} is '{found[1]}', but there is no such {target}."
        )

    def close(self) -> None:
        """Close the connection, when its transaction has ended."""
        with self._lock:
            self.connection.close()
            self._engine.dispose()


class Database(Connection):
    """A database with the entities of a model, in these *tables*.

    Safe to use from several threads: transactions wait for each other.

    Attributes:
        secret: The secret that signs addresses; stored with the entities.
        log: What the running transaction has changed; None until :meth:`watch` is called.

    Raises:
        ServerStartError: If the database cannot be used, or was made for another model.
    """

    def __init__(self, tables: Tables, database: str | Path | None = None) -> None:
        name = _IN_MEMORY if database is None else str(database)
        #: The copy that the content is equal to while SQLite counts no more changes than then.
        self._unchanged: tuple[Snapshot | None, int] = None, 0
        try:
            if name != _IN_MEMORY:
                _make_private(Path(name))
            super().__init__(tables, name, b"", threading.Event())
            try:
                self._prepare()
            except BaseException:
                self.close()
                raise
        except (sa.exc.DatabaseError, sqlite3.DatabaseError, OSError, ValueError) as error:
            found = error.orig if isinstance(error, sa.exc.DBAPIError) else error
            why = getattr(found, "strerror", None) or str(found)
            raise ServerStartError("database", name, why) from error

    def _prepare(self) -> None:
        """Create the tables of a new database; refuse one that was made for other schemas."""
        made, wanted = self.tables.made, self.tables.schema_hash
        if self.is_lasting:
            self.driver.execute("PRAGMA journal_mode = WAL")
            # Safe when the process is killed; only a loss of power can lose the last commits.
            self.driver.execute("PRAGMA synchronous = NORMAL")
        elif made is not None:
            made.backup(self.driver)
        self.driver.execute("BEGIN IMMEDIATE")
        if self.driver.execute("SELECT 1 FROM sqlite_master").fetchone() is None:
            for sql in (*_CREATE_INTERNALS, *self.tables.creating):
                self.driver.execute(sql)
        if self._fact("schemas", wanted) != wanted:
            raise ServerStartError("database", self.database, "it was made for other schemas")
        self.secret: bytes = bytes.fromhex(self._fact("secret", secrets.token_hex(_SECRET_BYTES)))
        self.driver.execute("COMMIT")
        if made is None and not self.is_lasting:
            self.tables.made = made = self.save()
            made.execute("DELETE FROM _fact").connection.commit()

    def _fact(self, name: str, value: str) -> str:
        """Return the fact called *name*, which is *value* unless it was stored before."""
        self.driver.execute("INSERT OR IGNORE INTO _fact VALUES (?, ?)", (name, value))
        sql = "SELECT value FROM _fact WHERE name = ?"
        return str(self.driver.execute(sql, (name,)).fetchone()[0])

    @property
    def is_lasting(self) -> bool:
        """Whether it is in a file, so that the next server can use it."""
        return self.database != _IN_MEMORY

    def watch(self, watcher: Watcher, ignored: Iterable[str]) -> None:
        """Call *watcher* before the end of each transaction that writes, from now on.

        What it returns is called after the commit; it must not fail. Rows of the *ignored* tables
        do not count as changes.
        """
        with self._lock:
            self.log: ChangeLog = ChangeLog(self.driver, self.tables.clauses, ignored)
            self._watcher = watcher

    def save(self) -> Snapshot:
        """Return a copy of the database in memory."""
        saved = Snapshot(_IN_MEMORY, check_same_thread=False)
        with self._lock:
            self.driver.backup(saved)
            self._unchanged = saved, self.driver.total_changes
        return saved

    def restore(self, saved: Snapshot) -> None:
        """Replace all content by what was saved."""
        with self._lock:
            # SQLite reads all schemas again after it, which takes longer than most tests.
            if self.is_lasting or self._unchanged != (saved, self.driver.total_changes):
                saved.backup(self.driver)
                self._unchanged = saved, self.driver.total_changes

    @contextmanager
    def beside(self) -> Iterator[Connection]:
        """Enter another connection, for what takes long; it reads what is stored now."""
        other = Connection(self.tables, self.database, self.secret, self._stopping, is_beside=True)
        try:
            if not self.is_lasting:
                with self._lock:
                    self.driver.backup(other.driver)
            yield other
        finally:
            other.close()

    def interrupt(self) -> None:
        """Make all queries end, here and beside, because the server stops."""
        self._stopping.set()


def _code(error: BaseException) -> int | None:
    """Return SQLite's code of *error*, if it has one."""
    found = error.orig if isinstance(error, sa.exc.DBAPIError) else error
    code: int | None = getattr(found, "sqlite_errorcode", None)
    return None if code is None else code & 0xFF  # without the details
