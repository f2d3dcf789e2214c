"""LTX-2 checkpoints (2.0, 2.3, 2.5): text to video with its sound, in one stage, or at half size, upsampled, refined.

Source of the recipe: diffusers' LTX2Pipeline and its two-stage example. The picture is decoded by the convolutional
VAE; the diffusion decoder that 2.5 also ships is not used (without NATTEN its attention mask alone outgrows a card).
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor

from zsky_box.errors import JobFailure
from zsky_box.events import Run
from zsky_box.formats import render_size
from zsky_box.manifest import Ltx2Options, ModelSpec, Recipe
from zsky_box.pipelines.base import Clip, Reporter, Still
from zsky_box.pipelines.decode import Tiling, pictures
from zsky_box.pipelines.loading import failure, memory_guard, open_part, open_pipeline, quiet, release
from zsky_box.pipelines.offloading import place
from zsky_box.pipelines.sound import decode_sound

UPSAMPLER: Final = "latent_upsampler"

# Loaded by 2.5 checkpoints unless told not to, and never used here: a prompt-rewriting model (2 B parameters) with its
# processor, and the network that chooses a duration.
_UNUSED: Final = {"prompt_enhancer": None, "processor": None, "duration_head": None}

# The defaults of the call are those of the guided recipe: left alone, they cost three transformer passes a step.
_NO_GUIDANCE: Final[dict[str, float]] = {
    "guidance_scale": 1.0,
    "audio_guidance_scale": 1.0,
    "stg_scale": 0.0,
    "audio_stg_scale": 0.0,
    "modality_scale": 1.0,
    "audio_modality_scale": 1.0,
    "guidance_rescale": 0.0,
    "audio_guidance_rescale": 0.0,
}


def load(spec: ModelSpec, recipe: Recipe, folder: Path, device: str) -> Ltx2:
    """Open the checkpoint; raises OutOfMemory, and JobFailure for a broken folder or a manifest that does not fit."""
    options = spec.options
    if not isinstance(options, Ltx2Options):
        raise failure(spec, f"its manifest is of the family {spec.family}")
    quiet()
    from diffusers.pipelines.ltx2.latent_upsampler import LTX2LatentUpsamplerModel
    from diffusers.pipelines.ltx2.pipeline_ltx2 import LTX2Pipeline
    from diffusers.pipelines.ltx2.pipeline_ltx2_latent_upsample import LTX2LatentUpsamplePipeline

    pipe = open_pipeline(LTX2Pipeline, spec, recipe, folder, device, **_UNUSED)
    upsample = None
    if options.stages == 2:
        upsampler = open_part(LTX2LatentUpsamplerModel, UPSAMPLER, spec, recipe, folder, device)
        upsample = LTX2LatentUpsamplePipeline(vae=pipe.vae, latent_upsampler=upsampler)
        upsample.set_progress_bar_config(disable=True)
    place(recipe, device, *filter(None, (pipe, upsample)))
    grid: tuple[int, int] = pipe.vae_spatial_compression_ratio, pipe.vae_temporal_compression_ratio
    if spec.size_multiple % grid[0] or spec.frame_step != grid[1]:
        raise failure(spec, f"its grid is {grid[0]} pixels and {grid[1]} frames, its manifest says otherwise")
    if options.distilled:
        _take_sigmas_verbatim(pipe)
    return Ltx2(spec, options, pipe, upsample, device)


def _take_sigmas_verbatim(pipe: Any) -> None:
    """The distilled schedules are final values: a checkpoint's own shift by resolution must not bend them."""
    pipe.scheduler = type(pipe.scheduler).from_config(
        pipe.scheduler.config, use_dynamic_shifting=False, shift=1.0, shift_terminal=None
    )


