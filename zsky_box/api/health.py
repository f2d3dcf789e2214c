"""Liveness, readiness, and the box's own description."""

from __future__ import annotations

from typing import Any, Literal

from litestar import Request, Response, get
from litestar.openapi import ResponseSpec
from msgspec import Struct

from zsky_box import __version__
from zsky_box.api.deps import services
from zsky_box.api.problems import documented


class Readiness(Struct, frozen=True, omit_defaults=True):
    """Whether jobs are begun; `quarantined` has each device that is out of service, and why."""

    status: Literal["ready", "starting", "draining", "paused", "quarantined"]
    quarantined: dict[str, str] = {}


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
    responses={503: ResponseSpec(Readiness, description="No job is begun now", generate_examples=False)},
)
async def readyz(request: Request[Any, Any, Any]) -> Response[Readiness]:
    """A worker is up and jobs are taken; 503 until then. `quarantined` names the devices that are out of service."""
    box = services(request)
    slots = [slot for slot in box.scheduler.slots() if not slot.test]
    quarantined = {slot.label: f"It {slot.reason}." for slot in slots if slot.state == "quarantined"}
    if box.desk.draining:
        return Response(Readiness("draining", quarantined), status_code=503, headers={"Retry-After": "10"})
    if len(quarantined) == len(slots):
        return Response(Readiness("quarantined", quarantined), status_code=503, headers={"Retry-After": "60"})
    if all(slot.paused or slot.state == "quarantined" for slot in slots):
        return Response(Readiness("paused", quarantined), status_code=503, headers={"Retry-After": "60"})
    if not box.scheduler.is_ready():
        return Response(Readiness("starting", quarantined), status_code=503, headers={"Retry-After": "1"})
    return Response(Readiness("ready", quarantined))


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
