"""Every way into the application, read from its own routes: one that is added is held to what all are held to."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from litestar.routes import HTTPRoute
from msgspec import Struct

from tests.running import make_owner
from zsky_box.app import Box, create_app
from zsky_box.settings import Settings

KEYLESS = ("/files/", "/healthz", "/readyz", "/metrics", "/control", "/static/")
"""Open beside the pages, or behind a proof of their own; tests/api has theirs."""


class Way(Struct, frozen=True):
    """One method of one address: a page's audience, or "api" where a key or a session opens it."""

    method: str
    path: str
    audience: str

    @property
    def names(self) -> list[str]:
        """What its address has to be told."""
        return re.findall(r"{(\w+):\w+}", self.path)

    @property
    def address(self) -> str:
        """With ids that name nothing."""
        return re.sub(r"{(\w+):\w+}", r"\1_0", self.path)

    def with_ids(self, ids: dict[str, str]) -> str:
        """With these."""
        return re.sub(r"{(\w+):\w+}", lambda found: ids[found[1]], self.path)


def all_ways(folder: Path) -> list[Way]:
    """All but those that stand open for a reason; `folder` is a fresh one."""
    make_owner(folder)
    box = Box(folder, Settings(devices="cpu"))
    try:
        return [
            Way(str(method), route.path, _audience(route.path, handler.opt))
            for route in create_app(box).routes
            if isinstance(route, HTTPRoute) and not route.path.startswith(KEYLESS)
            for method, (handler, _) in route.route_handler_map.items()
            if method != "OPTIONS"
        ]
    finally:
        box.close()


def _audience(path: str, opt: dict[str, Any]) -> str:
    return str(opt.get("page", "api" if path.startswith("/v1/") else "nobody's"))
