"""What the service does with models beside serving them: installing, verifying, removing. One errand at a time.

Installing and verifying are the terminal's own commands in a child process that ends with the service: what they read,
hash and quantise never holds the service up. An installation that was interrupted goes on with the same errand.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from typing import IO, Any, Final, Literal

import msgspec
from msgspec import Struct, field

from zsky_box import audit, timeline
from zsky_box.catalog import Catalog
from zsky_box.clock import Clock
from zsky_box.db import Store, Tx
from zsky_box.errors import InstallError, Refusal
from zsky_box.install.removing import remove
from zsky_box.install.staging import Staging
from zsky_box.install.stock import folder_bytes
from zsky_box.jobs import waiting
from zsky_box.manifest import ModelSpec
from zsky_box.settings import Settings
from zsky_box.worker_process import obituary

ENTRY: Final = "zsky_box.cli.attended"
LINE_BYTES_MAX: Final = 4 * 1024 * 1024
LINES_MAX: Final = 10_000_000
NOTES_MAX: Final = 20
FINDINGS_MAX: Final = 200
TOLD_BYTES_MAX: Final = 8 * 1024
GRACE_SECONDS: Final = 10.0
"""After a cancel, before the child is ended by force: it closes the file that it is writing to."""

Kind = Literal["install", "verify"]
State = Literal["running", "cancelling", "done", "failed", "cancelled"]

# Settings that decide what is installed and from where: the child counts with those of the service.
_SHARED: Final = (
    "card_reserve_bytes",
    "devices",
    "free_space_floor_bytes",
    "host_memory_max_bytes",
    "hub_token_file",
    "hub_url",
    "output_check",
)


class Order(Struct, frozen=True, kw_only=True):
    """How a model is to be installed; as the command's options of these names."""

    recipe: str = ""
    keep_full: bool = False
    anyway: bool = False
    again: bool = False


class Finding(Struct, frozen=True):
    """A file of a model that is not as it was installed."""

    path: str
    fault: str


class Errand(Struct, kw_only=True):
    """One errand, now or as it ended: `done` of `of` bytes (or parts) of its `phase`; `told` is its last sentence."""

    kind: Kind
    model: str
    begun_at: int
    state: State = "running"
    phase: str = ""
    done: int = 0
    of: int = 0
    notes: list[str] = field(default_factory=list[str])
    findings: list[Finding] = field(default_factory=list[Finding])
    told: str = ""
    ended_at: int | None = None

    @property
    def is_open(self) -> bool:
        """Whether it still goes on."""
        return self.state in ("running", "cancelling")


