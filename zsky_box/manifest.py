"""What a manifest says of one model: what it makes, within which limits, in which recipes, under which licence.

Structs only; `catalog` reads them from `models/*.toml`. A *recipe* is one way to hold and run a model in a card's
memory; a *variant* is the form its weights have on the disk, which recipes with the same quantisation share.
"""

from __future__ import annotations

from typing import Annotated, Final, Literal

from msgspec import Meta, Struct

from zsky_box.formats import AspectRatio, Resolution

JobType = Literal["video", "image"]
NAME_PATTERN: Final = r"^[a-z0-9][a-z0-9._-]{0,63}$"
Name = Annotated[str, Meta(pattern=NAME_PATTERN)]
Quantisation = Literal["int8", "fp8", "fp8_dynamic", "nf4"]
Offload = Literal["none", "model", "blocks"]

FULL: Final = "full"
"""The variant whose weights are as they were published."""
UNUSED: Final[dict[str, tuple[str, ...]]] = {"ltx2": ("prompt_enhancer", "processor", "duration_head")}
"""What a family's pipeline takes and this project neither fetches nor loads: in LTX-2.5 a prompt-rewriting model (2 B
parameters) with its processor, and the network that chooses a duration."""
ON_CUDA_ONLY: Final[frozenset[Quantisation]] = frozenset({"fp8_dynamic", "nf4"})


class Licence(Struct, frozen=True, forbid_unknown_fields=True):
    """Who may use the model, and for what."""

    name: str
    url: str = ""
    terms: str = ""
    commercial_use: Literal["yes", "no", "conditional"] = "conditional"


