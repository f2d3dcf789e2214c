"""FLUX.2 klein checkpoints: text to image, and editing a picture. Source: diffusers' Flux2KleinPipeline."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor

from zsky_box.errors import JobFailure
from zsky_box.events import Run
from zsky_box.formats import render_size
from zsky_box.manifest import Flux2KleinOptions, ModelSpec, Recipe
from zsky_box.pipelines.base import Clip, Reporter, Still
from zsky_box.pipelines.loading import failure, open_pipeline, quiet, release
from zsky_box.pipelines.offloading import Seat, place
from zsky_box.pipelines.on_time import OnTime
from zsky_box.pipelines.preview import MAX_SIDE_PIXELS, shrunk
from zsky_box.pipelines.reference import cover, opened
from zsky_box.pipelines.stills import StepDone, Stills, Watch

# The library refuses a reference with a shorter side or a longer shape, and itself scales down those above 1024².
_REFERENCE_SIDE_MIN: Final = 64
_REFERENCE_ASPECT_MAX: Final = 8


def load(spec: ModelSpec, recipe: Recipe, folder: Path, device: str) -> Flux2Klein:
    """Open the checkpoint; raises OutOfMemory, and JobFailure for a broken folder or a manifest that does not fit."""
    options = spec.options
    if not isinstance(options, Flux2KleinOptions):
        raise failure(spec, f"its manifest is of the family {spec.family}")
    quiet()
    from diffusers.pipelines.flux2.pipeline_flux2_klein import Flux2KleinPipeline

    pipe = open_pipeline(Flux2KleinPipeline, spec, recipe, folder, device)
    seat = place(recipe, device, pipe)
    grid: int = pipe.vae_scale_factor * 2  # latents are packed in patches of 2 by 2; other sizes are silently cut
    if spec.size_multiple % grid:
        raise failure(spec, f"its grid is {grid} pixels, its manifest says otherwise")
    return Flux2Klein(spec, options, recipe, pipe, seat, device)


class Flux2Klein:
    """One loaded checkpoint on one device; runs one job at a time."""

    def __init__(
        self,
        spec: ModelSpec,
        options: Flux2KleinOptions,
        recipe: Recipe,
        pipe: Any,
        seat: Seat | None,
        device: str,
    ) -> None:
        self._spec = spec
        self._options = options
        self._recipe = recipe
        self._pipe = pipe
        self._seat = seat
        self._device = device

    def video(self, run: Run, report: Reporter) -> Clip:  # noqa: ARG002
        raise JobFailure("internal_error", f"{self._spec.name} makes no video.")

    def images(self, run: Run, report: Reporter) -> Iterator[Still]:
        """`run.n` stills, each rendered when it is asked for; after one that raised, the next can be asked for.

        A reference is looked at while they are made from noise, and stays whole: its shape need not be theirs.
        """
        painter = _Painter(self._spec, self._options, self._pipe, run, can_show=self._recipe.offload != "model")
        return Stills(painter, run, OnTime(report, self._device), self._recipe.images_at_once, self._seat)

    def close(self) -> None:
        del self._pipe, self._seat
        release(self._device)


class _Painter:
    """The images of one job. `can_show` is False where a look at one would send the transformer off the card."""

    def __init__(self, spec: ModelSpec, options: Flux2KleinOptions, pipe: Any, run: Run, *, can_show: bool) -> None:
        self._options = options
        self._pipe = pipe
        self._run = run
        self._shows = can_show and run.preview_steps > 0
        self._size = render_size(run.width, run.height, spec.size_multiple)
        self._prompt_embeds: Tensor | None = None
        self._reference: Any = None

    def prepare(self) -> None:
        if self._run.reference:
            self._reference = _whole(self._run.reference)
        self._prompt_embeds, _ = self._pipe.encode_prompt(
            prompt=self._run.prompt, max_sequence_length=self._options.max_sequence_length
        )

    def denoise(self, seeds: list[int], done: StepDone) -> Tensor:
        watch = Watch(self._show)

        def count(pipe: Any, step: int, timestep: Any, kwargs: dict[str, Any]) -> dict[str, Any]:  # noqa: ARG001
            preview = watch.look(pipe.scheduler, kwargs["latents"]) if self._shows else None
            done(step + 1, pipe.num_timesteps, preview)
            return kwargs

        width, height = self._size
        # Keywords only: the first positional argument is an image. With both sides given, it cannot set the size.
        return self._pipe(
            image=self._reference,
            prompt_embeds=self._prompt_embeds,
            width=width,
            height=height,
            num_inference_steps=self._options.steps,
            guidance_scale=self._options.guidance_scale,
            max_sequence_length=self._options.max_sequence_length,
            num_images_per_prompt=len(seeds),
            # Noise drawn on the CPU is the same whatever the card.
            generator=[torch.Generator("cpu").manual_seed(seed) for seed in seeds],
            output_type="latent",
            return_dict=False,
            callback_on_step_end=count,
        )[0]

    def decode(self, latents: Tensor) -> Tensor:
        vae = self._pipe.vae
        return vae.decode(latents.to(vae.dtype), return_dict=False)[0]

    def _show(self, clean: Tensor) -> Tensor:
        """From a packed state [1, h · w, 4 · C], patches of 2 by 2 normalised latents, as the library ends."""
        vae, grid = self._pipe.vae, self._pipe.vae_scale_factor * 2
        width, height = self._size
        patches = clean.transpose(1, 2).reshape(1, -1, height // grid, width // grid)
        mean, variance = (known.view(1, -1, 1, 1).to(patches) for known in (vae.bn.running_mean, vae.bn.running_var))
        patches = patches * (variance + vae.config.batch_norm_eps).sqrt() + mean
        latents = torch.nn.functional.pixel_shuffle(patches, 2)
        return self.decode(shrunk(latents, MAX_SIDE_PIXELS // self._pipe.vae_scale_factor))


def _whole(path: str) -> Any:
    """The reference as the library takes it: uncropped, but for a shape longer than it allows."""
    picture = opened(path)
    short, long = sorted(picture.size)
    scale = max(1.0, _REFERENCE_SIDE_MIN / short)
    short, long = round(short * scale), round(min(long, short * _REFERENCE_ASPECT_MAX) * scale)
    return cover(path, *((long, short) if picture.width > picture.height else (short, long)))
