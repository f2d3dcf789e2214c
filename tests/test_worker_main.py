from __future__ import annotations

import os
import signal
import subprocess
import sys
from hashlib import sha256
from io import BytesIO
from pathlib import Path
from typing import Any

import msgspec
import pytest
from PIL import Image

from tests.doubles.driving import SPEC, Said, a_run, hear, hear_one, is_gone, working
from tests.doubles.worker_acting_out import FLOPS, GATE, SLOW_STEPS, STEPS
from tests.waiting import until
from zsky_box.errors import ErrorCode
from zsky_box.events import Cancel, Done, Failed, Heartbeat, Progress, Run, encode
from zsky_box.manifest import Ltx2Options, Recipe
from zsky_box.worker import Worker

ROOT = Path(__file__).parents[1]
LTX2 = msgspec.structs.replace(SPEC, name="other", options=Ltx2Options())


def ended(said: Said) -> bool:
    """Whether an attempt has come to its end."""
    return any(isinstance(message, Done | Failed) for message in said)


def outcome(worker: Worker, run: Run) -> Done | Failed:
    """Send a Run and wait for its end."""
    worker.send(run)
    return next(message for message in hear(worker, ended) if isinstance(message, Done | Failed))


def state_of(pid: int) -> str:
    """The kernel's letter for what a process does."""
    return Path(f"/proc/{pid}/stat").read_text("ascii").rpartition(")")[2].split()[0]


def cancelled_after_first_step(worker: Worker, run: Run) -> Failed:
    worker.send(run)
    hear(worker, lambda said: any(isinstance(m, Progress) and m.step == 1 for m in said))
    worker.cancel(run.job_id, run.token)
    return hear_one(worker, Failed)


def test_a_clip_goes_through_every_phase_and_its_files_are_as_told(tmp_path: Path) -> None:
    with working() as worker:
        worker.send(a_run(tmp_path, token=3))
        said = hear(worker, ended)
    progress = [message for message in said if isinstance(message, Progress)]
    phases = list(dict.fromkeys(message.phase for message in progress))
    assert phases == ["loading", "denoising", "decoding", "encoding"]
    assert [m.step for m in progress if m.phase == "denoising"] == [0, *range(1, STEPS + 1)]
    assert [(m.step, m.steps) for m in progress if m.phase == "decoding"][-1] == (25, 25)
    done = said[-1]
    assert isinstance(done, Done)
    assert (done.job_id, done.token, done.missing) == ("job-1", 3, ())
    assert set(done.seconds) == {*phases, "weights"}
    assert done.versions["double"] == "leader"
    for file in done.files:
        content = (tmp_path / file.name).read_bytes()
        assert (file.bytes, file.sha256) == (len(content), sha256(content).hexdigest())


def test_decoding_is_told_at_most_ten_times_a_second_and_at_the_end(tmp_path: Path) -> None:
    with working() as worker:
        worker.send(a_run(tmp_path, frames=2_000))
        said = hear(worker, ended)
    done = said[-1]
    assert isinstance(done, Done)
    told = [m for m in said if isinstance(m, Progress) and m.phase == "decoding" and m.step > 0]
    assert told[-1].step == 2_000
    assert len(told) <= done.seconds["decoding"] * 10 + 2


def test_images_are_numbered_and_each_has_its_own_seed(tmp_path: Path) -> None:
    with working() as worker:
        done = outcome(worker, a_run(tmp_path, type="image", n=3, seed=40))
    assert isinstance(done, Done)
    results = [file for file in done.files if file.kind == "result"]
    assert [(file.ordinal, file.seed) for file in results] == [(0, 40), (1, 41), (2, 42)]
    assert (done.missing, done.notes) == ((), ())


