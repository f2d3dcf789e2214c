from __future__ import annotations

import gc
import json
import os
import signal
import subprocess
import sys
import time
from multiprocessing.connection import wait
from pathlib import Path

import pytest

from tests.doubles.driving import (
    ACTING_OUT,
    BOUND_SECONDS,
    QUICK,
    a_run,
    hear,
    hear_one,
    is_gone,
    working,
)
from zsky_box.catalog import read_manifest
from zsky_box.errors import ErrorCode
from zsky_box.events import Done, Failed, Progress, Ready
from zsky_box.worker import Dead, Patience, Worker
from zsky_box.worker_process import environment, obituary

ROOT = Path(__file__).parents[1]
LEADER = read_manifest(ROOT / "models" / "leader.toml")
CALM = Patience(heartbeat_seconds=0.1, silence_seconds=5.0)  # a busy machine may hold a heart up for seconds


def test_it_works(tmp_path: Path) -> None:
    with working() as worker:
        assert worker.state == "ready"
        assert worker.ready
        assert worker.ready.pid == worker.pid
        worker.send(a_run(tmp_path))
        assert worker.state == "loading"
        done = hear_one(worker, Done)
        assert [file.kind for file in done.files] == ["result", "poster"]
        assert worker.state == "ready"


@pytest.mark.parametrize(
    ("prompt", "error_code", "reason"),
    [
        ("segfaults", "internal_error", "crashed (Segmentation fault)"),
        ("exits_silently", "internal_error", "left unasked with exit code 3"),
        ("garbage_on_pipe", "internal_error", "sent something unreadable"),
        ("endless_message", "internal_error", "sent something unreadable"),
        ("half_message", "internal_error", "sent something unreadable"),
    ],
)
def test_a_child_that_breaks_ends_in_one_typed_death(
    tmp_path: Path, prompt: str, error_code: ErrorCode, reason: str
) -> None:
    with working() as worker:
        worker.send(a_run(tmp_path, f"double:{prompt}", token=4))
        said = hear(worker, lambda _: worker.dead is not None)
        assert isinstance(said[-1], Dead)
        assert (said[-1].error_code, said[-1].reason) == (error_code, reason)
        assert said[-1].lost == (("job-1", 4),)
        assert not said[-1].expected
        assert worker.state == "dead"
        assert not worker.receive(), "Dead is told once"
        assert is_gone(worker.pid)


@pytest.mark.parametrize("prompt", ["hangs", "stops_heartbeat"])
def test_a_silent_child_counts_as_hung_and_is_killed_although_it_ignores_sigterm(tmp_path: Path, prompt: str) -> None:
    with working() as worker:
        worker.send(a_run(tmp_path, f"double:{prompt}"))
        # Step 1 is the last thing it says; from then on nothing comes, and nothing has to be waited for.
        hear(worker, lambda said: any(isinstance(m, Progress) and m.step == 1 for m in said))
        assert not worker.is_hung(worker.last_heard + QUICK.silence_seconds)
        silent = time.monotonic()
        while not worker.is_hung(time.monotonic()):
            assert time.monotonic() - silent < BOUND_SECONDS
            worker.connection.poll(0.05)
            worker.receive()
        began = time.monotonic()
        worker.kill("said nothing for 1 s")
        assert time.monotonic() - began < BOUND_SECONDS
        [dead] = worker.receive()
        assert isinstance(dead, Dead)
        assert (dead.error_code, dead.reason, dead.exit_code) == (
            "gpu_timeout",
            "said nothing for 1 s",
            -signal.SIGKILL,
        )
        assert dead.lost == (("job-1", 1),)


def test_a_busy_child_that_beats_is_not_hung(tmp_path: Path) -> None:
    with working(patience=CALM) as worker:
        worker.send(a_run(tmp_path, "double:slow_steps"))
        heard_until = time.monotonic() + 1.2 * CALM.silence_seconds
        hear(worker, lambda _: worker.is_hung(time.monotonic()) or time.monotonic() > heard_until)
        assert not worker.is_hung(time.monotonic())


