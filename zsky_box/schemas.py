"""The API's bodies as msgspec structs, and a reader that reports every field error of a body at once."""

from __future__ import annotations

import difflib
from decimal import Decimal, InvalidOperation
from functools import cache
from typing import Annotated, Any, Final, Literal, TypeVar, get_args, get_origin

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType

from zsky_box.errors import FieldError, InvalidFields, Refusal
from zsky_box.events import Phase
from zsky_box.formats import AspectRatio, Resolution
from zsky_box.manifest import JobType

PROMPT_MAX: Final = 8_000
IMAGE_MAX: Final = 65 * 1024 * 1024  # a data URI of the most that the setting upload_max_bytes may be
SEED_MAX: Final = 2**53 - 10  # JavaScript holds integers exactly up to 2**53 - 1; a job's tenth image has seed + 9
DEADLINE_MAX_SECONDS: Final = 31 * 86_400
ERRORS_MAX: Final = 64
_SHOWN_MAX: Final = 64

Status = Literal["queued", "running", "completed", "failed"]
Prompt = Annotated[str, Meta(min_length=1, max_length=PROMPT_MAX, examples=["a neon night market in the rain"])]
MetadataKey = Annotated[str, Meta(min_length=1, max_length=64)]
MetadataValue = Annotated[str, Meta(max_length=512)]
DeadlineSeconds = Annotated[float, Meta(gt=0, le=DEADLINE_MAX_SECONDS)]

S = TypeVar("S", bound=Struct)


class GenerateBody(Struct, kw_only=True, forbid_unknown_fields=True):
    """One prompt, one job."""

    type: Annotated[JobType, Meta(description="What to make; a video has its sound in the same file.")]
    prompt: Annotated[Prompt, Meta(description="What is to be seen, and heard.")]
    model: Annotated[
        Annotated[str, Meta(min_length=1, max_length=64)] | None,
        Meta(description="One of `GET /v1/models`; else the default of the type, which the answer names."),
    ] = None
    negative_prompt: Annotated[
        Annotated[str, Meta(max_length=PROMPT_MAX)] | None,
        Meta(description="What is not to be seen, where the model can be told."),
    ] = None
    seed: Annotated[
        Annotated[int, Meta(ge=0, le=SEED_MAX)] | None,
        Meta(description="The same seed and request give the same result; drawn where it is absent, and always told."),
    ] = None
    aspect_ratio: Annotated[AspectRatio | None, Meta(description="Width to height; 16:9 where it is absent.")] = None
    resolution: Annotated[Resolution | None, Meta(description="1080p where it is absent.")] = None
    duration: Annotated[
        Annotated[float, Meta(gt=0, le=3_600)] | None,
        Meta(description="Seconds of a video; 5 where it is absent. The job says how long it is exactly."),
    ] = None
    fps: Annotated[Annotated[int, Meta(ge=1, le=240)] | None, Meta(description="Frames a second of a video.")] = None
    image: Annotated[
        Annotated[str, Meta(max_length=IMAGE_MAX)] | None,
        Meta(description="The picture to begin with: the id of an upload, or a data URI."),
    ] = None
    strength: Annotated[
        Annotated[float, Meta(ge=0, le=1)] | None,
        Meta(description="How far to go from that picture: 0 keeps it, 1 leaves it."),
    ] = None
    n: Annotated[
        Annotated[int, Meta(ge=1, le=10)] | None,
        Meta(description="So many images of one request; all are accepted or none."),
    ] = None
    webhook_url: Annotated[str, Meta(max_length=2048)] | None = None
    metadata: Annotated[
        Annotated[dict[MetadataKey, MetadataValue], Meta(max_length=16)] | None,
        Meta(description="Your own pairs of text: echoed, filtered by, and a column of statements."),
    ] = None
    priority: Annotated[
        Literal["interactive", "batch"] | None,
        Meta(description="`interactive` where it is absent; `batch` waits for it."),
    ] = None
    start_deadline: Annotated[
        DeadlineSeconds | None, Meta(description="Seconds within which it must begin; missed, it is free.")
    ] = None
    deadline: Annotated[
        DeadlineSeconds | None, Meta(description="Seconds within which it must be done; missed, it is free.")
    ] = None


class RerunBody(Struct, kw_only=True, forbid_unknown_fields=True):
    """There is nothing to change about a job that is run again: send another `generate` for that."""


