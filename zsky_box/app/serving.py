"""A box from its start to its end: made, checked, and served over HTTP until it is told to stop."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path

from zsky_box import accounts, tls
from zsky_box.api.deps import is_loopback
from zsky_box.app.box import Box
from zsky_box.app.web import create_app
from zsky_box.app.workers import ENTRY
from zsky_box.errors import SettingsError, ZskyError
from zsky_box.proxies import networks
from zsky_box.server import Server, configuration, listen
from zsky_box.settings import Settings


def serve(
    folder: Path,
    settings: Settings,
    *,
    worker_entry: str = ENTRY,
    on_started: Callable[[], None] | None = None,
) -> int:
    """Run the service until it is told to stop; the exit status.

    Raises SettingsError or StoreError when it cannot start: the address is taken, or open to others before the box has
    an owner; the folder is in use, the ledger does not verify.
    """
    holder: list[Server] = []

    def fatal(error: BaseException) -> None:
        for server in holder:
            server.fail(error)

    box = Box(folder, settings, worker_entry=worker_entry, on_fatal=fatal)
    try:
        box.check()
        _require_owner(box)
        listener = listen(settings.host, settings.port)
    except ZskyError:
        box.close()
        raise
    server = Server(box, configuration(create_app(box), tls.files(settings), networks(settings.trusted_proxies)))
    holder.append(server)
    if on_started is not None:
        threading.Thread(target=_tell_when_started, args=(server, on_started), daemon=True).start()
    server.run(sockets=[listener])
    return 1 if server.failed or not server.started else 0


def _require_owner(box: Box) -> None:
    """A box that nobody owns yet answers to its own machine only."""
    host = box.settings.host
    if accounts.owner(box.services.store) is None and host != "localhost" and not is_loopback(host):
        raise SettingsError(f"host = {host!r}: the box has no owner yet, so that only loopback is allowed; see init")


def _tell_when_started(server: Server, on_started: Callable[[], None]) -> None:
    while not (server.started or server.should_exit):
        time.sleep(0.02)
    if server.started:
        on_started()
