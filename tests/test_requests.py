from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from tests.test_schemas import JSON
from zsky_box import requests
from zsky_box.catalog import Catalog
from zsky_box.errors import FieldError, InvalidFields, Refusal
from zsky_box.requests import Submission
from zsky_box.schemas import SEED_MAX, GenerateBody, read_object
from zsky_box.settings import CHECKOUT

STILLS = """
name = "stills"
title = "Stills"
makes = ["image"]
default_for = ["image"]
[licence]
name = "Apache-2.0"
[limits]
resolutions = ["480p", "720p"]
aspect_ratios = ["1:1", "9:16"]
max_images = 4
negative_prompt = true
[options]
family = "leader"
"""


SMALL_WORLD = """[limits.vocabulary]
words_read = 8
examples = ["a red ball"]
passes_over = ["a"]
knows = { object = ["ball"], colour = ["red"] }
"""


@pytest.fixture(scope="module")
def catalog(tmp_path_factory: pytest.TempPathFactory) -> Catalog:
    """The leader, and a model that makes stills; a third is known and not installed."""
    folder = tmp_path_factory.mktemp("catalog")
    (folder / "manifests").mkdir()
    (folder / "manifests/leader.toml").write_text((CHECKOUT / "models/leader.toml").read_text())
    (folder / "manifests/stills.toml").write_text(STILLS)
    (folder / "manifests/absent.toml").write_text(STILLS.replace("stills", "absent"))
    (folder / "weights/stills").mkdir(parents=True)
    (folder / "weights/stills/installed.json").write_text("{}")
    return Catalog([folder / "manifests"], folder / "weights")


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Catalog:
    """A box that has only the leader."""
    folder = tmp_path_factory.mktemp("bare")
    (folder / "leader.toml").write_text((CHECKOUT / "models/leader.toml").read_text())
    return Catalog([folder], folder)


@pytest.fixture(scope="module")
def fresh() -> Catalog:
    """A box as it is installed: the leader, and the small model that comes with its weights."""
    return Catalog([CHECKOUT / "models"], CHECKOUT / "no-weights")


def resolved(catalog: Catalog, *, test: bool = False, real: bool = False, **fields: Any) -> Submission:
    body = read_object(GenerateBody, {"type": "video", "prompt": "a quiet lake", **fields})
    return requests.resolve(body, catalog, test=test, require_real_model=real)


def errors_of(catalog: Catalog, **fields: Any) -> list[FieldError]:
    with pytest.raises(InvalidFields) as refused:
        resolved(catalog, **fields)
    return refused.value.errors


# What is made


def test_a_bare_video_request_is_five_seconds_of_1080p(bare: Catalog) -> None:
    work = resolved(bare).work
    assert (work.type, work.model, work.n) == ("video", "leader", 1)
    assert (work.width, work.height, work.fps, work.frames) == (1920, 1080, 24, 120)
    assert work.duration_seconds == 5.0


def test_a_bare_image_request_has_the_models_largest_size_and_no_length(catalog: Catalog) -> None:
    work = resolved(catalog, type="image").work
    assert (work.model, work.width, work.height) == ("stills", 720, 720)
    assert (work.frames, work.fps, work.duration_seconds) == (0, 0, 0.0)


def test_what_is_asked_for_is_what_is_made(bare: Catalog) -> None:
    submission = resolved(
        bare,
        seed=SEED_MAX,
        aspect_ratio="9:16",
        resolution="480p",
        duration=2.5,
        fps=30,
        metadata={"shot": "12"},
        priority="batch",
        start_deadline=10,
        deadline=20.5,
    )
    work = submission.work
    assert (work.seed, work.width, work.height, work.frames, work.fps) == (SEED_MAX, 480, 854, 75, 30)
    assert (submission.metadata, submission.batch) == ({"shot": "12"}, True)
    assert (submission.start_deadline_seconds, submission.deadline_seconds) == (10, 20.5)


def test_a_seed_is_drawn_when_none_is_given_and_kept_when_it_is_zero(bare: Catalog) -> None:
    drawn = {resolved(bare).work.seed for _ in range(20)}
    assert len(drawn) > 15
    assert all(0 <= seed <= SEED_MAX for seed in drawn)
    assert resolved(bare, seed=0).work.seed == 0


def test_the_tenth_image_still_has_a_seed_that_javascript_holds(bare: Catalog) -> None:
    work = resolved(bare, type="image", n=10, seed=SEED_MAX).work
    assert work.seed + work.n - 1 <= 2**53 - 1