def test_an_image_that_fails_takes_no_other_along(tmp_path: Path) -> None:
    with working() as worker:
        done = outcome(worker, a_run(tmp_path, "double:invalid_second_image", type="image", n=3, seed=40, wordmarked=2))
    assert isinstance(done, Done)
    results = [file for file in done.files if file.kind == "result"]
    assert [(file.ordinal, file.seed) for file in results] == [(0, 40), (2, 42)]
    assert [is_wordmarked(tmp_path / file.name) for file in results] == [True, False]
    assert done.missing == (1,)
    assert done.notes[0] == "1 of 3 images failed. The double's second image is not one."


@pytest.mark.parametrize("prompt", ["fails_second_image", "out_of_memory_at_second_image"])
def test_what_was_made_is_kept_where_the_model_is_lost_and_the_child_goes_on(tmp_path: Path, prompt: str) -> None:
    with working() as worker:
        done = outcome(worker, a_run(tmp_path, f"double:{prompt}", type="image", n=3))
        assert isinstance(done, Done)
        assert [file.ordinal for file in done.files if file.kind == "result"] == [0]
        assert done.missing == (1, 2)
        assert done.notes[0].startswith("2 of 3 images failed.")
        again = outcome(worker, a_run(tmp_path, type="image", job_id="next"))
        assert isinstance(again, Done)
        assert "weights" in again.seconds, "the model is read anew"


def test_a_card_that_fails_among_the_images_of_a_job_takes_no_further_job(tmp_path: Path) -> None:
    with working() as worker:
        worker.send(a_run(tmp_path, "double:device_lost_at_second_image", type="image", n=3))
        said = hear(worker, lambda _: worker.dead is not None)
    failed = next(message for message in said if isinstance(message, Failed))
    assert (failed.error_code, failed.fatal) == ("internal_error", True)


def test_the_first_images_bear_the_wordmark_and_the_notes_say_of_how_many(tmp_path: Path) -> None:
    with working() as worker:
        done = outcome(worker, a_run(tmp_path, type="image", n=3, wordmarked=2))
    assert isinstance(done, Done)
    assert [is_wordmarked(tmp_path / file.name) for file in done.files if file.kind == "result"] == [True, True, False]
    assert done.notes == ("Made with the free plan: the wordmark is on 2 of 3 images.",)


def test_an_image_that_fails_leaves_the_wordmark_on_those_it_was_for(tmp_path: Path) -> None:
    (tmp_path / "lake-1.png").mkdir()
    with working() as worker:
        done = outcome(worker, a_run(tmp_path, type="image", n=3, wordmarked=1))
        assert isinstance(done, Done)
        assert not any(is_wordmarked(tmp_path / file.name) for file in done.files if file.kind == "result")
        assert not any("wordmark" in note for note in done.notes)


def is_wordmarked(path: Path) -> bool:
    """The double's images are all white where they are to bear it."""
    with Image.open(path) as image:
        return image.getpixel((0, 0)) == 255


def test_a_video_of_the_free_plan_says_so(tmp_path: Path) -> None:
    with working() as worker:
        done = outcome(worker, a_run(tmp_path, wordmarked=1))
    assert isinstance(done, Done)
    assert done.notes[-1] == "Made with the free plan: the wordmark is on it."


def test_an_image_that_cannot_be_written_takes_no_other_along(tmp_path: Path) -> None:
    (tmp_path / "lake-2.png").mkdir()
    with working() as worker:
        done = outcome(worker, a_run(tmp_path, type="image", n=3))
        assert isinstance(done, Done)
        assert done.missing == (1,)
        assert [file.ordinal for file in done.files if file.kind == "result"] == [0, 2]


def test_images_of_which_none_can_be_written_fail(tmp_path: Path) -> None:
    with working() as worker:
        failed = outcome(worker, a_run(tmp_path / "no-such-folder", type="image", n=2))
    assert isinstance(failed, Failed)
    assert failed.error_code == "internal_error"


