"""Jobs as clients read them: one job, a page of a list, always of the caller's own account and mode."""

from __future__ import annotations

from typing import Any, Final

import msgspec
from msgspec import Struct

from zsky_box import cursors, ledger
from zsky_box.assets import Asset, Assets
from zsky_box.clock import Clock, rfc3339
from zsky_box.db import Row, Store
from zsky_box.errors import not_found
from zsky_box.eta import Eta
from zsky_box.jobs.rows import BATCH, submission_of
from zsky_box.keys import Caller
from zsky_box.ledger import Charge
from zsky_box.pricing import usd
from zsky_box.requests import Submission, Work
from zsky_box.schemas import AudioView, ChargeView, Decision, JobList, JobView, Receipt, ResultView

PAGE_DEFAULT: Final = 20
PAGE_MAX: Final = 100


class Filters(Struct, frozen=True, kw_only=True):
    """What a list is narrowed to; times are microseconds, `created_before` exclusive."""

    status: str | None = None
    type: str | None = None
    created_after: int | None = None
    created_before: int | None = None
    metadata: tuple[tuple[str, str], ...] = ()


class JobReader:
    """Reads jobs together with their files and charges; `base_url` makes the result's URLs absolute."""

    def __init__(self, store: Store, assets: Assets, clock: Clock, eta: Eta) -> None:
        self._eta = eta
        self._store = store
        self._assets = assets
        self._clock = clock

    def one(self, caller: Caller, job_id: str, base_url: str) -> JobView:
        """Raises 404 for what is not there or another's."""
        return self.shown(self.row(caller, job_id), base_url)

    def shown(self, row: Row, base_url: str) -> JobView:
        """A row that the caller was allowed to read; with an empty `base_url` the files' addresses are paths."""
        return self._views([row], base_url)[0]

    def row(self, caller: Caller, job_id: str) -> Row:
        """The job's row; raises 404 for what is not there or another's."""
        row = self._store.one(
            "SELECT * FROM job WHERE id = ? AND account_id = ? AND test = ?",
            (job_id, caller.account.id, int(caller.key.test)),
        )
        if row is None:
            raise not_found("job")
        return row

    def submission(self, caller: Caller, job_id: str) -> Submission:
        """What a job was asked to make, to ask for it again."""
        return submission_of(self.row(caller, job_id))

    def page(self, caller: Caller, filters: Filters, limit: int, cursor: str | None, base_url: str) -> JobList:
        """Newest first; the cursor stays valid while jobs come and go."""
        clauses, parameters = _where(filters)
        parameters |= {"account": caller.account.id, "test": int(caller.key.test), "limit": limit + 1}
        if cursor is not None:
            clauses.append("seq < :before")
            parameters["before"] = cursors.read("j", cursor)
        where = " AND ".join(["account_id = :account", "test = :test", *clauses])
        rows = self._store.all(f"SELECT * FROM job WHERE {where} ORDER BY seq DESC LIMIT :limit", parameters)  # noqa: S608
        return self._cut(rows, limit, base_url)

    def open_jobs(self, caller: Caller, limit: int, base_url: str) -> JobList:
        """The caller's open jobs, newest first: the snapshot of an event stream. `page` goes on at its cursor."""
        rows = self._store.all(
            "SELECT * FROM job WHERE account_id = ? AND test = ? AND status IN ('queued', 'running')"
            " ORDER BY seq DESC LIMIT ?",
            (caller.account.id, int(caller.key.test), limit + 1),
        )
        return self._cut(rows, limit, base_url)

    def _cut(self, rows: list[Row], limit: int, base_url: str) -> JobList:
        """A page of rows, of which there may be one more."""
        more, rows = len(rows) > limit, rows[:limit]
        last = cursors.written("j", rows[-1]["seq"]) if more else None
        return JobList(data=self._views(rows, base_url), has_more=more, next_cursor=last)

    def _views(self, rows: list[Row], base_url: str) -> list[JobView]:
        ids = [row["id"] for row in rows]
        assets = self._assets.of_jobs([row["id"] for row in rows if row["status"] == "completed"])
        charges = ledger.charges(self._store, ids)
        return [self._view(row, assets.get(row["id"], []), charges.get(row["id"]), base_url) for row in rows]

    def _view(self, row: Row, assets: list[Asset], charge: Charge | None, base_url: str) -> JobView:
        work = submission_of(row).work
        position, seconds = self._outlook(row, work)
        view = JobView(
            job_id=row["id"],
            status=row["status"],
            type=row["type"],
            model=row["model"],
            prompt=row["prompt"],
            progress=round(row["progress"], 4),
            phase=row["phase"],
            queue_position=position,
            eta_seconds=seconds,
            created_at=rfc3339(row["created_at"]),
            started_at=_time(row["started_at"]),
            finished_at=_time(row["finished_at"]),
            seed=work.seed,
            n=row["n"],
            width=work.width,
            height=work.height,
            duration=work.duration_seconds or None,
            fps=work.fps or None,
            priority="batch" if row["priority"] == BATCH else "interactive",
            metadata=msgspec.json.decode(row["metadata"], type=dict[str, str]),
            notes=msgspec.json.decode(row["notes"], type=list[str]),
            reference=work.reference or None,
            test=bool(row["test"]),
            cancel_requested=bool(row["cancel_requested"]),
            charge=_charge_view(row, charge),
            receipt=None if row["receipt"] is None else msgspec.json.decode(row["receipt"], type=Receipt),
            removed_at=_time(row["removed_at"]),
        )
        if row["status"] == "completed":
            view.results = self._results(assets, base_url)
            view.result = view.results[0]
            view.result_url = view.results[0].url
        elif row["status"] == "failed":
            view.error = row["error"]
            view.error_code = row["error_code"]
        return view

    def _outlook(self, row: Row, work: Work) -> tuple[int | None, float | None]:
        """The position of a queued job, and the seconds until an open one is done, where they can be told."""
        if row["status"] == "queued":
            place = self._eta.queued(row, work)
            return place.position, place.seconds
        if row["status"] == "running":
            return None, self._eta.running_seconds(row["id"], row["progress"])
        return None, None

    def decisions(self, caller: Caller, job_id: str) -> tuple[list[Decision], bool]:
        """Where and why the attempts of a job ran, and whether it waits now."""
        row = self.row(caller, job_id)
        return msgspec.json.decode(row["decisions"], type=list[Decision]), row["status"] == "queued"

    def _results(self, assets: list[Asset], base_url: str) -> list[ResultView]:
        now = self._clock()
        posters = {asset.file.ordinal: asset for asset in assets if asset.file.kind == "poster"}
        views: list[ResultView] = []
        for asset in assets:
            file = asset.file
            if file.kind != "result":
                continue
            poster = posters.get(file.ordinal)
            view = ResultView(
                url=base_url + self._assets.signed_path(asset, now),
                thumbnail_url=None if poster is None else base_url + self._assets.signed_path(poster, now),
                mime=file.mime,
                bytes=file.bytes,
                sha256=file.sha256,
                width=file.width,
                height=file.height,
                seed=file.seed,
                upscaled_from=file.upscaled_from or None,
            )
            if file.frames:
                view.duration, view.fps, view.frames = file.duration_seconds, file.fps, file.frames
                view.audio = AudioView(sample_rate=file.sample_rate, channels=file.channels)
            views.append(view)
        return views


