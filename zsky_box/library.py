"""The library: the ended live jobs of an account, or of everybody where the owner shares them, as a wall shows them.

It reads only. What is shown of a job here is what a thumbnail needs; the whole of it is the room `jobs.views`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, Literal

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from zsky_box import cursors, prompt_words
from zsky_box.assets import Asset, Assets
from zsky_box.clock import Clock
from zsky_box.db import Row, Rows, Store
from zsky_box.errors import not_found
from zsky_box.keys import Caller
from zsky_box.manifest import JobType
from zsky_box.requests import Work

PAGE_MAX: Final = 48
COUNT_MAX: Final = 1_000
CHOSEN_MAX: Final = 500
"""So many jobs can be chosen at once, to be saved together or removed."""
MATCHING_MAX: Final = 10_000
"""So many jobs can be removed at once as all that a wall is narrowed to."""
MODELS_MAX: Final = 100

Show = Literal["results", "failed", "removed"]


class Wanted(Struct, frozen=True, kw_only=True):
    """What a wall is narrowed to; times are microseconds, `before` exclusive, `ended_by` inclusive.

    `team`: what everybody made, not oneself. What failed or was removed is always one's own: nobody else sees that.
    """

    text: str = ""
    show: Show = "results"
    type: JobType | None = None
    model: str | None = None
    after: int | None = None
    before: int | None = None
    ended_by: int | None = None
    team: bool = False


class Tile(Struct, frozen=True, kw_only=True):
    """One job on the wall. Paths are signed and of this host; they are empty where there is no such file (any more).

    `width` and `height` are what was asked for, in pixels; `count` is how many files the job left.
    """

    job_id: str
    maker: str
    mine: bool
    type: JobType
    model: str
    prompt: str
    error: str
    error_code: str
    created_at: int
    removed_at: int | None
    width: int
    height: int
    duration_seconds: float
    has_sound: bool
    count: int
    thumbnail: str
    media: str


class Wall(Struct, frozen=True):
    """A page of tiles, newest first; the first page has the `count` of all, which stops at `COUNT_MAX`."""

    tiles: list[Tile]
    next_cursor: str | None
    count: int


class _Asked(Struct, frozen=True):
    """What of a job's request a tile needs."""

    work: Work