class Vocabulary(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """All that a model of a small world can read: what it knows by topic, what it passes over as grammar, and prompts
    that show what it can do. Of a prompt it reads the first `words_read` words. All words are in lower case.
    """

    knows: dict[str, tuple[str, ...]]
    passes_over: tuple[str, ...] = ()
    examples: Annotated[tuple[str, ...], Meta(min_length=1, max_length=10)]
    words_read: Annotated[int, Meta(ge=1, le=10_000)]


class Limits(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What a request may ask for; `max_duration_seconds` is 0 for models that make stills only.

    `reference_image`: a picture may be given: the first frame of a clip, or what an image starts from; `strength` says
    whether it may be told how far to go from it. `vocabulary` is there where the model knows so few words that a person
    should hear of those that it does not.
    """

    resolutions: Annotated[tuple[Resolution, ...], Meta(min_length=1)]
    aspect_ratios: Annotated[tuple[AspectRatio, ...], Meta(min_length=1)]
    fps: tuple[Annotated[int, Meta(ge=1, le=240)], ...] = ()
    min_duration_seconds: Annotated[float, Meta(ge=0, le=3_600)] = 0.0
    max_duration_seconds: Annotated[float, Meta(ge=0, le=3_600)] = 0.0
    max_images: Annotated[int, Meta(ge=1, le=10)] = 10
    negative_prompt: bool = False
    reference_image: bool = False
    strength: bool = False
    vocabulary: Vocabulary | None = None


class Recipe(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One way to hold and run the model. A manifest lists them from the best to the one that needs least of a card.

    `quantise` names the components that are not kept in the manifest's dtype. `offload`: with `none` all of it stays on
    the card; with `model` one component at a time is there, and the others wait in host memory; with `blocks` the
    transformer is streamed through the card block by block besides. `working_gib` is what a job needs beside the
    weights, at 1080p and the model's default duration. Above `render`, results are rendered at it and upscaled, and
    say so. `capability` is the least CUDA compute capability, such as 8.9.
    """

    name: Name
    quantise: dict[str, Quantisation] = {}
    offload: Offload = "none"
    working_gib: Annotated[float, Meta(ge=0, le=1024)] = 0.0
    compile: bool = False
    render: Resolution | None = None
    capability: Annotated[float, Meta(ge=0, le=99)] = 0.0
    images_at_once: Annotated[int, Meta(ge=1, le=10)] = 1
    decode_chunk_frames: Annotated[int, Meta(ge=16, le=512, multiple_of=8)] | None = None
    decode_tile_pixels: Annotated[int, Meta(ge=64, le=4096)] | None = None

    def __post_init__(self) -> None:
        """msgspec turns a ValueError into its own error, which names the place in the manifest."""
        if self.compile and self.offload == "blocks":
            raise ValueError('compile = true and offload = "blocks" do not go together')

    @property
    def variant(self) -> str:
        """The form of the weights that this recipe reads: `full`, or as `text_encoder.int8+transformer.int8`."""
        return "+".join(f"{part}.{kind}" for part, kind in sorted(self.quantise.items())) or FULL

    @property
    def needs_cuda(self) -> bool:
        """Whether the processor cannot run it."""
        return self.capability > 0 or not ON_CUDA_ONLY.isdisjoint(self.quantise.values())


class Cost(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What one pass of the transformer computes, for estimates before the first run here.

    `parameters_billion` are those that each picture token passes through, `layers` and `width` those of its
    self-attention, and a token covers `pixels_per_token` pixels a side.
    """

    parameters_billion: Annotated[float, Meta(gt=0, le=10_000)]
    layers: Annotated[int, Meta(ge=1, le=1_000)]
    width: Annotated[int, Meta(ge=1, le=1_000_000)]
    pixels_per_token: Annotated[int, Meta(ge=1, le=256)]


class LeaderOptions(Struct, frozen=True, forbid_unknown_fields=True, tag_field="family", tag="leader"):
    """The film leader has nothing to choose."""


class Ltx2Options(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, tag_field="family", tag="ltx2"):
    """How an LTX-2 checkpoint is run. `stages` is 2 for half size, latent upsample, full size.

    A distilled one takes the schedules that the library ships (8 and 3 steps); `steps` counts where it is not.
    """

    stages: Literal[1, 2] = 2
    distilled: bool = True
    steps: Annotated[int, Meta(ge=1, le=200)] = 30
    guidance_scale: float = 1.0
    max_sequence_length: Annotated[int, Meta(ge=16, le=1024)] = 1024
    decode_chunk_frames: Annotated[int, Meta(ge=16, le=512, multiple_of=8)] = 64
    decode_overlap_frames: Annotated[int, Meta(ge=8, le=128, multiple_of=8)] = 16
    decode_tile_pixels: Annotated[int, Meta(ge=64, le=4096)] = 512

    def __post_init__(self) -> None:
        """msgspec turns a ValueError into its own error, which names the place in the manifest."""
        if self.stages == 2 and not self.distilled:
            raise ValueError("stages = 2 needs a distilled checkpoint")
        if self.decode_overlap_frames >= self.decode_chunk_frames:
            raise ValueError("decode_overlap_frames must be less than decode_chunk_frames")


class Flux2KleinOptions(
    Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, tag_field="family", tag="flux2_klein"
):
    """How a FLUX.2 klein checkpoint is run."""

    steps: Annotated[int, Meta(ge=1, le=100)] = 4
    guidance_scale: float = 1.0
    max_sequence_length: Annotated[int, Meta(ge=16, le=1024)] = 512


class ZImageOptions(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, tag_field="family", tag="z_image"):
    """How a Z-Image checkpoint is run; Turbo is distilled and takes no guidance."""

    steps: Annotated[int, Meta(ge=1, le=100)] = 8
    guidance_scale: float = 0.0
    max_sequence_length: Annotated[int, Meta(ge=16, le=1024)] = 512


class ImageClassifierOptions(
    Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, tag_field="family", tag="image_classifier"
):
    """How an output check is run: a picture is blocked when one of these labels reaches the threshold.

    Of a clip, `frames` pictures are looked at, evenly over its length.
    """

    blocked_labels: Annotated[tuple[str, ...], Meta(min_length=1, max_length=100)]
    threshold: Annotated[float, Meta(gt=0, lt=1)] = 0.5
    frames: Annotated[int, Meta(ge=1, le=64)] = 8


class MiniOptions(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, tag_field="family", tag="mini"):
    """How a checkpoint of mini is sampled; each step is two passes of Heun's method. Guidance 1 is none."""

    steps: Annotated[int, Meta(ge=1, le=200)] = 16
    guidance_scale: Annotated[float, Meta(ge=1, le=20)] = 2.0


Options = LeaderOptions | MiniOptions | Ltx2Options | Flux2KleinOptions | ZImageOptions | ImageClassifierOptions

_ANYTHING: Final = Limits(resolutions=("1080p",), aspect_ratios=("16:9",))


class ModelSpec(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One model of the catalogue.

    `size_multiple` and `frame_step` are the model's own grid (frames = frame_step·m + 1). `default_for` names the job
    types that this model serves when the request names none. `timeout_seconds` bounds one job on the slowest device.
    `makes` is empty for an output check. `gated`: the hub gives it only to a token whose owner has accepted the
    licence. `parameters_billion` counts each component, for estimates of memory before its files are here. A `bundled`
    one comes with the box; an `experimental` one runs where it is named, and is nobody's default.
    """

    name: Name
    title: str
    makes: tuple[JobType, ...]
    licence: Licence
    options: Options
    limits: Limits = _ANYTHING
    recipes: tuple[Recipe, ...] = ()
    cost: Cost | None = None
    parameters_billion: dict[str, Annotated[float, Meta(gt=0, le=10_000)]] = {}
    price_class: Literal["standard"] = "standard"
    bundled: bool = False
    experimental: bool = False
    default_for: tuple[JobType, ...] = ()
    repository: str = ""
    revision: str = ""
    gated: bool = False
    default_fps: int = 24
    default_duration_seconds: float = 5.0
    size_multiple: Annotated[int, Meta(ge=1, le=256)] = 1
    frame_step: Annotated[int, Meta(ge=1, le=64)] = 1
    dtype: Literal["float32", "bfloat16", "float16"] = "bfloat16"
    timeout_seconds: Annotated[float, Meta(gt=0, le=86_400)] = 1_800.0

    @property
    def family(self) -> str:
        """Which file under `pipelines/` runs it."""
        return str(self.options.__struct_config__.tag)

    @property
    def ways(self) -> tuple[Recipe, ...]:
        """Its recipes; a manifest that lists none has one, which takes the weights as they are."""
        return self.recipes or (WHOLE,)


WHOLE: Final = Recipe(name=FULL)
"""The recipe of a manifest that lists none."""
