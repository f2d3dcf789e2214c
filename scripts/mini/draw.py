"""How mini's world looks: exact drawings of backgrounds, floors and objects, computed for any pixel grid.

The picture codec learns these drawings; the scorer is trained on them and never sees the codec.
"""

from __future__ import annotations

import math
from typing import Final

import numpy as np
import torch
from torch import Tensor

from scripts.mini.world import Motion, Scenes
from zsky_box.pipelines.mini_latents import HEIGHT, WIDTH
from zsky_box.pipelines.mini_picture import ASPECT, GROUND, HORIZON, SPAN, SPRITE, compose, coordinates, pixel_grid
from zsky_box.pipelines.mini_words import SLOTS

COLOURS: Final = torch.tensor(
    [
        [0.86, 0.15, 0.15],
        [0.12, 0.62, 0.24],
        [0.14, 0.33, 0.90],
        [0.96, 0.85, 0.14],
        [0.96, 0.52, 0.08],
        [0.55, 0.20, 0.76],
        [0.95, 0.95, 0.95],
        [0.10, 0.10, 0.12],
    ]
)
_FLOORS: Final = torch.tensor(
    [[0.36, 0.56, 0.26], [0.86, 0.76, 0.52], [0.56, 0.57, 0.60], [0.90, 0.93, 0.97], [0.60, 0.32, 0.25]]
)
_SMOOTH: Final = 1.5 / HEIGHT
"""Edges of the scenery are as soft as this."""


def scenery(clips: Scenes, height: int = HEIGHT, width: int = WIDTH) -> Tensor:
    """The scenes without their objects: [n, 3, height, width] in 0 to 1."""
    grid = pixel_grid(height, width)
    pictures = torch.empty(len(clips), 3, height, width)
    weather, bright = torch.from_numpy(clips.weather), torch.from_numpy(clips.bright())
    below = ((grid[..., 1] - HORIZON) / _SMOOTH).clamp(0, 1)
    for index in range(len(clips)):
        wall = _BACKGROUNDS[int(clips.value("background")[index])](grid, float(weather[index, 0]))
        floor = _floor(grid, int(clips.value("floor")[index]))
        pictures[index] = ((wall + below * (floor - wall)) * bright[index]).clamp(0, 1)
    return pictures


def colours(clips: Scenes) -> Tensor:
    """[n, 3]"""
    return (COLOURS[torch.from_numpy(clips.value("colour"))] + torch.from_numpy(clips.tint)).clamp(0, 1)


def objects(clips: Scenes, poses: Tensor, scenery: Tensor) -> Tensor:
    """Draw each clip's object in its pose [n, POSE_SIZE] over its scenery [n, 3, h, w]."""
    pictures = scenery.clone()
    grid = pixel_grid(*scenery.shape[-2:])
    paint = colours(clips)
    for index, pose in enumerate(poses):
        radius = torch.from_numpy(clips.radius[index : index + 1])
        rows, columns = _window(grid, float(radius), pose)
        seen = coordinates(grid[rows, columns], radius, pose[None])
        kind, material = int(clips.value("kind")[index]), int(clips.value("material")[index])
        layers = (
            *turning(kind, material, seen.turned[0], float(radius) * scenery.shape[-2]),
            *lighting(material, seen.still[0]),
            shadow(seen.shadow[0]),
        )
        behind = scenery[index : index + 1, :, rows, columns]
        drawn = compose(behind, paint[index : index + 1], seen.depth, [layer[None] for layer in layers])
        pictures[index, :, rows, columns] = drawn[0]
    return pictures


def _window(grid: Tensor, radius: float, pose: Tensor) -> tuple[slice, slice]:
    """The rows and columns that an object or its shadow may touch."""
    x, y = pose[0].item(), pose[1].item()
    reach = 1.7 * radius
    across = (grid[0, :, 0] - x).abs() < reach
    down = (grid[:, 0, 1] > y - reach) & (grid[:, 0, 1] < max(y, GROUND) + reach)
    rows, columns = down.nonzero().flatten().tolist(), across.nonzero().flatten().tolist()
    return slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)


def frames(clips: Scenes, motion: Motion, row: int) -> Tensor:
    """One clip's frames: [FRAMES, 3, HEIGHT, WIDTH] in 0 to 1."""
    poses = torch.from_numpy(motion.pose[row])
    many = clips[np.full(len(poses), row)]
    ground = scenery(clips[row : row + 1]).expand(len(poses), -1, -1, -1)
    return objects(many, poses, ground)


