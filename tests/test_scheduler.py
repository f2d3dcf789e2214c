from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import msgspec
import pytest

from tests.doubles.scheduling import BOUND_SECONDS, FakeProcess, Stage
from zsky_box import scheduler as scheduler_module
from zsky_box import settler as settler_module
from zsky_box import starter as starter_module
from zsky_box.errors import JobFailure, StoreError
from zsky_box.estimates import Timing
from zsky_box.events import Done, Heartbeat, Progress
from zsky_box.manifest import Recipe
from zsky_box.observer import Nobody
from zsky_box.worker import Patience

TICK_SECONDS = 0.1


@pytest.fixture(autouse=True)
def quick_ticks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scheduler_module, "TICK_SECONDS", TICK_SECONDS)


def test_it_works() -> None:
    with Stage() as stage:
        assert not stage.scheduler.is_ready()
        child = stage.child()
        child.get_ready()
        stage.jobs.add("job")
        run = child.hear_run()
        assert (run.job_id, run.token, run.model.name) == ("job", 1, "a")
        assert stage.scheduler.is_ready()
        assert stage.scheduler.slots()[0].job_id == "job"
        child.finish(run)
        assert stage.jobs.until_ended("job").end == "completed"
        assert ("complete", "job", "a fake card", "{'fake': '1'}") in stage.jobs.calls
        assert stage.jobs.calls[0] != ("claim", "job", "cpu"), "a card is named as it calls itself once it has"


def test_jobs_run_in_the_order_in_which_they_came() -> None:
    with Stage() as stage:
        for name in ("first", "second", "third"):
            stage.jobs.add(name)
        child = stage.child()
        child.get_ready()
        for name in ("first", "second", "third"):
            run = child.hear_run()
            assert run.job_id == name
            child.finish(run)
            stage.jobs.until_ended(name)


def test_batch_jobs_wait_for_interactive_ones() -> None:
    with Stage() as stage:
        stage.jobs.add("batch", batch=True)
        stage.jobs.add("interactive")
        child = stage.child()
        child.get_ready()
        run = child.hear_run()
        assert run.job_id == "interactive"
        child.finish(run)
        assert child.hear_run().job_id == "batch"


def later(stage: Stage, monkeypatch: pytest.MonkeyPatch, seconds: float = 50.0) -> None:
    """Let time pass for the scheduler: a patience of half as much is over, and no busy machine uses it up before."""
    now = time.monotonic
    monkeypatch.setattr(time, "monotonic", lambda: now() + seconds)
    stage.scheduler.wake()


def begin(stage: Stage, device: str) -> None:
    """Have a device's child get ready, and wait until the scheduler knows."""
    stage.child(device).get_ready()
    stage.jobs.until(lambda: any(slot.device == device and slot.state == "ready" for slot in stage.scheduler.slots()))


def holding(stage: Stage, device: str, model: str) -> None:
    """Have a device load a model, which takes a while, and be free again."""
    stage.estimates.learn(
        Timing(kind="load", model=model, recipe="full", card="a fake card", shape="", operations=0, seconds=30)
    )
    child = stage.child(device)
    child.get_ready()
    stage.jobs.add(f"{model}-is-loaded", model=model)
    child.finish(child.hear_run())
    stage.jobs.until_ended(f"{model}-is-loaded")


def test_a_job_goes_where_its_model_is_in_memory() -> None:
    with Stage("cpu", "cuda:0") as stage:
        holding(stage, "cpu", "a")
        begin(stage, "cuda:0")
        with_pause(stage, lambda: (stage.jobs.add("first-a"), stage.jobs.add("second-a")))
        run = stage.child("cpu").hear_run()
        assert run.job_id == "first-a"
        assert stage.child("cuda:0").hears_nothing()
        assert "waits for cpu" in str(stage.scheduler.reason("second-a"))
        stage.child("cpu").finish(run)
        assert stage.child("cpu").hear_run().job_id == "second-a"
        assert "in memory" in stage.jobs.jobs["second-a"].why[0]
        assert "waits for cpu" in stage.jobs.jobs["second-a"].why[0]