def test_a_child_that_was_not_listened_to_is_not_hung() -> None:
    """While the service waited for another child, this one's heart beat on."""
    with working() as worker:
        worker.receive()
        assert wait([worker.connection], BOUND_SECONDS)
        long_after = worker.last_heard + QUICK.silence_seconds + 1
        assert not worker.is_hung(long_after)
        os.kill(worker.pid, signal.SIGSTOP)
        hear(worker, lambda _: worker.is_hung(worker.last_heard + QUICK.silence_seconds + 1))


def test_a_child_that_never_gets_ready_counts_as_hung_after_the_time_to_start() -> None:
    with working(is_ready=False, entry="tests.doubles.worker_never_ready") as worker:
        assert worker.state == "starting"
        assert not worker.has_room
        assert not worker.is_hung(worker.last_heard + QUICK.start_seconds - 1)
        assert worker.is_hung(worker.last_heard + QUICK.start_seconds + 1)


def test_a_child_that_cannot_start_is_a_death_with_its_exit_code() -> None:
    with working(is_ready=False, entry="tests.doubles.no_such_module") as worker:
        dead = hear_one(worker, Dead)
        assert (dead.exit_code, dead.lost) == (1, ())


def test_a_fatal_failure_ends_the_child_and_loses_no_attempt(tmp_path: Path) -> None:
    with working() as worker:
        worker.send(a_run(tmp_path, "double:out_of_memory"))
        said = hear(worker, lambda _: worker.dead is not None)
        failed = next(message for message in said if isinstance(message, Failed))
        assert (failed.error_code, failed.fatal) == ("out_of_memory", True)
        assert isinstance(said[-1], Dead)
        assert said[-1].lost == ()
        assert said[-1].reason == "was replaced at its own request"
        assert said[-1].error_code == "out_of_memory"


def test_a_kill_from_outside_reads_as_the_machine_out_of_memory(tmp_path: Path) -> None:
    with working() as worker:
        worker.send(a_run(tmp_path, "double:slow_steps"))
        os.kill(worker.pid, signal.SIGKILL)
        dead = hear_one(worker, Dead)
        assert dead.error_code == "out_of_memory"
        assert dead.lost == (("job-1", 1),)


def test_what_was_said_before_the_end_is_still_received(tmp_path: Path) -> None:
    with working() as worker:
        worker.send(a_run(tmp_path))
        worker.stop()
        assert is_gone(worker.pid)  # it has worked and left, and nothing was read yet
        worker.kill("is in the way")
        said = worker.receive()
        assert any(isinstance(message, Done) for message in said)
        assert said[-1] == worker.dead
        assert worker.dead
        assert worker.dead.lost == ()


def test_a_run_without_room_is_refused_at_once(tmp_path: Path) -> None:
    with working() as worker:
        worker.send(a_run(tmp_path, "double:slow_steps"))
        assert not worker.has_room
        with pytest.raises(ValueError, match="has no room"):
            worker.send(a_run(tmp_path, job_id="job-2"))


def test_a_run_sent_to_a_dying_child_is_reported_as_lost(tmp_path: Path) -> None:
    with working() as worker:
        os.kill(worker.pid, signal.SIGKILL)
        assert is_gone(worker.pid)
        worker.send(a_run(tmp_path))
        [dead] = [message for message in worker.receive() if isinstance(message, Dead)]
        assert dead.lost == (("job-1", 1),)


def test_stop_waits_for_the_running_job_and_ends_as_expected(tmp_path: Path) -> None:
    with working() as worker:
        worker.send(a_run(tmp_path))
        worker.stop()
        assert worker.state == "draining"
        assert not worker.has_room
        said = hear(worker, lambda _: worker.dead is not None)
        assert [type(message) for message in said if isinstance(message, Done | Dead)] == [Done, Dead]
        assert worker.dead
        assert (worker.dead.expected, worker.dead.exit_code, worker.dead.lost) == (True, 0, ())


