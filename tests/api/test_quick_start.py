"""The hosted quick start, which runs here unchanged but for base URL and key."""

from __future__ import annotations

import json
import shutil
import subprocess
import time

import httpx
import pytest
import requests

from tests.running import RunningBox

POLL_SECONDS = 0.05  # the hosted one waits 2 s
POLLS_MAX = 1_000
NIGHT_MARKET = "A neon night market in the rain, with ambient crowd sound"
ESPRESSO_BAR = "An espresso bar at golden hour, steam over the counter"


def quick_start(base: str, key: str, prompt: str, kind: str) -> str:
    """Submit, read the id without a look at the status code, poll, and stop at `completed` or `failed`."""
    headers = {"X-API-Key": key}
    job_id = requests.post(
        f"{base}/v1/generate", headers=headers, json={"type": kind, "prompt": prompt}, timeout=120
    ).json()["job_id"]
    for _ in range(POLLS_MAX):
        # The content type announces a body, and there is none.
        job = requests.get(
            f"{base}/v1/job_status/{job_id}", headers={**headers, "Content-Type": "application/json"}, timeout=120
        ).json()
        if job["status"] == "completed":
            return job["result_url"]
        if job["status"] == "failed":
            raise RuntimeError(job["error"])
        time.sleep(POLL_SECONDS)
    raise TimeoutError(job_id)


def test_it_works(shared_box: RunningBox, capsys: pytest.CaptureFixture[str]) -> None:
    print(quick_start(shared_box.url, shared_box.keys["live"], NIGHT_MARKET, "video"))
    url = capsys.readouterr().out.strip()
    assert url.startswith(shared_box.url)
    opened = requests.get(url, timeout=120)  # no header of ours
    assert opened.status_code == 200
    assert opened.headers["Content-Type"] == "video/mp4"
    assert opened.content[4:8] == b"ftyp"


def test_an_image_comes_from_the_same_lines(shared_box: RunningBox) -> None:
    opened = httpx.get(quick_start(shared_box.url, shared_box.keys["live"], ESPRESSO_BAR, "image"), trust_env=False)
    assert opened.headers["content-type"] == "image/png"
    assert opened.content.startswith(b"\x89PNG\r\n\x1a\n")


def test_a_failure_is_raised_as_a_message(shared_box: RunningBox) -> None:
    with pytest.raises(RuntimeError, match="The double will not make this"):
        quick_start(shared_box.url, shared_box.keys["live"], "double:safety_blocked", "video")


def test_a_fault_of_the_worker_is_raised_too(shared_box: RunningBox) -> None:
    with pytest.raises(RuntimeError, match=r"\w+ \w+"):
        quick_start(shared_box.url, shared_box.keys["live"], "double:raises_in_run", "image")


def test_a_failed_poll_says_why(shared_box: RunningBox) -> None:
    """The loop reads `job_id` of whatever came: a refusal has none, and a person reads its sentence."""
    answer = requests.post(f"{shared_box.url}/v1/generate", json={"type": "video", "prompt": NIGHT_MARKET}, timeout=120)
    assert answer.json()["detail"] == "Send your API key in the header X-API-Key."


@pytest.mark.parametrize("content_type", [["-H", "Content-Type: application/json"], []])
def test_the_curl_call_works_with_and_without_a_content_type(shared_box: RunningBox, content_type: list[str]) -> None:
    curl = shutil.which("curl")
    if curl is None:
        pytest.skip("curl is not installed")
    body = json.dumps({"type": "image", "prompt": ESPRESSO_BAR})
    call = [curl, "-sS", "--noproxy", "*", "-X", "POST", f"{shared_box.url}/v1/generate"]
    call += ["-H", f"X-API-Key: {shared_box.keys['live']}", *content_type, "-d", body]
    answered = subprocess.run(call, capture_output=True, text=True, timeout=120, check=True)
    job_id = json.loads(answered.stdout)["job_id"]
    with shared_box.client() as client:
        assert shared_box.ended(client, job_id)["prompt"] == ESPRESSO_BAR
