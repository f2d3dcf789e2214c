"""The one tree of refusals and failures, each with its stable code; what they look like in HTTP is the API's affair.

ZskyError
├── Refusal            a request that is not done; carries the HTTP status, code, and what to do
│   ├── InvalidFields  all field errors of one body at once
│   └── PromptBlocked  the prompt policy does not take the prompt; carries the rule's name
├── JobFailure         the end of a job that did not succeed; carries the job's error_code
├── SettingsError      a setting that stops the start
├── ManifestError      a model manifest that is not loaded
├── InstallError       a model that is not installed, verified or removed; says what to do
├── BackupError        a backup that was not made, or does not read back
└── StoreError         the ledger's file: locked by another box, newer than the code, failed to commit
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Literal

ErrorCode = Literal[
    "internal_error",
    "gpu_timeout",
    "out_of_memory",
    "encode_failed",
    "storage_full",
    "safety_blocked",
    "cancelled",
    "deadline_exceeded",
]


class ZskyError(Exception):
    """Root of everything that this project raises on purpose."""


@dataclass
class FieldError:
    """One thing wrong in a request body: the field's path, a code, and a sentence that says what is allowed."""

    field: str
    code: str
    message: str


@dataclass(eq=False)
class Refusal(ZskyError):
    """A request that is refused; nothing was stored and nothing charged.

    `status` is the HTTP status, `code` the machine-readable name, `detail` a sentence that a person can act on.
    """

    status: int
    code: str
    detail: str
    field: str | None = None
    errors: list[FieldError] = dataclasses.field(default_factory=list[FieldError])
    headers: dict[str, str] = dataclasses.field(default_factory=dict[str, str])

    def __str__(self) -> str:
        return f"{self.code}: {self.detail}"


class InvalidFields(Refusal):
    """422 with every field error of the body; the first one gives the problem its code."""

    def __init__(self, errors: list[FieldError]) -> None:
        first = errors[0]
        more = len(errors) - 1
        rest = f" ({more} more: see errors)" if more else ""
        super().__init__(422, first.code, f"{first.message}{rest}", field=first.field, errors=errors)


class PromptBlocked(Refusal):
    """422 for a prompt that this box does not take; `rule` is the name of what refuses it. Never holds the prompt."""

    def __init__(self, rule: str, message: str) -> None:
        error = FieldError("prompt", "prompt_blocked", message)
        super().__init__(422, error.code, message, field=error.field, errors=[error])
        self.rule = rule


@dataclass(eq=False)
class JobFailure(ZskyError):
    """How a job ended without a result; `message` is the plain sentence that the client is shown."""

    error_code: ErrorCode
    message: str

    def __str__(self) -> str:
        return f"{self.error_code}: {self.message}"


class SettingsError(ZskyError):
    """A setting has an unknown name or a bad value; the message names it, the value, and what is allowed."""


class ManifestError(ZskyError):
    """A model manifest is refused; the message names file, key and reason."""


class InstallError(ZskyError):
    """A model could not be installed, verified or removed; the message says why, and what to do."""


class BackupError(ZskyError):
    """A backup was not made, or does not read back; the message says why."""


class StoreError(ZskyError):
    """The store cannot be opened or written; the message says what to do."""


def not_found(what: str) -> Refusal:
    """The same answer for what never was and for what is another account's: existence does not leak."""
    return Refusal(404, "not_found", f"There is no such {what}.")
