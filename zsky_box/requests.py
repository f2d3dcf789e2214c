"""A request's body becomes what is to be made: model, size, frames and seed. Pure, but for a drawn seed.

Nothing is silently ignored: what the model cannot do is refused here, with what it can do.
"""

from __future__ import annotations

import re
import secrets
import unicodedata
from typing import Final, Protocol

from msgspec import Struct

from zsky_box.catalog import Catalog
from zsky_box.errors import FieldError, InvalidFields, Refusal
from zsky_box.formats import frame_count, output_size, size_names
from zsky_box.manifest import JobType, ModelSpec
from zsky_box.picture import DATA_URI
from zsky_box.schemas import GenerateBody
from zsky_box.vocabulary import notes_on

DEFAULT_STRENGTH: Final = 0.6
"""Where the model can be told how far to go from a picture (0 keeps it, 1 leaves it) and the request does not say."""
UPLOAD_ID: Final = re.compile(r"up_[0-9a-hjkmnp-tv-z]{26}")
TEST_MODEL: Final = "leader"
TEST_PROMPTS: Final = frozenset({"test:fail", "test:safety", "test:cap", "test:slow"})
"""What test keys may ask for to see the ends of jobs; they are not read as prompts."""
_DRAWN_SEED_BITS: Final = 32


class Work(Struct, frozen=True, kw_only=True):
    """Everything that decides the pixels: the same Work gives the same result. Kept with the job as JSON."""

    type: JobType
    model: str
    prompt: str
    negative_prompt: str
    seed: int
    n: int
    width: int
    height: int
    frames: int
    fps: int
    wordmarked: int = 0
    """So many of its first results bear the wordmark: what a free plan's units paid for."""
    reference: str = ""
    """The id of the upload that it begins with, or empty."""
    strength: float | None = None

    @property
    def duration_seconds(self) -> float:
        """The exact length; 0 for stills."""
        return self.frames / self.fps if self.fps else 0.0


class Submission(Struct, frozen=True, kw_only=True):
    """A Work with the circumstances of one submit."""

    work: Work
    metadata: dict[str, str]
    notes: tuple[str, ...]
    batch: bool
    start_deadline_seconds: float | None
    deadline_seconds: float | None


class HasRoom(Protocol):
    """Says why no device of the box can ever do a work, with what would fit; None where one can."""

    def __call__(self, spec: ModelSpec, work: Work) -> str | None: ...


def resolve(
    body: GenerateBody, catalog: Catalog, *, test: bool, require_real_model: bool, no_room: HasRoom | None = None
) -> Submission:
    """Raises InvalidFields with everything that is wrong, or a Refusal when there is no model to ask."""
    errors = _text_errors(body)
    if body.webhook_url is not None:
        errors.append(
            FieldError("webhook_url", "invalid_field", "webhook_url: this box does not deliver webhooks yet.")
        )
    try:
        spec, notes = _model(body, catalog, test=test, require_real_model=require_real_model)
    except InvalidFields as refusal:
        raise InvalidFields(errors + refusal.errors) from refusal
    errors += _unsupported(body, spec)
    if errors:
        raise InvalidFields(errors)
    work = _work(body, spec)
    if no_room is not None and (reason := no_room(spec, work)):
        raise InvalidFields([FieldError("resolution", "unsupported_for_model", f"resolution: {spec.name} {reason}.")])
    return Submission(
        work=work,
        metadata=body.metadata or {},
        notes=tuple(notes),
        batch=body.priority == "batch",
        start_deadline_seconds=body.start_deadline,
        deadline_seconds=body.deadline,
    )


def asked_again(submission: Submission, spec: ModelSpec | None) -> GenerateBody:
    """The body that asks for the same pixels again, in the names and round figures that a person would choose.

    `spec` is the work's model, where the box still knows it.
    """
    work = submission.work
    named = size_names(work.width, work.height)
    return GenerateBody(
        type=work.type,
        prompt=work.prompt,
        model=work.model,
        negative_prompt=work.negative_prompt or None,
        seed=work.seed,
        resolution=named[0] if named else None,
        aspect_ratio=named[1] if named else None,
        duration=_round_duration(work, spec) if work.fps else None,
        fps=work.fps or None,
        n=work.n if work.type == "image" else None,
        image=work.reference or None,
        strength=work.strength,
        priority="batch" if submission.batch else None,
        metadata=submission.metadata or None,
    )