def test_nobody_waits_long_for_a_device_whose_job_takes_far_longer_than_expected(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with Stage("cpu", "cuda:0") as stage:
        holding(stage, "cpu", "a")
        begin(stage, "cuda:0")
        with_pause(stage, lambda: (stage.jobs.add("first-a"), stage.jobs.add("second-a")))
        assert stage.child("cpu").hear_run().job_id == "first-a"
        assert "waits for cpu" in str(stage.scheduler.reason("second-a"))
        later(stage, monkeypatch)
        assert stage.child("cuda:0").hear_run().job_id == "second-a"


def test_a_job_that_waits_while_no_device_takes_jobs_is_told_so_and_not_of_its_turn() -> None:
    with Stage("cpu", "cuda:0", restarts=0) as stage:
        reason = stage.scheduler.reason
        assert reason("job") == "no device takes jobs now: cpu is starting; cuda:0 is starting"
        holding(stage, "cpu", "a")
        begin(stage, "cuda:0")
        with_pause(stage, lambda: (stage.jobs.add("first-a"), stage.jobs.add("second-a")))
        stage.child("cpu").hear_run()
        stage.jobs.until(lambda: "waits for cpu" in str(reason("second-a")))
        stage.jobs.pauses = {"cpu": False, "cuda:0": False}
        stage.scheduler.wake()
        stage.jobs.until(lambda: reason("second-a") == "all devices are paused")
        stage.jobs.quiet = True
        stage.scheduler.wake()
        stage.jobs.until(lambda: "quiet hours" in str(reason("second-a")))
        assert "quiet" not in str(reason("second-a", test=True)), "test jobs know no quiet hours"
        stage.jobs.pauses, stage.jobs.quiet = {"cpu": False}, False
        stage.child("cuda:0").crash()
        stage.jobs.until(lambda: "quarantined" in str(reason("second-a")))
        assert reason("second-a") == (
            "no device takes jobs now: cpu is paused; cuda:0 is quarantined, since it lost 1 workers in 600 s"
        )


def with_pause(stage: Stage, change: Callable[[], object]) -> None:
    """Change several things between two looks of the scheduler."""
    gate = stage.jobs.held["expire"] = threading.Event()
    looks = stage.jobs.count("expire")
    stage.scheduler.wake()
    stage.jobs.until(lambda: stage.jobs.count("expire") > looks)
    change()
    del stage.jobs.held["expire"]
    gate.set()


def test_a_job_that_somebody_else_took_costs_the_device_no_turn() -> None:
    with Stage() as stage:
        for name in ("gone-1", "gone-2", "gone-3"):
            stage.jobs.taken_by_others.add(name)
            stage.jobs.add(name)
        stage.jobs.add("mine")
        looks_before = stage.jobs.count("heads")
        child = stage.child()
        child.get_ready()
        assert child.hear_run().job_id == "mine"
        assert stage.jobs.count("heads") - looks_before <= 6  # a turn ends with a look at the start deadlines alone


def test_test_jobs_have_a_child_of_their_own() -> None:
    with Stage() as stage:
        stage.child("cpu").get_ready()
        stage.child("test").get_ready()
        stage.jobs.add("test-1", test=True)
        stage.jobs.add("test-2", test=True)
        stage.jobs.add("live")
        assert stage.child("cpu").hear_run().job_id == "live"
        assert stage.child("test").hear_run().job_id == "test-1"
        assert stage.jobs.jobs["test-2"].status == "queued"


def test_the_next_job_starts_while_the_encoder_of_the_last_one_works() -> None:
    with Stage() as stage:
        child = stage.child()
        child.get_ready()
        stage.jobs.add("first")
        stage.jobs.add("second")
        first = child.hear_run()
        child.report(first, "denoising")
        stage.jobs.until(lambda: stage.jobs.count("progress") == 1)
        assert child.hears_nothing()
        child.report(first, "encoding")
        second = child.hear_run()
        assert second.job_id == "second"
        child.finish(first)
        assert stage.jobs.until_ended("first").end == "completed"
        assert stage.jobs.jobs["second"].status == "running"


def test_a_job_that_was_lost_once_has_its_tail_for_itself() -> None:
    with Stage() as stage:
        first = stage.child()
        first.get_ready()
        stage.jobs.add("job")
        first.hear_run()
        first.crash()
        second = stage.child(number=1)
        second.get_ready()
        again = second.hear_run()
        stage.jobs.add("crashes")
        second.report(again, "encoding")
        stage.jobs.until(lambda: stage.jobs.count("progress") == 1)
        looks = stage.jobs.count("expire")
        stage.jobs.until(lambda: stage.jobs.count("expire") >= looks + 2)
        assert second.hears_nothing()
        second.finish(again)
        assert second.hear_run().job_id == "crashes"


def test_draining_starts_nothing_and_ends_when_the_last_end_is_stored() -> None:
    with Stage() as stage:
        child = stage.child()
        child.get_ready()
        stage.jobs.add("running")
        run = child.hear_run()
        stored = stage.jobs.held["complete"] = threading.Event()
        assert not stage.scheduler.drain(0.05)
        stage.jobs.add("waiting")
        child.finish(run)
        stage.jobs.until(lambda: stage.jobs.count("complete") == 1)
        assert not stage.scheduler.drain(0.05), "the result is not stored yet"
        stored.set()
        assert stage.scheduler.drain(BOUND_SECONDS)
        assert stage.jobs.jobs["running"].end == "completed"
        assert stage.jobs.jobs["waiting"].status == "queued"
        assert child.hears_nothing()


def test_an_idle_scheduler_drains_at_once() -> None:
    with Stage() as stage:
        assert stage.scheduler.drain(BOUND_SECONDS)


def test_a_storm_of_wakes_is_one_wake() -> None:
    with Stage() as stage:
        gate = stage.jobs.held["expire"] = threading.Event()
        looks = stage.jobs.count("expire")
        stage.scheduler.wake()
        stage.jobs.until(lambda: stage.jobs.count("expire") > looks)
        looks = stage.jobs.count("expire")
        for _ in range(10_000):
            stage.scheduler.wake()
        child = stage.child()
        stage.jobs.add("job")
        gate.set()
        child.get_ready()
        assert child.hear_run().job_id == "job"
        assert stage.jobs.count("expire") - looks < 100, "one look a tick, and not one a wake"


def test_an_idle_scheduler_does_not_spin() -> None:
    with Stage() as stage:
        stage.child().get_ready()
        stage.jobs.until(stage.scheduler.is_ready)
        worker = next(worker for name, worker in stage.workers if name == "cpu")
        started, looks, turns = time.monotonic(), stage.jobs.count("expire"), worker.turns
        stage.jobs.until(lambda: stage.jobs.count("expire") >= looks + 5)
        assert time.monotonic() - started > 4 * TICK_SECONDS
        turns = worker.turns - turns  # counted before the looks, which go on
        assert turns <= 2 * (stage.jobs.count("expire") - looks) + 1


def test_jobs_are_expired_while_children_report_without_pause() -> None:
    with Stage() as stage:
        child = stage.child()
        child.get_ready()
        stage.jobs.add("job")
        run = child.hear_run()
        looks = stage.jobs.count("expire")
        started = time.monotonic()
        while stage.jobs.count("expire") < looks + 2 or stage.jobs.count("progress") <= 50:
            assert time.monotonic() - started < BOUND_SECONDS
            heard = stage.jobs.count("progress")
            child.report(run, "denoising")
            stage.jobs.until(lambda heard=heard: stage.jobs.count("progress") > heard)
        seen = stage.jobs.count("expire") - looks
        due = (time.monotonic() - started) / TICK_SECONDS
        assert seen <= due + 5, "a report is no reason to look at all jobs"


# How attempts end


def test_a_crash_is_tried_again_once_on_a_new_child() -> None:
    with Stage() as stage:
        stage.child().get_ready()
        stage.jobs.add("job")
        stage.child().hear_run()
        stage.child().crash()
        second = stage.child(number=1)
        second.get_ready()
        assert second.hear_run().token == 2
        assert stage.jobs.jobs["job"].end is None
        second.crash()
        assert stage.jobs.until_ended("job").end == "internal_error"
        third = stage.child(number=2)
        third.get_ready()
        stage.jobs.add("next")
        assert third.hear_run().job_id == "next"
        assert stage.scheduler.slots()[0].restarts == 2


@pytest.mark.parametrize("code", ["encode_failed", "safety_blocked", "internal_error", "storage_full"])
def test_a_failure_that_the_child_tells_ends_the_job(code: str) -> None:
    with Stage() as stage:
        child = stage.child()
        child.get_ready()
        stage.jobs.add("job")
        child.fail(child.hear_run(), code)  # type: ignore[arg-type] - one of the literals
        assert stage.jobs.until_ended("job").end == code


def test_running_out_of_memory_is_tried_once_more_and_says_nothing_against_the_device() -> None:
    with Stage(restarts=1) as stage:
        for number in range(4):
            child = stage.child(number=number)
            child.get_ready()
            if number % 2 == 0:
                stage.jobs.add(f"job-{number}")
            run = child.hear_run()
            child.report(run, "denoising")
            child.fail(run, "out_of_memory", fatal=True)
        assert stage.jobs.until_ended("job-0").end == "out_of_memory"
        assert stage.jobs.until_ended("job-2").end == "out_of_memory"
        stage.child(number=4).get_ready()
        stage.jobs.until(stage.scheduler.is_ready)


def test_a_device_whose_memory_cannot_take_a_model_at_all_is_quarantined() -> None:
    with Stage(restarts=1) as stage:
        stage.jobs.add("job")
        for number in range(2):
            child = stage.child(number=number)
            child.get_ready()
            child.fail(child.hear_run(), "out_of_memory", fatal=True)
        stage.jobs.until_ended("job")
        stage.jobs.until(lambda: stage.scheduler.slots()[0].state == "quarantined")
        assert not stage.scheduler.is_ready()
        assert not stage.failures


def test_a_child_that_asks_to_be_replaced_has_its_job_tried_again_and_its_device_blamed() -> None:
    with Stage(restarts=1) as stage:
        stage.jobs.add("job")
        for number in range(2):
            child = stage.child(number=number)
            child.get_ready()
            run = child.hear_run()
            child.report(run, "denoising")
            child.fail(run, "internal_error", fatal=True)
        assert stage.jobs.until_ended("job").end == "internal_error"
        stage.jobs.until(lambda: stage.scheduler.slots()[0].state == "quarantined")


def test_a_card_that_fails_two_jobs_is_quarantined_and_the_next_goes_elsewhere() -> None:
    with Stage("cuda:0", "cuda:1") as stage:
        first = stage.child("cuda:0")
        first.get_ready()
        stage.jobs.add("job-1")
        first.fail(first.hear_run(), "internal_error", fatal=True)
        second = stage.child("cuda:0", 1)
        second.get_ready()
        second.finish(second.hear_run())
        assert stage.jobs.until_ended("job-1").end == "completed"
        stage.jobs.add("job-2")
        run = second.hear_run()
        stage.child("cuda:1").get_ready()
        second.fail(run, "internal_error", fatal=True)
        assert stage.child("cuda:1").hear_run().job_id == "job-2"
        stage.jobs.until(lambda: stage.scheduler.slots()[0].state == "quarantined")
        assert stage.scheduler.slots()[0].reason == "reported errors to one job after another"
        assert stage.scheduler.is_ready()


def test_a_card_with_a_fault_gives_its_job_to_another_and_none_is_begun_on_it() -> None:
    with Stage("cuda:0", "cuda:1") as stage:
        first = stage.child("cuda:0")
        first.get_ready()
        stage.jobs.add("job")
        run = first.hear_run()
        first.report(run, "denoising")
        stage.scheduler.tell_card("cuda:0", "does not answer any more (GPU is lost)")
        stage.child("cuda:1").get_ready()
        again = stage.child("cuda:1").hear_run()
        assert (again.job_id, again.token) == ("job", 2)
        view = stage.scheduler.slots()[0]
        assert (view.state, view.reason) == ("quarantined", "does not answer any more (GPU is lost)")
        assert any("since the card does not answer any more" in call[-1] for call in stage.jobs.calls)
        looks = stage.jobs.count("expire")
        stage.jobs.until(lambda: stage.jobs.count("expire") >= looks + 2)
        assert [device for device, _ in stage.workers].count("cuda:0") == 1, "no child is started on it"


def test_a_job_outlives_more_failing_cards_than_crashes() -> None:
    with Stage("cuda:0", "cuda:1", "cuda:2", "cuda:3") as stage:
        stage.jobs.add("job")
        for number in range(3):
            child = stage.child(f"cuda:{number}")
            child.get_ready()
            child.hear_run()
            stage.scheduler.tell_card(f"cuda:{number}", "does not answer any more")
        last = stage.child("cuda:3")
        last.get_ready()
        last.finish(last.hear_run())
        assert stage.jobs.until_ended("job").end == "completed"


def test_a_card_that_is_well_again_serves_again() -> None:
    with Stage("cuda:0", restarts=0) as stage:
        stage.child("cuda:0").get_ready()
        stage.jobs.until(stage.scheduler.is_ready)
        stage.scheduler.tell_card("cuda:0", "does not answer any more")
        stage.jobs.until(lambda: stage.scheduler.slots()[0].state == "quarantined")
        stage.jobs.add("waits")
        assert not stage.scheduler.is_ready()
        assert stage.jobs.jobs["waits"].status == "queued"
        stage.scheduler.tell_card("cuda:0", "")
        child = stage.child("cuda:0", 1)
        child.get_ready()
        assert child.hear_run().job_id == "waits"
        assert stage.scheduler.slots()[0].reason == ""


def test_queued_jobs_are_expired_while_every_card_is_quarantined() -> None:
    with Stage("cuda:0") as stage:
        stage.child("cuda:0").get_ready()
        stage.scheduler.tell_card("cuda:0", "does not answer any more")
        stage.jobs.until(lambda: stage.scheduler.slots()[0].state == "quarantined")
        looks = stage.jobs.count("expire")
        stage.jobs.until(lambda: stage.jobs.count("expire") >= looks + 3)


def test_previews_are_passed_on_and_asked_for_as_often_as_set() -> None:
    with Stage(preview_steps=3) as stage:
        child = stage.child()
        child.get_ready()
        stage.jobs.add("job")
        run = child.hear_run()
        assert run.preview_steps == 3
        child.say(Progress(job_id="job", token=1, phase="denoising", step=3, steps=4, preview=b"jpeg"))
        child.say(Progress(job_id="job", token=0, phase="denoising", step=3, steps=4, preview=b"of an older attempt"))
        child.report(run, "decoding")
        stage.jobs.until(lambda: stage.jobs.count("progress") == 2)
        assert [call for call in stage.jobs.calls if call[0] == "preview"] == [("preview", "job", "1", "4")]


def test_workers_on_the_same_device_are_told_apart() -> None:
    with Stage("cpu", "cuda:0", "cpu") as stage:
        assert [slot.label for slot in stage.scheduler.slots()] == ["cpu-1", "cuda:0", "cpu-2", "test"]


def test_the_observer_is_told_what_was_made_and_what_was_not() -> None:
    seen: list[tuple[str, ...]] = []

    class Watching(Nobody):
        def made(self, device: str, model: str, seconds: Mapping[str, float], *, test: bool) -> None:
            seen.append(("made", device, model, str(dict(seconds)), str(test)))

        def attempt_failed(self, device: str, model: str, error_code: str) -> None:
            seen.append(("failed", device, model, error_code))

    with Stage(observer=Watching()) as stage:
        child = stage.child()
        child.get_ready()
        stage.jobs.add("job", model="b")
        child.finish(child.hear_run())
        stage.jobs.until_ended("job")
        stage.jobs.add("blocked", model="b")
        child.fail(child.hear_run(), "safety_blocked")
        stage.jobs.until_ended("blocked")
        stage.jobs.add("crashes", model="b")
        child.hear_run()
        child.crash()
        stage.jobs.until(lambda: stage.jobs.count("retry") == 1)
    assert seen[:3] == [
        ("made", "cpu", "b", "{}", "False"),
        ("failed", "cpu", "b", "safety_blocked"),
        ("failed", "cpu", "b", "internal_error"),
    ]


SILENCE = Patience(start_seconds=1e9, silence_seconds=25.0)


def test_a_silent_child_is_replaced_and_its_job_fails_as_gpu_timeout(monkeypatch: pytest.MonkeyPatch) -> None:
    with Stage(patience=SILENCE) as stage:
        child = stage.child()
        child.get_ready()
        stage.jobs.add("job")
        child.hear_run()
        later(stage, monkeypatch)
        job = stage.jobs.until_ended("job")
        assert job.end == "gpu_timeout"
        assert any("gave no sign of life" in call[-1] for call in stage.jobs.calls if call[0] == "fail")
        stage.child(number=1).get_ready()


def test_the_tail_of_another_job_in_a_silent_child_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    with Stage(patience=SILENCE) as stage:
        child = stage.child()
        child.get_ready()
        stage.jobs.add("tail")
        stage.jobs.add("hangs")
        tail = child.hear_run()
        child.report(tail, "encoding")
        child.hear_run()
        later(stage, monkeypatch)
        assert stage.jobs.until_ended("hangs").end == "gpu_timeout"
        second = stage.child(number=1)
        second.get_ready()
        run = second.hear_run()
        assert (run.job_id, run.token) == ("tail", 2)


def test_a_job_does_not_fail_for_the_crash_of_the_one_beside_it() -> None:
    with Stage() as stage:
        stage.jobs.add("tail")
        child = stage.child()
        child.get_ready()
        child.report(child.hear_run(), "encoding")
        stage.jobs.add("crash")
        child.hear_run()
        stage.jobs.jobs["crash"].attempts = stage.jobs.jobs["tail"].attempts = 2  # the last one of either
        child.crash()
        assert stage.jobs.until_ended("crash").end == "internal_error"
        child = stage.child(number=1)
        child.get_ready()
        child.finish(child.hear_run())
        assert stage.jobs.until_ended("tail").end == "completed"


def test_a_job_that_takes_longer_than_a_job_may_is_ended_with_its_child(monkeypatch: pytest.MonkeyPatch) -> None:
    with Stage(job_seconds=25.0) as stage:
        child = stage.child()
        child.get_ready()
        stage.jobs.add("job")
        run = child.hear_run()
        child.report(run, "denoising")
        later(stage, monkeypatch)
        assert stage.jobs.until_ended("job").end == "gpu_timeout"
        assert child.ended.is_set()


def test_a_cancel_is_told_once_and_ends_the_job_as_cancelled() -> None:
    with Stage() as stage:
        child = stage.child()
        child.get_ready()
        job = stage.jobs.add("job")
        run = child.hear_run()
        job.cancelled = True
        stage.scheduler.wake()
        told = child.hear_cancel()
        assert (told.job_id, told.token) == ("job", 1)
        looks = stage.jobs.count("expire")
        stage.scheduler.wake()
        stage.jobs.until(lambda: stage.jobs.count("expire") > looks)
        assert child.hears_nothing()
        child.fail(run, "cancelled")
        assert stage.jobs.until_ended("job").end == "cancelled"
        assert not child.ended.is_set(), "the child lives on, with its model"


def test_a_child_that_does_not_stop_when_told_to_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    with Stage(cancel_seconds=25.0) as stage:
        child = stage.child()
        child.get_ready()
        job = stage.jobs.add("job")
        child.report(child.hear_run(), "denoising")
        job.cancelled = True
        stage.scheduler.wake()
        child.hear_cancel()
        later(stage, monkeypatch)
        assert stage.jobs.until_ended("job").end == "cancelled"
        assert child.ended.is_set()


def test_a_cancel_that_comes_while_the_file_is_written_costs_no_child_its_life() -> None:
    with Stage(cancel_seconds=0.0) as stage:
        child = stage.child()
        child.get_ready()
        job = stage.jobs.add("job")
        run = child.hear_run()
        child.report(run, "encoding")
        stage.jobs.until(lambda: stage.jobs.count("progress") == 1)
        job.cancelled = True
        stage.scheduler.wake()
        child.hear_cancel()
        looks = stage.jobs.count("expire")
        stage.jobs.until(lambda: stage.jobs.count("expire") > looks)
        assert not child.ended.is_set()
        worker = next(worker for name, worker in stage.workers if name == "cpu")
        looks, turns = stage.jobs.count("expire"), worker.turns
        stage.jobs.until(lambda: stage.jobs.count("expire") >= looks + 3)
        turns = worker.turns - turns  # counted before the looks, which go on
        seen = stage.jobs.count("expire") - looks
        assert turns <= 2 * seen + 1, "the time to stop is over, and not waited for in haste"
        child.finish(run)
        assert stage.jobs.until_ended("job").end == "completed"


def test_a_deadline_is_told_politely_first() -> None:
    with Stage() as stage:
        child = stage.child()
        child.get_ready()
        stage.jobs.add("job", deadline_in_seconds=0.05)
        run = child.hear_run()
        child.hear_cancel()
        child.fail(run, "cancelled")
        assert stage.jobs.until_ended("job").end == "deadline_exceeded"
        assert not child.ended.is_set()


def test_a_child_that_ignores_a_deadline_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    with Stage(cancel_seconds=25.0) as stage:
        child = stage.child()
        child.get_ready()
        stage.jobs.add("job", deadline_in_seconds=0.05)
        child.hear_run()
        child.hear_cancel()
        later(stage, monkeypatch)
        assert stage.jobs.until_ended("job").end == "deadline_exceeded"
        assert child.ended.is_set()


def test_a_result_that_comes_after_its_deadline_is_not_charged() -> None:
    with Stage() as stage:
        child = stage.child()
        child.get_ready()
        stage.jobs.add("job", deadline_in_seconds=0.05)
        run = child.hear_run()
        child.hear_cancel()
        child.finish(run)
        assert stage.jobs.until_ended("job").end == "deadline_exceeded"


def test_a_child_that_takes_long_to_end_holds_up_no_other_device(monkeypatch: pytest.MonkeyPatch) -> None:
    with Stage("cpu", "cuda:0", job_seconds=25.0) as stage:
        stuck, other = stage.child("cpu"), stage.child("cuda:0")
        stuck.get_ready("a")
        stage.jobs.until(lambda: stage.scheduler.resident() == {"a"})
        stuck.ending.clear()
        stage.jobs.add("stuck")
        stuck.hear_run()
        later(stage, monkeypatch)
        stage.jobs.until(lambda: stage.scheduler.slots()[0].state == "draining")
        other.get_ready()
        stage.jobs.add("job")
        other.finish(other.hear_run())
        assert stage.jobs.until_ended("job").end == "completed"
        assert stage.jobs.jobs["stuck"].end is None
        stuck.ending.set()
        assert stage.jobs.until_ended("stuck").end == "gpu_timeout"


def test_a_model_that_is_gone_ends_the_job_and_not_the_scheduler() -> None:
    with Stage() as stage:
        stage.child().get_ready()
        stage.jobs.add("job", model="removed")
        assert stage.jobs.until_ended("job").end == "internal_error"
        stage.jobs.add("next")
        assert stage.child().hear_run().job_id == "next"


def test_a_child_that_cannot_be_started_is_tried_again() -> None:
    stage = Stage()
    stage.start_fails = 2
    with stage:
        child = stage.child()
        child.get_ready()
        stage.jobs.add("job")
        assert child.hear_run().job_id == "job"


# When the store fails


@pytest.mark.parametrize("name", ["heads", "claim", "expire", "cancel_requested", "progress"])
def test_a_store_that_fails_for_a_moment_ends_nothing(name: str, caplog: pytest.LogCaptureFixture) -> None:
    with Stage() as stage:
        child = stage.child()
        child.get_ready()
        stage.jobs.add("before")
        run = child.hear_run()
        stage.jobs.broken[name] = StoreError("the disk is away")
        calls = stage.jobs.count(name)
        child.report(run, "encoding")
        stage.jobs.add("after")
        stage.jobs.until(lambda: stage.jobs.count(name) > calls)
        del stage.jobs.broken[name]
        child.finish(run)
        assert stage.jobs.until_ended("before").end == "completed"
        assert child.hear_run().job_id == "after"
        assert "the disk is away" in caplog.text
    assert not stage.failures


def test_a_store_that_fails_is_not_asked_without_pause() -> None:
    with Stage() as stage:
        stage.jobs.broken["expire"] = StoreError("the disk is away")
        calls = stage.jobs.count("expire")
        stage.jobs.until(lambda: stage.jobs.count("expire") > calls)
        started, calls = time.monotonic(), stage.jobs.count("expire")
        for _ in range(1000):
            stage.scheduler.wake()
        stage.jobs.until(lambda: stage.jobs.count("expire") > calls)
        seen = stage.jobs.count("expire") - calls
        assert seen <= (time.monotonic() - started) / TICK_SECONDS + 2


def test_a_store_that_fails_for_good_is_told_and_not_survived_in_silence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scheduler_module, "FAILING_SECONDS_MAX", 0.1)
    with Stage() as stage:
        child = stage.child()
        child.get_ready()
        stage.jobs.until(stage.scheduler.is_ready)
        stage.jobs.broken["queued"] = stage.jobs.broken["expire"] = StoreError("the disk is gone")
        stage.jobs.until(child.ended.is_set)
        stage.jobs.until(lambda: not stage.scheduler.is_ready())
        assert stage.scheduler.drain(BOUND_SECONDS), "nobody waits for a scheduler that has ended"
    assert [str(failure) for failure in stage.failures] == ["the disk is gone"]


