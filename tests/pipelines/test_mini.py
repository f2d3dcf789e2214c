"""mini with untrained weights: clips, images, references, progress, previews, cancel, failures."""

from __future__ import annotations

import io
import json
from collections.abc import Generator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from msgspec.structs import replace
from PIL import Image

from scripts.mini.seal import weights_sha256
from tests.pipelines.tiny import CancelAt, Listener, a_picture, a_run, watched
from tests.pipelines.tiny_mini import STEPS, mini_spec, write_mini
from zsky_box.catalog import read_manifest
from zsky_box.errors import JobFailure
from zsky_box.events import Run
from zsky_box.install.stock import compare, read_inventory
from zsky_box.manifest import LeaderOptions, MiniOptions, Recipe
from zsky_box.pipelines import loader
from zsky_box.pipelines.base import Cancelled, Clip, Pipeline
from zsky_box.pipelines.mini_model import GUIDANCE
from zsky_box.pipelines.mini_model import STEPS as STEPS_SCORED
from zsky_box.pipelines.mini_words import GLUE, SLOTS, WORDS_READ
from zsky_box.settings import CHECKOUT
from zsky_box.vocabulary import notes_on

SPEC = mini_spec()
WAY = SPEC.ways[0]
NATIVE: dict[str, Any] = {"width": 256, "height": 144}


def ask(**changes: Any) -> Run:
    """A clip of a second at the model's own size."""
    return a_run(SPEC, **{**NATIVE, "frames": 24, "recipe": WAY, **changes})


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("mini")
    write_mini(made)
    return made


@pytest.fixture(scope="module")
def mini(folder: Path) -> Pipeline:
    return loader("mini")(SPEC, WAY, folder, "cpu")


def same(one: Clip, other: Clip) -> bool:
    return np.array_equal(watched(one), watched(other)) and np.array_equal(one.sound, other.sound)


# What it makes


@pytest.mark.parametrize(("frames", "seconds"), [(72, 3.0), (24, 1.0), (25, 25 / 24)])
def test_a_clip_has_the_frames_asked_for_and_sound_for_all_of_them(mini: Pipeline, frames: int, seconds: float) -> None:
    clip = mini.video(ask(frames=frames), Listener())
    assert (clip.width, clip.height, clip.fps, clip.frames) == (256, 144, 24, frames)
    assert watched(clip).shape == (frames, 144, 256, 3)
    assert (clip.sound.shape, clip.sound.dtype) == ((round(48_000 * seconds), 2), np.float32)
    assert np.abs(clip.sound).max() <= 1
    assert (clip.upscaled_from, clip.notes) == ("", [])


def test_a_shorter_clip_is_the_beginning_of_the_whole_one(mini: Pipeline) -> None:
    whole, short = (mini.video(ask(frames=frames), Listener()) for frames in (72, 30))
    assert np.array_equal(watched(whole)[:30], watched(short))
    assert np.array_equal(whole.sound[: len(short.sound)], short.sound)


@pytest.mark.parametrize(("width", "height"), [(1920, 1080), (1280, 720), (854, 480)])
def test_a_larger_clip_is_upscaled_and_says_so(mini: Pipeline, width: int, height: int) -> None:
    own = next(mini.video(ask(), Listener()).pictures)
    clip = mini.video(ask(width=width, height=height), Listener())
    picture = next(clip.pictures)
    assert (picture.shape, picture.dtype) == ((height, width, 3), np.uint8)
    assert clip.upscaled_from == "256x144"
    assert clip.notes == [f"Rendered at 256x144 and upscaled to {width}x{height}."]
    back = np.asarray(Image.fromarray(picture).resize((256, 144), Image.Resampling.BOX), np.float64)
    assert np.abs(back - own).mean() < 4, "it shows the same"


def test_images_have_seeds_of_their_own_and_say_that_they_are_upscaled(mini: Pipeline) -> None:
    stills = list(mini.images(ask(type="image", n=3, width=1280, height=720), Listener()))
    assert [still.seed for still in stills] == [7, 8, 9]
    assert {still.upscaled_from for still in stills} == {"256x144"}
    assert stills[0].notes == ("Rendered at 256x144 and upscaled to 1280x720.",)
    assert stills[0].picture.shape == (720, 1280, 3)
    (alone,) = mini.images(ask(type="image", seed=8, width=1280, height=720), Listener())
    assert np.array_equal(alone.picture, stills[1].picture)
    assert not np.array_equal(stills[0].picture, stills[1].picture)
    (own,) = mini.images(ask(type="image"), Listener())
    assert (own.picture.shape, own.upscaled_from, own.notes) == ((144, 256, 3), "", ())


