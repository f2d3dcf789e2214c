"""Z-Image checkpoints: text to image and image to image. Source of the recipe: diffusers' two Z-Image pipelines."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor

from zsky_box.errors import JobFailure
from zsky_box.events import Run
from zsky_box.formats import render_size
from zsky_box.manifest import ModelSpec, Recipe, ZImageOptions
from zsky_box.pipelines.base import Clip, Reporter, Still
from zsky_box.pipelines.loading import failure, open_pipeline, quiet, release
from zsky_box.pipelines.offloading import Seat, place
from zsky_box.pipelines.on_time import OnTime
from zsky_box.pipelines.preview import MAX_SIDE_PIXELS, shrunk
from zsky_box.pipelines.reference import cover, framed
from zsky_box.pipelines.stills import StepDone, Stills, Watch

DEFAULT_STRENGTH: Final = 0.6  # the library's


def load(spec: ModelSpec, recipe: Recipe, folder: Path, device: str) -> ZImage:
    """Open the checkpoint; raises OutOfMemory, and JobFailure for a broken folder or a manifest that does not fit."""
    options = spec.options
    if not isinstance(options, ZImageOptions):
        raise failure(spec, f"its manifest is of the family {spec.family}")
    quiet()
    from diffusers.pipelines.z_image.pipeline_z_image import ZImagePipeline
    from diffusers.pipelines.z_image.pipeline_z_image_img2img import ZImageImg2ImgPipeline

    pipe = open_pipeline(ZImagePipeline, spec, recipe, folder, device)
    seat = place(recipe, device, pipe)
    redraw = ZImageImg2ImgPipeline(**pipe.components)
    redraw.set_progress_bar_config(disable=True)
    grid: int = (
        pipe.vae_scale_factor * 2
    )  # latents are cut in patches of 2 by 2; other sizes are refused by the library
    if spec.size_multiple % grid:
        raise failure(spec, f"its grid is {grid} pixels, its manifest says otherwise")
    return ZImage(spec, options, recipe, pipe, redraw, seat, device)


class ZImage:
    """One loaded checkpoint on one device; runs one job at a time. `redraw` shares the components of `pipe`."""

    def __init__(
        self,
        spec: ModelSpec,
        options: ZImageOptions,
        recipe: Recipe,
        pipe: Any,
        redraw: Any,
        seat: Seat | None,
        device: str,
    ) -> None:
        self._spec = spec
        self._options = options
        self._recipe = recipe
        self._pipe = pipe
        self._redraw = redraw
        self._seat = seat
        self._device = device

    def video(self, run: Run, report: Reporter) -> Clip:  # noqa: ARG002
        raise JobFailure("internal_error", f"{self._spec.name} makes no video.")

    def images(self, run: Run, report: Reporter) -> Iterator[Still]:
        """`run.n` stills, each rendered when it is asked for; after one that raised, the next can be asked for.

        With a reference they start from it instead of noise alone: of the manifest's steps the last `strength` part is
        taken, rounded up, and never none.
        """
        painter = _Painter(
            self._spec, self._options, self._pipe, self._redraw, run, can_show=self._recipe.offload != "model"
        )
        return Stills(painter, run, OnTime(report, self._device), self._recipe.images_at_once, self._seat)

    def close(self) -> None:
        del self._pipe, self._redraw, self._seat
        release(self._device)


class _Painter:
    """The images of one job. `can_show` is False where a look at one would send the transformer off the card."""

    def __init__(
        self, spec: ModelSpec, options: ZImageOptions, pipe: Any, redraw: Any, run: Run, *, can_show: bool
    ) -> None:
        self._options = options
        self._pipe = pipe
        self._redraw = redraw
        self._run = run
        self._shows = can_show and run.preview_steps > 0
        self._size = render_size(run.width, run.height, spec.size_multiple)
        self._prompt: dict[str, Any] = {}
        self._reference: Any = None

    def prepare(self) -> None:
        if self._run.reference:
            self._reference = framed(cover(self._run.reference, self._run.width, self._run.height), *self._size)
        guided = self._options.guidance_scale > 0
        embeds, negative = self._pipe.encode_prompt(
            prompt=self._run.prompt,
            negative_prompt=self._run.negative_prompt if guided else None,
            do_classifier_free_guidance=guided,
            max_sequence_length=self._options.max_sequence_length,
        )
        self._prompt = {"prompt_embeds": embeds, "negative_prompt_embeds": negative}

    def denoise(self, seeds: list[int], done: StepDone) -> Tensor:
        watch = Watch(self._show)

        def count(pipe: Any, step: int, timestep: Any, kwargs: dict[str, Any]) -> dict[str, Any]:  # noqa: ARG001
            preview = watch.look(pipe.scheduler, kwargs["latents"]) if self._shows else None
            done(step + 1, pipe.num_timesteps, preview)
            return kwargs

        width, height = self._size
        common: dict[str, Any] = {
            **self._prompt,
            "width": width,
            "height": height,
            "num_inference_steps": self._options.steps,
            "guidance_scale": self._options.guidance_scale,
            "num_images_per_prompt": len(seeds),
            # Noise drawn on the CPU is the same whatever the card.
            "generator": [torch.Generator("cpu").manual_seed(seed) for seed in seeds],
            "output_type": "latent",
            "return_dict": False,
            "callback_on_step_end": count,
        }
        if self._reference is None:
            return self._pipe(**common)[0]
        strength = DEFAULT_STRENGTH if self._run.strength is None else self._run.strength
        return self._redraw(
            # A copy for each: from one alone, all would start from the sample that the first generator draws of it.
            image=[self._reference] * len(seeds),
            strength=max(strength, 1 / self._options.steps),
            **common,
        )[0]

    def decode(self, latents: Tensor) -> Tensor:
        vae = self._pipe.vae
        latents = latents.to(vae.dtype) / vae.config.scaling_factor + vae.config.shift_factor
        return vae.decode(latents, return_dict=False)[0]

    def _show(self, clean: Tensor) -> Tensor:
        return self.decode(shrunk(clean, MAX_SIDE_PIXELS // self._pipe.vae_scale_factor))
