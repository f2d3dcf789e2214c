"""What clients send: bodies of requests. What none of them names is refused, field by field, by `reading`."""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

from msgspec import UNSET, Meta, Struct, UnsetType

from zsky_box.formats import AspectRatio, Resolution
from zsky_box.manifest import JobType

PROMPT_MAX: Final = 8_000
IMAGE_MAX: Final = 65 * 1024 * 1024  # a data URI of the most that the setting upload_max_bytes may be
SEED_MAX: Final = 2**53 - 10  # JavaScript holds integers exactly up to 2**53 - 1; a job's tenth image has seed + 9
DEADLINE_MAX_SECONDS: Final = 31 * 86_400

Prompt = Annotated[str, Meta(min_length=1, max_length=PROMPT_MAX, examples=["a neon night market in the rain"])]
MetadataKey = Annotated[str, Meta(min_length=1, max_length=64)]
MetadataValue = Annotated[str, Meta(max_length=512)]
DeadlineSeconds = Annotated[float, Meta(gt=0, le=DEADLINE_MAX_SECONDS)]


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
