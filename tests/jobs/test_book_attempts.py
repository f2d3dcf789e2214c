"""What attempts report: progress, results, failures and retries."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from tests.always_true import check_always_true
from tests.stores import Rooms, made
from zsky_box.db import storage_error
from zsky_box.errors import JobFailure, Refusal
from zsky_box.events import Phase

WAIT_SECONDS = 30.0


# Progress


def test_progress_grows_over_the_phases_and_never_goes_back_also_over_a_retry(rooms: Rooms) -> None:
    attempt, seen = rooms.running(), list[float]()
    told: list[tuple[Phase, int, int]] = [("loading", 1, 2), ("denoising", 1, 8), ("denoising", 8, 8)]
    odd: list[tuple[Phase, int, int]] = [("loading", 0, 2), ("decoding", 9, 3), ("encoding", 1, 0)]
    for turn in range(2):
        for phase, step, steps in told + odd:
            rooms.book.progress(attempt.job_id, attempt.token, phase, step, steps)
            rooms.store.write(lambda _: None)
            seen.append(rooms.view(attempt.job_id).progress)
        if turn == 0:
            rooms.retry(attempt)
            attempt = rooms.claimed(attempt.job_id)
    assert seen == sorted(seen)
    assert seen[:3] == [0.025, 0.1437, 0.8]
    assert 0.8 < seen[-1] < 1.0
    rooms.complete(attempt)
    assert rooms.view(attempt.job_id).progress == 1.0


def test_work_has_begun_once_the_first_denoising_step_is_stored(rooms: Rooms) -> None:
    attempt = rooms.running()
    rooms.book.progress(attempt.job_id, attempt.token, "loading", 1, 8)
    rooms.book.progress(attempt.job_id, attempt.token, "denoising", 0, 8)
    rooms.store.write(lambda _: None)
    assert rooms.row(attempt.job_id)["work_begun"] == 0
    rooms.step(attempt)
    assert rooms.row(attempt.job_id)["work_begun"] == 1


def hold_the_writer(rooms: Rooms) -> Callable[[], None]:
    """Keep the writer busy, so that reports of progress pile up; the answer lets it go."""
    entered, let_go = threading.Event(), threading.Event()
    held = rooms.store.submit(lambda _: (entered.set(), let_go.wait(WAIT_SECONDS)))
    assert entered.wait(WAIT_SECONDS)

    def release() -> None:
        let_go.set()
        held.result(WAIT_SECONDS)
        rooms.store.write(lambda _: None)

    return release


def test_reports_that_pile_up_become_one_write_with_all_that_they_said(rooms: Rooms) -> None:
    attempt = rooms.running()
    release = hold_the_writer(rooms)
    rooms.book.progress(attempt.job_id, attempt.token, "denoising", 1, 8)
    rooms.book.progress(attempt.job_id, attempt.token, "denoising", 8, 8)
    rooms.book.progress(attempt.job_id, attempt.token, "decoding", 0, 8)
    release()
    row = rooms.row(attempt.job_id)
    assert (row["phase"], row["work_begun"], round(row["progress"], 4)) == ("decoding", 1, 0.8)


def test_a_late_worker_cannot_hide_what_the_present_one_reports(rooms: Rooms) -> None:
    late = rooms.running()
    rooms.retry(late)
    attempt = rooms.claimed(late.job_id)
    release = hold_the_writer(rooms)
    rooms.book.progress(attempt.job_id, attempt.token, "denoising", 4, 8)
    rooms.book.progress(late.job_id, late.token, "loading", 1, 2)
    release()
    assert rooms.row(attempt.job_id)["work_begun"] == 1


def test_a_report_that_the_store_refused_does_not_silence_the_next(
    rooms: Rooms, monkeypatch: pytest.MonkeyPatch
) -> None:
    attempt = rooms.running()
    with monkeypatch.context() as broken:
        broken.setattr(rooms.store, "_broken", True)
        rooms.book.progress(attempt.job_id, attempt.token, "loading", 1, 2)
    rooms.step(attempt)
    assert rooms.row(attempt.job_id)["work_begun"] == 1


def test_reports_of_an_ended_job_change_nothing(rooms: Rooms) -> None:
    attempt = rooms.running()
    rooms.end(attempt)
    before = tuple(rooms.row(attempt.job_id))
    rooms.step(attempt)
    assert tuple(rooms.row(attempt.job_id)) == before


# Complete


def test_a_completed_job_is_charged_and_shows_its_files(rooms: Rooms) -> None:
    attempt = rooms.running(n=2)
    rooms.clock.advance(3)
    rooms.complete(attempt)
    view = rooms.view(attempt.job_id)
    assert (view.status, view.progress, view.finished_at) == ("completed", 1.0, "2026-11-22T12:00:03Z")
    assert (view.charge.state, view.charge.units, view.charge.included_units) == ("posted", 2, 2)
    assert view.receipt is not msgspec.UNSET
    assert view.receipt is not None
    assert (view.receipt.model, view.receipt.device, view.receipt.versions) == ("leader", "CPU", {"torch": "2"})
    assert view.results is not msgspec.UNSET
    assert [result.seed for result in view.results] == [7, 8]
    assert rooms.left() == 38
    assert not Path(attempt.out_dir).exists()


def test_of_several_images_the_missing_ones_are_not_charged(rooms: Rooms) -> None:
    attempt = rooms.running(n=4)
    rooms.complete(attempt, 1, 3)
    view = rooms.view(attempt.job_id)
    assert (view.charge.state, view.charge.units, view.charge.included_units) == ("posted", 4, 2)
    assert view.notes[-1] == "Images that failed are not charged."
    assert rooms.left() == 38


def test_a_worker_that_reports_no_result_completes_nothing(rooms: Rooms) -> None:
    attempt = rooms.running()
    done = msgspec.structs.replace(made(attempt), files=())
    with pytest.raises(JobFailure, match="no result"):
        rooms.book.complete(done, "CPU", {})
    assert rooms.view(attempt.job_id).status == "running"


def test_a_file_that_is_not_whole_completes_nothing(rooms: Rooms) -> None:
    attempt = rooms.running()
    done = made(attempt)
    (Path(attempt.out_dir) / done.files[0].name).write_bytes(b"half")
    with pytest.raises(JobFailure, match="not whole"):
        rooms.book.complete(done, "CPU", {})
    rooms.end(attempt)
    assert rooms.charge_state(attempt.job_id) == "voided"


def test_a_late_worker_completes_nothing_and_leaves_no_file(rooms: Rooms) -> None:
    late = rooms.running()
    done = made(late)
    rooms.store.write(lambda tx: rooms.book._retry(tx, late.job_id, 1, "internal_error", "", 3))  # pyright: ignore[reportPrivateUsage]
    attempt = rooms.claimed(late.job_id)
    rooms.book.complete(done, "CPU", {})
    assert rooms.view(late.job_id).status == "running"
    assert not (rooms.assets.root / late.job_id).exists()
    rooms.complete(attempt)
    assert rooms.view(late.job_id).status == "completed"


@pytest.mark.parametrize("told", ["complete", "fail", "retry", "release"])
def test_an_end_that_is_told_after_the_result_keeps_the_result(rooms: Rooms, told: str) -> None:
    attempt = rooms.running()
    done = made(attempt)
    rooms.book.complete(done, "CPU", {})
    if told == "complete":
        rooms.book.complete(done, "CPU", {})
        assert not rooms.end(attempt)
    elif told == "fail":
        assert not rooms.end(attempt)
    elif told == "retry":
        assert not rooms.retry(attempt)
    else:
        rooms.book.release(attempt.job_id, attempt.token)
    assert rooms.view(attempt.job_id).status == "completed"
    check_always_true(rooms)


def test_a_result_that_could_not_be_recorded_at_first_is_completed_at_the_next_try(
    rooms: Rooms, monkeypatch: pytest.MonkeyPatch
) -> None:
    attempt = rooms.running()
    done = made(attempt)
    with monkeypatch.context() as patched:
        patched.setattr(rooms.store, "write", _refuse)
        with pytest.raises(Refusal):
            rooms.book.complete(done, "CPU", {})
    rooms.book.complete(done, "CPU", {})
    assert rooms.view(attempt.job_id).status == "completed"
    check_always_true(rooms)


def _refuse(_: object) -> None:
    raise storage_error()


def test_a_model_that_was_removed_meanwhile_fails_the_job_with_a_sentence(rooms: Rooms) -> None:
    attempt = rooms.running()
    del rooms.catalog.specs["leader"]
    with pytest.raises(JobFailure, match="The model was removed"):
        rooms.complete(attempt)


# Fail


@pytest.mark.parametrize("begun", [False, True])
@pytest.mark.parametrize(
    "code",
    ["internal_error", "gpu_timeout", "out_of_memory", "encode_failed", "storage_full", "deadline_exceeded"],
)
def test_what_fails_inside_the_box_is_never_charged(rooms: Rooms, code: str, begun: bool) -> None:
    attempt = rooms.running(n=2)
    if begun:
        rooms.step(attempt)
    assert rooms.end(attempt, code)
    view = rooms.view(attempt.job_id)
    assert (view.status, view.error_code, view.error) == ("failed", code, "It did not work.")
    assert (view.charge.state, view.charge.included_units) == ("voided", 0)
    assert rooms.left() == 40
    assert not Path(attempt.out_dir).exists()


def test_a_result_that_safety_blocked_is_charged(rooms: Rooms) -> None:
    attempt = rooms.running(n=2)
    rooms.step(attempt)
    rooms.end(attempt, "safety_blocked")
    assert rooms.charge_state(attempt.job_id) == "posted"
    assert rooms.left() == 38


def test_a_job_fails_once_and_a_late_worker_fails_nothing(rooms: Rooms) -> None:
    late = rooms.running()
    rooms.retry(late)
    assert not rooms.end(late)
    attempt = rooms.claimed(late.job_id)
    assert not rooms.end(late)
    assert not rooms.retry(late)
    assert Path(attempt.out_dir).exists()
    assert rooms.end(attempt, "gpu_timeout")
    assert not rooms.end(attempt, "safety_blocked")
    assert rooms.view(late.job_id).error_code == "gpu_timeout"


def test_a_test_job_that_fails_acts_its_void_out(rooms: Rooms) -> None:
    for code, state in (("internal_error", "voided"), ("safety_blocked", "posted")):
        job_id = rooms.new_job(rooms.tester)
        rooms.end(rooms.claimed(job_id), code)
        assert rooms.view(job_id, rooms.tester).charge.state == state


# Retry and release


def test_a_retried_job_waits_again_in_its_old_place_with_its_units_held(rooms: Rooms) -> None:
    attempt = rooms.running()
    later = rooms.new_job()
    rooms.rung.clear()
    assert rooms.retry(attempt)
    view = rooms.view(attempt.job_id)
    assert (view.status, view.phase, view.started_at, view.charge.state) == ("queued", "waiting", None, "reserved")
    assert [job.id for job in rooms.queued(test=False)] == [attempt.job_id, later]
    assert rooms.rung == [attempt.job_id]
    assert not Path(attempt.out_dir).exists()


def test_the_last_attempt_is_not_retried_but_voided(rooms: Rooms) -> None:
    job_id = rooms.new_job()
    assert [rooms.retry(rooms.claimed(job_id), attempts_max=3) for _ in range(3)] == [True, True, False]
    view = rooms.view(job_id)
    assert (view.status, view.error, view.charge.state) == ("failed", "The worker died.", "voided")
    assert rooms.row(job_id)["attempts"] == 3


def test_a_job_that_is_to_be_cancelled_is_not_retried(rooms: Rooms) -> None:
    attempt = rooms.running()
    rooms.cancel(attempt.job_id)
    assert not rooms.retry(attempt)
    assert rooms.view(attempt.job_id).error_code == "cancelled"


def test_a_released_attempt_does_not_count(rooms: Rooms) -> None:
    job_id = rooms.new_job()
    for _ in range(5):
        attempt = rooms.claimed(job_id)
        rooms.book.release(job_id, attempt.token)
        assert rooms.row(job_id)["attempts"] == 0
    rooms.book.release(job_id, rooms.row(job_id)["token"])
    assert rooms.row(job_id)["attempts"] == 0
    assert rooms.view(job_id).status == "queued"
