"""install.sh from nothing to a running box, run again, interrupted and updated."""

from __future__ import annotations

import os
import re
import signal
import socket

from tests.install.checkout import KEY, RUN_TIMEOUT_SECONDS, Checkout, lives
from tests.running import free_port
from tests.waiting import until


def test_it_installs_starts_and_makes_a_first_clip(checkout: Checkout) -> None:
    output = checkout.install()
    assert checkout.is_ready()
    assert f"http://127.0.0.1:{checkout.port}" in output
    assert (checkout.data / "first-clip.mp4").read_bytes() == b"a clip"
    assert str(checkout.data / "first-clip.mp4") in output
    assert output.count(KEY) == 1
    assert f"http://127.0.0.1:{checkout.port}/setup" in output
    assert all(word in output for word in ["--stop", "--uninstall", "--purge"])
    for path in checkout.data.iterdir():
        assert KEY not in path.read_text(), f"{path.name} holds the key"


def test_the_first_prompt_is_one_that_the_model_knows(checkout: Checkout) -> None:
    checkout.install(EXAMPLE="a red ball")
    (asked,) = [call for call in checkout.lines(checkout.data / "calls.log") if call.startswith("generate ")]
    assert asked.startswith("generate a red ball --type video")


def test_a_model_that_reads_any_words_is_asked_for_a_lighthouse(checkout: Checkout) -> None:
    checkout.install()
    (asked,) = [call for call in checkout.lines(checkout.data / "calls.log") if call.startswith("generate ")]
    assert asked.startswith("generate A lighthouse in a storm")


def test_torch_goes_first_and_everything_else_by_hash(checkout: Checkout) -> None:
    checkout.install("--no-start", "--torch-index", "https://torch.test/cpu")
    torch, locked, project = [call for call in checkout.pip_calls if call.startswith("install")]
    assert re.fullmatch(r"install .*--index-url https://torch\.test/cpu torch==[\d.]+", torch)
    assert "--require-hashes" in locked
    assert locked.endswith(f"-r {checkout.root}/requirements.lock")
    assert "--no-deps --no-build-isolation --editable" in project


def test_a_second_run_leaves_the_running_box_alone(checkout: Checkout) -> None:
    checkout.install()
    pid, pip_calls = checkout.pid, checkout.pip_calls
    output = checkout.run()
    assert checkout.pid == pid
    assert checkout.is_ready()
    assert checkout.pip_calls == pip_calls
    assert "zs_live_" not in output
    assert "keys rotate" in output
    assert f"http://127.0.0.1:{checkout.port}" in output


def test_a_stopped_box_is_started_again_without_a_second_key_or_clip(checkout: Checkout) -> None:
    checkout.install()
    assert "Stopped." in checkout.run("--stop")
    assert not checkout.is_ready()
    assert "does not run" in checkout.run("--stop")
    assert "zs_live_" not in checkout.install()
    assert checkout.is_ready()
    calls = checkout.lines(checkout.data / "calls.log")
    assert [call.split()[0] for call in calls] == ["init", "serve", "models", "generate", "init", "serve"]


def test_the_port_of_the_settings_is_used(checkout: Checkout) -> None:
    checkout.data.joinpath("zsky.toml").write_text(f"port = {checkout.port}\n")
    output = checkout.run()
    assert checkout.is_ready()
    assert f"http://127.0.0.1:{checkout.port}/setup" in output


def test_the_hint_to_start_again_names_a_port_of_ones_own(checkout: Checkout) -> None:
    assert re.search(rf"Start +\./install\.sh --port {checkout.port}$", checkout.install(), re.MULTILINE)


def test_changed_code_restarts_the_box_where_it_was(checkout: Checkout) -> None:
    checkout.install()
    before = checkout.pid
    (checkout.root / "zsky_box/__init__.py").write_text("# an update\n")
    checkout.run()
    assert checkout.pid != before
    assert checkout.is_ready()


def test_another_port_moves_the_running_box(checkout: Checkout) -> None:
    checkout.install()
    checkout.port = free_port()
    checkout.install()
    assert checkout.is_ready()


