"""The film leader: in sync, deterministic, honest about what it is, and able to act out a client's bad days."""

from __future__ import annotations

import itertools
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
import numpy as np
import pytest

from tests.media.clips import read
from zsky_box.catalog import read_manifest
from zsky_box.errors import JobFailure
from zsky_box.events import Phase, Run
from zsky_box.formats import ASPECT_RATIOS, RESOLUTIONS, AspectRatio, Resolution, output_size
from zsky_box.manifest import WHOLE
from zsky_box.media.video import feed_clip
from zsky_box.pipelines import leader, loader
from zsky_box.pipelines.base import SAMPLE_RATE_HZ, Cancelled, Picture
from zsky_box.pipelines.leader_text import drawable

MODELS = Path(__file__).parents[2] / "models"
SPEC = read_manifest(MODELS / "leader.toml")
RUN = Run(
    job_id="j",
    token=1,
    type="video",
    model=SPEC,
    weights_dir="",
    out_dir="",
    stem="s",
    prompt="A neon night market, ambient crowd sound",
    negative_prompt="",
    seed=7,
    n=1,
    width=192,
    height=108,
    frames=12,
    fps=24,
    test=False,
)


@dataclass
class Notes:
    """A reporter that writes down what it is told, and cancels at its `cancel_at`-th call."""

    phases: list[Phase] = field(default_factory=list[Phase])
    steps: list[tuple[int, int]] = field(default_factory=list[tuple[int, int]])
    times: list[float] = field(default_factory=list[float])
    cancel_at: int = 0

    def _called(self) -> None:
        self.times.append(time.monotonic())
        if len(self.times) == self.cancel_at:
            raise Cancelled

    def phase(self, phase: Phase) -> None:
        self.phases.append(phase)
        self._called()

    def step(self, step: int, steps: int, preview: Callable[[], bytes] | None = None) -> None:  # noqa: ARG002
        self.steps.append((step, steps))
        self._called()


def run(**changes: object) -> Run:
    return msgspec.structs.replace(RUN, **changes)


def frames(wanted: Run) -> list[Picture]:
    pipeline = loader("leader")(SPEC, WHOLE, Path(), "cpu")
    return list(pipeline.video(wanted, Notes()).pictures)


def first(wanted: Run) -> Picture:
    return next(leader.Leader().video(wanted, Notes()).pictures)


@pytest.mark.parametrize(("count", "fps"), [(121, 24), (96, 24), (95, 24), (125, 25), (97, 30), (1, 24)])
def test_flash_and_beep_lie_on_the_same_frame(tmp_path: Path, count: int, fps: int) -> None:
    clip = leader.Leader().video(run(frames=count, fps=fps), Notes())
    facts = read(tmp_path / feed_clip(clip, tmp_path, "clip", seed=1).finish()[0].name)
    expected = count - 2 * fps if count >= 4 * fps else count // 2
    assert len(facts.times) == count
    assert [frame for frame, luma in enumerate(facts.luma) if luma > 200] == [expected]
    assert max([luma for luma in facts.luma if luma <= 200], default=0) < 110
    heard = np.flatnonzero(np.abs(facts.sound) > 0.1 * leader.POP_LEVEL) / SAMPLE_RATE_HZ
    assert heard[0] == pytest.approx(facts.times[expected], abs=0.001)
    assert heard[-1] == pytest.approx(facts.times[expected] + 1 / fps, abs=0.001)


def test_the_beep_begins_and_ends_with_the_flash_to_the_sample() -> None:
    sound = leader.pop_sound(121, 24)
    assert (sound.shape, sound.dtype) == ((242_000, 2), np.float32)
    assert np.flatnonzero(sound[:, 0])[[0, -1]].tolist() == [73 * 2_000, 74 * 2_000 - 1]
    assert np.count_nonzero(sound[:, 0]) == 2_000
    assert np.array_equal(sound[:, 0], sound[:, 1])
    spectrum = np.abs(np.fft.rfft(sound[73 * 2_000 : 74 * 2_000, 0]))
    assert np.argmax(spectrum) * SAMPLE_RATE_HZ / 2_000 == pytest.approx(1_000, abs=24)
    assert np.abs(sound).max() == pytest.approx(0.5, abs=0.01)