def sprites(kinds: Tensor, materials: Tensor) -> Tensor:
    """What the sprite decoder is to draw: its layers [n, 5, SPRITE, SPRITE]."""
    steps = ((torch.arange(SPRITE) + 0.5) / SPRITE * 2 - 1) * SPAN
    grid = torch.stack(torch.meshgrid(steps, steps, indexing="xy"), -1)
    drawn = [
        torch.cat((turning(int(k), int(m), grid, SPRITE / SPAN / 2), lighting(int(m), grid), shadow(grid)[None]))
        for k, m in zip(kinds, materials, strict=True)
    ]
    return torch.stack(drawn)


def turning(kind: int, material: int, grid: Tensor, pixels_per_radius: float) -> Tensor:
    """Outline and grain, which turn with the object: [2, h, w] on a grid [h, w, 2] in radii."""
    u, v = grid.unbind(-1)
    distance = _SHAPES[kind](u, v)
    alpha = (0.5 - distance * pixels_per_radius).clamp(0, 1)
    grain = torch.ones_like(u)
    if list(SLOTS["material"])[material] == "wood":
        grain = 0.86 + 0.14 * torch.sin(13 * v + 1.6 * torch.sin(3 * u))
    if list(SLOTS["material"])[material] == "glass":
        alpha = alpha * (0.8 + 0.2 * ((distance + 0.22) / 0.12).clamp(0, 1))
    outline = ((distance + 0.10) * 18).clamp(0, 1)
    mark = _soft((u - _MARKS[kind]) ** 2 + v**2, 0.15**2)
    return torch.stack((alpha, grain * (1 - 0.45 * outline) * (1 - 0.55 * mark)))


def lighting(material: int, grid: Tensor) -> Tensor:
    """Light and shine, which stay as the object turns: [2, h, w]."""
    u, v = grid.unbind(-1)
    u, v = u.clamp(-SPAN, SPAN), v.clamp(-SPAN, SPAN)
    light = 1 - 0.10 * u - 0.18 * v
    spot = (u + 0.36) ** 2 + (v + 0.42) ** 2
    name = list(SLOTS["material"])[material]
    if name == "metal":
        return torch.stack((light * (1 + 0.22 * torch.cos(5.5 * (v - 0.3 * u))), 0.75 * torch.exp(-spot / 0.035)))
    if name == "glass":
        under = (u - 0.34) ** 2 + (v - 0.42) ** 2
        return torch.stack((light, 0.8 * torch.exp(-spot / 0.02) + 0.25 * torch.exp(-under / 0.06)))
    if name == "rubber":
        return torch.stack((light, 0.16 * torch.exp(-spot / 0.14)))
    return torch.stack((light, torch.zeros_like(u)))


def shadow(grid: Tensor) -> Tensor:
    """How much of the light is taken: [h, w]."""
    return _soft((grid**2).sum(-1), 1.0, 0.35)


def _ball(u: Tensor, v: Tensor) -> Tensor:
    return torch.hypot(u, v) - 1


def _cube(u: Tensor, v: Tensor) -> Tensor:
    return torch.maximum(u.abs(), v.abs()) - 0.84


def _star(u: Tensor, v: Tensor) -> Tensor:
    """Five points; the distance to the nearest of its ten sides."""
    angle = torch.atan2(u, -v) % (2 * torch.pi / 5)
    angle = torch.minimum(angle, 2 * torch.pi / 5 - angle)
    rho = torch.hypot(u, v)
    x, y = rho * angle.sin(), rho * angle.cos()
    tip_y, notch_x, notch_y = 1.08, 0.52 * math.sin(math.pi / 5), 0.52 * math.cos(math.pi / 5)
    length = math.hypot(notch_x, tip_y - notch_y)
    return (x * (tip_y - notch_y) + (y - tip_y) * notch_x) / length


def _ring(u: Tensor, v: Tensor) -> Tensor:
    return (torch.hypot(u, v) - 0.72).abs() - 0.28


def _heart(u: Tensor, v: Tensor) -> Tensor:
    """After Inigo Quilez' distance to a heart."""
    x, y = 0.6 * u.abs(), 0.56 - 0.6 * v
    lobe = torch.hypot(x - 0.25, y - 0.75) - 0.125**0.5
    along = (x + y).clamp_min(0) / 2
    tip = torch.minimum(torch.hypot(x, y - 1), torch.hypot(x - along, y - along)) * torch.sign(x - y)
    return torch.where(x + y > 1, lobe, tip) / 0.6


_SHAPES: Final = (_ball, _cube, _star, _ring, _heart)
_MARKS: Final = (0.55, 0.5, 0.4, 0.72, 0.42)
"""How far from the centre each kind has its dark dot, which shows that it turns."""


