"""How far an LTX-2 job is, and how it looks by now: the pipeline's callback, and previews of what it denoises."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from zsky_box.errors import JobFailure
from zsky_box.pipelines.base import Reporter
from zsky_box.pipelines.decode import to_pictures
from zsky_box.pipelines.preview import drawing_nothing, jpeg, shrunk


class Steps:
    """The pipeline's callback over all stages of a job; what the reporter raises ends the call before any decoding."""

    def __init__(self, report: Reporter, steps: int, preview: Callable[[], bytes] | None) -> None:
        self._report = report
        self._steps = steps
        self._preview = preview
        self._done = 0

    def __call__(self, pipe: Any, index: int, timestep: Any, kwargs: dict[str, Any]) -> dict[str, Any]:  # noqa: ARG002
        self._done += 1
        self._report.step(self._done, self._steps, self._preview)
        return kwargs


class Look:
    """What the transformer last took the clip to be. A stochastic scheduler's states would not tell it.

    Nothing is computed until a preview is wanted; meanwhile one state and one prediction are kept.
    """

    def __init__(self, pipe: Any) -> None:
        self._pipe = pipe
        self._inputs: dict[str, Any] = {}
        self._velocity: Tensor | None = None

    @contextmanager
    def watching(self) -> Generator[None]:
        """Remember every pass through the transformer while the block runs, and forget all of it afterwards."""
        handle = self._pipe.transformer.register_forward_hook(self._remember, with_kwargs=True)
        try:
            yield
        finally:
            handle.remove()
            self._inputs, self._velocity = {}, None

    def _remember(self, module: Any, args: Any, kwargs: dict[str, Any], output: Any) -> None:  # noqa: ARG002
        self._inputs, self._velocity = kwargs, output[0]

    def preview(self) -> bytes:
        """The clip's middle as a small JPEG; empty before the first pass, or where none can be made of it."""
        if self._velocity is None:
            return b""
        vae = self._pipe.vae
        try:
            with torch.no_grad(), drawing_nothing(self._velocity.device):
                latents = shrunk(self._clean_middle(self._velocity))
                scale = _column(vae.latents_std, latents) / vae.config.scaling_factor
                latents = latents * scale + _column(vae.latents_mean, latents)
                vae.disable_tiling()  # each decoding sets its own tiles
                frame = vae.decode(latents[:, :, None].to(vae.dtype), return_dict=False)[0][:, :, 0]
                return jpeg(to_pictures(frame, frame.shape[3], frame.shape[2])[0])
        except (JobFailure, torch.OutOfMemoryError):
            return b""  # a preview is never worth the job

    def _clean_middle(self, velocity: Tensor) -> Tensor:
        """The clean latents [1, C, h, w] of the middle frame: state - sigma · velocity, tokens back in their places.

        With guidance, the batch's second half is the one that follows the prompt.
        """
        inputs = self._inputs
        sigma = inputs["timestep"][-1:].float() / self._pipe.scheduler.config.num_train_timesteps
        sigma = sigma[:, None, None] if sigma.ndim == 1 else sigma[..., None]  # a reference's frame has its own
        clean = inputs["hidden_states"][-1:].float() - sigma * velocity[-1:].float()
        frames = clean.unflatten(1, (inputs["num_frames"], inputs["height"], inputs["width"]))
        return frames[:, inputs["num_frames"] // 2].permute(0, 3, 1, 2)


def _column(statistic: Tensor, latents: Tensor) -> Tensor:
    return statistic.to(latents)[None, :, None, None]