def test_same_seed_same_pixels() -> None:
    for one, other in zip(frames(run()), frames(run()), strict=True):
        assert np.array_equal(one, other)


def test_same_seed_same_file(tmp_path: Path) -> None:
    hashes = [
        feed_clip(leader.Leader().video(run(), Notes()), tmp_path, stem, seed=7).finish()[0].sha256 for stem in "ab"
    ]
    assert hashes[0] == hashes[1]


@pytest.mark.parametrize(("one", "other"), list(itertools.combinations([0, 1, 7, 2**32, 2**63 - 1, -1], 2)))
def test_seeds_look_different(one: int, other: int) -> None:
    # Only the ground: the seeds written on the slate would differ anyway.
    here, there = (first(run(seed=seed))[:8, :8].astype(int) for seed in (one, other))
    assert not np.array_equal(here, there)
    assert np.abs(here.mean((0, 1)) - there.mean((0, 1))).max() > 1.5


@pytest.mark.parametrize(("resolution", "aspect_ratio"), list(itertools.product(RESOLUTIONS, ASPECT_RATIOS)))
def test_every_size_of_the_formats_is_drawn(resolution: Resolution, aspect_ratio: AspectRatio) -> None:
    width, height = output_size(resolution, aspect_ratio)
    picture = first(run(width=width, height=height))
    assert (picture.shape, picture.dtype) == ((height, width, 3), np.uint8)
    assert picture.std() > 20


@pytest.mark.parametrize("size", [(16, 16), (64, 16), (16, 64)])
def test_tiny_sizes_are_drawn_too(size: tuple[int, int]) -> None:
    assert first(run(width=size[0], height=size[1], test=True)).shape == (size[1], size[0], 3)


PROMPTS = [
    "",
    "夜市の灯り、雨",
    "🔥🎬👩‍👩‍👧‍👦",
    "سوق ليلي تحت المطر",
    "Ночной рынок",
    "naïve café, œuvre",
    "\u0301\u200d\ufe0f\x00\x1b[0m\ud800",
    "one\ntwo\tthree",
    "x" * 100_000,
    "word " * 20_000,
]


@pytest.mark.parametrize("prompt", PROMPTS, ids=range(len(PROMPTS)))
def test_any_prompt_is_drawn_in_bounded_time(prompt: str) -> None:
    began = time.thread_time()  # the work, however busy the machine is
    picture = first(run(prompt=prompt, width=854, height=480))
    assert picture.shape == (480, 854, 3)
    assert time.thread_time() - began < 5


def test_the_prompt_is_on_the_slate() -> None:
    assert not np.array_equal(first(run(prompt="a red ball")), first(run(prompt="a blue cube")))


@pytest.mark.parametrize(
    ("text", "drawn"),
    [
        ("Plain, with 2 figures!", "Plain, with 2 figures!"),
        ("  much \n space\t", "much space"),
        ("Café für Łódź", "Cafe fur Lodz"),
        ("Café 夜市 🔥", "Cafe [2 cjk] [1 fire]"),
        ("سوق ليلي", "[3 arabic] [4 arabic]"),
        ("a\u200db\x00c\ud800", "abc"),
        ("", ""),
    ],
)
def test_what_the_font_lacks_is_told_in_words(text: str, drawn: str) -> None:
    assert drawable(text) == drawn


def test_test_output_says_so() -> None:
    plain, labelled = (first(run(test=test, width=854, height=480)).astype(int) for test in (False, True))
    band = labelled[-40:]
    orange = (band[..., 0] > 150) & (band[..., 2] < 60)
    assert orange.mean() > 0.5
    assert (band.max(2) < 60).mean() > 0.03  # the words, large
    assert not ((plain[-40:, :, 0] > 150) & (plain[-40:, :, 2] < 60)).any()


def test_the_timecode_runs() -> None:
    assert [leader.timecode(frame, 24) for frame in (0, 23, 24, 24 * 3_661 + 5)] == [
        "00:00:00:00",
        "00:00:00:23",
        "00:00:01:00",
        "01:01:01:05",
    ]