def test_an_end_is_stored_as_soon_as_the_store_works_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settler_module, "PAUSES_SECONDS", (0.01,) * 5_000)
    with Stage() as stage:
        child = stage.child()
        child.get_ready()
        stage.jobs.add("job")
        stage.jobs.broken["complete"] = StoreError("the disk is away")
        child.finish(child.hear_run())
        stage.jobs.until(lambda: stage.jobs.count("complete") >= 3)
        del stage.jobs.broken["complete"]
        assert stage.jobs.until_ended("job").end == "completed"
    assert not stage.failures


def test_a_result_that_cannot_be_stored_fails_its_job(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settler_module, "PAUSES_SECONDS", (0.01,))
    with Stage() as stage:
        child = stage.child()
        child.get_ready()
        stage.jobs.add("job")
        stage.jobs.broken["complete"] = TypeError("a fault of ours")
        child.finish(child.hear_run())
        assert stage.jobs.until_ended("job").end == "internal_error"
        stage.jobs.add("next")
        child.hear_run()
    assert not stage.failures


def test_an_end_that_cannot_be_stored_at_all_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settler_module, "PAUSES_SECONDS", (0.01, 0.01))
    with Stage() as stage:
        child = stage.child()
        child.get_ready()
        stage.jobs.add("job")
        stage.jobs.broken["complete"] = stage.jobs.broken["fail"] = StoreError("the disk is gone")
        child.finish(child.hear_run())
        stage.jobs.until(lambda: len(stage.failures) == 1)
        assert stage.jobs.count("complete") == 3
        assert stage.jobs.jobs["job"].status == "running", "the next start finds it and begins again"


