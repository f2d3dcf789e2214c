"""The store: one thread owns the only connection that writes; everybody else reads through read-only connections.

Waiting writes are grouped into one `BEGIN IMMEDIATE … COMMIT`, each in a savepoint of its own: a refused write undoes
itself and not its neighbours, and one fsync makes the whole group durable. Answers are released only after COMMIT. A
COMMIT that fails leaves the outcome unknown: the store stops writing for good, and the service exits so that the next
start sorts it out.
"""

from __future__ import annotations

import asyncio
import logging
import queue
import sqlite3
import threading
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, TypeVar

from sqlite_utils import Database

from zsky_box import migrations
from zsky_box.errors import Refusal, StoreError

T = TypeVar("T")
Row = sqlite3.Row

FILE_NAME: Final = "ledger.db"
GROUP_MAX: Final = 256
WAITING_MAX: Final = 20_000
CLOSE_SECONDS: Final = 30
_READERS: Final = 4
_BUSY_TIMEOUT_MS: Final = 10_000

log = logging.getLogger(__name__)


def storage_error() -> Refusal:
    """503 for a write whose outcome is unknown or that the disk refused."""
    return Refusal(
        503,
        "storage_error",
        "The box could not write its ledger; retry with the same Idempotency-Key.",
        headers={"Retry-After": "5"},
    )


class Rows:
    """One state of the store to read from: a snapshot, or what a write sees."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def one(self, sql: str, parameters: dict[str, Any] | tuple[Any, ...] = ()) -> Row | None:
        """The first row or None."""
        return self._connection.execute(sql, parameters).fetchone()

    def all(self, sql: str, parameters: dict[str, Any] | tuple[Any, ...] = ()) -> list[Row]:
        """All rows of a bounded query."""
        return self._connection.execute(sql, parameters).fetchall()

    def each(self, sql: str, parameters: dict[str, Any] | tuple[Any, ...] = ()) -> Iterator[Row]:
        """Row by row, for queries without a bound."""
        return self._connection.execute(sql, parameters)


class Tx(Rows):
    """One write inside the writer's transaction: literal SQL, and what to do once it is durable."""

    def __init__(self, connection: sqlite3.Connection, on_end: Callable[[str], None]) -> None:
        super().__init__(connection)
        self._on_end = on_end
        self.after_commit: list[Callable[[], None]] = []

    def execute(self, sql: str, parameters: dict[str, Any] | tuple[Any, ...] = ()) -> sqlite3.Cursor:
        """Run one statement."""
        return self._connection.execute(sql, parameters)

    def tell_end(self, holder_id: str) -> None:
        """Once this is durable: a key or a session opens nothing any more, so neither may what it has opened stay."""
        self.after_commit.append(lambda: self._on_end(holder_id))


@dataclass
class _Write:
    work: Callable[[Tx], Any]
    future: Future[Any] = field(default_factory=Future[Any])
    result: Any = None
    error: BaseException | None = None
    after_commit: list[Callable[[], None]] = field(default_factory=list[Callable[[], None]])


def connect(path: Path, *, read_only: bool) -> sqlite3.Connection:
    """A connection with the store's pragmas; `isolation_level=None` leaves every BEGIN to us."""
    uri = f"{path.as_uri()}?mode={'ro' if read_only else 'rwc'}"
    connection = sqlite3.connect(uri, uri=True, isolation_level=None, check_same_thread=False, cached_statements=512)
    connection.row_factory = sqlite3.Row
    connection.execute(f"PRAGMA busy_timeout = {_BUSY_TIMEOUT_MS}")
    connection.execute("PRAGMA trusted_schema = OFF")
    connection.execute("PRAGMA mmap_size = 0")
    if read_only:
        connection.execute("PRAGMA query_only = ON")
    else:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA foreign_keys = ON")
    return connection


@contextmanager
def snapshot(connection: sqlite3.Connection) -> Generator[Rows]:
    """One and the same state for several reads of a connection that only reads."""
    connection.execute("BEGIN")
    try:
        yield Rows(connection)
    finally:
        connection.execute("COMMIT")


def _open(path: Path) -> sqlite3.Connection:
    """The connection that writes, its schema up to date; raises StoreError when the file is not a ledger."""
    try:
        connection = connect(path, read_only=False)
    except sqlite3.Error as error:
        raise StoreError(f"{path} cannot be opened ({error}); restore it from a backup") from error
    try:
        path.chmod(0o600)
        migrations.migrate(Database(connection, execute_plugins=False, strict=True))
    except sqlite3.Error as error:
        connection.close()
        raise StoreError(f"{path} cannot be brought up to date ({error}); nothing was changed") from error
    except BaseException:
        connection.close()
        raise
    return connection


def _is_storage(error: BaseException | None) -> bool:
    """Whether it was the disk or the file (full, I/O error, damaged), and not what was written."""
    return isinstance(error, sqlite3.OperationalError) or type(error) is sqlite3.DatabaseError


def _no_one_listens(holder_id: str) -> None:
    """A command alone, without the service."""