class Errands:
    """The errands of a running box. Everything public may be called from any thread that may write."""

    def __init__(self, store: Store, catalog: Catalog, settings: Settings, clock: Clock, entry: str = ENTRY) -> None:
        self._store = store
        self._catalog = catalog
        self._settings = settings
        self._clock = clock
        self._entry = entry
        self._lock = threading.Lock()
        self._errand: Errand | None = None
        self._child: subprocess.Popen[bytes] | None = None
        self._thread: threading.Thread | None = None
        self._closed = False

    def last(self) -> Errand | None:
        """The errand that goes on, or the one that ended last since the start; a copy."""
        with self._lock:
            return None if self._errand is None else msgspec.structs.replace(self._errand)

    def unfinished_bytes(self, name: str) -> int | None:
        """What is here of an installation that was interrupted, or None where there is none."""
        staging = Staging(self._catalog.weights, name)
        return None if staging.pinned() is None else folder_bytes(staging.tree)

    def install(self, name: str, order: Order, *, accepted: bool, actor: str) -> None:
        """Begin to install, or go on. The licence that was accepted is on record before anything is fetched.

        Raises 404, 422 where the licence is not accepted or there is nothing to install, and 409 `model_busy`.
        """
        spec = self._known(name)
        if spec.bundled or not spec.repository:
            raise Refusal(422, "invalid_field", f"{name} has no repository to be installed from.", field="model")
        if not accepted:
            raise Refusal(
                422, "invalid_field", f"Read the licence of {spec.title}, and accept it first.", field="accept_licence"
            )
        if order.recipe and order.recipe not in {recipe.name for recipe in spec.ways}:
            raise Refusal(422, "invalid_field", f"{name} has no recipe {order.recipe!r}.", field="recipe")
        options = ["--accept-licence", "--json"]
        options += [f"--{flag.replace('_', '-')}" for flag in ("keep_full", "anyway", "again") if getattr(order, flag)]
        options += ["--recipe", order.recipe] if order.recipe else []
        self._begin("install", name, options, lambda: self._record_licence(spec, actor))

    def verify(self, name: str) -> None:
        """Begin to compare all files with what was installed. Raises 404 and 409 `model_busy`."""
        spec = self._known(name)
        if spec.bundled or self._catalog.installed(spec) is None:
            raise Refusal(422, "invalid_field", f"{name} is not installed, so there is nothing to verify.")
        self._begin("verify", name, ["--json"], lambda: None)

    def cancel(self) -> None:
        """Stop the errand that goes on; what has arrived is kept. Nothing where there is none."""
        with self._lock:
            errand, child = self._errand, self._child
            if errand is None or errand.state != "running":
                return
            errand.state = "cancelling"
            if child is None:
                return  # it is about to begin, and will not
            child.send_signal(signal.SIGINT)
            force = threading.Timer(GRACE_SECONDS, _end_group, (child,))
            force.daemon = True
            force.start()

    def remove(self, name: str, *, actor: str) -> None:
        """Take a model's files away, on record. Raises 409 `model_busy` where it is needed, or an errand is at it."""
        with self._lock:
            if self._errand is not None and self._errand.is_open and self._errand.model == name:
                raise _busy(self._errand)
        try:
            remove(self._catalog, name, self._settings.output_check, lambda: waiting.open_of_model(self._store, name))
        except InstallError as error:
            raise Refusal(409, "model_busy", str(error)) from error
        self._store.write(lambda tx: self._record(tx, "model.removed", actor, name, {}))

    def close(self) -> None:
        """End what goes on, at once: it is gone on with when it is asked for again."""
        with self._lock:
            self._closed = True
            child, thread = self._child, self._thread
        if child is not None:
            _end_group(child)
        if thread is not None:
            thread.join(GRACE_SECONDS)

    # One errand

    def _begin(self, kind: Kind, name: str, options: list[str], before: Callable[[], None]) -> None:
        with self._lock:
            if self._closed:
                raise Refusal(503, "draining", "The box is stopping.", headers={"Retry-After": "10"})
            if self._errand is not None and self._errand.is_open:
                raise _busy(self._errand)
            before()
            self._errand = Errand(kind=kind, model=name, begun_at=self._clock())
            self._thread = threading.Thread(
                target=self._attend, args=(self._errand, [kind, name, *options]), name="errand", daemon=True
            )
            self._thread.start()

    def _attend(self, errand: Errand, command: list[str]) -> None:
        try:
            with tempfile.TemporaryFile() as said:
                status = self._run(errand, command, said)
                said.seek(max(0, said.seek(0, os.SEEK_END) - TOLD_BYTES_MAX))
                last = said.read(TOLD_BYTES_MAX).decode("utf-8", "replace").strip().rpartition("\n")[2]
        except OSError as error:
            status, last = 1, f"The errand could not be run: {error.strerror}."
        with self._lock:
            self._child = None
            errand.ended_at = self._clock()
            if status == 0 or errand.findings:
                errand.state = "done"  # a verification that found something has done what it should
            elif errand.state == "cancelling":
                errand.state, errand.told = "cancelled", "Cancelled. What has arrived is kept, and is gone on with."
            else:
                errand.state = "failed"
                errand.told = errand.told or last.removeprefix("zsky-box: ") or f"Its process {obituary(status)[0]}."

    def _run(self, errand: Errand, command: list[str], said: IO[bytes]) -> int:
        inside, lifeline = os.pipe()
        try:
            with self._lock:
                if self._closed or errand.state != "running":
                    return 1
                # -P: a torch.py in the current folder is not imported.
                child = self._child = subprocess.Popen(
                    [sys.executable, "-P", "-m", self._entry, str(inside), "models", *command],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.PIPE,
                    stderr=said,
                    env=self._environment(),
                    pass_fds=(inside,),
                    start_new_session=True,
                )
            if child.stdout is not None:
                with child.stdout as lines:
                    for _ in range(LINES_MAX):
                        line = lines.readline(LINE_BYTES_MAX)
                        if not line:
                            break
                        self._hear(errand, line)
            return child.wait()
        finally:
            os.close(inside)
            os.close(lifeline)

    def _hear(self, errand: Errand, line: bytes) -> None:
        try:
            told: dict[str, Any] = json.loads(line)
        except ValueError:
            return  # a library that prints
        with self._lock:
            match told.get("event"):
                case "progress":
                    errand.phase, errand.done, errand.of = told["phase"], told["done"], told["of"]
                case "note":
                    errand.notes = [*errand.notes, str(told["note"])][-NOTES_MAX:]
                case "installed":
                    errand.told = f"{errand.model} is installed." if told["fresh"] else "It was installed already."
                case _ if "models" in told:
                    found = [Finding(**one) for model in told["models"] for one in model["findings"]]
                    errand.findings = found[:FINDINGS_MAX]
                    errand.told = (
                        f"{len(found)} files are not as installed." if found else "All files are as installed."
                    )
                case _:
                    pass

    def _environment(self) -> dict[str, str]:
        shared = {f"ZSKY_{name.upper()}": str(getattr(self._settings, name)) for name in _SHARED}
        return {**os.environ, **shared, "ZSKY_DATA": str(self._store.path.parent), "NO_COLOR": "1"}

    # What it needs to know, and what it puts on record

    def _known(self, name: str) -> ModelSpec:
        spec = self._catalog.specs.get(name)
        if spec is None:
            raise Refusal(404, "not_found", f"There is no model {name!r} in the catalogue.")
        return spec

    def _record_licence(self, spec: ModelSpec, actor: str) -> None:
        licence = {"name": spec.licence.name, "url": spec.licence.url, "commercial_use": spec.licence.commercial_use}
        self._store.write(lambda tx: self._record(tx, "licence.accepted", actor, spec.name, licence))

    def _record(self, tx: Tx, action: str, actor: str, model: str, after: dict[str, Any]) -> None:
        at = timeline.advance_anyhow(tx, self._clock())
        audit.append(tx, at=at, account_id=None, actor=actor, action=action, subject=model, after=after)


def _busy(errand: Errand) -> Refusal:
    doing = "installed" if errand.kind == "install" else "verified"
    return Refusal(409, "model_busy", f"{errand.model} is being {doing}; let it end, or cancel it.")


def _end_group(child: subprocess.Popen[bytes]) -> None:
    """The child and what it started; until it is waited for, its number is no other process group's."""
    if child.poll() is None:
        os.killpg(child.pid, signal.SIGKILL)