def test_what_the_store_says_about_a_result_is_how_its_job_ends() -> None:
    with Stage() as stage:
        child = stage.child()
        child.get_ready()
        stage.jobs.add("job")
        stage.jobs.broken["complete"] = JobFailure("storage_full", "The outputs' disk is full.")
        child.finish(child.hear_run())
        assert stage.jobs.until_ended("job").end == "storage_full"
        assert stage.jobs.count("complete") == 1


# Stopping


def test_stopping_puts_what_runs_back_without_a_lost_attempt() -> None:
    stage = Stage()
    with stage:
        child = stage.child()
        child.get_ready()
        job = stage.jobs.add("job")
        child.hear_run()
    assert (job.status, job.attempts, job.end) == ("queued", 0, None)
    assert child.ended.is_set()


def test_a_result_of_the_last_moment_counts() -> None:
    stage = Stage()
    with stage:
        child = stage.child()
        child.get_ready()
        job = stage.jobs.add("job")
        run = child.hear_run()
        gate = stage.jobs.held["expire"] = threading.Event()
        looks = stage.jobs.count("expire")
        stage.scheduler.wake()
        stage.jobs.until(lambda: stage.jobs.count("expire") > looks)
        stopping = threading.Thread(target=stage.scheduler.stop)
        stopping.start()
        child.finish(run)
        gate.set()
        stopping.join(BOUND_SECONDS)
        assert not stopping.is_alive()
    assert job.end == "completed"