class Store:
    """Owns `ledger.db`. `fatal` is called once, from the writer thread, when a COMMIT failed; `on_end`, from there as
    well, with the id of each key or session that has ended by a write.
    """

    def __init__(
        self,
        folder: Path,
        fatal: Callable[[BaseException], None] | None = None,
        on_end: Callable[[str], None] = _no_one_listens,
    ) -> None:
        self.path = folder / FILE_NAME
        self._fatal = fatal
        self._on_end = on_end
        self._writer = _open(self.path)
        self._broken = False
        self._closed = False
        self._closing = threading.Lock()  # nothing is queued behind the end mark, where it would wait for ever
        self._waiting: queue.Queue[_Write | None] = queue.Queue(WAITING_MAX)
        self._local = threading.local()
        self._connections: list[sqlite3.Connection] = []
        self._connections_lock = threading.Lock()
        self._readers = ThreadPoolExecutor(_READERS, thread_name_prefix="store-read")
        self._thread = threading.Thread(target=self._write_loop, name="store-write", daemon=True)
        self._thread.start()

    # Reads

    def reader(self) -> sqlite3.Connection:
        """This thread's read-only connection."""
        connection: sqlite3.Connection | None = getattr(self._local, "connection", None)
        if connection is None:
            connection = connect(self.path, read_only=True)
            self._local.connection = connection
            with self._connections_lock:
                self._connections.append(connection)
        return connection

    def one(self, sql: str, parameters: dict[str, Any] | tuple[Any, ...] = ()) -> Row | None:
        """The first row or None, read on this thread."""
        return self.reader().execute(sql, parameters).fetchone()

    def all(self, sql: str, parameters: dict[str, Any] | tuple[Any, ...] = ()) -> list[Row]:
        """All rows of a bounded query, read on this thread."""
        return self.reader().execute(sql, parameters).fetchall()

    @contextmanager
    def snapshot(self) -> Generator[Rows]:
        """Several reads on this thread that see one and the same state."""
        with snapshot(self.reader()) as rows:
            yield rows

    async def read(self, work: Callable[[], T]) -> T:
        """Run reads off the event loop."""
        return await asyncio.get_running_loop().run_in_executor(self._readers, work)

    # Writes

    def submit(self, work: Callable[[Tx], T]) -> Future[T]:
        """Queue a write; the future resolves after COMMIT. `work` may run SQL and raise, nothing else."""
        write = _Write(work)
        with self._closing:
            try:
                if self._broken or self._closed:
                    raise queue.Full
                self._waiting.put_nowait(write)
            except queue.Full:
                write.future.set_exception(storage_error())
        return write.future

    def write(self, work: Callable[[Tx], T]) -> T:
        """Queue a write and wait for its COMMIT; raises what `work` raised."""
        return self.submit(work).result()

    async def write_async(self, work: Callable[[Tx], T]) -> T:
        """`write` for the event loop."""
        return await asyncio.wrap_future(self.submit(work))

    def _write_loop(self) -> None:
        while True:
            first = self._waiting.get()
            if first is None:
                return
            group = [first]
            stop = False
            while len(group) < GROUP_MAX and not stop:
                try:
                    following = self._waiting.get_nowait()
                except queue.Empty:
                    break
                if following is None:
                    stop = True
                else:
                    group.append(following)
            self._commit_group(group)
            if stop:
                return

    def _commit_group(self, group: list[_Write]) -> None:
        # From here on a write cannot be cancelled; one whose caller has gone already is not begun.
        group = [write for write in group if write.future.set_running_or_notify_cancel()]
        if self._broken:
            self._release(group, stored=False)
            return
        try:
            self._writer.execute("BEGIN IMMEDIATE")
            for write in group:
                self._run_one(write)
        except sqlite3.Error as error:
            # Nothing was committed, and SQLite may have rolled back by itself (disk full, I/O error).
            log.exception("a group of %d writes was rolled back", len(group))
            self._rollback()
            self._release(group, stored=False)
            if not isinstance(error, sqlite3.OperationalError):
                self._break(error)
            return
        try:
            self._writer.execute("COMMIT")
        except sqlite3.Error as error:
            log.exception("COMMIT failed: the outcome of %d writes is unknown", len(group))
            self._release(group, stored=False)
            self._break(error)
            return
        self._announce(group)
        self._release(group, stored=True)

    def _run_one(self, write: _Write) -> None:
        self._writer.execute("SAVEPOINT write")
        tx = Tx(self._writer, self._on_end)
        try:
            write.result = write.work(tx)
        except Exception as error:
            write.error = error
            if not self._writer.in_transaction:
                raise sqlite3.OperationalError("the transaction was rolled back by SQLite") from error
            self._writer.execute("ROLLBACK TO write")
        else:
            write.after_commit = tx.after_commit
        self._writer.execute("RELEASE write")

    def _announce(self, group: list[_Write]) -> None:
        for write in group:
            for callback in write.after_commit:
                try:
                    callback()
                except Exception:
                    log.exception("a callback after COMMIT failed")

    def _release(self, group: list[_Write], *, stored: bool) -> None:
        for write in group:
            if not stored:
                write.future.set_exception(storage_error())
            elif _is_storage(write.error):
                log.error("a write was undone", exc_info=write.error)
                write.future.set_exception(storage_error())
            elif write.error is not None:
                write.future.set_exception(write.error)
            else:
                write.future.set_result(write.result)

    def _rollback(self) -> None:
        if self._writer.in_transaction:
            try:
                self._writer.execute("ROLLBACK")
            except sqlite3.Error as error:
                self._break(error)

    def _break(self, error: BaseException) -> None:
        if not self._broken:
            self._broken = True
            if self._fatal is not None:
                self._fatal(error)

    def close(self) -> None:
        """Finish the queued writes and close every connection."""
        if self._closed:
            return
        with self._closing:
            self._closed = True
        self._waiting.put(None)
        self._thread.join(CLOSE_SECONDS)
        if self._thread.is_alive():
            # To close a connection that a thread is in ends the process; the file is safe either way.
            log.error("a write has not ended in %d s; the store is left as it is", CLOSE_SECONDS)
            return
        self._readers.shutdown(wait=True)
        with self._connections_lock:
            for connection in self._connections:
                connection.close()
        self._writer.close()
