"""How a command reaches the box: through the running service, else by taking the data folder's lock itself."""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Generator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, Final

import click
import httpx
import msgspec

from zsky_box import control, db, secretfile, settings, timeline, tls
from zsky_box.cli.command import CommandError
from zsky_box.clock import system_clock
from zsky_box.db import FILE_NAME, Rows, Store
from zsky_box.errors import StoreError
from zsky_box.instance_lock import InstanceLock
from zsky_box.migrations import VERSION
from zsky_box.periods import Calendar
from zsky_box.terms import Terms, open_terms

TIMEOUT_SECONDS: Final = 30.0
LOCK_SECONDS: Final = 5.0
CONTROL_HEADER: Final = "X-ZSky-Control"
NOT_RUNNING: Final = "The box is not running; start it with `zsky-box serve`."


class Session:
    """One command's way to the box in `folder`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._address = _address(folder)
        self._answered = False
        shown = self._address.certificate if self._address is not None else ""
        # No proxy from the environment: the box is on this machine.
        self._http = httpx.Client(
            timeout=TIMEOUT_SECONDS, trust_env=False, verify=tls.trusting(shown) if shown else True
        )
        if (command := click.get_current_context(silent=True)) is not None:
            command.call_on_close(self._http.close)

    @property
    def url(self) -> str | None:
        """The running service's address, or None."""
        return self._address.url if self._address is not None and self.is_running() else None

    def is_running(self) -> bool:
        """Whether the service that wrote `control.json` answers; after a crash another program may have its port."""
        if self._address is None:
            return False
        try:
            answer = self._http.get(f"{self._address.url}/healthz")
            self._answered = answer.is_success and answer.json()["status"] == "ok"
        except (httpx.HTTPError, ValueError, LookupError, TypeError):
            self._answered = False
        return self._answered

    def readiness(self) -> Any:
        """What the running service says of its devices, ready or not; raises httpx.HTTPError or ValueError."""
        return self._http.get(f"{self._running().url}/readyz").json()

    def request(self, method: str, path: str, **arguments: Any) -> Any:
        """One call to the running service as the owner; raises CommandError with the problem's own sentence."""
        address = self._running()
        try:
            answer = self._http.request(
                method, f"{address.url}{path}", headers={CONTROL_HEADER: address.token}, **arguments
            )
        except httpx.HTTPError as error:
            self._answered = False
            raise CommandError(f"The box at {address.url} does not answer any more ({error}).") from error
        return _told(answer)

    def download(self, url: str, sha256: str, target: Path) -> None:
        """Fetch a signed result into a file, whole or not at all."""
        address = self._running()
        path = httpx.URL(url).raw_path.decode()
        here = address.url + path[path.index("/files/") :]  # `public_url` may lead around by another machine
        part = target.with_name(f".{target.name}.part")
        digest = hashlib.sha256()
        try:
            with self._http.stream("GET", here) as answer, part.open("wb") as file:
                answer.raise_for_status()
                for chunk in answer.iter_bytes():
                    digest.update(chunk)
                    file.write(chunk)
            if digest.hexdigest() != sha256:
                raise OSError("it did not arrive as the box recorded it")
            part.replace(target)
        except (httpx.HTTPError, OSError) as error:
            part.unlink(missing_ok=True)
            reason = error.strerror or error if isinstance(error, OSError) else error
            raise CommandError(f"The result could not be saved as {target}: {reason}.") from error

    def control(self, command: control.Command) -> Any:
        """Through the service where it runs, else directly under the instance lock."""
        if self.is_running():
            return self.request("POST", "/control", content=msgspec.json.encode(command))
        configured = settings.load(self.folder)
        with open_store(self.folder) as store:
            with store.snapshot() as rows:
                terms, is_new = kept_terms(rows, configured), timeline.calendar(rows) is None
            if is_new and not isinstance(command, control.ListKeys | control.ListAccounts):
                # Before the first start: what is written now is of the months that all later ones follow.
                terms = open_terms(store, configured, system_clock())
            return control.run(command, control.Means(store, secretfile.load(self.folder), terms, system_clock))

    def _running(self) -> control.Address:
        if self._address is None or not (self._answered or self.is_running()):
            _require_box(self.folder)
            raise CommandError(NOT_RUNNING)
        return self._address


@contextmanager
def open_store(folder: Path, *, create: bool = False) -> Generator[Store]:
    """The store under the instance lock, for commands while the service is stopped; only `init` makes a new one."""
    if not create:
        _require_box(folder)
    lock = InstanceLock(folder)
    lock.acquire(LOCK_SECONDS)  # another command is done in a moment
    try:
        store = Store(folder)
        try:
            yield store
        finally:
            store.close()
    finally:
        lock.release()


@contextmanager
def open_reader(folder: Path) -> Generator[sqlite3.Connection]:
    """A connection that only reads the ledger, beside the running service or without one; nothing waits for it."""
    _require_box(folder)
    with closing(db.connect(folder / FILE_NAME, read_only=True)) as connection:
        version = connection.execute("PRAGMA user_version").fetchone()[0]
        if version != VERSION:
            raise CommandError(
                f"The ledger has schema {version}, this zsky-box reads {VERSION}: an older one is brought up to date by"
                " `zsky-box serve`, a newer one needs a newer zsky-box."
            )
        yield connection


def kept_terms(rows: Rows, configured: settings.Settings) -> Terms:
    """What the settings and the calendar on record say; where there is none yet, the settings' zone."""
    return Terms(configured, timeline.calendar(rows) or Calendar.of(configured.zone()))


def _require_box(folder: Path) -> None:
    if not (folder / FILE_NAME).exists():
        raise CommandError(f"There is no box in {folder}; run `zsky-box init` first, or name its folder with --data.")


def _address(folder: Path) -> control.Address | None:
    try:
        return msgspec.json.decode((folder / control.FILE_NAME).read_bytes(), type=control.Address)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, msgspec.DecodeError) as error:
        raise StoreError(f"{folder / control.FILE_NAME} cannot be read: {error}") from error


def _told(answer: httpx.Response) -> Any:
    try:
        body = answer.json()
    except ValueError:
        body = {}
    if answer.is_success:
        return body
    detail = body.get("detail") if isinstance(body, dict) else None
    raise CommandError(str(detail or f"The box answered {answer.status_code}."))