def test_children_end_beside_each_other() -> None:
    stage = Stage("cpu", "cuda:0", "cuda:1")
    with stage:
        children = [stage.child(name) for name in ("cpu", "cuda:0", "cuda:1")]
        for child in children:
            child.ending.clear()
        stopping = threading.Thread(target=stage.scheduler.stop)
        stopping.start()
        for child in reversed(children):  # each waits for nobody before it
            child.ending.set()
            assert child.ended.wait(BOUND_SECONDS)
        stopping.join(BOUND_SECONDS)
        assert not stopping.is_alive()


def test_a_stopped_scheduler_leaves_no_thread_and_no_file_open() -> None:
    with Stage() as stage:
        stage.child().get_ready()
        stage.jobs.until(stage.scheduler.is_ready)
    open_before, threads_before = len(list(Path("/proc/self/fd").iterdir())), threading.active_count()
    for _ in range(3):
        with Stage() as stage:
            stage.child().get_ready()
            stage.jobs.until(stage.scheduler.is_ready)
    del stage
    assert len(list(Path("/proc/self/fd").iterdir())) <= open_before
    assert threading.active_count() <= threads_before


def test_it_may_be_woken_and_stopped_after_its_end_and_without_a_start() -> None:
    stage = Stage()
    stage.scheduler.stop()
    stage.scheduler.wake()
    stage.scheduler.stop()
    with Stage() as other:
        other.child()
    other.scheduler.wake()
    assert not other.failures