def _round_duration(work: Work, spec: ModelSpec | None) -> float:
    """The roundest duration, within the model's limits, that comes out at the work's frames."""
    exact = work.duration_seconds
    step = spec.frame_step if spec is not None else 1
    most = spec.limits.max_duration_seconds if spec is not None else exact
    for duration in (round(exact), round(2 * exact) / 2, round(exact, 1), round(exact, 2), most):
        if 0 < duration <= most and frame_count(duration, work.fps, step) == work.frames:
            return float(duration)
    return exact


def _text_errors(body: GenerateBody) -> list[FieldError]:
    errors: list[FieldError] = []
    if not body.prompt.strip():
        errors.append(FieldError("prompt", "invalid_field", "prompt: say what to make; it is empty."))
    texts = {"prompt": body.prompt, "negative_prompt": body.negative_prompt or ""}
    for key, value in (body.metadata or {}).items():
        texts["metadata"] = texts.get("metadata", "") + key + value
    errors += [
        FieldError(name, "invalid_field", f"{name}: control characters are not allowed, except new lines and tabs.")
        for name, text in texts.items()
        if any(unicodedata.category(character) == "Cc" and character not in "\n\r\t" for character in text)
    ]
    return errors


def _model(
    body: GenerateBody, catalog: Catalog, *, test: bool, require_real_model: bool
) -> tuple[ModelSpec, list[str]]:
    """The model that answers, and what is to be known of that: why this one, and what it makes nothing of."""
    if test:
        return catalog.specs[TEST_MODEL], ["Test output: made by the film leader, free of charge."]
    if body.model is not None:
        spec = catalog.specs.get(body.model)
        if spec is None or catalog.installed(spec) is None:
            able = (name for name, known in catalog.specs.items() if known.makes and catalog.installed(known))
            names = ", ".join(sorted(able))
            message = f"model: {body.model!r} is not installed; installed are {names}."
            raise InvalidFields([FieldError("model", "model_not_installed", message)])
        return spec, notes_of(spec, body.prompt)
    spec = catalog.default(body.type)
    if spec is None or (spec.bundled and require_real_model):
        raise Refusal(
            503,
            "no_model",
            f"No model that makes a {body.type} is installed; the owner installs one with `zsky-box models install`.",
            headers={"Retry-After": "3600"},
        )
    if spec.bundled:
        # Of those that stand in, the first that can do what is asked; none can: the first tells what it could make.
        spec = next((each for each in catalog.fallbacks(body.type) if not _unsupported(body, each)), spec)
    return spec, [*_stood_in(body, spec, catalog), *notes_of(spec, body.prompt)]


def notes_of(spec: ModelSpec, prompt: str) -> list[str]:
    """What a person should know before this model makes something of this prompt."""
    notes = [f"{spec.title} is experimental: what it makes may be wrong."] if spec.experimental else []
    vocabulary = spec.limits.vocabulary
    return notes if vocabulary is None else [*notes, *notes_on(prompt, spec.name, vocabulary)]


def _stood_in(body: GenerateBody, spec: ModelSpec, catalog: Catalog) -> list[str]:
    """That a bundled model answers because no other is there, and what the owner could install."""
    if not spec.bundled:
        return []
    wanted, first = catalog.recommended(body.type), catalog.fallbacks(body.type)[0]
    how = "" if wanted is None else f" The owner installs one with `zsky-box models install {wanted.name}`."
    passed_over = "" if first is spec else f", as {first.name} cannot: {_cannot(body, first)}"
    return [f"No {body.type} model is installed: {spec.title} answered{passed_over}.{how}"]


def _cannot(body: GenerateBody, spec: ModelSpec) -> str:
    return "; ".join(error.message.rstrip(".") for error in _unsupported(body, spec))


