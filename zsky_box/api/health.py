"""Liveness, readiness, and the box's own description."""

from __future__ import annotations

from typing import Any

from litestar import Request, Response, get
from litestar.openapi import ResponseSpec

from zsky_box import __version__
from zsky_box.api.deps import services
from zsky_box.api.problems import documented


@get(
    "/healthz",
    opt={"open": True},
    operation_id="getLiveness",
    tags=["health"],
    summary="Does the service answer",
)
async def healthz() -> dict[str, str]:
    """The service answers."""
    return {"status": "ok", "version": __version__}


@get(
    "/readyz",
    opt={"open": True},
    operation_id="getReadiness",
    tags=["health"],
    summary="Are jobs taken",
    responses={503: ResponseSpec(dict[str, str], description="Starting, or stopping", generate_examples=False)},
)
async def readyz(request: Request[Any, Any, Any]) -> Response[dict[str, str]]:
    """A worker is up and jobs are taken; 503 until then."""
    box = services(request)
    if box.desk.draining:
        return Response({"status": "draining"}, status_code=503, headers={"Retry-After": "10"})
    if not box.scheduler.is_ready():
        return Response({"status": "starting"}, status_code=503, headers={"Retry-After": "1"})
    return Response({"status": "ready"})


@get(
    "/openapi.json",
    opt={"scope": "read"},
    operation_id="getDocument",
    tags=["health"],
    summary="This document",
    responses=documented(),
)
async def document(request: Request[Any, Any, Any]) -> Response[dict[str, Any]]:
    """This API as an OpenAPI 3.1 document."""
    return Response(request.app.state["document"])
