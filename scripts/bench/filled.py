"""A data folder with a past: jobs that ended, with their transfers, audit rows and assets, as the rooms write them.

The money, the audit and the assets' rows go through the rooms themselves; only the jobs' own rows are written here, to
skip what a running service waits for. The files that the assets name are there, and empty: a start looks at folders.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

import msgspec

from tests.running import make_owner
from zsky_box import accounts, ids, keys, ledger, overage, prompt_words, secretfile
from zsky_box.accounts import Account
from zsky_box.assets import Assets
from zsky_box.catalog import open_catalog
from zsky_box.clock import SECOND_US, system_clock
from zsky_box.db import Store, Tx
from zsky_box.events import File
from zsky_box.requests import Submission, resolve
from zsky_box.schemas import GenerateBody, Receipt
from zsky_box.settings import Settings
from zsky_box.terms import Terms

OUTPUTS: Final = "outputs"
PAST_DAYS: Final = 90
RUN_US: Final = 20 * SECOND_US
FAILED_EVERY: Final = 10
CUT_OFF: Final = 2  # the last jobs were running when the power went
SPENT_JOB_UNITS: Final = 10
SPENT_USD: Final = "0.01"
_BATCH: Final = 1_000
_TERMS: Final = Terms.of(Settings(included_images=10**9))


def fill(folder: Path, jobs: int) -> dict[str, str]:
    """Make a box with `jobs` jobs of the last 90 days, every tenth failed and the last two cut off; return its keys."""
    keys = make_owner(folder)
    store = Store(folder)
    try:
        writer = _Writer(folder, store)
        for first in range(0, jobs, _BATCH):
            store.write(lambda tx, first=first: writer.write(tx, range(first, min(first + _BATCH, jobs)), jobs))
    finally:
        store.close()
    return keys


def spend(folder: Path, included: int, paid: int) -> tuple[dict[str, str], Settings]:
    """Make a box whose month has so many included and paid units (both multiples of ten), all posted, ten a job.

    What was made is removed, on record. Returns the keys and the settings that the money was spent under.
    """
    settings = Settings(included_images=included, image_usd=SPENT_USD)
    issued, terms = make_owner(folder), Terms.of(settings)
    store = Store(folder)
    try:
        writer = _Writer(folder, store, terms)
        store.write(writer.fill_wallet)
        jobs = (included + paid) // SPENT_JOB_UNITS
        for first in range(0, jobs, _BATCH):
            store.write(lambda tx, first=first: writer.spend(tx, min(_BATCH, jobs - first)))
    finally:
        store.close()
    return issued, settings


class _Writer:
    def __init__(self, folder: Path, store: Store, terms: Terms = _TERMS) -> None:
        self._terms = terms
        owner = accounts.owner(store)
        assert owner is not None
        self._owner: Account = owner
        self._key_id = keys.listed(store, owner.id)[0].id
        self._payer = ledger.Payer(owner.id, self._key_id)
        self._assets = Assets(store, folder / OUTPUTS, secretfile.load(folder).signing, 24)
        body = GenerateBody(type="image", prompt="a lighthouse in the fog", resolution="480p", seed=1)
        self._submission: Submission = resolve(body, open_catalog(folder), test=False, require_real_model=False)
        self._receipt = msgspec.json.encode(
            Receipt(
                model=self._submission.work.model,
                revision="",
                weights_sha256="",
                quantisation="none",
                device="bench",
                versions={"zsky-box": "0"},
                licence="Apache-2.0",
                commercial_use="yes",
            )
        ).decode()
        self._end_us = system_clock() - SECOND_US

    def write(self, tx: Tx, numbers: range, jobs: int) -> None:
        """Jobs of these numbers, evenly spread over the past days."""
        past_us = PAST_DAYS * 86_400 * SECOND_US
        for number in numbers:
            created_us = self._end_us - past_us * (jobs - number) // jobs
            job_id = ids.new("job")
            ledger.reserve(tx, self._payer, "image", 1, job_id, created_us, self._terms)
            if number >= jobs - CUT_OFF:
                self._insert(tx, job_id, "running", created_us)
            elif number % FAILED_EVERY == 0:
                self._insert(tx, job_id, "failed", created_us)
                self._resolve(tx, job_id, frozenset(), created_us)
            else:
                self._insert(tx, job_id, "completed", created_us)
                files = _files(number)
                folder = self._assets.root / job_id / "1"
                folder.mkdir(parents=True)
                for file in files:
                    (folder / file.name).touch()
                self._assets.record(tx, job_id, f"{job_id}/1", files, created_us + RUN_US)
                self._resolve(tx, job_id, None, created_us)

    def fill_wallet(self, tx: Tx) -> None:
        """As much as the highest cap lets be spent in a month."""
        now, owner = self._end_us, self._owner.id
        overage.topup(tx, owner, overage.CAP_MAX_MICROS, actor="bench", now=now, terms=self._terms)
        overage.set_cap(tx, owner, overage.CAP_MAX_MICROS, actor="bench", now=now, terms=self._terms)
        overage.toggle(tx, owner, enabled=True, actor="bench", now=now, terms=self._terms)

    def spend(self, tx: Tx, jobs: int) -> None:
        """So many jobs of ten images, completed, their files removed."""
        for _ in range(jobs):
            job_id = ids.new("job")
            ledger.reserve(tx, self._payer, "image", SPENT_JOB_UNITS, job_id, self._end_us, self._terms)
            self._insert(tx, job_id, "completed", self._end_us, SPENT_JOB_UNITS)
            files = tuple(_files(ordinal)[0] for ordinal in range(SPENT_JOB_UNITS))
            files = tuple(msgspec.structs.replace(file, ordinal=ordinal) for ordinal, file in enumerate(files))
            self._assets.record(tx, job_id, f"{job_id}/1", files, self._end_us + RUN_US)
            tx.execute("UPDATE job SET removed_at = ? WHERE id = ?", (self._end_us + RUN_US, job_id))
            self._assets.mark_removed(tx, job_id, self._end_us + RUN_US)
            tx.execute("UPDATE asset SET purged_at = removed_at WHERE job_id = ?", (job_id,))
            ledger.resolve(tx, job_id, None, actor="box", now=self._end_us, terms=self._terms)

    def _resolve(self, tx: Tx, job_id: str, posted: frozenset[int] | None, created_us: int) -> None:
        ledger.resolve(tx, job_id, posted, actor="box", now=created_us + RUN_US, terms=self._terms)

    def _insert(self, tx: Tx, job_id: str, status: str, created_us: int, units: int = 1) -> None:
        submission = self._submission
        tx.execute(
            "INSERT INTO job (id, account_id, key_id, test, type, model, request, prompt, priority, n, status, phase,"
            " progress, token, attempts, error_code, error, price_micros, metadata, notes, receipt, device, created_at,"
            " started_at, finished_at) VALUES (?, ?, ?, 0, 'image', ?, ?, ?, 0, ?, ?, 'encoding',"
            " ?, 1, 1, ?, ?, ?, '{}', '[]', ?, 'bench', ?, ?, ?)",
            (
                job_id,
                self._owner.id,
                self._key_id,
                submission.work.model,
                msgspec.json.encode(submission).decode(),
                submission.work.prompt,
                units,
                status,
                1.0 if status == "completed" else 0.5,
                "encode_failed" if status == "failed" else None,
                "The image could not be encoded." if status == "failed" else None,
                self._terms.price_micros("image"),
                self._receipt if status == "completed" else None,
                created_us,
                created_us,
                None if status == "running" else created_us + RUN_US,
            ),
        )
        prompt_words.keep(tx, job_id, submission.work.prompt)


def _files(number: int) -> tuple[File, ...]:
    """An image and its poster; the digests are of nothing."""
    name, digest = f"a-lighthouse-in-the-fog-{number}", f"{number:064x}"
    return (
        File(
            ordinal=0,
            kind="result",
            name=f"{name}.png",
            mime="image/png",
            bytes=900_000,
            sha256=digest,
            width=854,
            height=480,
            seed=number,
        ),
        File(
            ordinal=0,
            kind="poster",
            name=f"{name}-poster.jpg",
            mime="image/jpeg",
            bytes=40_000,
            sha256=digest,
            width=640,
            height=360,
            seed=number,
        ),
    )