@pytest.mark.parametrize("job_type", ["video", "image"])
@pytest.mark.parametrize(
    ("prompt", "error_code"),
    [
        ("raises_in_load", "internal_error"),
        ("raises_in_run", "internal_error"),
        ("safety_blocked", "safety_blocked"),
        ("disk_full", "storage_full"),
    ],
)
def test_a_failure_is_typed_plain_and_leaves_the_child_at_work(
    tmp_path: Path, job_type: str, prompt: str, error_code: ErrorCode
) -> None:
    with working() as worker:
        failed = outcome(worker, a_run(tmp_path, f"double:{prompt}", type=job_type))
        assert isinstance(failed, Failed)
        assert (failed.error_code, failed.fatal) == (error_code, False)
        assert failed.message.endswith(".")
        assert "Traceback" not in failed.message
        assert "double divides" not in failed.message, "an unexpected error's own words stay in the log"
        assert isinstance(outcome(worker, a_run(tmp_path, token=2)), Done)


def loaded_for(worker: Worker, run: Run) -> str:
    """Make a clip; the job that its model was read into memory for."""
    done = outcome(worker, run)
    assert isinstance(done, Done)
    first = next(note.removeprefix("loaded for ") for note in done.notes if note.startswith("loaded for "))
    assert ("weights" in done.seconds) == (first == run.job_id)
    return first


def test_models_stay_resident_side_by_side(tmp_path: Path) -> None:
    with working() as worker:
        assert loaded_for(worker, a_run(tmp_path, job_id="first")) == "first"
        assert loaded_for(worker, a_run(tmp_path, job_id="second", model=LTX2)) == "second"
        assert worker.resident == ("leader", "other"), "the service knows before it may send the next job"
        assert loaded_for(worker, a_run(tmp_path, job_id="third")) == "first"
        assert loaded_for(worker, a_run(tmp_path, job_id="fourth", model=LTX2)) == "second"


def test_what_a_run_names_makes_room_first(tmp_path: Path) -> None:
    with working() as worker:
        loaded_for(worker, a_run(tmp_path, job_id="first"))
        assert (
            loaded_for(worker, a_run(tmp_path, job_id="second", model=LTX2, evict=("leader", "never there")))
            == "second"
        )
        assert worker.resident == ("other",)
        assert loaded_for(worker, a_run(tmp_path, job_id="third", model=LTX2, evict=("other",))) == "third"


@pytest.mark.parametrize(
    "changes",
    [
        {"recipe": Recipe(name="int8", quantise={"transformer": "int8"})},
        {"weights_dir": "/elsewhere"},
        {"model": msgspec.structs.replace(SPEC, size_multiple=8)},
    ],
)
def test_another_form_of_a_model_takes_its_place(tmp_path: Path, changes: dict[str, Any]) -> None:
    with working() as worker:
        loaded_for(worker, a_run(tmp_path, job_id="first"))
        run = a_run(tmp_path, job_id="second", **changes)
        done = outcome(worker, run)
        assert isinstance(done, Done)
        assert {"loaded for second", f"recipe {run.recipe.name}"} <= set(done.notes)
        assert worker.resident == ("leader",)


def test_an_unexpected_error_drops_the_jobs_own_model_and_no_other(tmp_path: Path) -> None:
    with working() as worker:
        loaded_for(worker, a_run(tmp_path, job_id="first"))
        outcome(worker, a_run(tmp_path, "double:raises_in_run", job_id="second", model=LTX2))
        assert worker.resident == ("leader",)
        assert loaded_for(worker, a_run(tmp_path, job_id="third")) == "first"


def test_memory_and_speed_are_told(tmp_path: Path) -> None:
    with working(warm=("ltx2",)) as worker:
        done = outcome(worker, a_run(tmp_path, model=LTX2))
        assert isinstance(done, Done)
        hear(worker, lambda _: worker.flops > 0)
        assert worker.flops == FLOPS
        page = os.sysconf("SC_PAGE_SIZE")
        resident_bytes = int(Path(f"/proc/{worker.pid}/statm").read_text().split()[1]) * page
        assert worker.bytes_held == pytest.approx(resident_bytes, rel=0.2)
        assert done.peak_bytes == pytest.approx(resident_bytes, rel=0.2)


