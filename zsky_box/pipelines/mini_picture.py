"""mini's picture codec: it knows that a picture is a scene, and one object with its shadow in front of it.

What can be seen is kept in three codebooks, of skies, floors and looks, whose codes learnt networks draw: a look as a
sprite with its outline, grain, light and shine. The object is placed in each frame by differentiable resampling, so
that its edges stay sharp wherever it moves. The encoder is a network that finds the object in a frame, cuts it out, and
says which codes these are, and the object's colour and pose.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from zsky_box.pipelines.mini_latents import FLOOR_SIZE, HEIGHT, LOOK_SIZE, SKY_SIZE, WIDTH
from zsky_box.pipelines.mini_words import SLOTS

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

KINDS: Final = len(SLOTS["kind"])
MATERIALS: Final = len(SLOTS["material"])
LOOKS: Final = KINDS * MATERIALS
VARIANTS: Final = 3
"""Every background comes so often, with its sun, moon, clouds or trees elsewhere."""
SKIES: Final = len(SLOTS["background"]) * VARIANTS
FLOORS: Final = len(SLOTS["floor"])

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


class Drawing(nn.Module):
    """The decoder: codebooks, and what they look like."""

    def __init__(self, skies: int = 24, floors: int = 8, looks: int = 24) -> None:
        super().__init__()
        self.edge = round(HORIZON * HEIGHT)
        self.sky_codes = nn.Buffer(_codes(SKIES, SKY_SIZE))
        self.floor_codes = nn.Buffer(_codes(FLOORS, FLOOR_SIZE))
        self.look_codes = nn.Buffer(_codes(LOOKS, LOOK_SIZE))
        self.sky = _drawer(SKY_SIZE, skies, 3 * self.edge * WIDTH)
        self.floor = _drawer(FLOOR_SIZE, floors, 3 * (HEIGHT - self.edge) * WIDTH)
        self.look = _drawer(LOOK_SIZE, looks, len(LAYERS) * SPRITE * SPRITE)

    def scene(self, sky: Tensor, floor: Tensor, bright: Tensor) -> Tensor:
        """Codes [n, SKY_SIZE] and [n, FLOOR_SIZE] and brightness [n, 1] to [n, 3, HEIGHT, WIDTH], about 0 to 1."""
        upper, lower = self.sky(sky), self.floor(floor)
        picture = torch.cat((upper.view(len(sky), 3, -1, WIDTH), lower.view(len(sky), 3, -1, WIDTH)), 2)
        return picture * bright[:, :, None, None]

    def sprite(self, look: Tensor) -> Tensor:
        """Codes [n, LOOK_SIZE] to sprites [n, len(LAYERS), SPRITE, SPRITE], about 0 to 1; light goes to 2."""
        return self.look(look).view(-1, len(LAYERS), SPRITE, SPRITE)


def nearest(codes: Tensor, given: Tensor) -> Tensor:
    """The codes of a book [codes, size] that are nearest to those given [n, size]: what denoising left over is gone."""
    return codes[torch.cdist(given, codes).argmin(1)]


class Seen(NamedTuple):
    """What the encoder saw in n frames."""

    sky: Tensor
    """[n, SKIES]: logits of the sky's code, and so below."""
    floor: Tensor
    kind: Tensor
    material: Tensor
    bright: Tensor
    """[n, 1]"""
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


