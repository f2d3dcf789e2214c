"""One seeded life of a box: everything that happens in it, and every fault, follows from its seed.

No thread of it decides anything: each action waits for its writes. Names that would be drawn from the system's entropy
are drawn from the seed, so that two lives of one seed leave the same audit, hash for hash.
"""

from __future__ import annotations

import errno
import random
import shutil
import tempfile
from collections import Counter
from pathlib import Path
from typing import Final

import pytest

from tests.machine import mishaps
from tests.machine.world import World, or_refusal
from tests.simulation.actions import ACTIONS, Action
from tests.simulation.disk import CommitFails, Disk, DiskFull, Fault, FileFails, PowerCut
from tests.stores import Killed
from zsky_box import ids, key_secrets
from zsky_box.errors import Refusal

STEPS: Final = 500
CHECK_EVERY: Final = 50
FAULTS_SHARE: Final = 0.1
DEATHS_AT_START_MAX: Final = 3
MEMORY: Final = Path("/dev/shm")  # noqa: S108 - a fresh folder in it


class Dice(random.Random):
    """Stands in for the system's entropy too."""

    def randbits(self, count: int) -> int:
        """As `secrets.randbits`."""
        return self.getrandbits(count)


class Life:
    """`run` fails with the seed, the step and the command that replays it."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.dice = Dice(seed)
        self.disk = Disk()
        self.done: Counter[str] = Counter()
        self._step = 0
        self._action = "the beginning"

    def run(self, steps: int = STEPS) -> bytes:
        """Live; the hash that the audit ends with."""
        folder = Path(tempfile.mkdtemp(dir=MEMORY if MEMORY.is_dir() else None))
        with pytest.MonkeyPatch.context() as patcher:
            for room in (ids, key_secrets):
                patcher.setattr(room, "secrets", Dice(self.seed + 1))
            self.world = World(folder, is_dead=lambda: self.disk.is_dead)
            self.disk.patch(patcher)
            try:
                return self._live(steps)
            except BaseException as error:
                raise AssertionError(
                    f"seed {self.seed} fails at step {self._step} ({self._action}, {self.disk.fault}): {error!r:.500}\n"
                    f"replay it: ZSKY_SIMULATION_SEED={self.seed} python -m pytest tests/test_simulation.py -k one_life"
                ) from error
            finally:
                self.disk.arm(None)
                self.world.rooms.close()
                shutil.rmtree(folder)

    def _live(self, steps: int) -> bytes:
        self.disk.mount(self.world.rooms.store)
        self.world.rooms.on_open = self.disk.mount
        weights = [action.weight for action in ACTIONS]
        for self._step in range(1, steps + 1):
            self._do(self.dice.choices(ACTIONS, weights)[0])
            self.world.check_step()
            if self._step % CHECK_EVERY == 0:
                self.world.check_all()
        self._action = "the end"
        self._start()
        self.world.check_step()
        self.world.check_all()
        row = self.world.rooms.store.one("SELECT hash FROM audit ORDER BY id DESC LIMIT 1")
        assert row is not None
        return bytes(row["hash"])

    def _do(self, action: Action) -> None:
        self._action = action.name
        fault = self._fault() if action.may_fail and self.dice.random() < FAULTS_SHARE else None
        self.disk.arm(fault)
        self.world.disk_may_fail = fault is not None
        try:
            action.do(self.world, self.dice)
        except Killed:
            assert self.disk.is_dead
        except Refusal as refusal:
            if not (self.disk.fired and refusal.code == "storage_error"):
                raise
        self.done[action.name] += 1
        if self.disk.fired:
            self.done[type(fault).__name__] += 1
        if self.disk.is_dead or (self.disk.fired and action.starts):
            self._start()
            self.world.check_step()
            self.world.check_all()
        else:
            self.disk.arm(None)
            self.world.find_out()
        self.world.disk_may_fail = False

    def _start(self) -> None:
        """The power is back; it may go again while the box starts."""
        for _ in range(self.dice.choice((0, 0, 0, DEATHS_AT_START_MAX))):
            self.disk.arm(PowerCut(self.dice.randrange(25)))
            if not self._started():
                self.done["PowerCut at start"] += 1
        self.disk.arm(None)
        mishaps.stop_and_start(self.world)

    def _started(self) -> bool:
        try:
            told = or_refusal(self.world.rooms.restart)
        except Killed:
            return False
        return not isinstance(told, Refusal)

    def _fault(self) -> Fault:
        kind = self.dice.choice(("power", "power", "commit", "full", "file"))
        if kind == "power":
            return PowerCut(self.dice.randrange(35))
        if kind == "commit":
            return CommitFails(self.dice.random() < 0.5)
        if kind == "full":
            return DiskFull(self.dice.randint(1, 12), self.dice.random() < 0.3)
        return FileFails(self.dice.choice(("mkdir", "rename", "sync")), self.dice.choice((errno.ENOSPC, errno.EIO)))
