"""mini's picture codec: it knows that a picture is a scene, and one object with its shadow in front of it.

The scene and the object's look (its outline, grain, light and shine) are drawn by learnt networks, once a clip; the
object is then placed in each frame by differentiable resampling, so that its edges stay sharp wherever it moves. The
encoder is a network that finds the object in a frame, cuts it out, and reads its look, its colour and its pose.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from zsky_box.pipelines.mini_latents import HEIGHT, LOOK_SIZE, SCENE_SIZE, WIDTH

ASPECT: Final = WIDTH / HEIGHT
GROUND: Final = 0.86
"""Where objects stand, in picture heights from the top."""
HORIZON: Final = 0.66
"""Where the floor begins."""

SPRITE: Final = 64
"""Pixels along a sprite's side."""
SPAN: Final = 1.3
"""A sprite reaches so many radii from the object's centre."""
LAYERS: Final = ("alpha", "grain", "light", "shine", "shadow")
"""A sprite's layers. The first two turn with the object; light, shine and shadow do not."""

CROP: Final = 48
_CROP_SPAN: Final = 1.7
_FRAMES_AT_ONCE: Final = 12


class Coordinates(NamedTuple):
    """A pixel grid as the object sees it: each [n, height, width, 2], in radii from its centre."""

    still: Tensor
    turned: Tensor
    shadow: Tensor
    depth: Tensor
    """[n, 1, 1, 1]: how dark the shadow is, 1 where the object touches the ground."""


def pixel_grid(height: int = HEIGHT, width: int = WIDTH) -> Tensor:
    """Centres of the pixels in picture heights: [height, width, 2] as x, y."""
    y = (torch.arange(height) + 0.5) / height
    x = (torch.arange(width) + 0.5) / width * ASPECT
    return torch.stack(torch.meshgrid(x, y, indexing="xy"), -1)


def coordinates(grid: Tensor, radius: Tensor, pose: Tensor) -> Coordinates:
    """See the grid from objects of radius [n] in the poses [n, POSE_SIZE]."""
    radius = radius[:, None, None]
    x, y, squash, cos, sin = (pose[:, index, None, None] for index in range(5))
    u = (grid[..., 0] - x) / (radius * (1 + 0.6 * squash))
    v = (grid[..., 1] - y) / (radius * (1 - squash))
    length = (cos * cos + sin * sin).sqrt().clamp_min(1e-3)
    cos, sin = cos / length, sin / length
    lift = (GROUND - radius * (1 - squash) - y).clamp_min(0)
    shadow = (grid[..., 0] - x) / (radius * (1 + 0.5 * lift)), (grid[..., 1] - GROUND) / (radius * 0.25)
    return Coordinates(
        torch.stack((u, v), -1),
        torch.stack((cos * u + sin * v, cos * v - sin * u), -1),
        torch.stack(shadow, -1),
        torch.exp(-2.5 * lift)[..., None],
    )


def compose(scene: Tensor, colour: Tensor, depth: Tensor, layers: list[Tensor]) -> Tensor:
    """Put the object, its layers sampled on the grid ([n, h, w] each), over the scene: [n, 3, h, w] in 0 to 1."""
    alpha, grain, light, shine, shadow = (layer[:, None] for layer in layers)
    ground = scene * (1 - 0.5 * depth * shadow)
    body = (colour[:, :, None, None] * grain * light + shine).clamp(0, 1)
    return ground + alpha * (body - ground)


class SceneDecoder(nn.Module):
    """Scene numbers to a picture: what is above the horizon and what is below are drawn each for itself."""

    def __init__(self, above: int = 32, below: int = 16) -> None:
        super().__init__()
        self.edge = round(HORIZON * HEIGHT)
        half = SCENE_SIZE // 2
        self.above = _drawer(half, above, 3 * self.edge * WIDTH)
        self.below = _drawer(half, below, 3 * (HEIGHT - self.edge) * WIDTH)

    def forward(self, scene: Tensor) -> Tensor:
        """[n, SCENE_SIZE] to pictures [n, 3, HEIGHT, WIDTH], about 0 to 1."""
        sky, floor = scene.chunk(2, 1)
        upper, lower = self.above(sky), self.below(floor)
        return torch.cat((upper.view(len(scene), 3, -1, WIDTH), lower.view(len(scene), 3, -1, WIDTH)), 2)