def test_an_idle_child_that_does_not_leave_counts_as_hung() -> None:
    with working() as worker:
        os.kill(worker.pid, signal.SIGSTOP)
        worker.stop()
        assert not worker.is_hung(time.monotonic() + QUICK.stop_seconds - 1)
        assert worker.is_hung(time.monotonic() + QUICK.stop_seconds + 1)


def test_a_process_that_even_sigkill_does_not_end_is_given_up_within_the_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    patience = Patience(heartbeat_seconds=0.1, term_seconds=0.1, kill_seconds=0.2)
    with working(patience=patience) as worker:
        with monkeypatch.context() as patch:
            patch.setattr(os, "killpg", unheard)
            began = time.monotonic()
            worker.kill("is in the way")
            assert time.monotonic() - began < BOUND_SECONDS
        assert worker.dead
        assert worker.dead.exit_code is None
        assert is_gone(worker.pid), "the closed lifeline ends it all the same"
        worker._process._process.wait()  # pyright: ignore[reportPrivateUsage]


def test_a_child_that_does_not_read_is_given_up_instead_of_holding_the_service_up(tmp_path: Path) -> None:
    with working() as worker:
        os.kill(worker.pid, signal.SIGSTOP)
        worker.send(a_run(tmp_path))
        for _ in range(100_000):  # far more than the pipe holds
            worker.cancel("job-1", 1)
            if worker.dead:
                break
        assert worker.dead
        assert (worker.dead.reason, worker.dead.error_code) == ("does not read its messages", "gpu_timeout")


def test_a_grandchild_dies_with_a_child_that_leaves_by_itself(tmp_path: Path) -> None:
    with working() as worker:
        os.mkfifo(tmp_path / "grandchild.pid")
        worker.send(a_run(tmp_path, "double:exits_with_grandchild"))
        grandchild = int((tmp_path / "grandchild.pid").read_text("ascii"))
        assert hear_one(worker, Dead).exit_code == 3
        assert is_gone(grandchild)


def test_a_grandchild_dies_with_a_killed_child(tmp_path: Path) -> None:
    with working() as worker:
        os.mkfifo(tmp_path / "grandchild.pid")
        worker.send(a_run(tmp_path, "double:hangs_with_grandchild"))
        grandchild = int((tmp_path / "grandchild.pid").read_text("ascii"))
        worker.kill("is in the way")
        assert is_gone(grandchild)


PARENT = f"""
import sys, time
from pathlib import Path
from tests.doubles.driving import a_run, hear, working
with working() as worker:
    worker.send(a_run(Path(sys.argv[1]), sys.argv[2]))
    hear(worker, lambda said: any(getattr(message, "step", 0) == 1 for message in said))
    print(worker.pid, flush=True)
    time.sleep({BOUND_SECONDS})
"""


PARENT_OF_FFMPEG = f"""
import sys, time
from pathlib import Path
from tests.doubles.driving import a_run, hear, working
from zsky_box.catalog import read_manifest
with working(entry="zsky_box.worker_main") as worker:
    leader = read_manifest(Path("models/leader.toml"))
    worker.send(a_run(Path(sys.argv[1]), model=leader, width=1920, height=1080, frames=480))
    hear(worker, lambda said: any(getattr(message, "phase", "") == "decoding" and message.step > 0 for message in said))
    print(worker.pid, flush=True)
    time.sleep({BOUND_SECONDS})
"""


