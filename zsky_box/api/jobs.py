"""Reading, cancelling and removing jobs."""

from __future__ import annotations

import difflib
import re
from collections import Counter
from typing import Any, Final

from litestar import Request, delete, get, post
from litestar.params import FromPath

from zsky_box.api.access import caller_of
from zsky_box.api.deps import base_url, services
from zsky_box.api.problems import documented
from zsky_box.clock import parse_rfc3339
from zsky_box.errors import FieldError, InvalidFields
from zsky_box.jobs.views import PAGE_DEFAULT, PAGE_MAX, Filters
from zsky_box.schemas import JobList, JobView

_METADATA: Final = re.compile(r"^metadata\[(.{1,64})\]$", re.DOTALL)
_STATUSES: Final = ("queued", "running", "completed", "failed")
_TYPES: Final = ("video", "image")
_FILTERS: Final = ("limit", "cursor", "status", "type", "created_after", "created_before", "metadata[KEY]")
_SHOWN_MAX: Final = 64
_NAME_MAX: Final = len("metadata[]") + 64
_METADATA_MAX: Final = 16
_ERRORS_MAX: Final = 100


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
    await box.book.cancel(caller, job_id)
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
    await box.book.delete(caller, job_id)
    return await box.store.read(lambda: box.reader.one(caller, job_id, base))


def read_query(items: list[tuple[str, Any]]) -> tuple[Filters, int, str | None]:
    """Filters, limit and cursor of a list's query; raises InvalidFields with everything that is wrong."""
    values: dict[str, Any] = {}
    metadata: list[tuple[str, str]] = []
    limit, cursor = PAGE_DEFAULT, None
    errors: list[FieldError] = []
    for name, value in items:
        try:
            if name == "limit":
                limit = _limit(value)
            elif name == "cursor":
                cursor = value
            elif name in ("status", "type"):
                values[name] = _one_of(value, _STATUSES if name == "status" else _TYPES)
            elif name in ("created_after", "created_before"):
                values[name] = _time(value)
            elif match := _METADATA.fullmatch(name):
                metadata.append((match[1], value))
            else:
                errors.append(_unknown(name[:_SHOWN_MAX]))
        except ValueError as error:
            errors.append(FieldError(name, "invalid_field", f"{name}: {error}."))
    given = Counter(name[:_NAME_MAX] for name, _ in items)
    errors += [FieldError(name, "invalid_field", f"{name}: give it once.") for name, n in given.items() if n > 1]
    if len(metadata) > _METADATA_MAX:
        errors.append(FieldError("metadata", "invalid_field", f"metadata: at most {_METADATA_MAX} filters."))
    if errors:
        raise InvalidFields(errors[:_ERRORS_MAX])
    return Filters(**values, metadata=tuple(metadata)), limit, cursor


def _unknown(name: str) -> FieldError:
    close = difflib.get_close_matches(name, _FILTERS, n=1)
    hint = f"did you mean {close[0]!r}?" if close else f"filters are {', '.join(_FILTERS)}."
    return FieldError(name, "unknown_field", f"There is no filter {name!r}; {hint}")


def _limit(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 9 and 1 <= int(text) <= PAGE_MAX):
        raise ValueError(f"give a whole number from 1 to {PAGE_MAX}")
    return int(text)


def _one_of(text: str, allowed: tuple[str, ...]) -> str:
    if text not in allowed:
        raise ValueError(f"is one of {', '.join(allowed)}")
    return text


def _time(text: str) -> int:
    try:
        return parse_rfc3339(text)
    except (ValueError, OverflowError):
        raise ValueError("give an RFC 3339 time such as 2026-11-01T00:00:00Z") from None