class SpriteDecoder(nn.Module):
    """An object's look to its sprite."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.draw = _drawer(LOOK_SIZE, width, len(LAYERS) * SPRITE * SPRITE)

    def forward(self, look: Tensor) -> Tensor:
        """[n, LOOK_SIZE] to [n, len(LAYERS), SPRITE, SPRITE], about 0 to 1; light goes to 2."""
        return self.draw(look).view(-1, len(LAYERS), SPRITE, SPRITE)


class SceneEncoder(nn.Module):
    """Frames to scene numbers: the background is read above the horizon, the floor below, each for itself."""

    def __init__(self, width: int = 24) -> None:
        super().__init__()
        self.above, self.below = _tower(width, 6), _tower(width, 6)

    def forward(self, frames: Tensor) -> Tensor:
        """[n, 3, HEIGHT, WIDTH] to [n, SCENE_SIZE]."""
        small = functional.avg_pool2d(frames, 2) - 0.5
        edge = round(HORIZON * HEIGHT / 2)
        return torch.cat((self.above(small[:, :, : edge - 1]), self.below(small[:, :, edge + 1 :])), 1)


class Seen(NamedTuple):
    """What the encoder saw in n frames."""

    look: Tensor
    """[n, LOOK_SIZE]"""
    colour: Tensor
    """[n, 3] in 0 to 1"""
    radius: Tensor
    """[n] in picture heights"""
    pose: Tensor
    """[n, POSE_SIZE]"""
    place: Tensor
    """[n, 3]: the first guess at x, y and radius, before the cut-out was looked at."""
    heat: Tensor
    """[n, rows, columns]: logits of where the object's centre is."""