class Library:
    """Reads walls. `is_shared`: everybody who is signed in may see what everybody made, which is the owner's choice."""

    def __init__(self, store: Store, assets: Assets, clock: Clock, *, is_shared: bool) -> None:
        self.is_shared = is_shared
        self._store = store
        self._assets = assets
        self._clock = clock

    def page(self, caller: Caller, wanted: Wanted, cursor: str | None = None, limit: int = PAGE_MAX) -> Wall:
        """Newest first; the cursor stays valid while results come and go.

        Raises 404 for the team's where it is not shared, 422 for a cursor that is none of this list.
        """
        narrowed = self._narrowed(caller, wanted)
        if narrowed is None:
            return Wall([], None, 0)
        tables, clauses, parameters, seq = narrowed
        if cursor is not None:
            clauses.append(f"{seq} < :cursor")
            parameters["cursor"] = cursors.read("w", cursor)
        where = " AND ".join(clauses)
        with self._store.snapshot() as rows:
            found = rows.all(
                f"SELECT job.*, account.name AS maker FROM {tables} JOIN account ON account.id = job.account_id"  # noqa: S608
                f" WHERE {where} ORDER BY {seq} DESC LIMIT :limit",
                {**parameters, "limit": limit + 1},
            )
            count = 0 if cursor is not None else _count(rows, tables, where, parameters)
        shown = found[:limit]
        last = cursors.written("w", shown[-1]["seq"]) if len(found) > limit else None
        return Wall(self._tiles(caller, shown), last, count)

    def matching(self, caller: Caller, wanted: Wanted, most: int) -> list[str]:
        """The ids of all jobs of such a wall, newest first, and no more than `most`; raises as `page` does."""
        narrowed = self._narrowed(caller, wanted)
        if narrowed is None:
            return []
        tables, clauses, parameters, seq = narrowed
        where = " AND ".join(clauses)
        found = self._store.all(
            f"SELECT job.id FROM {tables} WHERE {where} ORDER BY {seq} DESC LIMIT :limit",  # noqa: S608
            {**parameters, "limit": most},
        )
        return [row["id"] for row in found]

    def models(self, caller: Caller, *, team: bool = False) -> list[str]:
        """The models that made what is on the wall, by name; one's own are each one step in an index."""
        shown = "test = 0 AND finished_at IS NOT NULL AND removed_at IS NULL"
        if team:
            shown = f"status = 'completed' AND {shown}"
            sql = f"SELECT DISTINCT model FROM job WHERE {shown} ORDER BY model LIMIT {MODELS_MAX}"  # noqa: S608
        else:
            shown = f"account_id = :account AND {shown}"
            sql = (
                f"WITH RECURSIVE found (model) AS (SELECT min(model) FROM job WHERE {shown} UNION ALL"  # noqa: S608
                f" SELECT (SELECT min(job.model) FROM job WHERE {shown} AND job.model > found.model)"
                f" FROM found WHERE found.model IS NOT NULL LIMIT {MODELS_MAX})"
                " SELECT model FROM found WHERE model IS NOT NULL"
            )
        return [row["model"] for row in self._store.all(sql, {"account": caller.account.id})]

    def row(self, caller: Caller, job_id: str) -> Row:
        """A live job that the caller may see, with its maker's name; raises 404 for every other."""
        row = self._store.one(
            "SELECT job.*, account.name AS maker FROM job JOIN account ON account.id = job.account_id"
            " WHERE job.id = ? AND job.test = 0",
            (job_id,),
        )
        if row is None or not (row["account_id"] == caller.account.id or (self.is_shared and _is_result(row))):
            raise not_found("result")
        return row

    def beside(self, row: Row) -> tuple[str | None, str | None]:
        """The maker's next newer and next older result that is on the wall."""
        shown = (
            "SELECT id FROM job INDEXED BY job_shown WHERE account_id = ? AND status = 'completed' AND test = 0"
            " AND finished_at IS NOT NULL AND removed_at IS NULL"
        )
        place = (row["account_id"], row["seq"])
        newer = self._store.one(f"{shown} AND seq > ? ORDER BY seq LIMIT 1", place)
        older = self._store.one(f"{shown} AND seq < ? ORDER BY seq DESC LIMIT 1", place)
        return None if newer is None else newer["id"], None if older is None else older["id"]

    def chosen(self, caller: Caller, job_ids: Sequence[str]) -> list[Tile]:
        """The ended jobs of these ids that the caller may see, newest first; what is not there is left out."""
        marks = ",".join("?" * len(job_ids[:CHOSEN_MAX]))
        rows = self._store.all(
            "SELECT job.*, account.name AS maker FROM job JOIN account ON account.id = job.account_id"  # noqa: S608
            f" WHERE job.id IN ({marks}) AND job.test = 0 AND job.finished_at IS NOT NULL"
            " ORDER BY job.seq DESC",
            tuple(job_ids[:CHOSEN_MAX]),
        )
        mine, shared = caller.account.id, self.is_shared
        return self._tiles(caller, [row for row in rows if row["account_id"] == mine or (shared and _is_result(row))])

    def files(self, tiles: Sequence[Tile]) -> list[tuple[Tile, Asset]]:
        """The result files of these jobs that were not removed, in the jobs' order."""
        assets = self._assets.of_jobs([tile.job_id for tile in tiles])
        return [
            (tile, asset)
            for tile in tiles
            for asset in assets.get(tile.job_id, [])
            if asset.file.kind == "result" and asset.removed_at is None
        ]

    def _narrowed(self, caller: Caller, wanted: Wanted) -> tuple[str, list[str], dict[str, Any], str] | None:
        """Tables, conditions, their values and what orders the rows; None where no prompt can have such words."""
        if wanted.team and not self.is_shared:
            raise not_found("page")
        if wanted.team and wanted.show != "results":
            wanted = replace(wanted, team=False)
        words, seq = None, "job.seq"
        if wanted.text.strip():
            words, seq = prompt_words.match("" if wanted.team else caller.account.id, wanted.text), "prompt_words.rowid"
            if words is None:
                return None
        return *_query(caller, wanted, words), seq

    def _tiles(self, caller: Caller, rows: list[Row]) -> list[Tile]:
        assets = self._assets.of_jobs([row["id"] for row in rows if row["status"] == "completed"])
        return [self._tile(caller, row, assets.get(row["id"], [])) for row in rows]

    def _tile(self, caller: Caller, row: Row, assets: list[Asset]) -> Tile:
        work = _ASKED.decode(row["request"]).work
        results = [asset for asset in assets if asset.file.kind == "result"]
        first = results[0] if results else None
        poster = next((asset for asset in assets if asset.file.kind == "poster"), None)
        return Tile(
            job_id=row["id"],
            maker=row["maker"],
            mine=row["account_id"] == caller.account.id,
            type=row["type"],
            model=row["model"],
            prompt=row["prompt"],
            error=row["error"] or "",
            error_code=row["error_code"] or "",
            created_at=row["created_at"],
            removed_at=row["removed_at"],
            width=first.file.width if first else work.width,
            height=first.file.height if first else work.height,
            duration_seconds=first.file.duration_seconds if first else work.duration_seconds,
            has_sound=first is not None and first.file.channels > 0,
            count=len(results),
            thumbnail=self._path(poster),
            media=self._path(first),
        )

    def _path(self, asset: Asset | None) -> str:
        if asset is None or asset.removed_at is not None:
            return ""
        return self._assets.signed_path(asset, self._clock())