def test_what_no_library_of_a_model_has_to_do_with_is_not_measured(tmp_path: Path) -> None:
    with working() as worker:
        outcome(worker, a_run(tmp_path))
        hear_one(worker, Heartbeat)
        assert worker.flops == 0


def test_previews_come_every_so_many_steps_but_not_with_the_last(tmp_path: Path) -> None:
    with working() as worker:
        worker.send(a_run(tmp_path, preview_steps=2))
        said = hear(worker, ended)
    told = {m.step: m.preview for m in said if isinstance(m, Progress) and m.phase == "denoising"}
    assert [step for step, jpeg in told.items() if jpeg] == [2]
    with Image.open(BytesIO(told[2])) as picture:
        assert (picture.format, picture.size) == ("JPEG", (64, 36))


@pytest.mark.parametrize(
    ("prompt", "is_kept"),
    [("raises_in_run", False), ("safety_blocked", True), ("disk_full", True)],
)
def test_a_model_is_dropped_after_an_unexpected_error_only(tmp_path: Path, prompt: str, *, is_kept: bool) -> None:
    with working() as worker:
        outcome(worker, a_run(tmp_path, f"double:{prompt}", job_id="first"))
        done = outcome(worker, a_run(tmp_path, job_id="second"))
        assert isinstance(done, Done)
        assert f"loaded for {'first' if is_kept else 'second'}" in done.notes


def test_cancel_stops_within_two_steps_and_keeps_the_model(tmp_path: Path) -> None:
    with working() as worker:
        failed = cancelled_after_first_step(worker, a_run(tmp_path, "double:slow_steps", job_id="first"))
        assert (failed.error_code, failed.fatal) == ("cancelled", False)
        done = outcome(worker, a_run(tmp_path, job_id="second"))
        assert isinstance(done, Done)
        assert "loaded for first" in done.notes


def test_cancel_is_heard_within_two_steps(tmp_path: Path) -> None:
    with working() as worker:
        worker.send(a_run(tmp_path, "double:slow_steps"))
        before = hear(worker, lambda said: any(isinstance(m, Progress) and m.step >= 3 for m in said))
        os.kill(worker.pid, signal.SIGSTOP)  # so that all it has said is heard before it is told
        until(lambda: state_of(worker.pid) == "T", "the child stands still")
        before += [message for message in worker.receive() if isinstance(message, Progress)]
        worker.cancel("job-1", 1)
        os.kill(worker.pid, signal.SIGCONT)
        after = hear(worker, ended)
    steps = [message.step for message in before + after if isinstance(message, Progress)]
    assert max(steps) <= max(m.step for m in before if isinstance(m, Progress)) + 2
    assert max(steps) < SLOW_STEPS


def test_cancel_of_another_attempt_is_ignored(tmp_path: Path) -> None:
    with working() as worker:
        worker.cancel("job-1", 1)  # nothing is in flight
        worker.send(a_run(tmp_path, "double:slow_steps", token=2))
        for other in (Cancel(job_id="job-1", token=1), Cancel(job_id="job-2", token=2)):
            worker.connection.send_bytes(encode(other))
        said = hear(worker, lambda said: any(isinstance(m, Progress) and m.step == 6 for m in said))
        assert not ended(said)


def test_a_cancel_that_comes_when_the_work_is_done_loses(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / GATE)
    with working() as worker:
        worker.send(a_run(tmp_path))
        hear(worker, lambda _: "encoding" in worker.attempts.values())
        worker.cancel("job-1", 1)
        (tmp_path / GATE).write_bytes(b"go")
        assert isinstance(next(m for m in hear(worker, ended) if isinstance(m, Done | Failed)), Done)