# Given as text or as a number; what else it may not be is for the reader to say.
CapUsd = Annotated[
    Any,
    Meta(
        description="US dollars with at most two decimals, 5 to 1000, as text or as a number.",
        examples=["25.00"],
        extra_json_schema={
            "anyOf": [
                {"type": "string", "pattern": "^[0-9]{1,10}(\\.[0-9]{1,2})?$"},
                {"type": "number", "minimum": 5, "maximum": 1000},
            ]
        },
    ),
]


class ToggleBody(Struct, kw_only=True, forbid_unknown_fields=True):
    """Overage on or off; without `enabled` it is flipped."""

    enabled: bool | UnsetType = UNSET


class CapBody(Struct, kw_only=True, forbid_unknown_fields=True):
    """The spend cap a month; `cap` is another name of `cap_usd`, and one of both is given."""

    cap_usd: CapUsd = UNSET
    cap: CapUsd = UNSET


class Problem(Struct, kw_only=True):
    """RFC 9457 problem details: `code` is stable, `detail` says what to do."""

    type: str
    title: str
    status: int
    detail: str
    code: str
    request_id: str
    field: str | UnsetType = UNSET
    errors: list[FieldError] | UnsetType = UNSET


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


class UploadView(Struct, kw_only=True):
    """A picture for jobs to begin with, as it is stored: `id` is what `image` of a `generate` takes."""

    id: str
    object: Literal["upload"] = "upload"
    width: int
    height: int
    bytes: int
    created_at: str
    removed_at: str | UnsetType = UNSET


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


class LicenceView(Struct, kw_only=True):
    """Who may use a model's output."""

    name: str
    url: str
    terms: str


class VocabularyView(Struct, kw_only=True):
    """All that a model of a small world knows, by topic, and prompts that show it."""

    knows: dict[str, list[str]]
    examples: list[str]


class ModelView(Struct, kw_only=True):
    """One model of the catalogue. An `experimental` one runs where it is named, and is nobody's default; one without a
    `vocabulary` reads any words.
    """

    id: str
    object: Literal["model"] = "model"
    title: str
    makes: list[JobType]
    installed: bool
    resident: bool
    default_for: list[JobType]
    resolutions: list[Resolution]
    aspect_ratios: list[AspectRatio]
    fps: list[int]
    min_duration: float | None
    max_duration: float | None
    default_duration: float | None
    default_fps: int | None
    max_images: int
    negative_prompt: bool
    reference_image: bool
    strength: bool
    vocabulary: VocabularyView | None
    experimental: bool
    licence: LicenceView
    commercial_use: str
    revision: str


class ModelList(Struct, kw_only=True):
    """All models of the catalogue."""

    object: Literal["list"] = "list"
    data: list[ModelView]
    has_more: bool = False
    next_cursor: str | None = None


class UnitsView(Struct, kw_only=True):
    """Included units of this period."""

    granted: int
    used: int
    pending: int
    left: int


class PeriodView(Struct, kw_only=True):
    """`[start, end)` in RFC 3339, UTC."""

    start: str
    end: str


class PricesView(Struct, kw_only=True):
    """What one unit costs beyond the included ones."""

    video_usd: str
    image_usd: str


class OverageView(Struct, kw_only=True):
    """What is spent beyond the included units, and how much may be; money as decimal strings of US dollars."""

    enabled: bool
    cap_usd: str
    spend_usd: str
    pending_usd: str
    remaining_usd: str
    wallet_usd: str
    plan: str
    prices: PricesView
    included: dict[JobType, UnitsView]
    period: PeriodView


class QuoteView(Struct, kw_only=True):
    """What a `generate` of the same body would cost and meet now.

    `refusal` is the code that it would be refused with, `refusal_detail` its sentence; both are null where it would be
    accepted. `model` is null where there is none to ask. `notes` are what the job would begin with.
    """

    amount_usd: str
    included_units: int
    wallet_units: int
    would_accept: bool
    refusal: str | None
    refusal_detail: str | None
    model: str | None
    fits: bool
    eta_seconds: float | None
    notes: list[str]


class KeyView(Struct, kw_only=True):
    """The key that made the request, without its secret."""

    id: str
    name: str
    last_four: str
    scopes: list[str]


class MeView(Struct, kw_only=True):
    """Who the caller is, and what is left of the month."""

    account: str
    name: str
    plan: str
    test: bool
    key: KeyView
    included: dict[JobType, UnitsView]
    period: PeriodView


