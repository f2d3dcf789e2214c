"""The wordmark from the plan that pays to the file that is downloaded: on what a free plan's unit paid for, only."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path
from typing import Any

import av
import httpx
import msgspec
import numpy as np
from PIL import Image

from tests.boxes import running
from tests.doubles.driving import Said, a_run, hear, working
from tests.running import RunningBox
from zsky_box import control
from zsky_box.catalog import read_manifest
from zsky_box.cli.session import CONTROL_HEADER
from zsky_box.db import Store
from zsky_box.events import Done, Failed, Run
from zsky_box.media.wordmark import bearing, wordmark
from zsky_box.pipelines.base import Picture
from zsky_box.settings import CHECKOUT
from zsky_box.worker import Worker

LEADER = read_manifest(CHECKOUT / "models" / "leader.toml")
NOTE = "Made with the free plan: the wordmark is on it."


def outcome(worker: Worker, run: Run) -> Done:
    """Send a Run to the worker and wait until it is done."""

    def ended(said: Said) -> bool:
        return any(isinstance(message, Done | Failed) for message in said)

    worker.send(run)
    done = next(message for message in hear(worker, ended) if isinstance(message, Done | Failed))
    assert isinstance(done, Done)
    return done


def marked(picture: Picture) -> Picture:
    """A copy of the picture with the word on it."""
    with bearing(picture, wordmarked=True) as shown:
        return shown.copy()


def decoded(png: bytes) -> Picture:
    with Image.open(BytesIO(png)) as image:
        return np.array(image)


def made_twice(folder: Path, wordmarked: int, **changes: Any) -> tuple[Done, Done]:
    """The same Run through the real worker, wordmarked into `free` and not into `paid`."""
    for name in ("free", "paid"):
        (folder / name).mkdir()
    with working(entry="zsky_box.worker_main") as worker:
        free = outcome(worker, a_run(folder / "free", model=LEADER, wordmarked=wordmarked, **changes))
        paid = outcome(worker, a_run(folder / "paid", model=LEADER, token=2, **changes))
    return free, paid


def test_the_first_images_of_a_job_bear_it_and_the_others_do_not(tmp_path: Path) -> None:
    free, paid = made_twice(tmp_path, 2, type="image", n=3, width=854, height=480)
    assert free.notes == ("Made with the free plan: the wordmark is on 2 of 3 images.",)
    assert paid.notes == ()
    names = [file.name for file in free.files if file.kind == "result"]
    assert len(names) == 3
    for ordinal, name in enumerate(names):
        made, bare = (decoded((tmp_path / folder / name).read_bytes()) for folder in ("free", "paid"))
        assert np.array_equal(made, marked(bare) if ordinal < 2 else bare)


def test_every_frame_of_a_free_video_bears_it(tmp_path: Path) -> None:
    free, paid = made_twice(tmp_path, 1, width=320, height=180, frames=24)
    assert NOTE in free.notes
    assert NOTE not in paid.notes
    made, bare = frames(tmp_path / "free" / free.files[0].name), frames(tmp_path / "paid" / paid.files[0].name)
    assert len(made) == len(bare) == 24
    word = wordmark(320, 180)
    at = word.rows, word.columns
    for after, before in zip(made, bare, strict=True):
        assert np.abs(after[at].astype(int) - marked(before)[at]).mean() < 10
        assert np.abs(after[at].astype(int) - before[at]).mean() > 20


def frames(path: Path) -> list[Picture]:
    with av.open(str(path)) as container:
        return [frame.to_ndarray(format="rgb24").astype(np.uint8) for frame in container.decode(video=0)]


def made_at_the_terminal(box: RunningBox) -> tuple[dict[str, Any], Picture]:
    """One image that the owner asks for in person, and the job."""
    address = msgspec.json.decode((box.folder / control.FILE_NAME).read_bytes(), type=control.Address)
    body = {"type": "image", "prompt": "an espresso bar at golden hour", "model": "leader", "seed": 11}
    with box.client(None) as terminal:
        terminal.headers[CONTROL_HEADER] = address.token
        accepted = terminal.post("/v1/generate", json=body)
        assert accepted.status_code == 202, accepted.text
        job = box.ended(terminal, accepted.json()["job_id"])
    assert job["status"] == "completed", job
    assert job["charge"]["included_units"] == 1
    return job, decoded(httpx.get(job["result_url"], trust_env=False).content)


def test_the_same_picture_bears_it_on_the_free_plan_and_not_on_max(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    with running(folder, double=False) as box:
        paid, bare = made_at_the_terminal(box)
    store = Store(folder)
    try:
        store.write(lambda tx: tx.execute("UPDATE account SET plan = 'free'"))
    finally:
        store.close()
    with running(folder, double=False) as box:
        free, made = made_at_the_terminal(box)
    assert NOTE in free["notes"]
    assert NOTE not in paid["notes"]
    assert bare.shape == made.shape == (1080, 1920, 3)
    assert np.array_equal(made, marked(bare)), "bit for bit the same outside the word"
    assert not np.array_equal(made, bare)
