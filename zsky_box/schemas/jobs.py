"""Jobs as clients read them: what was accepted, how far it is, what came of it, and why it ran where it did."""

from __future__ import annotations

from typing import Literal

from msgspec import UNSET, Struct, UnsetType

from zsky_box.events import Phase
from zsky_box.manifest import JobType

Status = Literal["queued", "running", "completed", "failed"]


class ChargeView(Struct, kw_only=True):
    """What the job costs, and the ledger rows that say so."""

    units: int
    included_units: int
    wallet_units: int
    amount_usd: str
    state: Literal["reserved", "posted", "voided", "refunded"]
    ledger_ids: list[int]


class AudioView(Struct, kw_only=True):
    """The sound inside a video file."""

    sample_rate: int
    channels: int


class ResultView(Struct, kw_only=True):
    """One finished file."""

    url: str
    thumbnail_url: str | None
    mime: str
    bytes: int
    sha256: str
    width: int
    height: int
    seed: int
    upscaled_from: str | None = None
    duration: float | UnsetType = UNSET
    fps: int | UnsetType = UNSET
    frames: int | UnsetType = UNSET
    audio: AudioView | UnsetType = UNSET


class Receipt(Struct, kw_only=True):
    """What made the result."""

    model: str
    revision: str
    weights_sha256: str
    quantisation: str
    device: str
    versions: dict[str, str]
    licence: str
    commercial_use: str
    recipe: str = ""
    checks: list[str] = []


class JobView(Struct, kw_only=True, omit_defaults=False):
    """A job as `job_status` shows it; `result_url` is there when completed, `error` and `error_code` when failed."""

    job_id: str
    status: Status
    type: JobType
    model: str
    prompt: str
    progress: float
    phase: Phase
    queue_position: int | None
    eta_seconds: float | None
    created_at: str
    started_at: str | None
    finished_at: str | None
    seed: int
    n: int
    width: int
    height: int
    duration: float | None
    fps: int | None
    priority: Literal["interactive", "batch"]
    metadata: dict[str, str]
    notes: list[str]
    reference: str | None
    test: bool
    cancel_requested: bool
    charge: ChargeView
    receipt: Receipt | None
    removed_at: str | None
    result_url: str | UnsetType = UNSET
    result: ResultView | UnsetType = UNSET
    results: list[ResultView] | UnsetType = UNSET
    error: str | UnsetType = UNSET
    error_code: str | UnsetType = UNSET


class JobAccepted(Struct, kw_only=True):
    """The answer to a submit: poll `GET /v1/job_status/{job_id}`."""

    job_id: str
    status: Status
    type: JobType
    model: str
    seed: int
    n: int
    width: int
    height: int
    duration: float | None
    fps: int | None
    created_at: str
    test: bool
    notes: list[str]


class JobList(Struct, kw_only=True):
    """A page of jobs, newest first."""

    object: Literal["list"] = "list"
    data: list[JobView]
    has_more: bool
    next_cursor: str | None


class Decision(Struct, kw_only=True):
    """Where an attempt of a job ran, and why there and then."""

    at: str
    device: str
    why: str


class DecisionList(Struct, kw_only=True):
    """The decisions about a job, oldest first. `waits` is why no device takes jobs, or why a queued one was passed over
    when its turn last came.
    """

    object: Literal["list"] = "list"
    data: list[Decision]
    has_more: bool = False
    next_cursor: str | None = None
    waits: str | None = None
