"""kill -9 at named points and at random moments: whatever was promised before it is kept after it.

The rounds go on with one and the same data folder, so that each start also finds what the crash before it has left.
"""

from __future__ import annotations

import random
import secrets
import time
from collections.abc import Generator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests import invariants
from tests.doubles.serve_and_die import CLOSING_POINTS, MONEY_POINTS, POINTS
from tests.machine.crashing_box import CrashingBox
from tests.machine.money_load import SETTINGS, MoneyLoad
from tests.stores import opened

SEED = 20261122
ROUND_SECONDS = 120.0
END_SECONDS = 120.0
LONG_SECONDS = 1_200  # a dozen starts and more, each of a second on a quiet machine
RANDOM_ROUNDS = 3
CAMPAIGN_ROUNDS = 200
SLOW_PROMPT = "double:slow_steps"

# The same job asked for in different ways; several, so that no round has only one kind.
BODIES: list[dict[str, Any]] = [
    {"type": "image", "prompt": "one still"},
    {"type": "image", "prompt": "three stills", "n": 3},
    {"type": "image", "prompt": "double:fails_second_image", "n": 2},
    {"type": "video", "prompt": "a clip", "duration": 1},
    {"type": "video", "prompt": SLOW_PROMPT, "duration": 1},
    {"type": "image", "prompt": "double:raises_in_run"},
    {"type": "image", "prompt": "double:safety_blocked"},
    {"type": "image", "prompt": "double:exits_silently"},
    {"type": "video", "prompt": "later", "duration": 1, "priority": "batch"},
]


class Load:
    """What a client did and was promised. `asked` maps each Idempotency-Key to its body and, once told, its job."""

    def __init__(self, box: CrashingBox, luck: random.Random) -> None:
        self.asked: dict[str, tuple[dict[str, Any], str | None]] = {}
        self._box = box
        self._luck = luck
        self._client = box.client()
        self._test_client = box.client("test")
        self._test_jobs: set[str] = set()

    @property
    def accepted(self) -> set[str]:
        return {job_id for _, job_id in self.asked.values() if job_id is not None} | self._test_jobs

    def close(self) -> None:
        self._client.close()
        self._test_client.close()

    def step(self) -> None:
        """One thing that a client does. Raises httpx.TransportError when the service is gone."""
        match self._luck.choices(("submit", "test", "cancel", "delete", "poll"), (6, 1, 2, 2, 2))[0]:
            case "submit":
                self.submit(secrets.token_hex(8), self._luck.choice(BODIES))
            case "test":
                answer = self._test_client.post("/v1/generate", json={"type": "image", "prompt": "free of charge"})
                if answer.status_code == 202:
                    self._test_jobs.add(answer.json()["job_id"])
            case "cancel" if self.accepted:
                self._cancel_one()
            case "delete":
                completed = self._client.get("/v1/jobs", params={"status": "completed"}).json()["data"]
                if completed:
                    self._client.delete(f"/v1/jobs/{self._luck.choice(completed)['job_id']}")
            case _:
                self._client.get("/v1/jobs")

    def submit(self, key: str, body: dict[str, Any]) -> httpx.Response:
        known = self.asked.setdefault(key, (body, None))[1]
        answer = self._client.post("/v1/generate", json=body, headers={"Idempotency-Key": key})
        assert answer.status_code in (202, 429), answer.text
        if answer.status_code == 202:
            job_id = answer.json()["job_id"]
            assert known in (None, job_id), f"the key of {known} made another job, {job_id}"
            self.asked[key] = body, job_id
        else:  # the queue is full
            self._cancel_one()
        return answer

    def _cancel_one(self) -> None:
        """Any open job; the slow ones first, which would fill the queue for long."""
        waiting = sorted(self._open(self._client), key=lambda job: job["prompt"] != SLOW_PROMPT)
        if waiting:
            self._client.post(f"/v1/jobs/{waiting[0]['job_id']}/cancel")

    def ask_again(self) -> None:
        """Every key once more: those that were answered replay it, the others find out or begin."""
        for key, (body, known) in list(self.asked.items()):
            answer = self.submit(key, body)
            if known is not None:
                assert answer.headers["Idempotent-Replayed"] == "true"

    def finish(self) -> None:
        """Wait until all jobs have ended; the slow ones are cancelled."""
        give_up_at = time.monotonic() + END_SECONDS
        while True:
            waiting = [*self._open(self._client), *self._open(self._test_client)]
            if not waiting:
                return
            assert time.monotonic() < give_up_at, f"{waiting} do not end:\n{self._box.log()[-5000:]}"
            for job in waiting:
                if job["prompt"] == SLOW_PROMPT and not job["cancel_requested"]:
                    self._client.post(f"/v1/jobs/{job['job_id']}/cancel")
            time.sleep(0.05)

    def _open(self, client: httpx.Client) -> list[dict[str, Any]]:
        pages = [client.get("/v1/jobs", params={"status": status, "limit": 100}) for status in invariants.OPEN]
        return [job for page in pages for job in page.json()["data"]]


