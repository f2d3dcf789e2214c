"""LTX-2 checkpoints (2.0, 2.3, 2.5): text, or text and a first frame, to video with its sound.

In one stage, or at half size, upsampled, refined. Source of the recipe: diffusers' LTX2Pipeline and its two-stage
example. The picture is decoded by the convolutional VAE; the diffusion decoder that 2.5 also ships is not used (without
NATTEN its attention mask alone outgrows a card).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor

from zsky_box.errors import JobFailure
from zsky_box.events import Run
from zsky_box.formats import limited, render_size
from zsky_box.manifest import UNUSED, Ltx2Options, ModelSpec, Recipe
from zsky_box.pipelines.base import Clip, Reporter, Sound, Still
from zsky_box.pipelines.decode import Tiling, enlarged, pictures
from zsky_box.pipelines.loading import failure, memory_guard, open_part, open_pipeline, quiet, release
from zsky_box.pipelines.ltx2_steps import Look, Steps
from zsky_box.pipelines.offloading import Seat, left_on_failure, place
from zsky_box.pipelines.on_time import OnTime
from zsky_box.pipelines.reference import cover
from zsky_box.pipelines.sound import decode_sound

UPSAMPLER: Final = "latent_upsampler"
_CHUNK_STEP: Final = 8  # frames of one latent: chunks and their overlaps are multiples of it

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

    pipe = open_pipeline(LTX2Pipeline, spec, recipe, folder, device, **dict.fromkeys(UNUSED["ltx2"]))
    upsample = None
    if options.stages == 2:
        upsampler = open_part(LTX2LatentUpsamplerModel, UPSAMPLER, spec, recipe, folder, device)
        upsample = LTX2LatentUpsamplePipeline(vae=pipe.vae, latent_upsampler=upsampler)
        upsample.set_progress_bar_config(disable=True)
    grid: tuple[int, int] = pipe.vae_spatial_compression_ratio, pipe.vae_temporal_compression_ratio
    if spec.size_multiple % grid[0] or spec.frame_step != grid[1]:
        raise failure(spec, f"its grid is {grid[0]} pixels and {grid[1]} frames, its manifest says otherwise")
    if options.distilled:
        _take_sigmas_verbatim(pipe)
    seat = place(recipe, device, *filter(None, (pipe, upsample)))
    return Ltx2(spec, options, recipe, pipe, upsample, seat, device)


def _take_sigmas_verbatim(pipe: Any) -> None:
    """The distilled schedules are final values: a checkpoint's own shift by resolution must not bend them."""
    pipe.scheduler = type(pipe.scheduler).from_config(
        pipe.scheduler.config, use_dynamic_shifting=False, shift=1.0, shift_terminal=None
    )


