"""What the box counts of its own work, for a monitor on this machine or one that has the token."""

from __future__ import annotations

import hmac
from typing import Any

from litestar import Request, Response, get
from litestar.connection import ASGIConnection
from litestar.handlers.base import BaseRouteHandler

from zsky_box.api.deps import is_from_here, services
from zsky_box.errors import Refusal
from zsky_box.jobs.waiting import waiting
from zsky_box.metrics import MEDIA_TYPE


async def monitors_only(connection: ASGIConnection[Any, Any, Any, Any], _: BaseRouteHandler) -> None:
    """Litestar guard: lets in loopback peers, and who presents the setting `metrics_token`; raises 401 for others."""
    right = services(connection).settings.metrics_token
    scheme, _space, presented = connection.headers.get("authorization", "").partition(" ")
    if right and scheme.lower() == "bearer":
        if hmac.compare_digest(presented.strip().encode(), right.encode()):
            return
        raise Refusal(401, "invalid_key", "This is not the metrics_token of this box.")
    if is_from_here(connection) and "origin" not in connection.headers:
        return
    detail = "Ask from the box itself, or send its setting metrics_token as `Authorization: Bearer …`."
    raise Refusal(401, "missing_key", detail, headers={"WWW-Authenticate": "Bearer"})


@get("/metrics", guards=[monitors_only], opt={"open": True}, include_in_schema=False)
async def metrics(request: Request[Any, Any, Any]) -> Response[bytes]:
    """Counters and gauges as Prometheus reads them."""
    box = services(request)
    queue = await box.store.read(lambda: waiting(box.store))
    text = box.metrics.text(queue, box.scheduler.slots(), box.cards.readings())
    return Response(text, media_type=MEDIA_TYPE, headers={"Cache-Control": "no-store"})