def _unsupported(body: GenerateBody, spec: ModelSpec) -> list[FieldError]:
    """What this model cannot do, each with what it can."""
    limits, errors = spec.limits, list[FieldError]()

    def refuse(name: str, can: str) -> None:
        errors.append(FieldError(name, "unsupported_for_model", f"{name}: {spec.name} {can}."))

    if not spec.makes:
        refuse("model", "makes nothing: it is an output check")
        return errors
    if body.type not in spec.makes:
        refuse("type", f"makes {' and '.join(spec.makes)} only")
    if body.resolution is not None and body.resolution not in limits.resolutions:
        refuse("resolution", f"makes {', '.join(limits.resolutions)}")
    if body.aspect_ratio is not None and body.aspect_ratio not in limits.aspect_ratios:
        refuse("aspect_ratio", f"makes {', '.join(limits.aspect_ratios)}")
    if body.negative_prompt and not limits.negative_prompt:
        refuse("negative_prompt", "takes no negative prompt")
    errors += _reference_errors(body, spec)
    if body.type == "video":
        if body.n is not None and body.n > 1:
            refuse("n", "makes one video a job; send one request for each")
        if body.fps is not None and body.fps not in limits.fps:
            refuse("fps", f"makes {', '.join(map(str, limits.fps))} frames a second")
        low, high = limits.min_duration_seconds, limits.max_duration_seconds
        if body.duration is not None and not low <= body.duration <= high:
            refuse("duration", f"makes {low:g} to {high:g} seconds")
    else:
        if body.n is not None and body.n > limits.max_images:
            refuse("n", f"makes up to {limits.max_images} images a job")
        if body.duration is not None:
            refuse("duration", "makes an image here, which has no duration")
        if body.fps is not None:
            refuse("fps", "makes an image here, which has no frame rate")
    return errors


def _reference_errors(body: GenerateBody, spec: ModelSpec) -> list[FieldError]:
    """What is wrong with a reference by its form and for this model; whether it is a picture is not known here."""
    limits, errors = spec.limits, list[FieldError]()

    def refuse(name: str, code: str, told: str) -> None:
        errors.append(FieldError(name, code, f"{name}: {told}."))

    if body.image is not None and not limits.reference_image:
        refuse("image", "unsupported_for_model", f"{spec.name} takes no reference image")
    elif body.image is not None and not (UPLOAD_ID.fullmatch(body.image) or _is_data_uri(body.image)):
        told = "give the id of an upload (`POST /v1/uploads`), or the picture itself as a data URI"
        refuse("image", "invalid_field", f"{told}; the box fetches no addresses")
    if body.strength is not None and not limits.strength:
        begins = "begins with the image" if limits.reference_image else "takes no reference image"
        refuse("strength", "unsupported_for_model", f"{spec.name} {begins}, so there is no strength to set")
    elif body.strength is not None and body.image is None:
        refuse("strength", "invalid_field", "says how far to go from a picture; give one as `image`, or leave it out")
    return errors


def _is_data_uri(text: str) -> bool:
    return text[: len(DATA_URI)].lower() == DATA_URI


def _work(body: GenerateBody, spec: ModelSpec) -> Work:
    """Where the reference is a data URI, whoever stores its picture puts the upload's id into the Work."""
    limits = spec.limits
    strength = None
    if body.image is not None and limits.strength:
        strength = body.strength if body.strength is not None else DEFAULT_STRENGTH
    resolution = body.resolution or ("1080p" if "1080p" in limits.resolutions else limits.resolutions[-1])
    ratio = body.aspect_ratio or ("16:9" if "16:9" in limits.aspect_ratios else limits.aspect_ratios[0])
    width, height = output_size(resolution, ratio)
    fps = (body.fps or spec.default_fps) if body.type == "video" else 0
    duration = body.duration if body.duration is not None else spec.default_duration_seconds
    return Work(
        type=body.type,
        model=spec.name,
        prompt=body.prompt,
        negative_prompt=body.negative_prompt or "",
        seed=body.seed if body.seed is not None else secrets.randbits(_DRAWN_SEED_BITS),
        n=body.n or 1,
        width=width,
        height=height,
        frames=frame_count(duration, fps, spec.frame_step) if fps else 0,
        fps=fps,
        reference="" if body.image is None or _is_data_uri(body.image) else body.image,
        strength=strength,
    )