# Pauses and recipes


def test_a_paused_device_ends_what_runs_and_takes_nothing_until_it_is_resumed() -> None:
    with Stage() as stage:
        child = stage.child()
        child.get_ready()
        stage.jobs.add("running")
        run = child.hear_run()
        stage.jobs.pauses["cpu"] = False
        stage.jobs.add("waiting")
        stage.jobs.until(lambda: all(slot.paused for slot in stage.scheduler.slots() if not slot.test))
        child.finish(run)
        assert stage.jobs.until_ended("running").end == "completed"
        stage.scheduler.wake()
        assert child.hears_nothing()
        del stage.jobs.pauses["cpu"]
        stage.scheduler.wake()
        assert child.hear_run().job_id == "waiting"


def test_an_unloaded_device_gives_its_job_back_uncounted_and_has_no_child_until_it_is_resumed() -> None:
    with Stage() as stage:
        child = stage.child()
        child.get_ready()
        stage.jobs.add("running")
        child.hear_run()
        stage.jobs.pauses["cpu"] = True
        stage.scheduler.wake()
        assert child.ended.wait(BOUND_SECONDS)
        stage.jobs.until(lambda: stage.jobs.jobs["running"].status == "queued")
        assert stage.jobs.jobs["running"].attempts == 0
        live = len([name for name, _ in stage.workers if name == "cpu"])
        stage.scheduler.wake()
        assert len([name for name, _ in stage.workers if name == "cpu"]) == live == 1
        stage.jobs.pauses.clear()
        stage.scheduler.wake()
        again = stage.child("cpu", 1)
        again.get_ready()
        assert again.hear_run().job_id == "running"
        assert stage.scheduler.slots()[0].state != "quarantined"