def test_the_next_job_has_the_card_while_the_encoder_of_the_last_one_finishes(tmp_path: Path) -> None:
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
    os.mkfifo(tmp_path / "first" / GATE)
    with working() as worker:
        worker.send(a_run(tmp_path / "first", job_id="first"))
        hear(worker, lambda _: worker.has_room)
        worker.send(a_run(tmp_path / "second", job_id="second"))
        assert not worker.has_room
        said = hear(worker, lambda said: any(isinstance(m, Progress) and m.phase == "decoding" for m in said))
        assert not ended(said), "the first is still in its tail"
        (tmp_path / "first" / GATE).write_bytes(b"go")
        said += hear(worker, lambda said: sum(isinstance(m, Done) for m in said) == 2)
    assert [message.job_id for message in said if isinstance(message, Done)] == ["first", "second"]


def test_memory_that_runs_out_does_not_take_the_last_jobs_tail_along(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / GATE)
    with working() as worker:
        worker.send(a_run(tmp_path, job_id="first"))
        hear(worker, lambda _: worker.has_room)
        worker.send(a_run(tmp_path, "double:out_of_memory", job_id="second"))
        hear(worker, lambda said: any(isinstance(m, Progress) and m.step == 1 for m in said))
        (tmp_path / GATE).write_bytes(b"go")
        said = hear(worker, lambda _: worker.dead is not None)
    assert [m.job_id for m in said if isinstance(m, Done | Failed)] == ["first", "second"]
    assert worker.dead
    assert worker.dead.lost == ()


@pytest.mark.parametrize("job_type", ["video", "image"])
@pytest.mark.parametrize("prompt", ["device_lost", "device_lost_in_load"])
def test_a_child_whose_card_failed_asks_to_be_replaced(tmp_path: Path, job_type: str, prompt: str) -> None:
    with working() as worker:
        worker.send(a_run(tmp_path, f"double:{prompt}", type=job_type))
        said = hear(worker, lambda _: worker.dead is not None)
    failed = next(message for message in said if isinstance(message, Failed))
    assert (failed.error_code, failed.fatal) == ("internal_error", True)
    assert worker.dead
    assert (worker.dead.lost, worker.dead.error_code) == ((), "internal_error")


def test_a_run_waits_for_the_libraries_that_are_being_imported(tmp_path: Path) -> None:
    with working(warm=("ltx2",)) as worker:
        done = outcome(worker, a_run(tmp_path, model=LTX2))
        assert isinstance(done, Done)
        assert "warmed ltx2" in done.notes


def test_a_run_of_another_family_does_not_wait_for_imports(tmp_path: Path) -> None:
    with working(warm=("ltx2",)) as worker:
        done = outcome(worker, a_run(tmp_path))
        assert isinstance(done, Done)
        assert "warmed " in done.notes


def test_a_cards_child_sees_it_as_the_first_whatever_its_number_is(tmp_path: Path) -> None:
    with working(device="cuda:97") as worker:
        assert worker.ready
        assert (worker.ready.device, worker.ready.device_name) == ("cuda:97", "cuda:97"), "no such card has a name"
        done = outcome(worker, a_run(tmp_path))
        assert isinstance(done, Done)
        assert "device cuda:0" in done.notes


def test_a_child_ends_when_the_service_closes_its_pipe() -> None:
    with working() as worker:
        worker.connection.close()
        assert is_gone(worker.pid)


def test_sigterm_ends_a_busy_child_at_once(tmp_path: Path) -> None:
    with working() as worker:
        worker.send(a_run(tmp_path, "double:slow_steps"))
        hear(worker, lambda said: any(isinstance(m, Progress) and m.step == 1 for m in said))
        worker.kill("is in the way")
        assert worker.dead
        assert worker.dead.exit_code == -15


def test_the_loop_itself_needs_no_torch() -> None:
    script = "import sys, zsky_box.worker_main as child; child.real_engine(); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], check=False, cwd=ROOT).returncode == 0
