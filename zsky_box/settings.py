"""Settings: `zsky.toml` in the data folder, each overridable as `ZSKY_NAME` in the environment.

An unknown name or a bad value stops the start with the name, the value and what is allowed.
"""

from __future__ import annotations

import difflib
import os
import re
import tomllib
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Final
from zoneinfo import ZoneInfo

import msgspec
from msgspec import Meta, Struct

from zsky_box.errors import SettingsError
from zsky_box.settings_rules import PATTERNS, RULES, TERMS_MAX

CHECKOUT: Final = Path(__file__).resolve().parent.parent
FILE_NAME: Final = "zsky.toml"
_PREFIX: Final = "ZSKY_"
_NOT_SETTINGS: Final = frozenset({"ZSKY_DATA", "ZSKY_API_KEY"})
"""The data folder, and the key of the examples: whoever followed them may start the box from the same shell."""

_SHOWN_MAX: Final = 200

SECRETS: Final = frozenset({"metrics_token"})
"""Settings whose values are shown to nobody, not even where they are refused."""
HIDDEN: Final = "(hidden)"
_PASSWORD: Final = re.compile(r"//[^/@]*:[^/@]*@")
"""In an address, such as that of a mirror which wants one."""

Positive = Annotated[int, Meta(ge=1, le=10**9)]
Days = Annotated[int, Meta(ge=1, le=3_650)]
BYTES_MAX: Final = 2**62
"""Still a number of SQLite's."""
Bytes = Annotated[int, Meta(ge=0, le=BYTES_MAX)]
Seconds = Annotated[float, Meta(gt=0, le=31_536_000)]
RuleName = Annotated[str, Meta(min_length=1, max_length=64)]
Term = Annotated[str, Meta(min_length=1, max_length=100)]