def _is_result(row: Row) -> bool:
    return row["status"] == "completed" and row["removed_at"] is None


def _count(rows: Rows, tables: str, where: str, parameters: dict[str, Any]) -> int:
    counted = f"SELECT count(*) AS n FROM (SELECT 1 FROM {tables} WHERE {where} LIMIT {COUNT_MAX})"  # noqa: S608
    return int(rows.all(counted, parameters)[0]["n"])


def _query(caller: Caller, wanted: Wanted, words: str | None) -> tuple[str, list[str], dict[str, Any]]:
    """Tables, conditions and their values. The index is named, as the planner would take one that knows less."""
    parameters: dict[str, Any] = {"account": caller.account.id}
    # Literals, not parameters: the indexes are of the rows that these words choose.
    clauses = ["job.test = 0"]
    if wanted.show == "removed":
        index = "job_removed"
        clauses.append("job.removed_at IS NOT NULL")
    else:
        index = "job_shown" if wanted.model is None else "job_shown_by_model"
        clauses += ["job.finished_at IS NOT NULL", "job.removed_at IS NULL", "job.status = :status"]
        parameters["status"] = "failed" if wanted.show == "failed" else "completed"
    if wanted.team:
        index = "job_shown_to_all"
    else:
        clauses.append("job.account_id = :account")
    for name, clause in (
        ("type", "job.type = :type"),
        ("model", "job.model = :model"),
        ("after", "job.created_at >= :after"),
        ("before", "job.created_at < :before"),
        ("ended_by", "job.finished_at <= :ended_by"),
    ):
        value = getattr(wanted, name)
        if value is not None:
            clauses.append(clause)
            parameters[name] = value
    if words is None:
        return f"job INDEXED BY {index}", clauses, parameters
    # CROSS JOIN: the words choose the jobs, newest first, and no other order is tried.
    tables = "prompt_words CROSS JOIN job ON job.seq = prompt_words.rowid"
    return tables, ["prompt_words MATCH :words", *clauses], {**parameters, "words": words}


_ASKED: Final = msgspec.json.Decoder(_Asked)