def test_memory_that_ran_out_means_the_next_recipe() -> None:
    two = (Recipe(name="large"), Recipe(name="small"))
    with Stage() as stage:
        stage.catalog.specs["a"] = msgspec.structs.replace(stage.catalog.specs["a"], recipes=two)
        child = stage.child()
        child.get_ready()
        stage.jobs.add("job")
        run = child.hear_run()
        assert run.recipe.name == "large"
        child.report(run, "denoising")
        child.fail(run, "out_of_memory", fatal=True)
        again = stage.child("cpu", 1)
        again.get_ready()
        second = again.hear_run()
        assert (second.job_id, second.recipe.name) == ("job", "small")
        again.finish(second)
        assert stage.jobs.until_ended("job").end == "completed"


def test_how_long_a_job_took_is_learnt_and_expected_of_the_next() -> None:
    with Stage() as stage:
        child = stage.child()
        child.get_ready()
        stage.jobs.add("first")
        run = child.hear_run()
        seconds = {"loading": 5.0, "weights": 4.0, "denoising": 7.0, "encoding": 2.0}
        child.say(
            Done(job_id=run.job_id, token=run.token, files=(), missing=(), notes=(), versions={}, seconds=seconds)
        )
        stage.jobs.until_ended("first")
        stage.jobs.until(lambda: len(stage.jobs.timings) == 3)
        assert {timing.kind: timing.seconds for timing in stage.jobs.timings} == {"run": 8.0, "tail": 2.0, "load": 4.0}
        asked = time.monotonic()
        stage.jobs.add("second")
        child.hear_run()
        stage.jobs.until(lambda: stage.scheduler.left("second") is not None)
        left = stage.scheduler.left("second")
        assert left is not None
        assert 10.0 - (time.monotonic() - asked) <= left.left_seconds <= 10.0


def test_two_cards_of_one_name_are_measured_once_each() -> None:
    with Stage("cuda:0", "cuda:1") as stage:
        children = [stage.child(device) for device in ("cuda:0", "cuda:1")]
        for child in children:
            child.get_ready()
        for _ in range(3):
            for child, flops in zip(children, (7e14, 8e14), strict=True):
                child.say(Heartbeat(resident=(), flops=flops))
        stage.jobs.until(lambda: stage.jobs.count("measured") >= 2)
        stage.jobs.add("job")
        children[0].finish(children[0].hear_run())
        stage.jobs.until_ended("job")
        assert stage.jobs.count("measured") == 2


def test_the_floor_of_the_recipes_survives_a_later_crash() -> None:
    with Stage() as stage:
        stage.catalog.specs["a"] = msgspec.structs.replace(
            stage.catalog.specs["a"], recipes=(Recipe(name="large"), Recipe(name="small"))
        )
        stage.jobs.add("job", recipe_floor=1)
        child = stage.child()
        child.get_ready()
        assert child.hear_run().recipe.name == "small"
        child.crash()
        again = stage.child("cpu", 1)
        again.get_ready()
        assert again.hear_run().recipe.name == "small"