@pytest.mark.parametrize("prompt", ["hangs_with_grandchild", "slow_steps"])
def test_nothing_outlives_a_service_that_is_killed(tmp_path: Path, prompt: str) -> None:
    os.mkfifo(tmp_path / "grandchild.pid")
    command = [sys.executable, "-c", PARENT, str(tmp_path), f"double:{prompt}"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as service:
        assert service.stdout
        child = int(service.stdout.readline())
        pids = [child]
        if prompt == "hangs_with_grandchild":
            pids.append(int((tmp_path / "grandchild.pid").read_text("ascii")))
        service.kill()
    assert all(is_gone(pid) for pid in pids)


def test_twenty_lives_leave_no_process_and_no_open_file() -> None:
    def held() -> tuple[int, int]:
        children = subprocess.run(["ps", "--ppid", str(os.getpid()), "-o", "pid="], capture_output=True, check=False)
        return len(os.listdir("/proc/self/fd")), len(children.stdout.split())  # noqa: PTH208 - counted only

    gc.collect()  # what earlier tests have left open is not closed in the midst of it
    before = held()
    for life in range(20):
        with working() as worker:
            if life % 2:
                worker.stop()
                hear_one(worker, Dead)
    files, children = held()
    assert (files <= before[0], children <= before[1]) == (True, True)


def test_the_service_side_imports_nothing_heavy() -> None:
    script = "import json, sys; import zsky_box.worker, zsky_box.restart_budget; print(json.dumps(sorted(sys.modules)))"
    answer = subprocess.run([sys.executable, "-c", script], capture_output=True, check=True, cwd=ROOT)
    loaded = set(json.loads(answer.stdout))
    assert not loaded & {"torch", "numpy", "PIL", "diffusers", "zsky_box.media", "zsky_box.pipelines"}


def test_a_leaders_child_works_without_torch(tmp_path: Path) -> None:
    with working(entry="zsky_box.worker_main") as worker:
        worker.send(a_run(tmp_path, type="image", model=LEADER, width=854, height=480))
        assert hear_one(worker, Done).files[0].mime == "image/png"
        assert "libtorch" not in Path(f"/proc/{worker.pid}/maps").read_text("utf-8")


def test_ffmpeg_does_not_outlive_a_service_that_is_killed(tmp_path: Path) -> None:
    """The real child in the middle of a real clip of twenty seconds; the service writes down who its processes are."""
    with subprocess.Popen(
        [sys.executable, "-c", PARENT_OF_FFMPEG, str(tmp_path)], stdout=subprocess.PIPE, text=True, cwd=ROOT
    ) as service:
        assert service.stdout
        child = int(service.stdout.readline())
        encoders = subprocess.run(["pgrep", "-P", str(child)], capture_output=True, check=True).stdout.split()
        assert encoders
        service.kill()
    assert all(is_gone(int(pid)) for pid in [child, *encoders])


def test_a_child_sees_its_own_card_and_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1,2")
    assert environment("cuda:2", 4)["CUDA_VISIBLE_DEVICES"] == "2"
    assert environment("cuda:2", 4)["OMP_NUM_THREADS"] == "4"
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    assert "HF_TOKEN" not in environment("cuda:2", 4)
    assert environment("cpu", None)["CUDA_VISIBLE_DEVICES"] == ""


def test_a_child_is_not_fooled_by_a_file_in_the_current_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "msgspec.py").write_text("raise SystemExit(9)", "utf-8")
    monkeypatch.chdir(tmp_path)
    with working() as worker:
        assert worker.state == "ready"


def test_every_way_to_die_has_a_plain_reason() -> None:
    assert obituary(None)[1] == "gpu_timeout"
    assert obituary(-signal.SIGKILL) == (
        "was killed by the system, most likely because the machine ran out of memory",
        "out_of_memory",
    )
    assert obituary(-signal.SIGABRT) == ("crashed (Aborted)", "internal_error")
    assert obituary(1) == ("left unasked with exit code 1", "internal_error")


def test_ready_names_device_and_versions() -> None:
    with working(is_ready=False, entry=ACTING_OUT) as worker:
        ready = hear_one(worker, Ready)
        assert ready.device == "cpu"
        assert ready.device_name
        assert set(ready.versions) == {"zsky-box", "python"}


def test_no_file_stays_open_when_a_child_cannot_be_started(monkeypatch: pytest.MonkeyPatch) -> None:
    gc.collect()
    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208 - counted only
    monkeypatch.setattr(sys, "executable", "/no/such/python")
    with pytest.raises(FileNotFoundError):
        Worker("cpu").start()
    assert len(os.listdir("/proc/self/fd")) <= before  # noqa: PTH208 - counted only


def unheard(group: int, number: int) -> None:
    """A signal that has no effect, as on a process that the kernel holds."""