def _charge_view(row: Row, charge: Charge | None) -> ChargeView:
    """A test job moves no money; its charge acts out the states of one that does."""
    if charge is None:
        state = {"completed": "posted", "failed": "voided"}.get(row["status"], "reserved")
        if row["error_code"] == "safety_blocked" or (row["error_code"] == "cancelled" and row["work_begun"]):
            state = "posted"
        return msgspec.convert(
            {
                "units": row["n"],
                "included_units": 0,
                "wallet_units": 0,
                "amount_usd": "0.00",
                "state": state,
                "ledger_ids": [],
            },
            ChargeView,
        )
    return ChargeView(
        units=charge.units,
        included_units=charge.included_units,
        wallet_units=charge.wallet_units,
        amount_usd=usd(charge.amount_micros),
        state=charge.state,
        ledger_ids=list(charge.ledger_ids),
    )


def _where(filters: Filters) -> tuple[list[str], dict[str, Any]]:
    clauses: list[str] = []
    parameters: dict[str, Any] = {}
    for name, clause in (
        ("status", "status = :status"),
        ("type", "type = :type"),
        ("created_after", "created_at >= :created_after"),
        ("created_before", "created_at < :created_before"),
    ):
        value = getattr(filters, name)
        if value is not None:
            clauses.append(clause)
            parameters[name] = value
    for number, (key, value) in enumerate(filters.metadata):
        # json_each compares the key as it is: no path syntax to escape. Only the number is formatted in.
        clauses.append(f"EXISTS (SELECT 1 FROM json_each(metadata) WHERE key = :k{number} AND value = :v{number})")  # noqa: S608
        parameters |= {f"k{number}": key, f"v{number}": value}
    return clauses, parameters


def _time(at_us: int | None) -> str | None:
    return None if at_us is None else rfc3339(at_us)
