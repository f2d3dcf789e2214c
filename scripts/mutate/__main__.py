"""How good are the tests of the money rooms? `python -m scripts.mutate [--again] [--only NAME] [--list]`.

Makes one small mistake at a time in the rooms and runs their fast tests against it. A mutant that no test notices
lives: either a test is missing, or the mistake makes no difference, which docs/mutation.md then says of it and why.
What is known is kept in .cache/mutation.json, so that an interrupted campaign goes on where it was.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Final

from scripts.mutate import tests
from scripts.mutate.mutants import Mutant, mutants_of

ROOT: Final = Path(__file__).resolve().parent.parent.parent
STATE: Final = ROOT / ".cache" / "mutation.json"
EQUIVALENT: Final = ROOT / "docs" / "mutation.md"
ROOMS: Final = (
    "ledger/alerts",
    "ledger/charge",
    "ledger/charge_view",
    "ledger/spend",
    "ledger/transfers",
    "ledger/units",
    "ledger/wallet",
    "overage",
    "periods",
    "plans",
    "timeline",
)
TESTS: Final = (
    "ledger/test_charge",
    "ledger/test_spend",
    "ledger/test_wallet",
    "ledger/test_units",
    "ledger/test_alerts",
    "ledger/test_transfers",
    "ledger/test_charge_view",
    "test_overage",
    "test_plans",
    "test_timeline",
    "test_case_table",
    "test_terms",
    "test_month_end",
    "test_periods",
)
JOBS: Final = 2
_ROW: Final = re.compile(r"^\| `(zsky_box/\S+)` \| `(.+?)` \| (.+) \|$", re.MULTILINE)


def main() -> int:
    """Run what is not known yet, then tell; 1 where a mutant lives that nobody has called equivalent."""
    options = _options()
    equivalent = _equivalent()
    mutants = [
        mutant
        for room in ROOMS
        if options.only in room
        for mutant in mutants_of(ROOT / "zsky_box" / f"{room}.py", ROOT)
    ]
    if options.list:
        print(*(mutant.name for mutant in mutants), sep="\n")
        return 0
    known = json.loads(STATE.read_text("utf-8")) if STATE.is_file() else {}
    if options.again:
        known = {name: outcome for name, outcome in known.items() if outcome == "killed"}
    todo = [mutant for mutant in mutants if mutant.name not in known and mutant.name not in equivalent]
    if todo:
        os.chdir(ROOT)
        with tests.scratch():
            _Campaign(todo, known).run()
    return _tell(mutants, known, equivalent)


class _Campaign:
    """Some processes at a time, each with a mutant of its own and a time by which it must have ended."""

    def __init__(self, todo: list[Mutant], known: dict[str, str]) -> None:
        self._todo, self._known = list(reversed(todo)), known
        self._running: dict[int, tuple[Mutant, float]] = {}
        self._done, self._all = 0, len(todo)

    def run(self) -> None:
        """Until every mutant has an outcome."""
        every = [f"tests/{name}.py" for name in TESTS if (ROOT / f"tests/{name}.py").is_file()]
        tests.import_what_is_not_ours(every, ROOT)
        began = time.monotonic()
        _, status = os.waitpid(tests.start(None, every, ROOT), 0)
        if tests.outcome_of(status) != "survived":
            raise SystemExit("The tests fail on the code as it is: nothing can be learnt from mutants of it.")
        seconds = time.monotonic() - began
        print(f"{self._all} mutants; the tests take {seconds:.1f} s", flush=True)
        limit = 10 + 5 * seconds * JOBS
        while self._todo or self._running:
            while self._todo and len(self._running) < JOBS:
                mutant = self._todo.pop()
                pid = tests.start(mutant, _nearest_first(mutant, every), ROOT)
                self._running[pid] = mutant, time.monotonic() + limit
            self._reap()

    def _reap(self) -> None:
        pid, status = os.waitpid(-1, os.WNOHANG)
        if pid in self._running:
            mutant, _ = self._running.pop(pid)
            self._record(mutant, tests.outcome_of(status))
            return
        for late, (mutant, ends) in list(self._running.items()):
            if time.monotonic() > ends:
                tests.kill(late)
                os.waitpid(late, 0)
                del self._running[late]
                self._record(mutant, "timeout")
                return
        time.sleep(0.01)

    def _record(self, mutant: Mutant, outcome: tests.Outcome) -> None:
        self._known[mutant.name] = outcome
        self._done += 1
        STATE.parent.mkdir(exist_ok=True)
        partial = STATE.with_suffix(".partial")
        partial.write_text(json.dumps(self._known, indent=0), "utf-8")
        partial.replace(STATE)
        if outcome != "killed":
            print(f"{self._done}/{self._all} {outcome}: {mutant.name}", flush=True)


def _nearest_first(mutant: Mutant, every: list[str]) -> list[str]:
    """The tests of the mutant's own room come first: they are the likeliest to notice."""
    own = f"test_{Path(mutant.path).name}"
    return sorted(every, key=lambda name: Path(name).name != own)


def _equivalent() -> dict[str, str]:
    """Why a mutant makes no difference, by its name, from the table of docs/mutation.md."""
    if not EQUIVALENT.is_file():
        return {}
    rows = _ROW.findall(EQUIVALENT.read_text("utf-8"))
    return {f"{path}: {key}".replace("\\|", "|"): why for path, key, why in rows}


def _tell(mutants: list[Mutant], known: dict[str, str], equivalent: dict[str, str]) -> int:
    names = {mutant.name for mutant in mutants}
    rooms: dict[str, Counter[str]] = {}
    for mutant in mutants:
        outcome = "equivalent" if mutant.name in equivalent else known.get(mutant.name, "unknown")
        rooms.setdefault(mutant.path, Counter())[outcome] += 1
    for path, counts in rooms.items():
        print(f"{path:<34} {_score(counts)}")
    print(f"{'all':<34} {_score(sum(rooms.values(), Counter()))}")
    living = [name for name in sorted(names) if known.get(name) == "survived" and name not in equivalent]
    for name in living:
        print(f"LIVES {name}")
    for name in sorted(set(equivalent) - names if len(rooms) == len(ROOMS) else ()):
        print(f"docs/mutation.md names a mutant that is none any more: {name}")
    return 1 if living else 0


def _score(counts: Counter[str]) -> str:
    ended = counts["killed"] + counts["timeout"]
    counted = counts.total() - counts["equivalent"]
    share = 100 * ended / counted if counted else 100
    told = ", ".join(f"{number} {outcome}" for outcome, number in sorted(counts.items()))
    return f"{share:5.1f} % of {counted} killed ({told})"


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m scripts.mutate", description="Mutation testing of the money rooms."
    )
    parser.add_argument("--again", action="store_true", help="try those once more that have lived so far")
    parser.add_argument("--only", default="", metavar="NAME", help="only rooms whose name has this in it")
    parser.add_argument("--list", action="store_true", help="name the mutants and stop")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
