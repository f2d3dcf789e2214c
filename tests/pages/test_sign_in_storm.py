"""A thousand who sign in at once, rightly and wrongly: they wait for each other, and nobody else does."""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from pathlib import Path
from typing import Final
from urllib.parse import urlencode

import pytest

from tests.people import PASSWORD, add_people
from tests.running import RunningBox
from zsky_box.passwords import HASHING_MAX, WAITING_MAX

STORM: Final = 1_000
MEMORY_MAX_BYTES: Final = 400 * 1024**2
"""More than the service has beforehand: two hashes of 46 MiB each, and a thousand connections."""
ASKED_MIN: Final = 20
"""Were passwords hashed where requests are answered, or all at once, hardly one would be before the storm is over."""


class Meanwhile(threading.Thread):
    """Somebody with a key, who asks one thing after the other until told to stop."""

    def __init__(self, box: RunningBox) -> None:
        super().__init__()
        self._box = box
        self.is_over = threading.Event()
        self.statuses: Counter[int] = Counter()
        self.most_bytes = 0

    def run(self) -> None:
        with self._box.client() as client:
            while not self.is_over.is_set():
                self.statuses[client.get("/v1/me").status_code] += 1
                self.most_bytes = max(self.most_bytes, resident_bytes(self._box))


def resident_bytes(box: RunningBox) -> int:
    """The memory of the service itself."""
    for line in Path(f"/proc/{box.pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    raise AssertionError("the system does not tell")


async def sign_in(box: RunningBox, number: int) -> tuple[int, str]:
    """One of them, with as little work here as can be: the answer's status, and when to come again where it says so."""
    name = "owner" if number % 10 == 0 else f"nobody-{number}"
    body = urlencode({"name": name, "password": PASSWORD})
    reader, writer = await asyncio.open_connection("127.0.0.1", box.port)
    writer.write(
        f"POST /sign-in HTTP/1.1\r\nHost: 127.0.0.1:{box.port}\r\nOrigin: {box.url}\r\nConnection: close\r\n"
        f"X-Forwarded-For: 10.{number // 250}.{number % 250}.1\r\n"
        f"Content-Type: application/x-www-form-urlencoded\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode()
    )
    answer = (await reader.read()).decode()
    writer.close()
    head = dict(line.lower().split(": ", 1) for line in answer.partition("\r\n\r\n")[0].split("\r\n")[1:])
    return int(answer.split(" ", 2)[1]), head.get("retry-after", "")


async def storm(box: RunningBox) -> list[tuple[int, str]]:
    return await asyncio.gather(*(sign_in(box, number) for number in range(STORM)))


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the memory of a process is told by Linux")
def test_a_storm_of_sign_ins_is_bounded_and_the_api_answers_meanwhile(tmp_path: Path) -> None:
    box = RunningBox(tmp_path / "data", devices="cpu", trusted_proxies="127.0.0.1")
    add_people(box.folder)
    box.start(ready=False)
    meanwhile = Meanwhile(box)
    try:
        before = resident_bytes(box)
        meanwhile.start()
        answers = asyncio.run(storm(box))
        asked = meanwhile.statuses.total()
    finally:
        meanwhile.is_over.set()
        meanwhile.join()
        box.kill()
    counted = Counter(status for status, _ in answers)
    assert counted.keys() <= {303, 422, 429}, counted
    # So many at most are hashed or wait for it at one moment; who comes then is told to come again.
    assert counted[303] + counted[422] >= HASHING_MAX + WAITING_MAX - 2
    assert counted[429] > 0
    assert all(int(again) > 0 for status, again in answers if status == 429)
    assert asked >= ASKED_MIN
    assert meanwhile.statuses.keys() == {200}
    assert meanwhile.most_bytes - before < MEMORY_MAX_BYTES
    assert "Traceback" not in box.log()