def test_the_countdown_reaches_two_at_the_flash() -> None:
    seen = [leader.countdown(frame, 121, 24) for frame in range(121)]
    assert seen[0] == (5, 0.0)
    assert [number for number, _ in itertools.groupby(number for number, _ in seen)] == [5, 4, 3, 2, 1]
    assert seen[leader.flash_frame(121, 24)] == (2, 0.0)
    for (number, turn), (following, later) in itertools.pairwise(seen):
        assert (following, later > turn) == (number, True) or following == number - 1 or turn == 0.0


def test_every_frame_differs_from_the_one_before() -> None:
    for one, other in itertools.pairwise(frames(run(frames=30))):
        assert not np.array_equal(one, other)


def test_each_frame_is_the_callers_own() -> None:
    kept = frames(run(frames=5))
    again = [picture.copy() for picture in leader.Leader().video(run(frames=5), Notes()).pictures]
    assert all(np.array_equal(one, other) for one, other in zip(kept, again, strict=True))


def test_progress_is_told_before_the_pictures() -> None:
    notes = Notes()
    leader.Leader().video(run(), notes)
    assert notes.phases == ["denoising"]
    assert notes.steps == [(1, 4), (2, 4), (3, 4), (4, 4)]


def test_images_have_their_own_seeds_and_looks() -> None:
    notes = Notes()
    stills = list(leader.Leader().images(run(n=3, type="image"), notes))
    assert [still.seed for still in stills] == [7, 8, 9]
    assert all(still.picture.shape == (108, 192, 3) for still in stills)
    assert np.abs(stills[0].picture[:8, :8].mean((0, 1)) - stills[1].picture[:8, :8].mean((0, 1))).max() > 1.5
    assert notes.steps == [(step, 12) for step in range(1, 13)]
    again = list(leader.Leader().images(run(n=3, type="image"), Notes()))
    assert all(np.array_equal(one.picture, other.picture) for one, other in zip(stills, again, strict=True))


def make(wanted: Run, notes: Notes) -> None:
    if wanted.type == "video":
        leader.Leader().video(wanted, notes)
    else:
        next(leader.Leader().images(wanted, notes))


@pytest.mark.parametrize("kind", ["video", "image"])
@pytest.mark.parametrize(
    ("prompt", "code", "steps"), [(" test:fail\n", "internal_error", 1), ("test:safety", "safety_blocked", 4)]
)
def test_a_test_run_acts_out_its_prompt(kind: str, prompt: str, code: str, steps: int) -> None:
    notes = Notes()
    with pytest.raises(JobFailure) as failure:
        make(run(type=kind, prompt=prompt, test=True), notes)
    assert failure.value.error_code == code
    assert len(notes.steps) == steps


@pytest.mark.parametrize("prompt", ["test:fail", "test:safety", "test:slow"])
def test_a_live_run_takes_such_a_prompt_as_any_other(prompt: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def never(seconds: float) -> None:
        raise AssertionError(f"a live run waits {seconds} s")

    monkeypatch.setattr(time, "sleep", never)
    assert len(frames(run(prompt=prompt))) == 12


@pytest.mark.parametrize("prompt", ["test:fail please", "TEST:FAIL", "a test:fail"])
def test_only_the_exact_prompt_acts(prompt: str) -> None:
    assert len(frames(run(prompt=prompt, test=True))) == 12


def test_a_slow_run_takes_its_time_and_can_be_cancelled_at_any_moment(monkeypatch: pytest.MonkeyPatch) -> None:
    assert leader.SLOW_SECONDS == 20
    clock = itertools.count()  # a hundredth of a second at each look
    slept: list[float] = []
    monkeypatch.setattr(time, "monotonic", lambda: next(clock) / 100 + sum(slept))
    monkeypatch.setattr(time, "sleep", slept.append)
    notes = Notes()
    leader.Leader().video(run(prompt="test:slow", test=True), notes)
    assert 20 <= notes.times[-1] - notes.times[0] < 22
    assert max(later - before for before, later in itertools.pairwise(notes.times)) < 0.5
    with pytest.raises(Cancelled):
        leader.Leader().video(run(prompt="test:slow", test=True), Notes(cancel_at=3))


def test_it_needs_no_torch() -> None:
    load = "import sys; from zsky_box.pipelines import loader; loader('leader');"
    code = f"{load} sys.exit(not {{'torch', 'diffusers'}}.isdisjoint(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