def test_a_job_whose_model_no_device_has_room_for_any_more_ends_and_holds_up_no_other() -> None:
    large = Recipe(name="large", working_gib=2.0)
    with Stage(card_bytes=1 << 30) as stage:
        stage.catalog.specs["a"] = msgspec.structs.replace(stage.catalog.specs["a"], recipes=(large,))
        stage.jobs.add("vain")
        stage.jobs.add("fits", model="b")
        child = stage.child()
        child.get_ready()
        assert child.hear_run().job_id == "fits"
        assert stage.jobs.until_ended("vain").end == "internal_error"
        assert "No device of this box has room" in str(stage.jobs.calls)


def test_a_job_of_a_model_that_is_gone_ends() -> None:
    with Stage() as stage:
        stage.child().get_ready()
        stage.jobs.add("vain", model="unknown")
        assert stage.jobs.until_ended("vain").end == "internal_error"
        assert "The model unknown is gone." in str(stage.jobs.calls)


def test_a_job_of_a_model_that_the_owner_keeps_off_every_device_ends() -> None:
    with Stage(exclusions={"cpu": frozenset({"a"})}) as stage:
        stage.child().get_ready()
        stage.jobs.add("vain")
        assert stage.jobs.until_ended("vain").end == "internal_error"


def test_a_job_that_waits_only_for_a_paused_device_is_not_given_up() -> None:
    with Stage("cuda:0", "cuda:1", exclusions={"cuda:1": frozenset({"a"})}) as stage:
        stage.jobs.pauses["cuda:0"] = False
        for device in ("cuda:0", "cuda:1"):
            stage.child(device).get_ready()
        stage.jobs.until(lambda: any(slot.paused for slot in stage.scheduler.slots()))
        stage.jobs.add("waits")
        stage.jobs.add("other", model="b")
        assert stage.child("cuda:1").hear_run().job_id == "other"
        assert stage.jobs.jobs["waits"].status == "queued"
        stage.jobs.pauses.clear()
        stage.scheduler.wake()
        assert stage.child("cuda:0").hear_run().job_id == "waits"


def ran_for(stage: Stage, child: FakeProcess, job_id: str, seconds: float, **facts: str) -> None:
    """Let a job run that says it took so long."""
    stage.jobs.add(job_id, **facts)
    run = child.hear_run()
    child.say(
        Done(
            job_id=run.job_id,
            token=run.token,
            files=(),
            missing=(),
            notes=(),
            versions={},
            seconds={"denoising": seconds},
        )
    )
    stage.jobs.until_ended(job_id)


def test_a_start_deadline_that_no_device_is_free_for_ends_a_job_early() -> None:
    with Stage() as stage:
        child = stage.child()
        child.get_ready()
        ran_for(stage, child, "usual", 100.0)
        stage.jobs.add("running")
        child.hear_run()
        stage.jobs.add("in-time", start_in_seconds=59.0)
        stage.jobs.add("too-late", start_in_seconds=20.0)
        assert stage.jobs.until_ended("too-late").end == "deadline_exceeded"
        assert stage.jobs.jobs["in-time"].status == "queued"


def test_no_start_deadline_is_given_up_while_a_device_may_come_back_at_any_moment() -> None:
    with Stage("cuda:0", "cuda:1") as stage:
        child = stage.child("cuda:0")
        child.get_ready()
        ran_for(stage, child, "usual", 100.0)
        stage.jobs.add("running")
        child.hear_run()
        stage.jobs.add("urgent", start_in_seconds=20.0)
        looks = stage.jobs.count("expire")
        stage.scheduler.wake()
        stage.jobs.until(lambda: stage.jobs.count("expire") > looks + 1)
        assert stage.jobs.jobs["urgent"].status == "queued"


def test_a_decision_is_told_with_the_job_that_it_starts() -> None:
    with Stage() as stage:
        child = stage.child()
        child.get_ready()
        stage.jobs.add("job")
        child.hear_run()
        (why,) = stage.jobs.jobs["job"].why
        assert "cpu is where it is done soonest: a by its recipe full" in why


def test_a_child_is_ended_once_a_job_takes_many_times_what_it_usually_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(starter_module, "HURRY_SECONDS_MIN", 25.0)
    with Stage() as stage:
        child = stage.child()
        child.get_ready()
        for number in range(3):
            ran_for(stage, child, f"usual-{number}", 0.01)
        stage.jobs.add("hangs")
        child.hear_run()
        later(stage, monkeypatch)
        assert stage.jobs.until_ended("hangs").end == "gpu_timeout"


def test_an_attempt_without_a_result_counts_for_its_account_as_long_as_it_had_the_device() -> None:
    """Ann's job, which was to take 100 s, fails at once; Bob's has taken 50 s: Ann is next."""
    with Stage() as stage:
        child = stage.child()
        child.get_ready()
        ran_for(stage, child, "usual-a", 100.0)
        ran_for(stage, child, "usual-b", 50.0, model="b")
        stage.jobs.add("ann-1", account_id="ann")
        child.fail(child.hear_run(), "internal_error")
        stage.jobs.until_ended("ann-1")
        ran_for(stage, child, "bob-1", 50.0, model="b", account_id="bob")
        stage.jobs.add("between", account_id="cat", model="c")
        between = child.hear_run()
        stage.jobs.add("bob-2", account_id="bob", model="b")
        stage.jobs.add("ann-2", account_id="ann")
        child.finish(between)
        assert child.hear_run().job_id == "ann-2"
