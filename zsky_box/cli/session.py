"""How a command reaches the box: through the running service, else by taking the data folder's lock itself."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import httpx
import msgspec

from zsky_box import accounts, control, secretfile
from zsky_box.clock import system_clock
from zsky_box.db import InstanceLock, Store
from zsky_box.errors import StoreError, ZskyError

TIMEOUT_SECONDS: Final = 30.0
CONTROL_HEADER: Final = "X-ZSky-Control"


class CommandError(ZskyError):
    """A command that could not be carried out; its message is the one sentence that the person reads."""


class Session:
    """One command's way to the box in `folder`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._address = _address(folder)
        # No proxy from the environment: the box is on this machine.
        self._http = httpx.Client(timeout=TIMEOUT_SECONDS, trust_env=False)

    @property
    def url(self) -> str | None:
        """The running service's address, or None."""
        return self._address.url if self._address is not None and self.is_running() else None

    def is_running(self) -> bool:
        """Whether the service that wrote `control.json` answers."""
        if self._address is None:
            return False
        try:
            return self._http.get(f"{self._address.url}/healthz").is_success
        except httpx.HTTPError:
            return False

    def request(self, method: str, path: str, **arguments: Any) -> Any:
        """One call to the running service as the owner; raises CommandError with the problem's own sentence."""
        address = self._running()
        try:
            answer = self._http.request(
                method, f"{address.url}{path}", headers={CONTROL_HEADER: address.token}, **arguments
            )
        except httpx.HTTPError as error:
            raise CommandError(f"The box at {address.url} did not answer ({error}).") from error
        return _told(answer)

    def download(self, url: str, target: Path) -> None:
        """Fetch a signed result into a file, whole or not at all."""
        address = self._running()
        parts = httpx.URL(url)
        part = target.with_name(f".{target.name}.part")
        try:
            with (
                self._http.stream("GET", f"{address.url}{parts.raw_path.decode()}") as answer,
                part.open("wb") as file,
            ):
                answer.raise_for_status()
                for chunk in answer.iter_bytes():
                    file.write(chunk)
        except (httpx.HTTPError, OSError) as error:
            part.unlink(missing_ok=True)
            raise CommandError(f"The result could not be saved as {target}: {error}.") from error
        part.replace(target)

    def control(self, command: control.Command) -> Any:
        """Through the service where it runs, else directly under the instance lock."""
        if self.is_running():
            return self.request("POST", "/control", content=msgspec.json.encode(command))
        with open_store(self.folder) as store:
            owner = accounts.owner(store)
            if owner is None:
                raise CommandError("There is no box here yet; run `zsky-box init` first.")
            return control.run(command, store, secretfile.load(self.folder), owner, system_clock)

    def _running(self) -> control.Address:
        if self._address is None or not self.is_running():
            raise CommandError("The box is not running; start it with `zsky-box serve`.")
        return self._address


@contextmanager
def open_store(folder: Path) -> Generator[Store]:
    """The store under the instance lock, for commands while the service is stopped."""
    if not folder.is_dir():
        raise CommandError(f"There is no box in {folder}; run `zsky-box init` first, or name its folder with --data.")
    lock = InstanceLock(folder)
    lock.acquire()
    try:
        store = Store(folder)
        try:
            yield store
        finally:
            store.close()
    finally:
        lock.release()


def _address(folder: Path) -> control.Address | None:
    try:
        return msgspec.json.decode((folder / control.FILE_NAME).read_bytes(), type=control.Address)
    except FileNotFoundError:
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
    raise CommandError(str(body.get("detail") or f"The box answered {answer.status_code}."))