def test_a_submission_is_kept_as_json_and_read_back(bare: Catalog) -> None:
    submission = resolved(bare, metadata={"a": "ü"}, deadline=3)
    assert msgspec.json.decode(msgspec.json.encode(submission), type=Submission) == submission


# Which model


def test_the_answer_says_when_only_the_leader_is_there(bare: Catalog) -> None:
    assert resolved(bare).notes == ("No video model is installed: Film leader (test pattern) answered.",)


def test_the_answer_names_what_the_owner_could_install() -> None:
    shipped = Catalog([CHECKOUT / "models"], CHECKOUT / "nowhere")
    for kind, name in (("video", "ltx-2.5"), ("image", "flux2-klein-4b")):
        (note,) = resolved(shipped, type=kind, prompt="a red ball on grass").notes
        assert f"`zsky-box models install {name}`" in note


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Catalog:
    """A box whose one model knows few words."""
    folder = tmp_path_factory.mktemp("small")
    text = STILLS.replace("[options]", SMALL_WORLD + "[options]")
    (folder / "manifests").mkdir()
    (folder / "manifests/stills.toml").write_text(text)
    (folder / "weights/stills").mkdir(parents=True)
    (folder / "weights/stills/installed.json").write_text("{}")
    return Catalog([folder / "manifests"], folder / "weights")


@pytest.mark.parametrize(("named", "prompt"), [({}, "a quiet ball"), ({"model": "stills"}, "a quiet ball")])
def test_a_model_of_few_words_names_those_that_it_does_not_know(
    small: Catalog, named: dict[str, Any], prompt: str
) -> None:
    (note,) = resolved(small, type="image", prompt=prompt, **named).notes
    assert note.startswith("stills does not know “quiet”: it leaves that out.")
    assert resolved(small, type="image", prompt="a ball", **named).notes == ()


def test_a_prompt_of_which_nothing_is_known_is_taken_all_the_same(small: Catalog) -> None:
    submission = resolved(small, type="image", prompt="thunder over the harbour")
    assert submission.work.prompt == "thunder over the harbour"
    (note,) = submission.notes
    assert "stills knows none of these words" in note
    assert "“a red ball”" in note


def test_an_experimental_model_says_so(small: Catalog) -> None:
    spec = msgspec.structs.replace(small.specs["stills"], experimental=True)
    assert requests.notes_of(spec, "a ball") == ["Stills is experimental: what it makes may be wrong."]


def test_an_installed_model_answers_without_a_note(catalog: Catalog) -> None:
    submission = resolved(catalog, type="image")
    assert (submission.work.model, submission.notes) == ("stills", ())


def test_a_named_model_is_taken(catalog: Catalog) -> None:
    assert resolved(catalog, type="image", model="leader").work.model == "leader"


def test_a_test_key_always_gets_the_leader_and_is_told_so(catalog: Catalog) -> None:
    for fields in ({}, {"model": "stills"}, {"model": "nowhere"}):
        submission = resolved(catalog, test=True, real=True, type="image", **fields)
        assert submission.work.model == "leader"
        assert submission.notes == ("Test output: made by the film leader, free of charge.",)


@pytest.mark.parametrize("model", ["absent", "nowhere", "../leader"])
def test_a_named_model_that_is_not_installed_is_refused_with_those_that_are(catalog: Catalog, model: str) -> None:
    (error,) = errors_of(catalog, model=model)
    assert (error.field, error.code) == ("model", "model_not_installed")
    assert "installed are leader, stills" in error.message


def test_a_box_that_requires_a_real_model_refuses_to_fall_back(bare: Catalog, catalog: Catalog) -> None:
    with pytest.raises(Refusal) as refused:
        resolved(bare, real=True)
    assert (refused.value.status, refused.value.code) == (503, "no_model")
    assert "models install" in refused.value.detail
    assert refused.value.headers["Retry-After"]
    assert resolved(catalog, real=True, type="image").work.model == "stills"


@pytest.mark.parametrize("job_type", ["video", "image"])
def test_mini_too_is_a_fallback_which_a_box_that_requires_a_real_model_refuses_unless_named(
    tmp_path: Path, job_type: str
) -> None:
    shipped = Catalog([CHECKOUT / "models"], tmp_path)
    submission = resolved(shipped, type=job_type)
    assert submission.work.model == "mini"
    assert "mini (a small world) answered" in submission.notes[0]
    with pytest.raises(Refusal, match="no_model"):
        resolved(shipped, real=True, type=job_type)
    assert resolved(shipped, real=True, type=job_type, model="mini").work.model == "mini"
    assert resolved(shipped, test=True, type=job_type).work.model == "leader"