class ObjectEncoder(nn.Module):
    """Finds the object, cuts it out, and reads it."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.finder = nn.Sequential(
            *_layer(3, width // 2, 5, stride=2),
            *_layer(width // 2, width, 3, stride=2),
            *_layer(width, width, 3, dilation=2),
            *_layer(width, width, 3, dilation=3),
        )
        self.heat = nn.Conv2d(width, 1, 1)
        self.span = nn.Linear(width, 1)
        self.reader = _tower(width, LOOK_SIZE + 3 + 3 + 3)

    def forward(self, frames: Tensor, told: Tensor | None = None) -> Seen:
        """[n, 3, HEIGHT, WIDTH] in 0 to 1; `told` [n, 3] is where to cut instead of where the object was found."""
        place, heat = self.find(frames)
        inner = place.detach() if told is None else told
        cut = self.cut(frames, inner)
        look, colour, turn, shift = self.reader(cut - 0.5).split((LOOK_SIZE, 3, 3, 3), 1)
        radius = inner[:, 2] * (1 + 0.2 * shift[:, 2])
        where = inner[:, :2] + 0.2 * shift[:, :2] * inner[:, 2:]
        pose = torch.cat((where, 0.2 * turn[:, :1], turn[:, 1:]), 1)
        return Seen(look, 0.5 + 0.5 * colour, radius, pose, place, heat)

    def find(self, frames: Tensor) -> tuple[Tensor, Tensor]:
        """x, y and radius [n, 3], and the heat."""
        features = self.finder(functional.avg_pool2d(frames, 2) - 0.5)
        heat = self.heat(features)[:, 0]
        weights = heat.flatten(1).softmax(1)
        grid = pixel_grid(*heat.shape[-2:]).to(frames).flatten(0, 1)
        radius = 0.11 + 0.1 * self.span((features.flatten(2) * weights[:, None]).sum(2))
        return torch.cat((weights @ grid, radius.clamp(0.03, 0.3)), 1), heat

    def cut(self, frames: Tensor, place: Tensor) -> Tensor:
        """Square cut-outs [n, 3, CROP, CROP] around places [n, 3]."""
        offsets = (torch.arange(CROP, device=frames.device) + 0.5) / CROP * 2 - 1
        square = torch.stack(torch.meshgrid(offsets, offsets, indexing="xy"), -1) * _CROP_SPAN
        grid = place[:, None, None, :2] + square * place[:, None, None, 2:]
        scale = torch.tensor([2 / ASPECT, 2.0], device=frames.device)
        return functional.grid_sample(frames, grid * scale - 1, padding_mode="border", align_corners=False)


class Picture(nn.Module):
    """The codec."""

    def __init__(self) -> None:
        super().__init__()
        self.config: dict[str, int] = {}
        self.scene_encoder = SceneEncoder()
        self.object_encoder = ObjectEncoder()
        self.scene = SceneDecoder()
        self.sprite = SpriteDecoder()
        # Names that latents must tell apart. They are asked for in training only: it is much quicker with them.
        self.name_look = nn.Linear(LOOK_SIZE, 5 + 4)
        self.name_scene = nn.Linear(SCENE_SIZE, 5 + 3 + 5)

    def place(self, scene: Tensor, sprite: Tensor, colour: Tensor, radius: Tensor, pose: Tensor) -> Tensor:
        """Draw n objects over n scenes [n, 3, h, w]: their sprites, colours [n, 3], radii [n] and poses [n, 5]."""
        grid = pixel_grid(*scene.shape[-2:]).to(scene)
        seen = coordinates(grid, radius, pose)
        scene, sprite = scene.clamp(0, 1), torch.cat((sprite[:, :2].clamp(0, 1), sprite[:, 2:].clamp_min(0)), 1)
        turned = functional.grid_sample(sprite[:, :2], seen.turned / SPAN, align_corners=False)
        still = functional.grid_sample(sprite[:, 2:4], seen.still / SPAN, padding_mode="border", align_corners=False)
        shadow = functional.grid_sample(sprite[:, 4:], seen.shadow / SPAN, align_corners=False)
        layers = [layer for part in (turned, still, shadow) for layer in part.unbind(1)]
        return compose(scene, colour, seen.depth, layers)

    @torch.no_grad()
    def frames(self, scene: Tensor, thing: Tensor, motion: Tensor) -> Iterator[Tensor]:
        """One clip's frames, uint8 [HEIGHT, WIDTH, 3], drawn as they are asked for.

        scene [1, SCENE_SIZE], thing [1, OBJECT_SIZE], motion [frames, POSE_SIZE].
        """
        ground = self.scene(scene)
        sprite = self.sprite(thing[:, :LOOK_SIZE])
        colour, radius = thing[:, LOOK_SIZE : LOOK_SIZE + 3].clamp(0, 1), thing[:, LOOK_SIZE + 3].clamp(0.02, 0.4)
        motion = torch.cat((motion[:, :2], motion[:, 2:3].clamp(-0.3, 0.5), motion[:, 3:]), 1)
        for pose in motion.split(_FRAMES_AT_ONCE):
            n = len(pose)
            drawn = self.place(
                ground.expand(n, -1, -1, -1), sprite.expand(n, -1, -1, -1), colour.expand(n, -1), radius.expand(n), pose
            )
            yield from (drawn * 255).round().to(torch.uint8).permute(0, 2, 3, 1)


def _drawer(size: int, width: int, pixels: int) -> nn.Sequential:
    """Latents to pixels: the last layer's weights are pictures, which those before it mix."""
    last = nn.Linear(width, pixels)
    nn.init.constant_(last.bias, 0.5)
    return nn.Sequential(nn.Linear(size, 64), nn.GELU(), nn.Linear(64, 64), nn.GELU(), nn.Linear(64, width), last)


def _tower(width: int, out: int) -> nn.Sequential:
    """Convolutions of stride 2, then an average over a coarse grid, then a linear layer."""
    return nn.Sequential(
        *_layer(3, width, 5, stride=2),
        *_layer(width, 2 * width, 3, stride=2),
        *_layer(2 * width, 2 * width, 3, stride=2),
        nn.AdaptiveAvgPool2d((4, 4)),
        nn.Flatten(),
        nn.Linear(32 * width, 128),
        nn.GELU(),
        nn.Linear(128, out),
    )


def _layer(before: int, after: int, kernel: int, stride: int = 1, dilation: int = 1) -> tuple[nn.Module, ...]:
    """A convolution, normalised: without, these towers take several times as many steps to begin to see."""
    padding = dilation * (kernel // 2)
    return nn.Conv2d(before, after, kernel, stride, padding, dilation), nn.GroupNorm(8, after), nn.GELU()
