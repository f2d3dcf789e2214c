"""Reading, cancelling and removing jobs."""

from __future__ import annotations

import re
from typing import Any, Final

from litestar import Request, delete, get, post
from litestar.params import FromPath

from zsky_box.api import queries
from zsky_box.api.access import caller_of
from zsky_box.api.deps import base_url, services
from zsky_box.api.problems import documented
from zsky_box.jobs.views import PAGE_DEFAULT, PAGE_MAX, Filters
from zsky_box.schemas import DecisionList, JobList, JobView

_STATUSES: Final = ("queued", "running", "completed", "failed")
_TYPES: Final = ("video", "image")
_METADATA_MAX: Final = 16


@get(
    "/job_status/{job_id:str}",
    opt={"scope": "read"},
    operation_id="getJobStatus",
    tags=["jobs"],
    summary="How a job stands",
    responses=documented("not_found"),
)
async def job_status(request: Request[Any, Any, Any], job_id: FromPath[str]) -> JobView:
    """`result_url` is there once the status is `completed`, `error` and `error_code` once it is `failed`."""
    box, caller, base = services(request), caller_of(request), base_url(request)
    return await box.store.read(lambda: box.reader.one(caller, job_id, base))


@get(
    "/jobs/{job_id:str}",
    opt={"scope": "read"},
    operation_id="getJob",
    tags=["jobs"],
    summary="One job",
    responses=documented("not_found"),
)
async def get_job(request: Request[Any, Any, Any], job_id: FromPath[str]) -> JobView:
    """The same as `job_status`."""
    box, caller, base = services(request), caller_of(request), base_url(request)
    return await box.store.read(lambda: box.reader.one(caller, job_id, base))


@get(
    "/jobs",
    opt={
        "scope": "read",
        "query": {
            "limit": {"type": "integer", "minimum": 1, "maximum": PAGE_MAX, "default": PAGE_DEFAULT},
            "cursor": {"type": "string"},
            "status": {"type": "string", "enum": list(_STATUSES)},
            "type": {"type": "string", "enum": list(_TYPES)},
            "created_after": {"type": "string", "format": "date-time"},
            "created_before": {"type": "string", "format": "date-time"},
            "metadata": {"type": "object", "additionalProperties": {"type": "string"}, "maxProperties": _METADATA_MAX},
        },
    },
    operation_id="listJobs",
    tags=["jobs"],
    summary="Your jobs, newest first",
    responses=documented("invalid_field", "unknown_field"),
)
async def list_jobs(request: Request[Any, Any, Any]) -> JobList:
    """Pages by cursor; filters by `status`, `type`, `created_after`, `created_before` and `metadata[KEY]=VALUE`."""
    filters, limit, cursor = read_query(list(request.query_params.items()))
    box, caller, base = services(request), caller_of(request), base_url(request)
    return await box.store.read(lambda: box.reader.page(caller, filters, limit, cursor, base))


@get(
    "/jobs/{job_id:str}/decisions",
    opt={"scope": "read"},
    operation_id="getJobDecisions",
    tags=["jobs"],
    summary="Why a job ran where it did",
    responses=documented("not_found"),
)
async def get_decisions(request: Request[Any, Any, Any], job_id: FromPath[str]) -> DecisionList:
    """The attempts of the job with device and reason (of many the first and the newest); and why it waits, if known."""
    box, caller = services(request), caller_of(request)
    decisions, waits = await box.store.read(lambda: box.reader.decisions(caller, job_id))
    told = box.scheduler.reason(job_id, test=caller.key.test) if waits else None
    return DecisionList(data=decisions, waits=told)


@post(
    "/jobs/{job_id:str}/cancel",
    status_code=200,
    opt={"scope": "generate"},
    operation_id="cancelJob",
    tags=["jobs"],
    summary="Stop a job",
    responses=documented("not_found", "job_finished"),
)
async def cancel(request: Request[Any, Any, Any], job_id: FromPath[str]) -> JobView:
    """Queued: ended at once, free. Running: it stops within two denoising steps; charged once a step was stored."""
    box, caller, base = services(request), caller_of(request), base_url(request)
    await box.desk.cancel(caller, job_id)
    return await box.store.read(lambda: box.reader.one(caller, job_id, base))


@delete(
    "/jobs/{job_id:str}",
    status_code=200,
    opt={"scope": "generate", "live_only": True},
    operation_id="deleteJob",
    tags=["jobs"],
    summary="Remove a job's files",
    responses=documented("not_found", "job_open", "test_key"),
)
async def delete_job(request: Request[Any, Any, Any], job_id: FromPath[str]) -> JobView:
    """Removes the files of an ended job, on record; the job and its charge stay readable."""
    box, caller, base = services(request), caller_of(request), base_url(request)
    await box.desk.delete(caller, job_id)
    return await box.store.read(lambda: box.reader.one(caller, job_id, base))


def read_query(items: list[tuple[str, Any]]) -> tuple[Filters, int, str | None]:
    """Filters, limit and cursor of a list's query; raises InvalidFields with everything that is wrong."""
    values = queries.read(items, _READERS, _METADATA)
    limit, cursor = values.pop("limit", PAGE_DEFAULT), values.pop("cursor", None)
    return Filters(**values), limit, cursor


_READERS: Final[queries.Readers] = {
    "limit": queries.limit(PAGE_MAX),
    "cursor": str,
    "status": queries.one_of(_STATUSES),
    "type": queries.one_of(_TYPES),
    "created_after": queries.time,
    "created_before": queries.time,
}
_METADATA: Final = queries.Family("metadata", re.compile(r"metadata\[(.{1,64})\]", re.DOTALL), _METADATA_MAX)
