"""The plain side of `gpu`: the library called as a script would call it, in a process of its own.

The weights are held as the box's recipe says, so that both sides compute with the same; all else is the library's: the
prompt is encoded in each call, the pictures come as one array, and its own encoder writes the file.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any, Final

import msgspec
import torch
from msgspec import Struct

from scripts.bench.hollow import fill
from zsky_box.events import Run
from zsky_box.formats import render_size
from zsky_box.manifest import Flux2KleinOptions, Ltx2Options, ZImageOptions
from zsky_box.pipelines import loader

# Left alone, the library's defaults of guidance cost three passes a step.
UNGUIDED: Final[dict[str, float]] = {
    "guidance_scale": 1.0,
    "audio_guidance_scale": 1.0,
    "stg_scale": 0.0,
    "audio_stg_scale": 0.0,
    "modality_scale": 1.0,
    "audio_modality_scale": 1.0,
}


class Order(Struct, frozen=True, kw_only=True):
    """What to run, how often, and where."""

    run: Run
    device: str
    rounds: int


class Measured(Struct, frozen=True, kw_only=True):
    """Seconds of each round after the first, and the most that was allocated on the card."""

    seconds: list[float]
    peak_bytes: int


def clip(held: dict[str, Any], run: Run, path: Path) -> None:
    """Eight steps at half size, the latents upsampled, three steps at full size; then the library's encoder."""
    from diffusers.pipelines.ltx2.utils import DISTILLED_SIGMA_VALUES, STAGE_2_DISTILLED_SIGMA_VALUES
    from diffusers.utils.export_utils import encode_video

    pipe, upsample, options = held["_pipe"], held["_upsample"], run.model.options
    assert isinstance(options, Ltx2Options)
    width, height = render_size(run.width, run.height, run.model.size_multiple * options.stages)
    common: dict[str, Any] = {
        **UNGUIDED,
        "prompt": run.prompt,
        "num_frames": run.frames,
        "frame_rate": float(run.fps),
        "max_sequence_length": options.max_sequence_length,
        "generator": torch.Generator("cpu").manual_seed(run.seed),
        "return_dict": False,
    }
    size = {"width": width // 2, "height": height // 2}
    latents, sound = pipe(**size, sigmas=list(DISTILLED_SIGMA_VALUES), output_type="latent", **common)
    latents = upsample(latents=latents, latents_normalized=False, output_type="latent", return_dict=False, **size)[0]
    second = list(STAGE_2_DISTILLED_SIGMA_VALUES)
    pipe.vae.enable_tiling()  # untiled, the decoding alone outgrows most cards
    video, sound = pipe(
        latents=latents,
        audio_latents=sound,
        width=width,
        height=height,
        sigmas=second,
        noise_scale=second[0],
        output_type="np",
        **common,
    )
    rate_hz = int(pipe.vocoder.config.output_sampling_rate)
    encode_video(video[0], run.fps, str(path), audio=sound[0].float().cpu(), audio_sample_rate=rate_hz)


def image(held: dict[str, Any], run: Run, path: Path) -> None:
    """One call, one crop, one PNG."""
    options = run.model.options
    assert isinstance(options, Flux2KleinOptions | ZImageOptions)
    width, height = render_size(run.width, run.height, run.model.size_multiple)
    picture: Any = held["_pipe"](
        prompt=run.prompt,
        width=width,
        height=height,
        num_inference_steps=options.steps,
        guidance_scale=options.guidance_scale,
        max_sequence_length=options.max_sequence_length,
        generator=torch.Generator("cpu").manual_seed(run.seed),
        output_type="pil",
    ).images[0]
    left, top = (width - run.width) // 2, (height - run.height) // 2
    picture.crop((left, top, left + run.width, top + run.height)).save(path)


def measure(order: Order) -> Measured:
    """Load, run once to warm up, then `rounds` times."""
    run, on_card = order.run, order.device != "cpu"
    pipeline = loader(run.model.family)(run.model, run.recipe, Path(run.weights_dir), order.device)
    fill(pipeline)
    make, suffix = (clip, "mp4") if run.type == "video" else (image, "png")
    path = Path(run.out_dir) / f"plain.{suffix}"
    seconds: list[float] = []
    for _ in range(order.rounds + 1):
        if on_card:
            torch.cuda.reset_peak_memory_stats()
        began = time.perf_counter()
        make(vars(pipeline), run, path)
        seconds.append(time.perf_counter() - began)
    peak_bytes = int(torch.cuda.max_memory_allocated()) if on_card else 0
    return Measured(seconds=seconds[1:], peak_bytes=peak_bytes)


if __name__ == "__main__":
    answer = measure(msgspec.json.decode(sys.argv[1], type=Order))
    Path(sys.argv[2]).write_bytes(msgspec.json.encode(answer))