class Seeing(nn.Module):
    """The encoder."""

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
        self.reader = _tower(width, KINDS + MATERIALS + 3 + 3 + 3)
        self.scene = nn.Linear(3 * 9 * 16, SKIES + FLOORS + 1)

    def forward(self, frames: Tensor, told: Tensor | None = None) -> Seen:
        """[n, 3, HEIGHT, WIDTH] in 0 to 1; `told` [n, 3] is where to cut instead of where the object was found."""
        place, heat = self.find(frames)
        inner = place.detach() if told is None else told
        cut = self.cut(frames, inner)
        kind, material, colour, turn, shift = self.reader(cut - 0.5).split((KINDS, MATERIALS, 3, 3, 3), 1)
        radius = inner[:, 2] * (1 + 0.2 * shift[:, 2])
        where = inner[:, :2] + 0.2 * shift[:, :2] * inner[:, 2:]
        pose = torch.cat((where, 0.2 * turn[:, :1], turn[:, 1:]), 1)
        coarse = functional.adaptive_avg_pool2d(frames, (9, 16)).flatten(1) - 0.5
        sky, floor, bright = self.scene(coarse).split((SKIES, FLOORS, 1), 1)
        colour = 0.5 + 0.5 * colour
        return Seen(sky, floor, kind, material, 1 + 0.1 * bright, colour, radius, pose, place, heat)

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
        self.drawing = Drawing()
        self.seeing = Seeing()

    def encode(self, frames: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """One clip's frames [n, 3, HEIGHT, WIDTH] to its scene [1, SCENE_SIZE], object [1, OBJECT_SIZE], poses [n, 5].

        What does not change within a clip is read from all its frames together.
        """
        seen = self.seeing(frames)
        names = (seen.sky, seen.floor, seen.kind, seen.material)
        sky, floor, kind, material = (logits.log_softmax(1).sum(0).argmax() for logits in names)
        drawing = self.drawing
        scene = torch.cat((drawing.sky_codes[sky], drawing.floor_codes[floor], seen.bright.mean(0)))
        look = drawing.look_codes[kind * MATERIALS + material]
        thing = torch.cat((look, seen.colour.mean(0), seen.radius.mean(0, keepdim=True), seen.pose[0, :2]))
        return scene[None], thing[None], seen.pose

    def place(self, scene: Tensor, sprite: Tensor, colour: Tensor, radius: Tensor, pose: Tensor) -> Tensor:
        """Draw n objects over n scenes [n, 3, h, w]: their sprites, colours [n, 3], radii [n] and poses [n, 5]."""
        grid = pixel_grid(*scene.shape[-2:]).to(scene)
        seen = coordinates(grid, radius, pose)
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
        drawing = self.drawing
        sky, floor, bright = scene.split((SKY_SIZE, FLOOR_SIZE, 1), 1)
        sky, floor = nearest(drawing.sky_codes, sky), nearest(drawing.floor_codes, floor)
        ground = drawing.scene(sky, floor, bright.clamp(0.8, 1.2)).clamp(0, 1)
        sprite = drawing.sprite(nearest(drawing.look_codes, thing[:, :LOOK_SIZE])).clamp(0, 2)
        sprite = torch.cat((sprite[:, :1].clamp_max(1), sprite[:, 1:]), 1)
        colour, radius = thing[:, LOOK_SIZE : LOOK_SIZE + 3].clamp(0, 1), thing[:, LOOK_SIZE + 3].clamp(0.02, 0.4)
        motion = torch.cat((motion[:, :2], motion[:, 2:3].clamp(-0.3, 0.5), motion[:, 3:]), 1)
        for pose in motion.split(_FRAMES_AT_ONCE):
            n = len(pose)
            drawn = self.place(
                ground.expand(n, -1, -1, -1), sprite.expand(n, -1, -1, -1), colour.expand(n, -1), radius.expand(n), pose
            )
            yield from (drawn * 255).round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1)


def _codes(n: int, size: int) -> Tensor:
    """A codebook [n, size]: codes as far apart as a greedy choice among normal ones makes them; always the same."""
    drawn = torch.randn(4_096, size, generator=torch.Generator().manual_seed(size))
    drawn = drawn * size**0.5 / drawn.norm(dim=1, keepdim=True)
    chosen = drawn[:1]
    for _ in range(n - 1):
        chosen = torch.cat((chosen, drawn[torch.cdist(drawn, chosen).amin(1).argmax()][None]))
    return chosen


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