class Ltx2:
    """One loaded checkpoint on one device; runs one job at a time."""

    def __init__(
        self,
        spec: ModelSpec,
        options: Ltx2Options,
        recipe: Recipe,
        pipe: Any,
        upsample: Any,
        seat: Seat | None,
        device: str,
    ) -> None:
        from diffusers.pipelines.ltx2.pipeline_ltx2_image2video import LTX2ImageToVideoPipeline

        self._spec = spec
        self._options = options
        self._recipe = recipe
        self._pipe = pipe
        self._from_picture = LTX2ImageToVideoPipeline(**pipe.components)
        self._from_picture.set_progress_bar_config(disable=True)
        self._upsample = upsample
        self._seat = seat
        self._device = device

    def video(self, run: Run, report: Reporter) -> Clip:
        """Denoise now, decode the sound now, decode the pictures as they are asked for.

        Raises JobFailure for a frame count off the model's grid and for a reference that cannot be read, OutOfMemory,
        and what the reporter raises.
        """
        step = self._spec.frame_step
        if run.frames < 1 or run.frames % step != 1:
            raise JobFailure(
                "internal_error", f"{self._spec.name} makes {step}·k + 1 frames, and was asked for {run.frames}."
            )
        limit = self._recipe.render
        size = (run.width, run.height) if limit is None else limited(run.width, run.height, limit)
        report = OnTime(report, self._device)
        report.phase("loading")
        # A scheduler may draw noise of its own from the global generator (stochastic sampling).
        torch.manual_seed(run.seed)
        with memory_guard(), left_on_failure(self._seat):
            prompt = self._encode(run)
            report.phase("denoising")
            picture_latents, sound_latents = self._denoise(run, size, prompt, report)
            report.phase("decoding")
            sound = decode_sound(self._pipe, sound_latents)
        return self._decoded(run, size, picture_latents, sound)

    def _decoded(self, run: Run, size: tuple[int, int], latents: Tensor, sound: Sound) -> Clip:
        """The clip to be, enlarged where the recipe renders smaller than was asked for."""
        vae = self._pipe.vae
        clip = Clip(
            width=run.width,
            height=run.height,
            fps=run.fps,
            frames=run.frames,
            pictures=pictures(vae, latents.to(vae.dtype), self._tiling(), *size),
            sound=sound,
        )
        if size != (run.width, run.height):
            clip.pictures = enlarged(clip.pictures, run.width, run.height)
            clip.upscaled_from = f"{size[0]}x{size[1]}"
            clip.notes.append(
                f"Rendered at {clip.upscaled_from} and upscaled to {run.width}x{run.height}: "
                "that is what this card's memory and time allow."
            )
        return clip

    def _tiling(self) -> Tiling:
        """The manifest's, but for what the recipe says; smaller chunks overlap by less."""
        options, recipe = self._options, self._recipe
        chunk = recipe.decode_chunk_frames or options.decode_chunk_frames
        overlap = min(options.decode_overlap_frames, chunk // (2 * _CHUNK_STEP) * _CHUNK_STEP)
        return Tiling(chunk, overlap, recipe.decode_tile_pixels or options.decode_tile_pixels)

    def images(self, run: Run, report: Reporter) -> Iterator[Still]:  # noqa: ARG002
        raise JobFailure("internal_error", f"{self._spec.name} makes no images.")

    def close(self) -> None:
        del self._pipe, self._from_picture, self._upsample, self._seat
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

    def _denoise(
        self, run: Run, size: tuple[int, int], prompt: dict[str, Tensor], report: Reporter
    ) -> tuple[Tensor, Tensor]:
        """All stages; returns denormalised picture latents [1, C, f, h, w] and sound latents [1, C, length, mel]."""
        from diffusers.pipelines.ltx2.utils import DISTILLED_SIGMA_VALUES, STAGE_2_DISTILLED_SIGMA_VALUES

        options = self._options
        width, height = render_size(*size, self._spec.size_multiple * options.stages)
        width, height = width // options.stages, height // options.stages
        first = len(DISTILLED_SIGMA_VALUES) if options.distilled else options.steps
        second = STAGE_2_DISTILLED_SIGMA_VALUES if options.stages == 2 else []
        schedule = {"sigmas": list(DISTILLED_SIGMA_VALUES)} if options.distilled else {"num_inference_steps": first}
        # An offloaded VAE is not fetched for a preview: it would send the transformer away.
        look = Look(self._pipe) if self._recipe.offload == "none" else None
        pipe: Any = self._pipe
        begun: dict[str, Any] = {}
        if run.reference:
            pipe, begun = self._from_picture, {"image": cover(run.reference, width, height), "image_crf": 0}
            pipe.vae.disable_tiling()  # the last job's decoding left its tiles
        common: dict[str, Any] = {
            **prompt,
            **self._guidance(),
            **begun,
            "num_frames": run.frames,
            "frame_rate": float(run.fps),
            # Noise drawn on the CPU is the same whatever the card.
            "generator": torch.Generator("cpu").manual_seed(run.seed),
            "output_type": "latent",
            "return_dict": False,
            "callback_on_step_end": Steps(report, first + len(second), look.preview if look else None),
            "callback_on_step_end_tensor_inputs": [],
        }
        with look.watching() if look else nullcontext():
            latents, sound = pipe(width=width, height=height, **schedule, **common)
            if not second:
                return latents, sound
            return pipe(
                latents=self._upsampled(latents, run),
                audio_latents=sound,
                width=2 * width,
                height=2 * height,
                sigmas=list(second),
                noise_scale=second[0],
                **common,
            )

    def _upsampled(self, latents: Tensor, run: Run) -> Tensor:
        """The first stage's latents at twice the size, its first frame taken anew from the reference where one is."""
        height, width = (side * self._pipe.vae_spatial_compression_ratio for side in latents.shape[3:])
        larger: Tensor = self._upsample(
            latents=latents,
            latents_normalized=False,
            width=width,
            height=height,
            output_type="latent",
            return_dict=False,
        )[0]
        if run.reference:
            larger[:, :, :1] = self._first_frame(cover(run.reference, 2 * width, 2 * height), larger)
        return larger

    def _first_frame(self, picture: Any, latents: Tensor) -> Tensor:
        """The latents [1, C, 1, h, w] of a PIL image, as the pipeline makes them in the first stage."""
        vae = self._pipe.vae
        vae.disable_tiling()
        pixels = self._pipe.video_processor.preprocess(picture).to(device=latents.device, dtype=vae.dtype)
        with torch.no_grad():
            return vae.encode(pixels[:, :, None]).latent_dist.mode().to(latents)

    def _guidance(self) -> dict[str, float]:
        """Every switch named. Guided runs use classifier-free guidance alone: one pass a step, over a batch of two."""
        if not self._guided():
            return _NO_GUIDANCE
        scale = self._options.guidance_scale
        return _NO_GUIDANCE | {"guidance_scale": scale, "audio_guidance_scale": scale}