def test_the_seed_and_the_prompt_decide(mini: Pipeline, folder: Path) -> None:
    once = mini.video(ask(), Listener())
    torch.manual_seed(3)
    assert same(once, mini.video(ask(), Listener()))
    assert same(mini.video(ask(), Listener()), loader("mini")(SPEC, WAY, folder, "cpu").video(ask(), Listener()))
    for other in (ask(seed=8), ask(prompt="a blue cube falls on snow at night")):
        assert not same(mini.video(ask(), Listener()), mini.video(other, Listener()))


@pytest.mark.parametrize("prompt", ["", "∿ 音 🎬", "word " * 20_000, "a lighthouse in a storm"])
def test_any_text_is_a_prompt(mini: Pipeline, prompt: str) -> None:
    assert watched(mini.video(ask(prompt=prompt), Listener())).shape == (24, 144, 256, 3)


def test_of_words_that_contradict_each_other_those_left_out_are_named(mini: Pipeline) -> None:
    told = "mini leaves out {}: it shows one object of one colour, doing one thing, in a place with colours of its own."
    notes = mini.video(ask(prompt="a ball, or a big, small and tiny one"), Listener()).notes
    assert notes in ([told.format("\u201csmall\u201d and \u201ctiny\u201d")], [told.format("\u201cbig\u201d")])
    (still,) = mini.images(ask(type="image", prompt="a ball, or a big, small and tiny one"), Listener())
    assert list(still.notes) == notes
    assert mini.video(ask(prompt="a big ball"), Listener()).notes == []


def test_a_picture_decides_how_it_begins(mini: Pipeline, tmp_path: Path) -> None:
    reference = a_picture(tmp_path, 300, 200)
    free, begun = mini.video(ask(), Listener()), mini.video(ask(reference=reference), Listener())
    assert begun.notes == ["mini redraws the picture as its own world has it: a background, a floor and one object."]
    assert not same(free, begun)
    (still,) = mini.images(ask(type="image", reference=reference), Listener())
    assert still.notes == tuple(begun.notes)
    with pytest.raises(JobFailure, match="cannot be read"):
        mini.video(ask(reference=str(tmp_path / "gone.png")), Listener())


# How it goes


def test_a_clip_reports_each_step(mini: Pipeline) -> None:
    listener = Listener()
    mini.video(ask(), listener)
    assert listener.phases == ["loading", "denoising", "decoding"]
    assert listener.steps == [(step, STEPS) for step in range(1, STEPS + 1)]


def test_images_report_the_steps_of_all(mini: Pipeline) -> None:
    listener = Listener()
    assert listener.steps == []
    list(mini.images(ask(type="image", n=2), listener))
    assert listener.phases == ["loading", "denoising", "decoding"]
    assert listener.steps == [(step, 2 * STEPS) for step in range(1, 2 * STEPS + 1)]


def test_each_step_can_be_seen_and_looking_changes_nothing(mini: Pipeline) -> None:
    class Watcher(Listener):
        def __init__(self) -> None:
            super().__init__()
            self.seen: list[bytes] = []

        def step(self, step: int, steps: int, preview: Any = None) -> None:
            super().step(step, steps, preview)
            self.seen.append(preview())

    watcher = Watcher()
    looked_at = mini.video(ask(), watcher)
    assert len(watcher.seen) == STEPS
    assert all(Image.open(io.BytesIO(jpeg)).size == (256, 144) for jpeg in watcher.seen)
    assert same(looked_at, mini.video(ask(), Listener()))


@pytest.mark.parametrize("at", [1, STEPS])
def test_a_cancelled_clip_stops_at_its_step_and_leaves_the_model_usable(mini: Pipeline, at: int) -> None:
    reporter = CancelAt(at)
    with pytest.raises(Cancelled):
        mini.video(ask(), reporter)
    assert reporter.steps[-1] == (at, STEPS)
    assert "decoding" not in reporter.phases
    assert mini.video(ask(), Listener()).frames == 24


def test_after_an_image_that_failed_the_next_can_be_asked_for(mini: Pipeline) -> None:
    stills = mini.images(ask(type="image", n=2), CancelAt(1))
    with pytest.raises(Cancelled):
        next(stills)
    assert next(stills).seed == 8
    assert next(stills, None) is None