def read_json(body: bytes, *, exact: bool = False) -> Any:
    """Decode JSON; raises 400 `malformed_json` for everything that is none (NaN and unpaired surrogates included).

    `exact`: a number with a fraction or an exponent becomes a Decimal of its own text, where it is money.
    """
    try:
        return _EXACT.decode(body) if exact else msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, InvalidOperation) as error:
        raise malformed(
            f"The body is not JSON: {error}." if body else "The body is empty; send a JSON object."
        ) from error


def malformed(detail: str) -> Refusal:
    """400 for a body that cannot be read."""
    return Refusal(400, "malformed_json", detail)


def read_object(kind: type[S], value: Any) -> S:
    """Convert a decoded body into a struct; raises InvalidFields with all that is wrong, field by field.

    Of unknown fields only the first `ERRORS_MAX` are told: a body full of them must not cost seconds to refuse.
    """
    if not isinstance(value, dict):
        raise InvalidFields([FieldError("", "invalid_field", "The body must be a JSON object.")])
    fields = _fields(kind)
    errors: list[FieldError] = []
    read: dict[str, Any] = {}
    for name, given in value.items():
        if name not in fields:
            if len(errors) < ERRORS_MAX:
                errors.append(_unknown(name, list(fields)))
            continue
        try:
            read[fields[name].name] = msgspec.convert(given, fields[name].type)
        except msgspec.ValidationError as error:
            errors += _wrong(name, fields[name].type, given, str(error))
    errors += [
        FieldError(name, "invalid_field", f"{name} is required.")
        for name, field in fields.items()
        if field.required and name not in value
    ]
    if errors:
        raise InvalidFields(errors)
    return kind(**read)


_EXACT: Final = msgspec.json.Decoder(float_hook=Decimal)


@cache
def _fields(kind: type[Struct]) -> dict[str, msgspec.structs.FieldInfo]:
    """A struct's fields by their names in JSON; kept, because msgspec evaluates the annotations anew at each call."""
    return {field.encode_name: field for field in msgspec.structs.fields(kind)}


def _unknown(name: str, known: list[str]) -> FieldError:
    shown = _shown(name)
    close = difflib.get_close_matches(shown, known, n=1)
    others = f"known fields are {', '.join(known)}." if known else "this call takes none."
    hint = f"did you mean {close[0]!r}?" if close else others
    return FieldError(shown, "unknown_field", f"There is no field {shown!r}; {hint}")


def _wrong(name: str, kind: Any, given: Any, message: str) -> list[FieldError]:
    """What is wrong with one field; inside an object, every entry is asked, since msgspec tells only of the first."""
    if " - at `" not in message or not isinstance(given, dict):
        return [_told(name, kind, given, message)]
    errors: list[FieldError] = []
    for key, value in given.items():
        try:
            msgspec.convert({key: value}, kind)
        except msgspec.ValidationError as error:
            errors.append(_told(f"{name}.{_shown(key)}", kind, value, str(error)))
        if len(errors) == ERRORS_MAX:
            break
    return errors


def _told(path: str, kind: Any, given: Any, message: str) -> FieldError:
    """msgspec's message in plain words."""
    text = message.partition(" - at `")[0]
    if "key` in `$" in message:
        text = f"its name: {text[0].lower()}{text[1:]}"
    if text.startswith("Invalid enum value"):
        allowed = _literals(kind)
        text = f"{_shown(str(given))!r} is not one of {', '.join(allowed)}"
    for code, word in _WORDS.items():
        text = text.replace(f"`{code}`", word)
    text = text.replace(" | null", "").replace("`", "")
    return FieldError(path, "invalid_field", f"{path}: {text[0].lower()}{text[1:]}.")


def _shown(text: str) -> str:
    """A client's own text as a message repeats it."""
    return text if len(text) <= _SHOWN_MAX else f"{text[:_SHOWN_MAX]}…"


_WORDS: Final = {
    "str": "text",
    "str | null": "text",
    "int": "a whole number",
    "int | null": "a whole number",
    "float": "a number",
    "float | null": "a number",
    "bool": "true or false",
    "array": "a list",
    "object": "an object",
    "object | null": "an object",
    "null": "null",
}


def _literals(kind: Any) -> list[str]:
    """The words that a type names: as a literal, among alternatives, beneath what is annotated."""
    if get_origin(kind) is Literal:
        return [value for value in get_args(kind) if isinstance(value, str)]
    inner = get_args(kind)[:1] if get_origin(kind) is Annotated else get_args(kind)
    return [value for part in inner for value in _literals(part)]
