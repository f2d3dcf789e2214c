"""Where a model's components are while a job runs, as the recipe says: on the card, or there only while they compute.

Offloaded components share one place on the card: whichever is about to compute comes, and the one before leaves first.
So the transformer is gone when the VAE decodes, whatever calls it and in whatever order: what a pipeline's own order of
offloading does not give, because sound and pictures are decoded here outside of its call.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import contextmanager
from typing import Any, Final

import torch
from accelerate.hooks import ModelHook, add_hook_to_module
from accelerate.utils import send_to_device

from zsky_box.manifest import Recipe

HOST: Final = torch.device("cpu")
TRANSFORMER: Final = "transformer"


class Seat:
    """The place on the device for one offloaded component at a time; the others are in host memory."""

    def __init__(self, device: str) -> None:
        self.device = torch.device(device)
        self.taken_by: torch.nn.Module | None = None

    def take(self, module: torch.nn.Module) -> None:
        """Bring `module` to the device once the one that was there has left."""
        if self.taken_by is module:
            return
        self.free()
        module.to(self.device)
        self.taken_by = module

    def free(self) -> None:
        """Send whoever has the seat back to host memory."""
        if self.taken_by is not None:
            self.taken_by.to(HOST)
            self.taken_by = None
            if self.device.type == "cuda":
                torch.cuda.empty_cache()


@contextmanager
def left_on_failure(seat: Seat | None) -> Generator[None]:
    """Where the block raises, nobody keeps the seat.

    Between jobs the service counts on no more than a decoder there: a job that is cancelled among its steps would leave
    the transformer, and the next model would find the card full.
    """
    try:
        yield
    except BaseException:
        if seat is not None:
            seat.free()
        raise


class _TakesSeat(ModelHook):
    """Runs before a component's forward pass, and before a VAE's encode and decode, which the library hooks as well."""

    def __init__(self, seat: Seat) -> None:
        self._seat = seat
        self.execution_device = seat.device  # where the pipelines look for the device to make latents on

    def pre_forward(self, module: torch.nn.Module, *args: Any, **kwargs: Any) -> tuple[Any, Any]:
        self._seat.take(module)
        return send_to_device(args, self._seat.device), send_to_device(kwargs, self._seat.device)


def place(recipe: Recipe, device: str, *parts: Any, backend: str = "inductor") -> Seat | None:
    """Arrange opened pipelines and models on `device` as the recipe says, and compile; the seat they share, if any.

    Parts may share components. With `blocks`, the transformer stays out of the seat and is streamed block by block.
    What is compiled are the transformer's repeated blocks, when each first runs, by torch's `backend`.
    """
    modules = dict(_modules(parts))
    seat = None
    if recipe.offload == "none":
        for module in modules.values():
            module.to(device)
    else:
        seat = Seat(device)
        for name, module in modules.items():
            if name == TRANSFORMER and recipe.offload == "blocks":
                _stream_blocks(module, seat.device)
            else:
                add_hook_to_module(module, _TakesSeat(seat))
    if recipe.compile:
        modules[TRANSFORMER].compile_repeated_blocks(fullgraph=True, backend=backend)
    return seat


def _modules(parts: tuple[Any, ...]) -> Iterator[tuple[str, Any]]:
    for part in parts:
        if isinstance(part, torch.nn.Module):
            yield type(part).__name__, part
        else:
            yield from ((name, held) for name, held in part.components.items() if isinstance(held, torch.nn.Module))


def _stream_blocks(transformer: Any, device: torch.device) -> None:
    """Bring each block when it is due, on a card while the one before still computes.

    The blocks are pinned beforehand: pinned as they come, quantised ones crash (diffusers issue 14433).
    """
    transformer.enable_group_offload(
        onload_device=device,
        offload_device=HOST,
        offload_type="block_level",
        num_blocks_per_group=1,
        use_stream=device.type == "cuda",
        low_cpu_mem_usage=False,
    )
