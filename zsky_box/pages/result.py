"""`/library/ID`: one job in full: what it made, what made it and what it cost, and what can be done with it."""

from __future__ import annotations

import shlex
from typing import Any

import msgspec
from litestar import Request, Response, get, post
from litestar.params import FromPath
from litestar.response import Template
from msgspec import UNSET, Struct

from zsky_box.api.deps import Services, base_url, services
from zsky_box.api.generate import again
from zsky_box.clock import SECOND_US, rfc3339
from zsky_box.db import Row
from zsky_box.jobs.rows import submission_of
from zsky_box.keys import Caller
from zsky_box.pages import frame
from zsky_box.pages.entry import new_once, only_once
from zsky_box.pages.library import length
from zsky_box.requests import Work, asked_again
from zsky_box.schemas import GenerateBody, JobAccepted, JobView, ResultView


class _Seen(Struct, frozen=True):
    """A job as its page shows it, with its maker and its neighbours on the wall."""

    job: JobView
    work: Work
    body: GenerateBody
    maker: str
    mine: bool
    newer: str | None
    older: str | None


@get("/library/{job_id:str}", opt={"page": "member"}, include_in_schema=False)
async def result(request: Request[Any, Any, Any], job_id: FromPath[str]) -> Template:
    """The job's page; of several results, `result` says which is large, counted from 1."""
    box, caller = services(request), frame.person(request)
    seen = await box.store.read(lambda: _seen(box, caller, job_id))
    job = seen.job
    results = job.results if job.results is not UNSET else []
    chosen = _chosen(str(request.query_params.get("result", "")), len(results))
    large: ResultView | None = results[chosen - 1] if results and job.removed_at is None else None
    base = base_url(request)
    return frame.page(
        request,
        "result.html",
        place="library",
        title=f"{job.prompt[:60]}…" if len(job.prompt) > 60 else job.prompt,
        job=job,
        work=seen.work,
        maker=seen.maker,
        mine=seen.mine,
        newer=seen.newer,
        older=seen.older,
        large=large,
        chosen=chosen,
        error=job.error if job.error is not UNSET else "",
        error_code=job.error_code if job.error_code is not UNSET else "",
        link=f"{base}{large.url}" if large else "",
        link_ends=_link_ends(large.url) if large else "",
        curl=curl(base, seen.body) if seen.mine else "",
        can_rerun=seen.mine and job.status in ("completed", "failed"),
        once=new_once(),
        length=length,
    )


@get("/library/{job_id:str}/receipt.json", opt={"page": "member"}, include_in_schema=False)
async def receipt(request: Request[Any, Any, Any], job_id: FromPath[str]) -> Response[bytes]:
    """What was asked for and what made it, to be kept with the files: no address that ends, no money."""
    box, caller = services(request), frame.person(request)
    seen = await box.store.read(lambda: _seen(box, caller, job_id))
    job = seen.job
    told = {
        "job_id": job.job_id,
        "created_at": job.created_at,
        "finished_at": job.finished_at,
        "maker": seen.maker,
        "status": job.status,
        "request": msgspec.to_builtins(seen.work),
        "receipt": job.receipt,
        "notes": job.notes,
        "results": [
            {"sha256": each.sha256, "bytes": each.bytes, "mime": each.mime, "seed": each.seed}
            for each in (job.results if job.results is not UNSET else [])
        ],
    }
    content = msgspec.json.format(msgspec.json.encode(told), indent=2)
    name = f'attachment; filename="{job.job_id}.json"'
    return Response(content, media_type="application/json", headers={"Content-Disposition": name})


@post("/library/{job_id:str}/rerun", opt={"page": "member"}, status_code=303, include_in_schema=False)
async def rerun(request: Request[Any, Any, Any], job_id: FromPath[str]) -> Response[Any]:
    """The same again as a new job; a form that is sent twice makes one."""
    box, caller = services(request), frame.person(request)
    key = only_once(await frame.form(request), "rerun", job_id)
    answer = await again(box, caller, job_id, key)
    accepted = msgspec.json.decode(answer.body, type=JobAccepted)
    return frame.done(request, f"/library/{accepted.job_id}", "It is queued again, as it was.")


@post("/library/{job_id:str}/cancel", opt={"page": "member"}, status_code=303, include_in_schema=False)
async def cancel(request: Request[Any, Any, Any], job_id: FromPath[str]) -> Response[Any]:
    """Stop an open job."""
    await services(request).desk.cancel(frame.person(request), job_id)
    return frame.done(request, f"/library/{job_id}", "The job is being cancelled.")


def curl(base: str, body: GenerateBody) -> str:
    """The call that asks for this, for a shell; the key stands in its environment."""
    asked = {name: value for name, value in msgspec.to_builtins(body).items() if value is not None}
    sent = shlex.quote(msgspec.json.encode(asked).decode())
    return (
        f'curl {shlex.quote(f"{base}/v1/generate")} \\\n  -H "X-API-Key: $ZSKY_API_KEY" \\\n'
        f'  -H "Content-Type: application/json" \\\n  -d {sent}'
    )


def _seen(box: Services, caller: Caller, job_id: str) -> _Seen:
    """Reads; raises 404 for what is not there, or not for the caller to see."""
    row: Row = box.library.row(caller, job_id)
    newer, older = box.library.beside(row)
    submission = submission_of(row)
    return _Seen(
        job=box.reader.shown(row, ""),
        work=submission.work,
        body=asked_again(submission, box.catalog.specs.get(submission.work.model)),
        maker=row["maker"],
        mine=row["account_id"] == caller.account.id,
        newer=newer,
        older=older,
    )


def _chosen(text: str, count: int) -> int:
    number = int(text) if text.isascii() and text.isdigit() and len(text) < 4 else 1
    return number if 1 <= number <= count else 1


def _link_ends(path: str) -> str:
    """When a signed path ends, which stands in it."""
    expires = path.partition("expires=")[2].partition("&")[0]
    return rfc3339(int(expires) * SECOND_US)
