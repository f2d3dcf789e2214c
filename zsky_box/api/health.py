"""Liveness, readiness, and the box's own description."""

from __future__ import annotations

from typing import Any

import msgspec
from litestar import Request, Response, get

from zsky_box import __version__
from zsky_box.api.deps import services


@get("/healthz", include_in_schema=False, opt={"open": True})
async def healthz() -> dict[str, str]:
    """The service answers."""
    return {"status": "ok", "version": __version__}


@get("/readyz", include_in_schema=False, opt={"open": True})
async def readyz(request: Request[Any, Any, Any]) -> Response[dict[str, str]]:
    """A worker is up and jobs are taken; 503 until then."""
    box = services(request)
    if box.book.draining:
        return Response({"status": "draining"}, status_code=503)
    if not box.scheduler.is_ready():
        return Response({"status": "starting"}, status_code=503, headers={"Retry-After": "1"})
    return Response({"status": "ready"})


@get("/openapi.json", include_in_schema=False, opt={"scope": "read"})
async def document(request: Request[Any, Any, Any]) -> Response[bytes]:
    """This API as an OpenAPI 3.1 document."""
    return Response(msgspec.json.encode(request.app.state["document"]), media_type="application/json")
