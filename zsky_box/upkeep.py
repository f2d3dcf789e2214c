"""What goes with time: what a run left half made or half removed, and what was kept for as long as it is promised."""

from __future__ import annotations

from collections.abc import Callable

from zsky_box import idempotency, sessions
from zsky_box.assets import Assets
from zsky_box.backups import Backups
from zsky_box.clock import DAY_US, Clock
from zsky_box.db import Store
from zsky_box.settings import Settings
from zsky_box.uploads import Uploads


class Upkeep:
    """Of one data folder. `tidy` is called about every hour, `clear` before anything runs."""

    def __init__(
        self,
        store: Store,
        assets: Assets,
        uploads: Uploads,
        backups: Backups,
        settings: Settings,
        clock: Clock,
        is_stopping: Callable[[], bool],
    ) -> None:
        self._store = store
        self._assets = assets
        self._uploads = uploads
        self._backups = backups
        self._settings = settings
        self._clock = clock
        self._is_stopping = is_stopping
        self._tidied_at = 0

    def clear(self) -> None:
        """Remove what the last run left half made, and begin with what it had removed on record alone."""
        self._assets.clear_temporary()
        self._assets.purge(self._clock())
        self._backups.clear()
        self._uploads.clear()

    def tidy(self) -> None:
        """Forget what is old, back up where a backup is due, and unlink all that is removed on record alone."""
        settings, now = self._settings, self._clock()
        idle_us, whole_us = settings.session_idle_days * DAY_US, settings.session_days * DAY_US
        # Not by a clock that has just jumped, or been found at a start: keys and uploads are gone once, and for ever.
        if 0 <= now - self._tidied_at < DAY_US:
            self._store.write(lambda tx: idempotency.forget(tx, settings.idempotency_days, now))
            self._store.write(lambda tx: sessions.forget(tx, now, idle_us=idle_us, whole_us=whole_us))
            self._uploads.expire(now)
        self._tidied_at = now
        self._backups.begin_if_due()
        # A run may have died over thousands of them: some at each start and each hour would take days.
        while not self._is_stopping() and self._assets.purge(self._clock()):
            pass