def test_what_none_that_stands_in_can_make_is_refused_in_the_words_of_mini(tmp_path: Path) -> None:
    shipped = Catalog([CHECKOUT / "models"], tmp_path)
    (form,) = errors_of(shipped, image="https://example.org/a.png")
    assert (form.code, "the id of an upload" in form.message) == ("invalid_field", True)
    (long,) = errors_of(shipped, image="data:image/png;base64,AAAA", duration=5)
    assert (long.code, long.message) == ("unsupported_for_model", "duration: mini makes 1 to 3 seconds.")


def test_a_box_without_any_manifest_says_that_there_is_no_model(tmp_path: Path) -> None:
    with pytest.raises(Refusal, match="no_model"):
        resolved(Catalog([tmp_path], tmp_path))


# What is refused


@pytest.mark.parametrize(
    ("fields", "field", "said"),
    [
        ({"type": "video", "model": "stills"}, "type", "stills makes image only"),
        ({"resolution": "1080p", "model": "stills", "type": "image"}, "resolution", "stills makes 480p, 720p"),
        ({"aspect_ratio": "16:9", "model": "stills", "type": "image"}, "aspect_ratio", "stills makes 1:1, 9:16"),
        ({"n": 5, "model": "stills", "type": "image"}, "n", "up to 4 images"),
        ({"negative_prompt": "rain", "model": "leader"}, "negative_prompt", "takes no negative prompt"),
        ({"image": "file_1"}, "image", "takes no reference image"),
        ({"strength": 0.0}, "strength", "no strength to set"),
        ({"n": 2}, "n", "one video a job"),
        ({"fps": 60}, "fps", "24, 25, 30 frames a second"),
        ({"duration": 0.5}, "duration", "1 to 20 seconds"),
        ({"duration": 20.01}, "duration", "1 to 20 seconds"),
        ({"type": "image", "duration": 5}, "duration", "no duration"),
        ({"type": "image", "fps": 24}, "fps", "no frame rate"),
    ],
)
def test_what_the_model_cannot_do_is_refused_with_what_it_can(
    catalog: Catalog, fields: dict[str, Any], field: str, said: str
) -> None:
    (error,) = errors_of(catalog, **fields)
    assert (error.field, error.code) == (field, "unsupported_for_model")
    assert said in error.message


def test_what_the_model_can_do_is_accepted(catalog: Catalog) -> None:
    work = resolved(catalog, type="image", model="stills", n=4, negative_prompt="rain", aspect_ratio="9:16").work
    assert (work.n, work.negative_prompt, work.width, work.height) == (4, "rain", 720, 1280)


@pytest.mark.parametrize("prompt", [" ", "\n\t", "\u00a0", "\u2003"])
def test_a_prompt_of_nothing_but_space_is_refused(bare: Catalog, prompt: str) -> None:
    (error,) = errors_of(bare, prompt=prompt)
    assert (error.field, error.message) == ("prompt", "prompt: say what to make; it is empty.")


@pytest.mark.parametrize("character", ["\x00", "\x07", "\x1b", "\x7f", "\x85"])
@pytest.mark.parametrize("field", ["prompt", "metadata"])
def test_control_characters_are_refused(bare: Catalog, character: str, field: str) -> None:
    text = f"a{character}b"
    (error,) = errors_of(bare, **{field: text if field == "prompt" else {text: "x"}})
    assert error.field == field
    assert "control characters" in error.message


def test_new_lines_tabs_and_all_scripts_are_text(bare: Catalog) -> None:
    prompt = "夜市\n\tनीयन\r\n🏮 café"
    assert resolved(bare, prompt=prompt).work.prompt == prompt


def test_a_webhook_is_refused_until_the_box_delivers_them(bare: Catalog) -> None:
    (error,) = errors_of(bare, webhook_url="https://example.com/hook")
    assert (error.field, error.code) == ("webhook_url", "invalid_field")


def test_everything_that_is_wrong_is_told_at_once(catalog: Catalog) -> None:
    errors = errors_of(
        catalog, prompt="\x00", webhook_url="x", n=2, fps=60, duration=90, image="x", negative_prompt="y"
    )
    assert [(error.field, error.code) for error in errors] == [
        ("prompt", "invalid_field"),
        ("webhook_url", "invalid_field"),
        ("negative_prompt", "unsupported_for_model"),
        ("image", "unsupported_for_model"),
        ("n", "unsupported_for_model"),
        ("fps", "unsupported_for_model"),
        ("duration", "unsupported_for_model"),
    ]
    errors = errors_of(catalog, prompt=" ", model="absent")
    assert [error.field for error in errors] == ["prompt", "model"]