class Ltx2:
    """One loaded checkpoint on one device; runs one job at a time."""

    def __init__(self, spec: ModelSpec, options: Ltx2Options, pipe: Any, upsample: Any, device: str) -> None:
        self._spec = spec
        self._options = options
        self._pipe = pipe
        self._upsample = upsample
        self._device = device

    def video(self, run: Run, report: Reporter) -> Clip:
        """Denoise now, decode the sound now, decode the pictures as they are asked for.

        Raises JobFailure for a frame count off the model's grid, OutOfMemory, and what the reporter raises.
        """
        step = self._spec.frame_step
        if run.frames < 1 or run.frames % step != 1:
            raise JobFailure(
                "internal_error", f"{self._spec.name} makes {step}·k + 1 frames, and was asked for {run.frames}."
            )
        report.phase("loading")
        # A scheduler may draw noise of its own from the global generator (stochastic sampling).
        torch.manual_seed(run.seed)
        with memory_guard():
            prompt = self._encode(run)
            report.phase("denoising")
            picture_latents, sound_latents = self._denoise(run, prompt, report)
        report.phase("decoding")
        options = self._options
        tiling = Tiling(options.decode_chunk_frames, options.decode_overlap_frames, options.decode_tile_pixels)
        sound = decode_sound(self._pipe, sound_latents)
        vae = self._pipe.vae
        stream = pictures(vae, picture_latents.to(vae.dtype), tiling, run.width, run.height)
        return Clip(run.width, run.height, run.fps, run.frames, stream, sound)

    def images(self, run: Run, report: Reporter) -> Iterator[Still]:  # noqa: ARG002
        raise JobFailure("internal_error", f"{self._spec.name} makes no images.")

    def close(self) -> None:
        del self._pipe, self._upsample
        release(self._device)

    def _guided(self) -> bool:
        return not self._options.distilled and self._options.guidance_scale > 1.0

    def _encode(self, run: Run) -> dict[str, Tensor]:
        """The text encoder's embeddings, computed once for both stages."""
        with torch.no_grad():
            embeds, mask, negative, negative_mask = self._pipe.encode_prompt(
                prompt=run.prompt,
                negative_prompt=run.negative_prompt if self._guided() else None,
                do_classifier_free_guidance=self._guided(),
                max_sequence_length=self._options.max_sequence_length,
            )
        encoded = {"prompt_embeds": embeds, "prompt_attention_mask": mask}
        if self._guided():
            encoded |= {"negative_prompt_embeds": negative, "negative_prompt_attention_mask": negative_mask}
        return encoded

    def _denoise(self, run: Run, prompt: dict[str, Tensor], report: Reporter) -> tuple[Tensor, Tensor]:
        """All stages; returns denormalised picture latents [1, C, f, h, w] and sound latents [1, C, length, mel]."""
        from diffusers.pipelines.ltx2.utils import DISTILLED_SIGMA_VALUES, STAGE_2_DISTILLED_SIGMA_VALUES

        options = self._options
        width, height = render_size(run.width, run.height, self._spec.size_multiple * options.stages)
        width, height = width // options.stages, height // options.stages
        first = len(DISTILLED_SIGMA_VALUES) if options.distilled else options.steps
        second = STAGE_2_DISTILLED_SIGMA_VALUES if options.stages == 2 else []
        common: dict[str, Any] = {
            **prompt,
            **self._guidance(),
            "num_frames": run.frames,
            "frame_rate": float(run.fps),
            # Noise drawn on the CPU is the same whatever the card.
            "generator": torch.Generator("cpu").manual_seed(run.seed),
            "output_type": "latent",
            "return_dict": False,
            "callback_on_step_end": _StepCounter(report, first + len(second)),
            "callback_on_step_end_tensor_inputs": [],
        }
        schedule = {"sigmas": list(DISTILLED_SIGMA_VALUES)} if options.distilled else {"num_inference_steps": first}
        latents, sound = self._pipe(width=width, height=height, **schedule, **common)
        if not second:
            return latents, sound
        latents = self._upsample(
            latents=latents,
            latents_normalized=False,
            width=width,
            height=height,
            output_type="latent",
            return_dict=False,
        )[0]
        return self._pipe(
            latents=latents,
            audio_latents=sound,
            width=2 * width,
            height=2 * height,
            sigmas=list(second),
            noise_scale=second[0],
            **common,
        )

    def _guidance(self) -> dict[str, float]:
        """Every switch named. Guided runs use classifier-free guidance alone: one pass a step, over a batch of two."""
        if not self._guided():
            return _NO_GUIDANCE
        scale = self._options.guidance_scale
        return _NO_GUIDANCE | {"guidance_scale": scale, "audio_guidance_scale": scale}


class _StepCounter:
    """The pipeline's callback over all stages of a job; what the reporter raises ends the call before any decoding."""

    def __init__(self, report: Reporter, steps: int) -> None:
        self._report = report
        self._steps = steps
        self._done = 0

    def __call__(self, pipe: Any, index: int, timestep: Any, kwargs: dict[str, Any]) -> dict[str, Any]:  # noqa: ARG002
        self._done += 1
        self._report.step(self._done, self._steps)
        return kwargs