def _studio(grid: Tensor, _: float) -> Tensor:
    away = ((grid[..., 0] / ASPECT - 0.5) ** 2 + (grid[..., 1] - 0.3) ** 2).sqrt()
    return _between((0.90, 0.89, 0.87), (0.66, 0.66, 0.68), (1.3 * away).clamp(0, 1))


def _sky(grid: Tensor, place: float) -> Tensor:
    sky = _between((0.36, 0.62, 0.92), (0.78, 0.90, 0.98), grid[..., 1] / HORIZON)
    for across, down, wide in ((0.25, 0.16, 0.16), (0.75, 0.28, 0.2)):
        x = (across + 0.4 * (place - 0.5)) * ASPECT
        cloud = _soft(((grid[..., 0] - x) / wide) ** 2 + ((grid[..., 1] - down) / (0.32 * wide)) ** 2, 1.0, 0.5)
        sky = sky + 0.8 * cloud * (1 - sky)
    return sky


def _sunset(grid: Tensor, place: float) -> Tensor:
    sky = _between((0.42, 0.24, 0.52), (0.99, 0.62, 0.30), (grid[..., 1] / HORIZON).clamp(0, 1) ** 0.8)
    sun = _soft((grid[..., 0] - (0.2 + 0.6 * place) * ASPECT) ** 2 + (grid[..., 1] - 0.56) ** 2, 0.1**2, 0.2)
    return sky + sun * (_colour((1.0, 0.90, 0.60)) - sky)


def _night(grid: Tensor, place: float) -> Tensor:
    sky = _between((0.09, 0.11, 0.27), (0.24, 0.28, 0.48), grid[..., 1] / HORIZON)
    moon = _soft((grid[..., 0] - (0.15 + 0.7 * place) * ASPECT) ** 2 + (grid[..., 1] - 0.16) ** 2, 0.075**2, 0.1)
    return sky + moon * (_colour((0.93, 0.93, 0.84)) - sky)


def _forest(grid: Tensor, place: float) -> Tensor:
    woods = _between((0.62, 0.76, 0.62), (0.36, 0.52, 0.40), grid[..., 1] / HORIZON)
    trunk = ((torch.sin(2 * torch.pi * (3.5 * grid[..., 0] / ASPECT + 0.5 * place)) - 0.72) * 9).clamp(0, 1)
    crown = ((0.16 + 0.03 * torch.sin(22 * grid[..., 0] + 3 * place) - grid[..., 1]) * 30).clamp(0, 1)
    woods = woods + trunk * (_colour((0.27, 0.24, 0.20)) - woods)
    return woods + crown * (_colour((0.18, 0.36, 0.22)) - woods)


_BACKGROUNDS: Final = (_studio, _sky, _sunset, _night, _forest)


def _floor(grid: Tensor, index: int) -> Tensor:
    """A floor in perspective: its lines meet at a point above the horizon."""
    near = (grid[..., 1] - HORIZON).clamp_min(0) / (1 - HORIZON)
    across = (grid[..., 0] - ASPECT / 2) / (0.35 + near)
    base = _FLOORS[index][:, None, None] * (0.86 + 0.14 * near)
    name = list(SLOTS["floor"])[index]
    if name == "grass":
        return base * (1 + 0.16 * torch.sin(55 * across) * torch.sin(9 * near + 20 * across))
    if name == "sand":
        return base * (1 + 0.05 * torch.sin(26 * near + 5 * torch.sin(2.5 * across)))
    if name == "snow":
        return base * (1 - 0.05 * (0.5 + 0.5 * torch.sin(7 * across) * torch.sin(5 * near)))
    rows = 4 * near**0.7
    tiles = across * 3 + (0.5 * (rows.floor() % 2) if name == "brick" else 0)
    line = torch.minimum((rows - rows.round()).abs() * 1.2, (tiles - tiles.round()).abs())
    return base * (1 - (0.30 if name == "brick" else 0.22) * (1 - line * 16).clamp(0, 1))


def _soft(squared: Tensor, limit: float, edge: float = 0.15) -> Tensor:
    """1 within a squared distance, 0 outside, smooth over a part of it."""
    return ((limit * (1 + edge) - squared) / (2 * edge * limit)).clamp(0, 1)


def _colour(rgb: tuple[float, float, float]) -> Tensor:
    return torch.tensor(rgb)[:, None, None]


def _between(first: tuple[float, float, float], second: tuple[float, float, float], part: Tensor) -> Tensor:
    return _colour(first) + part.clamp(0, 1) * (_colour(second) - _colour(first))
