"""A service whose jobs never run: `python -m scripts.bench.serving VARIANT DATA PORT`.

Everything before the book of jobs is the service's own: server, routes, keys, bodies, models. The variants:

- `durable`: the real store and the real book;
- `unwritten`: the key is looked up in the store, and the book answers without writing anything;
- `no-database`: the key comes from memory as well.
"""

from __future__ import annotations

import dataclasses
import logging
import sys
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any, Final, TypeVar

import msgspec

from zsky_box import ids, settings
from zsky_box.api.deps import Services
from zsky_box.app import Box, create_app
from zsky_box.clock import rfc3339
from zsky_box.db import Row, Store, Tx
from zsky_box.idempotency import Answer, Idempotency
from zsky_box.jobs.desk import Desk
from zsky_box.jobs.rows import News
from zsky_box.keys import Caller
from zsky_box.requests import Submission
from zsky_box.schemas import JobAccepted
from zsky_box.server import Server, configuration, listen
from zsky_box.uploads import Offered

T = TypeVar("T")
NEVER_READY: Final = "tests.doubles.worker_never_ready"
VARIANTS: Final = ("durable", "unwritten", "no-database")


class Unwritten(Desk):
    """Answers a submit as the desk does, and stores nothing."""

    def __init__(self, box: Box) -> None:
        news = News(box.services.feed, _unwoken)
        super().__init__(
            box.services.store,
            box.services.assets,
            box.services.uploads,
            box.rooms.book,
            news,
            box.services.terms,
            box.services.clock,
            box.services.eta.expected_seconds,
        )
        self._now = box.services.clock

    async def submit(
        self,
        caller: Caller,
        submission: Submission,
        key: Idempotency | None,  # noqa: ARG002
        picture: Offered | None = None,  # noqa: ARG002
    ) -> Answer:
        """The same answer, at once."""
        self._check_space()
        work = submission.work
        accepted = JobAccepted(
            job_id=ids.new("job"),
            status="queued",
            type=work.type,
            model=work.model,
            seed=work.seed,
            n=work.n,
            width=work.width,
            height=work.height,
            duration=work.duration_seconds or None,
            fps=work.fps or None,
            created_at=rfc3339(self._now()),
            test=caller.key.test,
            notes=list(submission.notes),
        )
        return Answer(202, msgspec.json.encode(accepted))


class OneKey(Store):
    """Knows the rows that it was once asked for by heart: the key's. Stores nothing."""

    def __init__(self, store: Store) -> None:  # the store's own beginning would open its files
        self._kept: dict[str, Row] = {}
        self._store = store

    def one(self, sql: str, parameters: dict[str, Any] | tuple[Any, ...] = ()) -> Row | None:
        """The row as it was read the first time."""
        asked = f"{sql} {parameters}"
        row = self._kept.get(asked) or self._store.one(sql, parameters)
        if row is not None:
            self._kept[asked] = row
        return row

    def submit(self, work: Callable[[Tx], T]) -> Future[T]:  # noqa: ARG002
        """The note of a key's use is dropped."""
        return Future()


def _unwoken(job_id: str | None) -> None: ...


def services(box: Box, variant: str) -> Services:
    """What the handlers call."""
    if variant == "durable":
        return box.services
    changed = dataclasses.replace(box.services, desk=Unwritten(box))
    return changed if variant == "unwritten" else dataclasses.replace(changed, store=OneKey(box.services.store))


def main(variant: str, folder: str, port: str) -> int:
    """Serve until told to stop."""
    if variant not in VARIANTS:
        raise SystemExit(f"VARIANT is one of {', '.join(VARIANTS)}")
    logging.basicConfig(level="WARNING")
    configured = settings.load(Path(folder), port=port)
    box = Box(Path(folder), configured, worker_entry=NEVER_READY)
    application = create_app(box)
    application.state["services"] = services(box, variant)
    server = Server(box, configuration(application))
    server.run(sockets=[listen(configured.host, configured.port)])
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