class Settings(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Every setting with its default. Units stand last in the names; money is a decimal string in US dollars."""

    host: str = "127.0.0.1"
    port: Annotated[int, Meta(ge=1, le=65_535)] = 8420
    devices: str = "auto"
    public_url: str = ""
    allowed_hosts: str = ""
    trusted_proxies: str = ""
    tls_cert: str = ""
    tls_key: str = ""
    outputs: str = ""
    ffmpeg: str = ""
    hub_url: str = "https://huggingface.co"
    hub_token_file: str = ""
    timezone: str = "UTC"
    metrics_token: Annotated[str, Meta(pattern=r"^([!-~]{16,200})?$")] = ""
    log_level: Annotated[str, Meta(pattern="^(debug|info|warning|error)$")] = "info"

    card_reserve_bytes: Bytes = 1024**3
    host_memory_max_bytes: Bytes = 0
    pins: str = ""
    exclusions: str = ""
    quiet_hours: str = ""

    require_real_model: bool = False
    blocked_terms: dict[RuleName, Annotated[tuple[Term, ...], Meta(max_length=TERMS_MAX)]] = {}
    output_check: str = ""
    team_library: bool = False
    included_videos: Annotated[int, Meta(ge=0, le=10**9)] = 300
    included_images: Annotated[int, Meta(ge=0, le=10**9)] = 1000
    free_videos: Annotated[int, Meta(ge=0, le=10**9)] = 10
    free_images: Annotated[int, Meta(ge=0, le=10**9)] = 50
    video_usd: str = "0.50"
    image_usd: str = "0.05"
    plan_month_usd: str = "99.00"
    plan_year_usd: str = "948.00"
    low_wallet_usd: str = "5.00"

    queue_open_max: Positive = 10_000
    queue_open_per_account_max: Positive = 2_000
    test_queue_open_max: Positive = 100
    requests_per_second: Annotated[int, Meta(ge=1, le=100_000)] = 50
    requests_burst: Annotated[int, Meta(ge=1, le=10**6)] = 1_000
    body_max_bytes: Annotated[int, Meta(ge=1024, le=64 * 1024 * 1024)] = 1024 * 1024
    upload_max_bytes: Annotated[int, Meta(ge=1024, le=48 * 1024 * 1024)] = 32 * 1024 * 1024
    upload_max_pixels: Annotated[int, Meta(ge=1024, le=40_000_000)] = 40_000_000
    unused_uploads_max: Positive = 1_000
    unused_uploads_max_bytes: Annotated[int, Meta(ge=1, le=BYTES_MAX)] = 4 * 1024**3
    unused_upload_days: Days = 30
    free_space_floor_bytes: Bytes = 1024**3
    result_url_hours: Annotated[int, Meta(ge=1, le=24 * 365)] = 24
    streams_per_key_max: Positive = 20
    streams_per_account_max: Positive = 200
    streams_max: Positive = 1_000
    idempotency_days: Days = 7
    session_idle_days: Days = 14
    session_days: Days = 90
    backups_kept: Annotated[int, Meta(ge=1, le=1_000)] = 14

    attempts_max: Annotated[int, Meta(ge=1, le=10)] = 3
    drain_seconds: Seconds = 30.0
    previews: bool = True
    preview_every_steps: Annotated[int, Meta(ge=1, le=1_000)] = 2
    job_timeout_seconds: Seconds = 3_600.0
    worker_start_timeout_seconds: Seconds = 120.0
    worker_silence_timeout_seconds: Seconds = 60.0
    worker_cancel_timeout_seconds: Seconds = 30.0
    worker_restarts_max: Positive = 5
    worker_restart_window_seconds: Seconds = 300.0

    def local_url(self) -> str:
        """Where this machine reaches the service; without a final slash."""
        # A socket that is bound to every address is reached by loopback.
        return self.url_at({"0.0.0.0": "127.0.0.1", "::": "::1"}.get(self.host, self.host))  # noqa: S104 - compared

    def url_at(self, host: str) -> str:
        """The service's address where it is called by this host; without a final slash."""
        scheme = "https" if self.tls_cert else "http"
        return f"{scheme}://{f'[{host}]' if ':' in host else host}:{self.port}"

    def zone(self) -> ZoneInfo:
        """The box's calendar zone; checked when the settings are read."""
        return ZoneInfo(self.timezone)


def data_dir(option: str | None, environ: Mapping[str, str] = os.environ) -> Path:
    """`--data`, else ZSKY_DATA, else `data/` of the checkout, else the user's data directory."""
    named = option or environ.get("ZSKY_DATA")
    if named:
        return Path(named).expanduser().resolve()
    if (CHECKOUT / "pyproject.toml").is_file() and os.access(CHECKOUT, os.W_OK):
        return CHECKOUT / "data"
    home = environ.get("XDG_DATA_HOME") or str(Path.home() / ".local" / "share")
    return Path(home) / "zsky-box"


def load(folder: Path, environ: Mapping[str, str] = os.environ, **options: Any) -> Settings:
    """Merge file, environment and command-line options, in that order; raises SettingsError for the first bad one."""
    return merge(folder, read_file(folder), environ, **options)


def read_file(folder: Path) -> dict[str, Any]:
    """What `zsky.toml` says, unchecked; nothing where there is none. Raises SettingsError for what is no TOML."""
    path = folder / FILE_NAME
    if not path.is_file():
        return {}
    try:
        return tomllib.loads(path.read_text("utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(f"{path}: {error}") from error


def merge(folder: Path, in_file: Mapping[str, Any], environ: Mapping[str, str], **options: Any) -> Settings:
    """The settings that a file of such values would give; raises SettingsError for the first bad one."""
    values = dict(in_file)
    sources = {name: f"{name} in {folder / FILE_NAME}" for name in values}
    for variable, text in sorted(environ.items()):
        if variable.startswith(_PREFIX) and variable not in _NOT_SETTINGS:
            name = variable.removeprefix(_PREFIX).lower()
            values[name], sources[name] = text, variable
    for name, value in options.items():
        if value is not None:
            values[name], sources[name] = value, f"--{name.replace('_', '-')}"
    return _checked(values, sources)


def variable(name: str) -> str:
    """The variable of the environment that gives a setting."""
    return f"{_PREFIX}{name.upper()}"


def converted(name: str, text: str) -> Any:
    """What a person has written for a setting, as its kind; raises SettingsError."""
    kind = next((field.type for field in msgspec.structs.fields(Settings) if field.encode_name == name), None)
    if kind is None:
        raise SettingsError(f"there is no setting {name!r}")
    try:
        return _converted(text, kind)
    except msgspec.DecodeError as error:
        raise SettingsError(f"{name} = {_shown(name, text)}: {_allowed(name, kind, error)}") from error


def _checked(values: dict[str, Any], sources: dict[str, str]) -> Settings:
    fields = {field.encode_name: field for field in msgspec.structs.fields(Settings)}
    checked: dict[str, Any] = {}
    for name, value in values.items():
        if name not in fields:
            close = difflib.get_close_matches(name, fields, n=1)
            hint = f"did you mean {close[0]}?" if close else f"known settings: {', '.join(fields)}"
            raise SettingsError(f"{sources[name]}: there is no setting {name!r}; {hint}")
        try:
            checked[name] = _converted(value, fields[name].type)
        except msgspec.DecodeError as error:
            allowed = _allowed(name, fields[name].type, error)
            raise SettingsError(f"{sources[name]} = {_shown(name, value)}: {allowed}") from error
    settings = Settings(**checked)
    for name, check, allowed in RULES:
        if not check(getattr(settings, name)):
            source = sources.get(name, name)
            raise SettingsError(f"{source} = {_shown(name, getattr(settings, name))}: allowed is {allowed}")
    if bool(settings.tls_cert) != bool(settings.tls_key):
        given = "tls_cert" if settings.tls_cert else "tls_key"
        raise SettingsError(f"{sources[given]}: allowed is both tls_cert and tls_key, or neither")
    return settings


def _converted(value: Any, kind: Any) -> Any:
    """A value of the file as it is; text of the environment or an option as what it stands for, a table as JSON."""
    if isinstance(value, str) and typing.get_origin(kind) is dict:
        return msgspec.json.decode(value, type=kind)
    return msgspec.convert(value, kind, strict=not isinstance(value, str))


def _allowed(name: str, kind: Any, error: msgspec.DecodeError) -> str:
    """What a setting may be, for whoever wrote something else."""
    match msgspec.inspect.type_info(kind):
        case msgspec.inspect.BoolType():
            return "allowed is true or false"
        case msgspec.inspect.IntType(ge=least, le=most):
            return f"allowed is a whole number from {least} to {most}"
        case msgspec.inspect.FloatType(le=most) if most is not None:
            return f"allowed is a number above 0, up to {most:g}"
        case msgspec.inspect.StrType(pattern=pattern) if pattern:
            return f"allowed is {PATTERNS[name]}"
        case _:
            return str(error)


def _shown(name: str, value: Any) -> str:
    text = repr(value)
    if name in SECRETS or _PASSWORD.search(text):
        return HIDDEN
    return text if len(text) <= _SHOWN_MAX else f"{text[:_SHOWN_MAX]}…"