BODIES = st.fixed_dictionaries(
    {"type": st.sampled_from(["video", "image"]), "prompt": st.text(min_size=1, max_size=20)},
    optional={
        "model": st.sampled_from(["leader", "stills", "absent"]),
        "negative_prompt": st.text(max_size=5),
        "seed": st.integers(0, SEED_MAX),
        "aspect_ratio": st.sampled_from(["16:9", "9:16", "1:1", "4:3", "3:4", "21:9"]),
        "resolution": st.sampled_from(["480p", "720p", "1080p"]),
        "duration": st.floats(min_value=0.001, max_value=3600),
        "fps": st.integers(1, 240),
        "n": st.integers(1, 10),
        "metadata": st.dictionaries(st.text(min_size=1, max_size=5), st.text(max_size=5), max_size=3),
    },
)


@settings(deadline=None, max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(BODIES | st.dictionaries(st.sampled_from(GenerateBody.__struct_fields__), JSON, max_size=6), st.booleans())
def test_any_body_becomes_work_that_its_model_can_do_or_a_refusal(
    catalog: Catalog, body: dict[str, Any], test: bool
) -> None:
    try:
        work = requests.resolve(read_object(GenerateBody, body), catalog, test=test, require_real_model=False).work
    except Refusal:
        return
    limits = catalog.specs[work.model].limits
    assert work.type in catalog.specs[work.model].makes
    assert 1 <= work.n <= (1 if work.type == "video" else limits.max_images)
    assert (work.frames > 0) == (work.fps > 0) == (work.type == "video")
    assert min(work.width, work.height) in (480, 720, 1080)


@settings(deadline=None, max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(BODIES, st.sampled_from([1, 4, 8]))
def test_what_is_asked_again_is_the_same_work(catalog: Catalog, body: dict[str, Any], step: int) -> None:
    stepped = Catalog([], catalog.weights)
    stepped.specs = {name: replace(spec, frame_step=step) for name, spec in catalog.specs.items()}
    try:
        first = requests.resolve(read_object(GenerateBody, body), stepped, test=False, require_real_model=False)
    except Refusal:
        return
    spec = stepped.specs[first.work.model]
    again = msgspec.to_builtins(requests.asked_again(first, spec))
    given = {name: value for name, value in again.items() if value is not None}
    second = requests.resolve(read_object(GenerateBody, given), stepped, test=False, require_real_model=False)
    assert second.work == first.work
    assert (second.metadata, second.batch) == (first.metadata, first.batch)


def test_what_is_asked_again_is_written_in_round_figures(bare: Catalog) -> None:
    spec = replace(bare.specs["leader"], frame_step=8)
    stepped = Catalog([], bare.weights)
    stepped.specs = {"leader": spec}
    for duration in (5, 2.5, 20):
        submission = resolved(stepped, duration=duration)
        assert submission.work.duration_seconds != duration
        assert requests.asked_again(submission, spec).duration == duration


def test_where_nothing_is_installed_mini_answers_what_it_can(fresh: Catalog) -> None:
    asked: list[dict[str, Any]] = [{}, {"type": "image"}, {"duration": 2}, {"resolution": "480p"}]
    for fields in asked:
        assert resolved(fresh, **fields).work.model == "mini", fields


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({"aspect_ratio": "9:16"}, "aspect_ratio: mini makes 16:9"),
        ({"duration": 5}, "duration: mini makes"),
        ({"type": "image", "aspect_ratio": "1:1"}, "aspect_ratio: mini makes 16:9"),
    ],
)
def test_what_mini_cannot_the_leader_answers_and_the_reply_says_why(
    fresh: Catalog, fields: dict[str, Any], why: str
) -> None:
    submission = resolved(fresh, **fields)
    assert submission.work.model == "leader"
    assert why in submission.notes[0]
    assert "zsky-box models install" in submission.notes[0]
    # Who names mini is told what it can do instead.
    assert [error.code for error in errors_of(fresh, model="mini", **fields)] == ["unsupported_for_model"]


def test_what_no_bundled_model_can_is_refused_with_what_could_be_made(fresh: Catalog) -> None:
    (error,) = errors_of(fresh, duration=3_600)
    assert error.code == "unsupported_for_model"
    assert error.message.startswith("duration: mini makes")
