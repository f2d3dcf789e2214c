"""FLUX.2 klein checkpoints: text to image in four steps. Source of the recipe: diffusers' Flux2KleinPipeline."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from zsky_box.errors import JobFailure
from zsky_box.events import Run
from zsky_box.formats import render_size
from zsky_box.manifest import Flux2KleinOptions, ModelSpec, Recipe
from zsky_box.pipelines.base import Clip, Picture, Reporter, Still
from zsky_box.pipelines.decode import to_pictures
from zsky_box.pipelines.loading import failure, memory_guard, open_pipeline, quiet, release
from zsky_box.pipelines.offloading import place


def load(spec: ModelSpec, recipe: Recipe, folder: Path, device: str) -> Flux2Klein:
    """Open the checkpoint; raises OutOfMemory, and JobFailure for a broken folder or a manifest that does not fit."""
    options = spec.options
    if not isinstance(options, Flux2KleinOptions):
        raise failure(spec, f"its manifest is of the family {spec.family}")
    quiet()
    from diffusers.pipelines.flux2.pipeline_flux2_klein import Flux2KleinPipeline

    pipe = open_pipeline(Flux2KleinPipeline, spec, recipe, folder, device)
    place(recipe, device, pipe)
    grid: int = pipe.vae_scale_factor * 2  # latents are packed in patches of 2 by 2; other sizes are silently cut
    if spec.size_multiple % grid:
        raise failure(spec, f"its grid is {grid} pixels, its manifest says otherwise")
    return Flux2Klein(spec, options, pipe, device)


class Flux2Klein:
    """One loaded checkpoint on one device; runs one job at a time."""

    def __init__(self, spec: ModelSpec, options: Flux2KleinOptions, pipe: Any, device: str) -> None:
        self._spec = spec
        self._options = options
        self._pipe = pipe
        self._device = device

    def video(self, run: Run, report: Reporter) -> Clip:  # noqa: ARG002
        raise JobFailure("internal_error", f"{self._spec.name} makes no video.")

    def images(self, run: Run, report: Reporter) -> Iterator[Still]:
        """`run.n` stills, each rendered when it is asked for; after one that raised, the next can be asked for."""
        return _Stills(self._spec, self._options, self._pipe, run, report)

    def close(self) -> None:
        del self._pipe
        release(self._device)


class _Stills:
    """The images of one job. A class and not a generator, because a generator that raises is over."""

    def __init__(self, spec: ModelSpec, options: Flux2KleinOptions, pipe: Any, run: Run, report: Reporter) -> None:
        self._options = options
        self._pipe = pipe
        self._run = run
        self._report = report
        self._size = render_size(run.width, run.height, spec.size_multiple)
        self._prompt_embeds: Tensor | None = None
        self._next = 0

    def __iter__(self) -> Iterator[Still]:
        return self

    def __next__(self) -> Still:
        """Raises OutOfMemory, what the reporter raises, and StopIteration after `run.n` attempts."""
        index = self._next
        if index == self._run.n:
            raise StopIteration
        self._next += 1
        seed = self._run.seed + index
        return Still(self._render(index, seed), seed)

    def _render(self, index: int, seed: int) -> Picture:
        with memory_guard(), torch.no_grad():
            if self._prompt_embeds is None:
                self._report.phase("loading")
                self._prompt_embeds = self._encode()
                self._report.phase("denoising")
            latents = self._denoise(index, seed, self._prompt_embeds)
            if index + 1 == self._run.n:  # earlier, the phase would fall back with the next image
                self._report.phase("decoding")
            frames = self._pipe.vae.decode(latents.to(self._pipe.vae.dtype), return_dict=False)[0]
            return to_pictures(frames, self._run.width, self._run.height)[0]

    def _encode(self) -> Tensor:
        embeds, _ = self._pipe.encode_prompt(
            prompt=self._run.prompt, max_sequence_length=self._options.max_sequence_length
        )
        return embeds

    def _denoise(self, index: int, seed: int, prompt_embeds: Tensor) -> Tensor:
        steps = self._options.steps
        width, height = self._size

        def count(pipe: Any, step: int, timestep: Any, kwargs: dict[str, Any]) -> dict[str, Any]:  # noqa: ARG001
            self._report.step(index * steps + step + 1, self._run.n * steps)
            return kwargs

        # Keywords only: the first positional argument is an image.
        return self._pipe(
            prompt_embeds=prompt_embeds,
            width=width,
            height=height,
            num_inference_steps=steps,
            guidance_scale=self._options.guidance_scale,
            max_sequence_length=self._options.max_sequence_length,
            generator=torch.Generator("cpu").manual_seed(seed),
            output_type="latent",
            return_dict=False,
            callback_on_step_end=count,
            callback_on_step_end_tensor_inputs=[],
        )[0]