def test_a_changed_lock_is_installed_with_the_torch_that_is_there(checkout: Checkout) -> None:
    checkout.install("--no-start", "--torch-index", "https://torch.test/cpu")
    before = len(checkout.pip_calls)
    with (checkout.root / "requirements.lock").open("a") as lock:
        lock.write("# a change\n")
    checkout.install("--no-start")
    later = checkout.pip_calls[before:]
    assert any("--require-hashes" in call for call in later)
    assert not any("torch==" in call for call in later)


def test_another_torch_index_replaces_torch(checkout: Checkout) -> None:
    checkout.install("--no-start")
    before = len(checkout.pip_calls)
    checkout.install("--no-start", "--torch-index=https://torch.test/cpu")
    later = [call for call in checkout.pip_calls[before:] if call.endswith("torch") or "torch==" in call]
    assert [call.split()[0] for call in later] == ["uninstall", "install"]


def test_an_interrupted_installation_is_repaired_by_the_next(checkout: Checkout) -> None:
    checkout.install(status=1, PIP_FAILS_ON="--require-hashes")
    assert not (checkout.data / "ledger.db").exists()
    output = checkout.install()
    assert "did not finish" in output
    assert checkout.is_ready()


def test_a_moved_checkout_gets_a_new_environment(checkout: Checkout) -> None:
    checkout.install("--no-start")
    checkout.move_to("moved")
    assert "was moved" in checkout.install("--no-start")


def test_a_box_that_does_not_start_shows_its_log_and_still_its_key(checkout: Checkout) -> None:
    output = checkout.install(status=1, SERVE_FAILS="1")
    assert "The box ended while it was starting." in output
    assert "The double cannot open its ledger." in output
    assert output.count(KEY) == 1
    assert "does not run" in checkout.run("--stop")


def test_a_clip_that_fails_leaves_the_box_up_and_says_so(checkout: Checkout) -> None:
    output = checkout.install(status=1, GENERATE_FAILS="1")
    assert "The double makes no clip." in output
    assert "The box runs, but the first clip failed" in output
    assert output.count(KEY) == 1
    assert checkout.is_ready()
    assert not list(checkout.data.glob("*.mp4"))


def test_ctrl_c_while_the_box_starts_leaves_nothing_running(checkout: Checkout) -> None:
    process = checkout.start("--port", str(checkout.port), NEVER_READY="1")
    calls = checkout.data / "calls.log"
    until(lambda: any(call.startswith("serve") for call in checkout.lines(calls)), "the service is started")
    until((checkout.data / "zsky-box.run").exists, "it is remembered")
    pid = checkout.pid
    os.killpg(process.pid, signal.SIGINT)
    output, _ = process.communicate(timeout=RUN_TIMEOUT_SECONDS)
    assert process.returncode == 130
    assert output.count(KEY) == 1
    assert not lives(pid)
    assert "zs_live_" not in checkout.install()
    assert checkout.is_ready()


def test_two_installations_do_not_run_at_once(checkout: Checkout) -> None:
    process = checkout.start("--port", str(checkout.port), NEVER_READY="1")
    until((checkout.data / "zsky-box.run").exists, "the marker of a run is there")
    assert "Another install.sh is at work" in checkout.install(status=1)
    os.killpg(process.pid, signal.SIGTERM)
    process.communicate(timeout=RUN_TIMEOUT_SECONDS)
    assert process.returncode == 143


def test_a_taken_port_is_told_before_anything_is_installed(checkout: Checkout) -> None:
    with socket.create_server(("127.0.0.1", checkout.port)):
        output = checkout.install(status=1)
    assert f"Port {checkout.port} is taken by another program" in output
    assert "--port" in output
    assert checkout.pip_calls == []
    assert not (checkout.root / ".venv").exists()


def test_a_reused_pid_is_not_taken_for_the_box(checkout: Checkout) -> None:
    checkout.install()
    state = (checkout.data / "zsky-box.run").read_text()
    checkout.run("--stop")
    stranger = os.getpid()
    (checkout.data / "zsky-box.run").write_text(re.sub(r"pid=\d+", f"pid={stranger}", state))
    assert "does not run" in checkout.run("--stop")


def test_no_start_sets_up_and_starts_nothing(checkout: Checkout) -> None:
    output = checkout.install("--no-start")
    assert output.count(KEY) == 1
    assert "URL" not in output
    assert checkout.lines(checkout.data / "calls.log") == ["init --json"]
