"""`zsky.toml` as the owner changes it in the browser: checked as a start would, then written whole, and on record.

What is written takes effect at the next start. The file is read anew each time, as a person may edit it by hand too.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final, Literal

import msgspec
import tomli_w
from msgspec import Struct

from zsky_box import audit, secretfile, settings, timeline
from zsky_box.clock import Clock
from zsky_box.db import Store, Tx
from zsky_box.errors import Refusal, SettingsError
from zsky_box.settings import FILE_NAME, HIDDEN, SECRETS, Settings

Origin = Literal["default", "zsky.toml", "environment", "command line"]
Check = Callable[[Settings], None]
"""What a start would find wrong beyond the values themselves; raises SettingsError."""

BY_HAND: Final = frozenset({"ffmpeg", "hub_url", "hub_token_file", "trusted_proxies"})
"""A program that is run, a file that is sent, where to, and whom to believe where a request comes from: who has taken a
browser's session has not the machine.
"""
BEFORE: Final = f"{FILE_NAME}.before"
TEXT_MAX: Final = 200_000


class Setting(Struct, frozen=True, kw_only=True):
    """One setting: the `value` that the box runs with and where it is from; `coming` is of the next start.

    `coming` equals `value` where the next start changes nothing, or cannot be told.
    """

    name: str
    value: Any
    default: Any
    origin: Origin
    coming: Any
    in_file: bool

    @property
    def is_secret(self) -> bool:
        """Whether its value is shown to nobody."""
        return self.name in SECRETS

    @property
    def is_by_hand(self) -> bool:
        """Whether only an editor on this machine changes it."""
        return self.name in BY_HAND

    @property
    def waits(self) -> bool:
        """Whether the next start brings another value."""
        return self.coming != self.value


class SettingsFile:
    """The settings of a running box and the file behind them; `environ` is the service's."""

    def __init__(
        self, folder: Path, running: Settings, store: Store, clock: Clock, environ: Mapping[str, str] = os.environ
    ) -> None:
        self._folder = folder
        self._running = running
        self._store = store
        self._clock = clock
        self._environ = environ
        self._lock = threading.Lock()
        self._origins = self._found_origins()

    def all(self) -> tuple[list[Setting], str]:
        """Every setting in its order, and what is wrong with the file as it stands: "" where the box starts with it."""
        wrong, in_file, coming = "", dict[str, Any](), self._running
        try:
            in_file = settings.read_file(self._folder)
            coming = self._merged(in_file)
        except SettingsError as error:
            wrong = str(error)
        default = Settings()
        found: list[Setting] = []
        for field in msgspec.structs.fields(Settings):
            name, origin = field.name, self._origins[field.name]
            value = getattr(self._running, name)
            found.append(
                Setting(
                    name=name,
                    value=value,
                    default=getattr(default, name),
                    origin=origin,
                    coming=getattr(coming, name),
                    in_file=name in in_file,
                )
            )
        return found, wrong

    def comments(self) -> int:
        """How many lines of the file are a person's comments, which writing it does not keep."""
        try:
            text = (self._folder / FILE_NAME).read_text("utf-8")
        except (OSError, UnicodeDecodeError):
            return 0
        return sum(line.lstrip().startswith("#") for line in text.splitlines())

    def change(self, name: str, text: str | None, check: Check, actor: str) -> None:
        """Write a setting as a person gives it; None takes it out of the file, which leaves the default.

        Raises 422 with what is allowed, and where the environment or the command line says otherwise anyway: then the
        file is as it was.
        """
        if name not in self._origins:
            raise Refusal(404, "not_found", f"There is no setting {name[:100]!r}.")
        if self._origins[name] in ("environment", "command line"):
            detail = f"{name} is given by the {self._origins[name]}, which wins over zsky.toml."
            raise Refusal(422, "invalid_field", detail, field="name")
        if name in BY_HAND:
            detail = f"{name} is changed in zsky.toml by hand, on this machine: the box runs or trusts what it names."
            raise Refusal(422, "invalid_field", detail, field="name")
        with self._lock:
            try:
                before = settings.read_file(self._folder)
                after = {key: value for key, value in before.items() if key != name}
                if text is not None:
                    after[name] = msgspec.to_builtins(settings.converted(name, text))
                if after == before:
                    return
                check(self._merged(after))
            except SettingsError as error:
                # Who reads it has written no file.
                told = str(error).replace(f" in {self._folder / FILE_NAME}", "")[:1_000]
                raise Refusal(422, "invalid_field", f"{told}.", field=name) from error
            self._write(after)
        self._store.write(lambda tx: self._record(tx, actor, name, before, after))

    def _merged(self, in_file: dict[str, Any]) -> Settings:
        """What a start with this file would run with, given the same environment and options as this one."""
        options = {name: getattr(self._running, name) for name, of in self._origins.items() if of == "command line"}
        return settings.merge(self._folder, in_file, self._environ, **options)

    def _write(self, values: dict[str, Any]) -> None:
        path = self._folder / FILE_NAME
        if path.is_file():
            secretfile.write_private(self._folder / BEFORE, path.read_bytes())
        secretfile.write_private(path, tomli_w.dumps(values).encode())

    def _record(self, tx: Tx, actor: str, name: str, before: dict[str, Any], after: dict[str, Any]) -> None:
        default = getattr(Settings(), name)

        def told(values: dict[str, Any]) -> dict[str, Any]:
            return {name: HIDDEN if name in SECRETS and values.get(name) else values.get(name, default)}

        at = timeline.advance_anyhow(tx, self._clock())
        audit.append(
            tx,
            at=at,
            account_id=None,
            actor=actor,
            action="settings.changed",
            subject=name,
            before=told(before),
            after=told(after),
        )

    def _found_origins(self) -> dict[str, Origin]:
        """At the start, when the file is what the box was started with."""
        in_file = settings.read_file(self._folder)
        without_options = settings.merge(self._folder, in_file, self._environ)
        found: dict[str, Origin] = {}
        for field in msgspec.structs.fields(Settings):
            name = field.name
            if getattr(self._running, name) != getattr(without_options, name):
                found[name] = "command line"
            elif settings.variable(name) in self._environ:
                found[name] = "environment"
            else:
                found[name] = "zsky.toml" if name in in_file else "default"
        return found
