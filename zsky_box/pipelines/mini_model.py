"""mini, whole: reads a prompt, denoises a clip, draws its frames and plays its sound. Saved as diffusers saves.

    model = MiniModel.from_folder(folder)
    reading = model.words.read("a red ball bounces on grass")
    tokens = model.sample(reading.slots, seed=1)
    frames, sound = model.decode_frames(tokens), model.decode_sound(tokens)

The folder has model_index.json and one folder for each component with its config.json and its weights; it is read with
safetensors and torch alone.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from zsky_box.pipelines.mini_flow import Flow, OnStep, sample
from zsky_box.pipelines.mini_latents import (
    FRAMES,
    GIVEN_TOKENS,
    HEIGHT,
    TOKEN_SIZE,
    TOKENS,
    WIDTH,
    Latents,
    Whitening,
)
from zsky_box.pipelines.mini_picture import Picture
from zsky_box.pipelines.mini_sound import Sound
from zsky_box.pipelines.mini_words import WordReader

STEPS: Final = 16
GUIDANCE: Final = 2.0
WEIGHTS_NAME: Final = "diffusion_pytorch_model.safetensors"
JOIN_FRAMES: Final = 16
STILL_FRAME: Final = 24
"""Which frame of a clip is shown as an image: at one second everything has come into view."""

COMPONENTS: Final[dict[str, type[WordReader | Picture | Sound | Flow | Whitening]]] = {
    "words": WordReader,
    "picture": Picture,
    "sound": Sound,
    "whitening": Whitening,
    "transformer": Flow,
}


@dataclass
class MiniModel:
    """The five networks, on the CPU, in float32."""

    words: WordReader
    picture: Picture
    sound: Sound
    whitening: Whitening
    transformer: Flow

    @classmethod
    def random(cls, **transformer: int) -> MiniModel:
        """Untrained networks, from torch's global generator; `transformer` as in Flow."""
        return cls(WordReader(), Picture(), Sound(), Whitening(), Flow(**transformer))

    @classmethod
    def from_folder(cls, folder: Path) -> MiniModel:
        """Load what `save` wrote.

        Raises OSError, ValueError, KeyError, RuntimeError, or safetensors' error for a broken folder.
        """
        from safetensors.torch import load_file

        parts: dict[str, nn.Module] = {}
        for name, kind in COMPONENTS.items():
            config: dict[str, int] = json.loads((folder / name / "config.json").read_text("utf-8"))
            part = kind(**{key: value for key, value in config.items() if not key.startswith("_")})
            weights = load_file(folder / name / WEIGHTS_NAME)
            part.load_state_dict({key: value.float() for key, value in weights.items()})
            parts[name] = part.eval()
        return cls(**parts)  # pyright: ignore[reportArgumentType] (each is of its class in COMPONENTS)

    def save(self, folder: Path, dtype: torch.dtype = torch.float16) -> None:
        """Write the folder; the whitening keeps float32, as its factors span orders of magnitude."""
        from safetensors.torch import save_file

        index: dict[str, object] = {"_class_name": "Mini"}
        for name, kind in COMPONENTS.items():
            part = self.part(name)
            (folder / name).mkdir(parents=True, exist_ok=True)
            (folder / name / "config.json").write_text(_json({"_class_name": kind.__name__, **part.config}), "utf-8")
            kept = torch.float32 if name == "whitening" else dtype
            weights = {key: value.detach().to(kept).contiguous() for key, value in part.state_dict().items()}
            save_file(weights, folder / name / WEIGHTS_NAME)
            index[name] = [kind.__module__, kind.__name__]
        (folder / "model_index.json").write_text(_json(index), "utf-8")

    def part(self, name: str) -> WordReader | Picture | Sound | Flow | Whitening:
        """A component by its name in COMPONENTS."""
        found: WordReader | Picture | Sound | Flow | Whitening = getattr(self, name)
        return found

    def sample(
        self,
        slots: Tensor,
        seed: int,
        steps: int = STEPS,
        guidance: float = GUIDANCE,
        on_step: OnStep | None = None,
        first_frame: NDArray[np.uint8] | None = None,
    ) -> Tensor:
        """Denoise one clip: tokens [1, TOKENS, TOKEN_SIZE]. The same arguments give the same numbers on one machine.

        `slots` as a Reading has them. `first_frame` is uint8 [HEIGHT, WIDTH, 3]; mini redraws it in its own world.
        """
        noise = torch.randn(1, TOKENS, TOKEN_SIZE, generator=torch.Generator().manual_seed(seed))
        given = None if first_frame is None else self.encode_first_frame(first_frame)
        tokens = sample(self.transformer, slots[None], noise, steps, guidance, on_step, given)
        return tokens if given is None else self._joined(tokens)

    @torch.no_grad()
    def encode_first_frame(self, frame: NDArray[np.uint8]) -> Tensor:
        """The tokens that a first frame fixes: its scene, and its object with its look, size and place."""
        if frame.shape != (HEIGHT, WIDTH, 3):
            raise ValueError(f"a first frame is {HEIGHT} x {WIDTH} x 3, not {frame.shape}")
        picture = torch.from_numpy(np.ascontiguousarray(frame)).permute(2, 0, 1)[None].float() / 255
        scene, thing, _ = self.picture.encode(picture)
        blank = self.whitening.latents(torch.zeros(1, TOKENS, TOKEN_SIZE))
        return self.whitening.tokens(Latents(scene, thing, blank.voice, blank.motion, blank.sound))[:, :GIVEN_TOKENS]

    def _joined(self, tokens: Tensor) -> Tensor:
        """Let the motion begin where the given frame has the object; within JOIN_FRAMES it is on its own way."""
        latents = self.latents(tokens)
        gap = latents.thing[:, None, -2:] - latents.motion[:, :1, :2]
        fade = (1 - torch.arange(FRAMES) / JOIN_FRAMES).clamp_min(0).square()[:, None]
        motion = torch.cat((latents.motion[..., :2] + fade * gap, latents.motion[..., 2:]), 2)
        joined = self.whitening.tokens(replace(latents, motion=motion))
        return torch.cat((tokens[:, :GIVEN_TOKENS], joined[:, GIVEN_TOKENS:]), 1)

    def latents(self, tokens: Tensor) -> Latents:
        """What the codecs read."""
        return self.whitening.latents(tokens)

    def decode_frames(self, tokens: Tensor) -> Iterator[NDArray[np.uint8]]:
        """The clip's FRAMES frames, uint8 [HEIGHT, WIDTH, 3], drawn as they are asked for."""
        latents = self.latents(tokens)
        for frame in self.picture.frames(latents.scene, latents.thing, latents.motion[0]):
            yield frame.numpy()

    def decode_still(self, tokens: Tensor, frame: int = STILL_FRAME) -> NDArray[np.uint8]:
        """One frame of the clip; cheap enough for a preview at each step."""
        latents = self.latents(tokens)
        pose = latents.motion[0, frame : frame + 1]
        return next(self.picture.frames(latents.scene, latents.thing, pose)).numpy()

    def decode_sound(self, tokens: Tensor) -> NDArray[np.float32]:
        """The clip's sound: float32 [SAMPLES, 1] in -1 to 1 at SAMPLE_RATE_HZ, as long as the frames."""
        latents = self.latents(tokens)
        return self.sound.sound(latents.voice, latents.sound).numpy()[:, None]


def _json(value: dict[str, object]) -> str:
    return json.dumps(value, indent=2) + "\n"