class Rounds:
    """One data folder and its client over many crashes."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.box = CrashingBox(folder)
        self.luck = random.Random(seed)  # noqa: S311 - a seeded test
        self.load = Load(self.box, self.luck)

    def crash_at(self, point: str) -> None:
        """Work until the service dies at the point; fails where it never does."""
        alive = self.box.launch(point, self.luck.randint(1, 3))
        give_up_at = time.monotonic() + ROUND_SECONDS
        while alive and not self.box.is_dead():
            assert time.monotonic() < give_up_at, f"{point!r} was never reached:\n{self.box.log()[-5000:]}"
            try:
                self.load.step()
            except httpx.TransportError:
                alive = False
        self._after_death()

    def crash_soon(self) -> None:
        """Work for a moment and kill the service from outside, wherever it is."""
        alive = self.box.launch()
        assert alive, self.box.log()[-5000:]
        kill_at = time.monotonic() + self.luck.uniform(0.0, 1.5)
        while time.monotonic() < kill_at:
            self.load.step()
        self.box.kill()
        self._after_death()

    def _after_death(self) -> None:
        self.box.kill()
        self.box.assert_nothing_left()
        invariants.check(self.box.folder, self.load.accepted, at_rest=False)

    def __enter__(self) -> Rounds:
        return self

    def __exit__(self, *_: object) -> None:
        self.load.close()
        self.box.kill()

    def end(self) -> None:
        """The last start: everything ends, the stop is clean, and nothing is left over."""
        assert self.box.launch(), self.box.log()[-5000:]
        self.load.ask_again()
        self.load.finish()
        assert self.box.stop() == 0
        self.box.assert_nothing_left()
        invariants.check(self.box.folder, self.load.accepted, at_rest=True)


class MoneyRounds:
    """The same for money: what is told of a wallet, a limit or a plan is kept, and nothing is done twice."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.box = CrashingBox(folder, **SETTINGS)
        self.luck = random.Random(seed)  # noqa: S311 - a seeded test
        self.load = MoneyLoad(self.box, self.luck)

    def __enter__(self) -> MoneyRounds:
        assert self.box.launch(), self.box.log()[-5000:]
        self.load.begin()
        assert self.box.stop() == 0
        return self

    def __exit__(self, *_: object) -> None:
        self.load.close()
        self.box.kill()

    def crash_at(self, point: str) -> None:
        """Work until the service dies at the point; fails where it never does."""
        alive = self.box.launch(point, self.luck.randint(1, 2))
        give_up_at = time.monotonic() + ROUND_SECONDS
        while alive and not self.box.is_dead():
            assert time.monotonic() < give_up_at, f"{point!r} was never reached:\n{self.box.log()[-5000:]}"
            try:
                self.load.step(point)
            except httpx.TransportError:
                alive = False
        self._after_death()

    def crash_as_a_month_closes(self, point: str) -> None:
        """Nobody asks for it: a month has passed, all its jobs have ended, and the box starts."""
        self.box.days += 35
        assert not self.box.launch(point), f"{point!r} was not reached at the start"
        self._after_death()

    def _after_death(self) -> None:
        self.box.kill()
        self.box.assert_nothing_left()
        invariants.check(self.box.folder, self.load.accepted, at_rest=False)

    def finish(self) -> None:
        """A start and a clean stop: everything asked is answered as before, and all jobs have ended."""
        assert self.box.launch(), self.box.log()[-5000:]
        self.load.ask_again()
        with self.box.client() as client:
            for job_id in self.load.accepted:
                self.box.ended(client, job_id)
            states = {
                job_id: client.get(f"/v1/jobs/{job_id}").json()["charge"]["state"] for job_id in self.load.refunded
            }
        assert set(states.values()) <= {"refunded"}
        assert self.box.stop() == 0
        invariants.check(self.box.folder, self.load.accepted, at_rest=True)

    def count(self, sql: str) -> int:
        """What the store says, while no service runs."""
        with opened(self.box.folder) as store:
            row = store.one(sql)
        assert row is not None
        return int(row[0])