def test_torch_has_its_threads_back_however_a_clip_ends(mini: Pipeline) -> None:
    torch.set_num_threads(2)
    try:
        with pytest.raises(Cancelled):
            mini.video(ask(), CancelAt(1))
        assert torch.get_num_threads() == 2
        pictures = mini.video(ask(), Listener()).pictures
        assert torch.get_num_threads() == 2
        next(pictures)
        assert torch.get_num_threads() == 1, "nothing else computes while a clip is drawn"
        assert isinstance(pictures, Generator)
        pictures.close()
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(1)


def test_numbers_that_are_none_are_told(folder: Path) -> None:
    broken = loader("mini")(SPEC, WAY, folder, "cpu")
    with torch.no_grad():
        vars(broken)["_model"].transformer.leave[0].bias.fill_(float("nan"))
    with pytest.raises(JobFailure, match="came out invalid"):
        broken.video(ask(), Listener())


# What it refuses


@pytest.mark.parametrize("changes", [{"frames": 73}, {"frames": 0}, {"fps": 30}])
def test_a_length_that_it_does_not_make_is_refused(mini: Pipeline, changes: dict[str, int]) -> None:
    with pytest.raises(JobFailure, match="makes up to 72 frames at 24 a second"):
        mini.video(ask(**changes), Listener())


def test_a_manifest_that_does_not_fit_is_refused(folder: Path) -> None:
    with pytest.raises(JobFailure, match="its manifest is of the family leader"):
        loader("mini")(replace(SPEC, options=LeaderOptions()), WAY, folder, "cpu")
    with pytest.raises(JobFailure, match="quantises or offloads"):
        loader("mini")(SPEC, Recipe(name="small", quantise={"transformer": "int8"}), folder, "cpu")


@pytest.mark.parametrize("harm", ["gone", "no part", "cut", "other size", "code", "no json"])
def test_a_broken_folder_is_told_in_a_sentence(tmp_path: Path, harm: str) -> None:
    write_mini(tmp_path)
    weights = tmp_path / "transformer" / "diffusion_pytorch_model.safetensors"
    config = tmp_path / "transformer" / "config.json"
    match harm:
        case "gone":
            tmp_path = tmp_path / "nowhere"
        case "no part":
            weights.unlink()
        case "cut":
            weights.write_bytes(weights.read_bytes()[:-100])
        case "other size":
            config.write_text(json.dumps({**json.loads(config.read_text()), "width": 64}))
        case "code":
            (tmp_path / "evil.py").touch()
        case _:
            config.write_text("{")
    with pytest.raises(JobFailure, match="mini cannot be loaded"):
        loader("mini")(SPEC, WAY, tmp_path, "cpu")


# What is shipped


def test_the_shipped_weights_are_as_their_record_says_and_load() -> None:
    folder = CHECKOUT / "models" / "mini"
    assert compare(folder) == [], "python -m scripts.mini.seal models/mini"
    recorded = read_inventory(folder)
    assert recorded is not None
    assert recorded.record.weights_sha256 == weights_sha256(recorded.files)
    shipped = loader("mini")(SPEC, WAY, folder, "cpu")
    clip = shipped.video(ask(prompt="a small red rubber ball bounces quickly on grass under a sky"), Listener())
    picture = next(clip.pictures)
    assert picture[-20:, :, 1].mean() > picture[-20:, :, 2].mean() + 20, "grass is green"


# What it says of itself


def test_the_manifest_lists_the_words_that_the_model_reads() -> None:
    vocabulary = SPEC.limits.vocabulary
    assert vocabulary is not None
    assert list(vocabulary.knows)[1:] == list(SLOTS)[1:]
    knows = [set(words) for words in vocabulary.knows.values()]
    assert knows == [{word for words in values.values() for word in words} for values in SLOTS.values()]
    assert set(vocabulary.passes_over) == set(GLUE)
    assert vocabulary.words_read == WORDS_READ
    for example in vocabulary.examples:
        assert notes_on(example, SPEC.name, vocabulary) == []


def test_the_manifest_samples_as_the_scorer_did() -> None:
    assert read_manifest(CHECKOUT / "models" / "mini.toml").options == MiniOptions(
        steps=STEPS_SCORED, guidance_scale=GUIDANCE
    )
