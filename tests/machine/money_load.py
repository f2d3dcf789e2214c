"""What clients and the owner do with money while the box dies again and again, and what they were told of it."""

from __future__ import annotations

import random
import secrets
from typing import Any

import httpx

from tests.machine.crashing_box import CrashingBox
from zsky_box import control
from zsky_box.pricing import micros

USD = 1_000_000
ACCOUNT = "owner"
SETTINGS: dict[str, object] = {"devices": "cpu", "included_images": 1, "included_videos": 0, "image_usd": "0.50"}
"""One image is included, so that all others are the wallet's."""
DONE_FOR = {
    "reserve": "submit",
    "posted": "submit",
    "replenish": "run low",
    "top-up": "topup",
    "refund": "refund",
    "toggle": "toggle",
    "cap": "cap",
    "plan": "plan",
}


class MoneyLoad:
    """`asked` maps each Idempotency-Key to its path and body, and to the answer once there is one."""

    def __init__(self, box: CrashingBox, luck: random.Random) -> None:
        self.asked: dict[str, tuple[str, Any, bytes | None]] = {}
        self.accepted: set[str] = set()
        self.refunded: set[str] = set()
        self.topups_asked, self.topups_told = 0, 0
        self._box, self._luck = box, luck
        self._client = box.client()

    def close(self) -> None:
        self._client.close()

    def begin(self) -> None:
        """Overage is on, with a rule that fills the wallet when it runs low."""
        self._told(control.SetOverage(account=ACCOUNT, enabled=True))
        self._told(control.SetCap(account=ACCOUNT, cap_micros=1_000 * USD))
        rule = {"below_micros": 2 * USD, "add_micros": 3 * USD, "month_micros": 600 * USD}
        self._told(control.SetReplenish(account=ACCOUNT, **rule))
        self._topup()

    def step(self, point: str) -> None:
        """One thing, mostly of the kind that leads to the point. Raises httpx.TransportError when the box is gone."""
        wanted = next(done for prefix, done in DONE_FOR.items() if point.startswith(prefix))
        match self._luck.choice((wanted, wanted, wanted, "submit", "topup", "toggle", "refund", "cap", "plan")):
            case "submit":
                self._submit()
            case "run low":
                self._run_low()
                self._submit()
            case "topup":
                self._topup()
            case "toggle":
                self._ask("/v1/me/overage/toggle", None)
            case "cap":
                self._ask("/v1/me/overage/cap", {"cap_usd": self._luck.choice(("100.00", "500.00", "1000.00"))})
            case "plan":
                plan = control.ChoosePlan(account=ACCOUNT, plan="max", annual=self._luck.random() < 0.2)
                self._told(plan)
            case _:
                self._refund()

    def _submit(self) -> None:
        answer = self._ask("/v1/generate", {"type": "image", "prompt": "a still", "n": self._luck.randint(1, 4)})
        if answer.status_code == 202:
            self.accepted.add(answer.json()["job_id"])
            return
        match answer.json()["code"]:
            case "allowance_exhausted":
                self._ask("/v1/me/overage/toggle", {"enabled": True})
            case "wallet_empty":
                self._topup()
            case "cap_reached":
                self._ask("/v1/me/overage/cap", {"cap_usd": "1000.00"})
            case code:
                assert code == "queue_full", answer.text

    def _ask(self, path: str, body: Any, key: str | None = None) -> httpx.Response:
        key = key or secrets.token_hex(8)
        before = self.asked.setdefault(key, (path, body, None))[2]
        content = {} if body is None else {"json": body}
        answer = self._client.post(path, headers={"Idempotency-Key": key}, **content)
        if answer.is_success:
            assert before in (None, answer.content), f"{path} was answered differently before"
            if before is not None:
                assert answer.headers["Idempotent-Replayed"] == "true"
            self.asked[key] = path, body, answer.content
        else:
            assert before is None, answer.text
            assert answer.status_code in (402, 429), answer.text
        return answer

    def ask_again(self) -> None:
        """Every key once more: what was told is told again, what was not is found out or done now."""
        for key, (path, body, _) in list(self.asked.items()):
            answer = self._ask(path, body, key)
            if answer.status_code == 202:
                self.accepted.add(answer.json()["job_id"])

    def _topup(self) -> None:
        self.topups_asked += 1
        self._told(control.TopUp(account=ACCOUNT, amount_micros=2 * USD))
        self.topups_told += 1

    def _run_low(self) -> None:
        """Leave a dollar in the wallet: what luck has filled into it could last for longer than the test."""
        has = micros(self._client.get("/v1/me/overage").json()["wallet_usd"])
        if has > USD:
            taken = control.Correct(account=ACCOUNT, amount_micros=USD - has, reason="entered twice")
            answer = self._box.command(taken)
            assert answer.is_success or answer.json()["field"] == "amount_usd", answer.text  # a job was quicker

    def _refund(self) -> None:
        """Where there is nothing to pay back yet, there soon is."""
        jobs = self._client.get("/v1/jobs", params={"status": "completed", "limit": 100}).json()["data"]
        posted = [job["job_id"] for job in jobs if job["charge"]["state"] == "posted"]
        if not posted:
            self._submit()
            return
        job_id = self._luck.choice(posted)
        self._told(control.RefundJob(job_id=job_id, reason="unusable"))
        self.refunded.add(job_id)

    def _told(self, command: control.Command) -> None:
        answer = self._box.command(command)
        assert answer.is_success, answer.text