@pytest.fixture
def rounds(tmp_path: Path) -> Generator[Rounds]:
    with Rounds(tmp_path / "data", SEED) as made:
        yield made


@pytest.mark.timeout(LONG_SECONDS)
def test_what_was_promised_is_kept_over_a_crash_at_every_named_point(rounds: Rounds) -> None:
    for point in POINTS:
        rounds.crash_at(point)
    rounds.end()
    assert len(rounds.load.accepted) > len(POINTS)


@pytest.mark.timeout(LONG_SECONDS)
def test_what_was_promised_is_kept_over_crashes_at_any_moment(rounds: Rounds) -> None:
    for _ in range(RANDOM_ROUNDS):
        rounds.crash_soon()
    rounds.end()
    assert len(rounds.load.accepted) > RANDOM_ROUNDS


@pytest.mark.timeout(LONG_SECONDS)
def test_money_that_was_told_of_is_kept_over_a_crash_at_every_named_point(tmp_path: Path) -> None:
    with MoneyRounds(tmp_path / "data", SEED) as rounds:
        for point in MONEY_POINTS:
            rounds.crash_at(point)
        rounds.finish()
        flips = sum(path.endswith("toggle") and body is None for path, body, _ in rounds.load.asked.values())
        assert flips > 0
        for point in CLOSING_POINTS:
            rounds.crash_as_a_month_closes(point)
        rounds.finish()
        told, asked = rounds.load.topups_told, rounds.load.topups_asked
        assert (
            told <= rounds.count("SELECT count(*) FROM transfer WHERE kind = 'topup' AND actor = 'terminal'") <= asked
        )
        assert rounds.count("SELECT count(*) FROM closing WHERE voided_at IS NULL") >= len(CLOSING_POINTS)


@pytest.mark.campaign
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("seed", range(20))
def test_campaign_of_money(tmp_path: Path, seed: int) -> None:
    """The named points of money in random order, again and again."""
    with MoneyRounds(tmp_path / "data", seed) as rounds:
        for point in rounds.luck.choices(sorted(MONEY_POINTS), k=CAMPAIGN_ROUNDS // 10):
            rounds.crash_at(point)
        rounds.finish()
        for point in CLOSING_POINTS:
            rounds.crash_as_a_month_closes(point)
        rounds.finish()


@pytest.mark.campaign
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("seed", range(10))
def test_campaign(tmp_path: Path, seed: int) -> None:
    """200 crashes: named points in random order between random moments."""
    with Rounds(tmp_path / "data", seed) as rounds:
        for _ in range(CAMPAIGN_ROUNDS // 10):
            if rounds.luck.random() < 0.6:
                rounds.crash_at(rounds.luck.choice(sorted(POINTS)))
            else:
                rounds.crash_soon()
        rounds.end()
