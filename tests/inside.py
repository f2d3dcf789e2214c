"""A box in this process, over real HTTP, so that a test can break it or move its clock."""

from __future__ import annotations

import threading
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import httpx

from tests.doubles.serve import ENTRY
from tests.running import free_port, hide_mini, make_owner
from tests.waiting import until
from zsky_box import settings
from zsky_box.app import Box, create_app
from zsky_box.clock import Clock, system_clock
from zsky_box.server import Server, configuration

BOUND_SECONDS: Final = 60.0


@contextmanager
def inside(folder: Path, clock: Clock = system_clock) -> Generator[tuple[Box, httpx.Client]]:
    """The box and its owner's client."""
    hide_mini(folder)
    owner: dict[str, Any] = make_owner(folder)
    configured = settings.load(folder, port=free_port(), devices="cpu", free_space_floor_bytes=0)
    box = Box(folder, configured, clock=clock, worker_entry=ENTRY)
    config = configuration(create_app(box))
    config.port = configured.port
    server = Server(box, config)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        until(lambda: server.started, "the server starts")
        with httpx.Client(base_url=f"http://127.0.0.1:{configured.port}", trust_env=False, timeout=60) as client:
            client.headers["X-API-Key"] = owner["live"]
            yield box, client
    finally:
        box.end_streams()
        server.should_exit = True
        thread.join(BOUND_SECONDS)
    assert not thread.is_alive()
