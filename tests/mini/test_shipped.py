"""The weights that ship: a short look at what they make of captions that their training never saw.

It reads latents, not pictures: quick, and enough to tell weights that no longer fit the code. How good they are is what
`scripts.mini.score` tells.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import pytest
import torch

from scripts.mini import captions, draw, score, world
from scripts.mini.measures import inside, strikes
from scripts.mini.pack import SHARD_BYTES, TOTAL_BYTES
from zsky_box.pipelines.mini_latents import FRAMES, LOOK_SIZE, SKY_SIZE, Latents
from zsky_box.pipelines.mini_model import MiniModel
from zsky_box.pipelines.mini_picture import MATERIALS, VARIANTS, nearest
from zsky_box.pipelines.mini_sound import onsets
from zsky_box.settings import CHECKOUT

FOLDER: Final = CHECKOUT / "models" / "mini"
CLIPS: Final = 16
FEW: Final = 2
"""So many of the clips may be wrong."""


@pytest.fixture(scope="module")
def shipped() -> MiniModel:
    return MiniModel.from_folder(FOLDER)


@pytest.fixture(scope="module")
def asked() -> world.Scenes:
    return world.scenes(np.random.default_rng(77), CLIPS, "held out")


@pytest.fixture(scope="module")
def made(shipped: MiniModel, asked: world.Scenes) -> list[Latents]:
    """What it makes of each full caption."""
    texts = [captions.full(asked, row) for row in range(CLIPS)]
    return [shipped.latents(shipped.sample(shipped.words.read(text).slots, row)) for row, text in enumerate(texts)]


def test_it_reads_full_captions(shipped: MiniModel, asked: world.Scenes) -> None:
    for row in range(CLIPS):
        assert shipped.words.read(captions.full(asked, row)).slots.tolist() == asked.slots[row].tolist()


def test_it_tells_an_objects_colour_from_a_places(shipped: MiniModel) -> None:
    read = shipped.words.read("a red ball bounces on grass under a blue sky").understood
    assert (read["colour"], read["background"], read["floor"]) == ("red", "sky", "grass")
    placed = shipped.words.read("a ball under a blue sky")
    assert "colour" not in placed.understood
    assert placed.left_out == ("blue",)


def test_it_reads_a_sentence_that_says_everything(shipped: MiniModel) -> None:
    assert shipped.words.read("a small red rubber ball bounces quickly on grass under a sky").understood == {
        "kind": "ball",
        "colour": "red",
        "material": "rubber",
        "size": "small",
        "action": "bounce",
        "speed": "quick",
        "background": "sky",
        "floor": "grass",
    }


def test_it_shows_what_was_asked_for(shipped: MiniModel, asked: world.Scenes, made: list[Latents]) -> None:
    drawing = shipped.picture.drawing
    paint = draw.COLOURS[torch.from_numpy(asked.value("colour"))]
    wrong = {"look": 0, "colour": 0, "size": 0, "background": 0}
    for row, latents in enumerate(made):
        look = nearest(drawing.look_codes, latents.thing[:, :LOOK_SIZE])
        wanted = drawing.look_codes[int(asked.value("kind")[row]) * MATERIALS + int(asked.value("material")[row])]
        wrong["look"] += not torch.equal(look[0], wanted)
        wrong["colour"] += bool((latents.thing[0, LOOK_SIZE : LOOK_SIZE + 3] - paint[row]).abs().max() > 0.2)
        big = latents.thing[0, LOOK_SIZE + 3] > sum(world.RADII) / 2
        wrong["size"] += bool(big) != bool(asked.value("size")[row])
        sky = torch.cdist(latents.scene[:, :SKY_SIZE], drawing.sky_codes).argmin()
        wrong["background"] += int(sky) // VARIANTS != asked.value("background")[row]
    assert max(wrong.values()) <= FEW, wrong


def test_what_strikes_is_heard(made: list[Latents]) -> None:
    both = count = 0
    for latents in made:
        way = torch.cat((latents.motion[0, :, :2], latents.thing[0, LOOK_SIZE + 3].expand(FRAMES, 1)), 1)
        seen = inside(strikes(way.double().numpy()))
        heard = inside([seconds for seconds, _ in onsets(latents.sound[0, :, :-1].reshape(-1))])
        both, count = both + score.matches(seen, heard, 0.08), count + len(seen) + len(heard)
    assert 2 * both / count > score.GATE["sync"]


def test_it_is_small() -> None:
    sizes = [path.stat().st_size for path in FOLDER.rglob("*.safetensors")]
    assert max(sizes) <= SHARD_BYTES
    assert sum(sizes) <= TOTAL_BYTES
