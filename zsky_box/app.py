"""The composition root: all rooms of one running box, the web application over them, and the server that carries it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import secrets as random
import socket
import threading
import time
from collections.abc import AsyncGenerator, Callable
from pathlib import Path
from typing import Final

import msgspec
from litestar import Litestar, Router
from litestar.exceptions import HTTPException
from litestar.logging import LoggingConfig
from litestar.plugins.jinja import JinjaTemplateEngine
from litestar.template.config import TemplateConfig

from zsky_box import audit, idempotency, inventory, pages, secretfile, sessions, timeline, timings, tls
from zsky_box.api import (
    account,
    files,
    generate,
    health,
    jobs,
    metrics,
    overage,
    problems,
    quote,
    statements,
    streams,
    terminal,
    uploads,
)
from zsky_box.api.access import authenticate, tell_limits
from zsky_box.api.bodies import LargeBodies, with_picture_max_bytes
from zsky_box.api.deps import Services
from zsky_box.api.document import build, config
from zsky_box.assets import Assets
from zsky_box.backups import Backups
from zsky_box.bookkeeping import Bookkeeping
from zsky_box.cards import CardWatch
from zsky_box.catalog import open_catalog
from zsky_box.checkup import Checkup
from zsky_box.clock import DAY_US, Clock, rfc3339, system_clock
from zsky_box.control import FILE_NAME as CONTROL_FILE
from zsky_box.control import Address
from zsky_box.db import InstanceLock, Store
from zsky_box.decoder import Decoder
from zsky_box.errands import Errands
from zsky_box.errors import Refusal, StoreError, ZskyError
from zsky_box.eta import Eta
from zsky_box.feed import Feed
from zsky_box.guesses import Guesses
from zsky_box.hosts import Hosts
from zsky_box.install.staging import repair_all
from zsky_box.jobs.book import JobBook
from zsky_box.jobs.desk import Desk
from zsky_box.jobs.keeper import Keeper
from zsky_box.jobs.lineup import Lineup
from zsky_box.jobs.rows import News
from zsky_box.jobs.views import JobReader
from zsky_box.library import Library
from zsky_box.metrics import Metrics
from zsky_box.pages import docs, wrong
from zsky_box.pages.files import StaticFiles, static_file
from zsky_box.pages.said import Said
from zsky_box.pauses import Pauses
from zsky_box.proxies import networks
from zsky_box.rate_limit import RateLimit
from zsky_box.record import Record
from zsky_box.restart_budget import RestartBudget
from zsky_box.room import Room
from zsky_box.scheduler import Scheduler
from zsky_box.server import Server, configuration, listen
from zsky_box.settings import CHECKOUT, Settings
from zsky_box.settings_file import SettingsFile
from zsky_box.starter import Rules
from zsky_box.tasks import Tasks
from zsky_box.terms import open_terms
from zsky_box.uploads import Uploads
from zsky_box.usage import Memo
from zsky_box.verifier import Verifier
from zsky_box.ways import InstalledWays
from zsky_box.worker import Patience, Worker

LOCK_SECONDS: Final = 1.0  # a command is done in a moment
CHAIN_ROWS_AT_START: Final = 1_000
WORKER_ENTRY: Final = "zsky_box.worker_main"
TORCH_FAMILIES: Final = ("mini", "ltx2", "flux2_klein", "z_image")

log = logging.getLogger(__name__)


class Box:
    """Everything that runs; made in the order of a start, closed in the reverse.

    `clock` and `worker_entry` are given by tests only. `on_fatal` is called when the ledger cannot be trusted any more.
    """

    def __init__(
        self,
        folder: Path,
        settings: Settings,
        *,
        clock: Clock = system_clock,
        worker_entry: str = WORKER_ENTRY,
        on_fatal: Callable[[BaseException], None] | None = None,
    ) -> None:
        self.folder = folder
        self.settings = settings
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._lock = InstanceLock(folder)
        self._lock.acquire(LOCK_SECONDS)
        self.record = Record(clock())
        self.record.listen()
        try:
            self._certificate = tls.certificate(settings)
            self._furnish(clock, worker_entry, on_fatal)
        except BaseException:
            self.record.close()
            self._lock.release()
            raise

    def _furnish(self, clock: Clock, worker_entry: str, on_fatal: Callable[[BaseException], None] | None) -> None:
        folder, settings = self.folder, self.settings
        if not timeline.is_possible(clock()):
            raise StoreError(f"the machine's clock says {rfc3339(clock())}, which cannot be; set it")
        self.secrets = secretfile.load(folder)
        self.feed = Feed(clock)
        self.store = Store(folder, on_fatal, self.feed.end)
        self.catalog = open_catalog(folder)
        for name in repair_all(self.catalog.weights):
            log.warning("the installation of %s was interrupted at its very end; it is whole again", name)
            self.record.repairs.append(f"The installation of {name} had been interrupted; it is whole again.")
        for reason in self.catalog.refused:
            log.error("a model manifest is refused: %s", reason)
        self.catalog.use_check(settings.output_check)
        outputs = Path(settings.outputs).expanduser() if settings.outputs else folder / "outputs"
        self.assets = Assets(self.store, outputs, self.secrets.signing, settings.result_url_hours)
        self.decoder = Decoder(settings.upload_max_pixels)
        self.uploads = Uploads(self.store, folder / "uploads", self.decoder, settings)
        self.terms = open_terms(self.store, settings, clock())
        news = News(self.feed, self._wake)
        self.inventory = inventory.take(settings, self.catalog.output_check)
        self.pauses = Pauses(self.store, self.inventory.devices, settings.quiet_hours, settings.zone(), clock)
        with self.store.snapshot() as rows:
            self.estimates = timings.recall(rows)
        self.metrics = Metrics()
        self.book = JobBook(
            self.store,
            self.assets,
            self.uploads,
            self.catalog,
            news,
            self.terms,
            clock,
            self.pauses,
            observer=self.metrics,
        )
        self.bookkeeping = Bookkeeping(self.store, self.terms, clock)
        self._rules = self._owners_rules()
        ways = InstalledWays(self.catalog, self.estimates)
        cards, host = self.inventory.cards, self.inventory.host_total_bytes
        self.room = Room(self.catalog, ways, cards, host, self._rules.exclusions, self._rules.pins)
        self.eta = Eta(
            self.store,
            ways,
            lambda test: self.scheduler.outlook(test=test),
            lambda job_id: self.scheduler.left(job_id),  # noqa: PLW0108 - there is no scheduler yet
            host,
        )
        self.desk = Desk(
            self.store,
            self.assets,
            self.uploads,
            self.book,
            news,
            self.terms,
            clock,
            self.eta.expected_seconds,
        )
        self.scheduler = self._new_scheduler(worker_entry, on_fatal or _no_one_to_tell)
        self.cards = CardWatch(self.inventory.devices, self.scheduler.tell_card)
        self.verifier = Verifier(self.store.path, clock)
        self.backups = Backups(folder, self.store, clock, settings.backups_kept)
        self.checkup = Checkup(folder, self.assets.root, self.catalog.weights, self.store)
        self.settings_file = SettingsFile(folder, settings, self.store, clock)
        self.errands = Errands(self.store, self.catalog, settings, clock)
        self.tasks = Tasks(
            folder,
            wake=self.scheduler.wake,
            open_ids=self.book.open_ids,
            sweep=self._sweep,
            tidy=self._tidy,
        )
        self.services = Services(
            settings=settings,
            secrets=self.secrets,
            control_token=random.token_urlsafe(32),
            clock=clock,
            store=self.store,
            catalog=self.catalog,
            assets=self.assets,
            uploads=self.uploads,
            feed=self.feed,
            news=news,
            rate_limit=RateLimit(settings.requests_per_second, settings.requests_burst, time.monotonic_ns),
            terms=self.terms,
            desk=self.desk,
            room=self.room,
            eta=self.eta,
            reader=JobReader(self.store, self.assets, clock, self.eta),
            library=Library(self.store, self.assets, clock, is_shared=settings.team_library),
            keeper=Keeper(self.store, self.book, news, clock),
            lineup=Lineup(
                self.store,
                clock,
                self.eta,
                lambda test: self.scheduler.standing(test=test),
                lambda job_id, test: self.scheduler.reason(job_id, test=test),
            ),
            pauses=self.pauses,
            errands=self.errands,
            verifier=self.verifier,
            backups=self.backups,
            settings_file=self.settings_file,
            checkup=self.checkup,
            record=self.record,
            inventory=self.inventory,
            scheduler=self.scheduler,
            cards=self.cards,
            metrics=self.metrics,
            hosts=Hosts(settings, socket.gethostname()),
            guesses=Guesses(time.monotonic_ns),
            usage_memo=Memo(),
        )
        self._clock = clock
        self._tidied_at = 0

    def check(self) -> None:
        """Before anything is served or changed: raises StoreError where the end of the ledger's chain is broken."""
        broken = audit.first_broken_row(self.store, CHAIN_ROWS_AT_START)
        if broken is not None:
            raise StoreError(f"the audit's row {broken} does not fit its chain; restore a backup")

    def start(self) -> None:
        """Reconcile what the last run left, then take jobs."""
        recovered = self.book.recover()
        if recovered:
            log.warning("%d jobs were running when the box stopped", recovered)
            self.record.repairs.append(f"{recovered} jobs were running when the box stopped; they were taken up again.")
        self.assets.clear_temporary()
        self.assets.purge(self._clock())
        self.backups.clear()
        self.uploads.clear()
        self.bookkeeping.sweep()
        self.scheduler.start()
        self.cards.start()
        self.tasks.start()
        self.verifier.begin()
        address = Address(self.settings.local_url(), self.services.control_token, os.getpid(), self._certificate)
        secretfile.write_private(self.folder / CONTROL_FILE, msgspec.json.encode(address))

    def drain(self) -> None:
        """Refuse new jobs and let the running ones end, for as long as the settings allow."""
        self.desk.draining = True
        if not self.scheduler.drain(self.settings.drain_seconds):
            log.warning(
                "some jobs still ran after %g s; they begin again after the next start", self.settings.drain_seconds
            )

    def end_streams(self) -> None:
        """End the open event streams, now and to come."""
        self.feed.close()

    def close(self) -> None:
        """End in bounded time; running attempts go back to the queue."""
        (self.folder / CONTROL_FILE).unlink(missing_ok=True)
        self.desk.draining = True
        self.feed.close()
        self.cards.stop()
        self.errands.close()
        self.verifier.close()
        self.backups.close()
        self.scheduler.stop()
        self.tasks.stop()
        self.decoder.close()
        self.store.close()
        self.record.close()
        self._lock.release()

    def _new_scheduler(self, worker_entry: str, failed: Callable[[BaseException], None]) -> Scheduler:
        settings = self.settings
        patience = Patience(
            start_seconds=settings.worker_start_timeout_seconds, silence_seconds=settings.worker_silence_timeout_seconds
        )
        chosen = self.inventory.devices
        # Workers on the processor share its cores: torch's threads of one would wait for those of another.
        threads = max(1, (os.cpu_count() or 1) // max(1, chosen.count("cpu")))

        def new_worker(device: str, test: bool) -> Worker:
            return Worker(
                device,
                ffmpeg=settings.ffmpeg or None,
                warm=() if test else self._warm_families(),
                threads=threads if device == "cpu" else None,
                uuid=self.inventory.uuids.get(device, ""),
                reserve_bytes=settings.card_reserve_bytes,
                patience=patience,
                entry=worker_entry,
            )

        def new_budget() -> RestartBudget:
            return RestartBudget(
                restarts=settings.worker_restarts_max, within_seconds=settings.worker_restart_window_seconds
            )

        return Scheduler(
            self.book,
            self.catalog,
            chosen,
            self.inventory.cards,
            self.estimates,
            new_worker,
            new_budget,
            self._rules,
            failed,
            observer=self.metrics,
        )

    def _warm_families(self) -> tuple[str, ...]:
        """What is installed and no experiment, by family; asked at each child's start, as models come meanwhile."""
        wanted = [spec for spec in self.catalog.specs.values() if not spec.experimental]
        families = {spec.family for spec in wanted if self.catalog.installed(spec) is not None} & set(TORCH_FAMILIES)
        if self.catalog.output_check is not None:
            families.add(self.catalog.output_check.family)
        return tuple(sorted(families))

    def _owners_rules(self) -> Rules:
        settings, labels, models = self.settings, list(self.inventory.cards), self.catalog.specs
        return Rules(
            host_total_bytes=self.inventory.host_total_bytes,
            job_seconds=settings.job_timeout_seconds,
            cancel_seconds=settings.worker_cancel_timeout_seconds,
            pins=inventory.models_by_device("pins", settings.pins, labels, models),
            exclusions=inventory.models_by_device("exclusions", settings.exclusions, labels, models),
            preview_steps=settings.preview_every_steps if settings.previews else 0,
        )

    def _wake(self, job_id: str | None) -> None:
        if job_id is None:
            self.scheduler.wake()
        else:
            self.tasks.ring(job_id)

    def _sweep(self) -> None:
        self.scheduler.wake()
        self.bookkeeping.sweep()

    def _tidy(self) -> None:
        settings, now = self.settings, self._clock()
        idle_us, whole_us = settings.session_idle_days * DAY_US, settings.session_days * DAY_US
        # Not by a clock that has just jumped, or been found at a start: keys and uploads are gone once, and for ever.
        if 0 <= now - self._tidied_at < DAY_US:
            self.store.write(lambda tx: idempotency.forget(tx, settings.idempotency_days, now))
            self.store.write(lambda tx: sessions.forget(tx, now, idle_us=idle_us, whole_us=whole_us))
            self.uploads.expire(now)
        self._tidied_at = now
        self.backups.begin_if_due()
        self.assets.purge(self._clock())


def _no_one_to_tell(error: BaseException) -> None:
    log.critical("the box cannot go on", exc_info=error)


def create_app(box: Box) -> Litestar:
    """The web application over a box; its lifespan starts and closes the box."""

    @contextlib.asynccontextmanager
    async def lifespan(_: Litestar) -> AsyncGenerator[None]:
        await asyncio.to_thread(box.start)
        try:
            yield
        finally:
            await asyncio.to_thread(box.close)

    beside_fields, alone = with_picture_max_bytes(box.settings), box.settings.upload_max_bytes + uploads.FORM_MAX_BYTES
    v1 = Router(
        "/v1",
        guards=[authenticate],
        route_handlers=[
            Router("", request_max_body_size=beside_fields, route_handlers=[generate.generate, quote.quote]),
            Router("", request_max_body_size=alone, route_handlers=[uploads.upload]),
            uploads.get_upload,
            uploads.delete_upload,
            generate.rerun,
            jobs.job_status,
            jobs.list_jobs,
            jobs.get_job,
            jobs.get_decisions,
            jobs.cancel,
            jobs.delete_job,
            streams.account_events,
            streams.job_events,
            account.me,
            account.models,
            overage.get_overage,
            overage.toggle,
            overage.set_cap,
            statements.get_usage,
            statements.get_usage_csv,
            statements.list_ledger,
            statements.list_ledger_csv,
            statements.list_statements,
            statements.get_statement,
            health.document,
        ],
    )
    pages.answer_head(static_file)
    app = Litestar(
        route_handlers=[
            v1,
            files.get_file,
            files.head_file,
            health.healthz,
            health.readyz,
            metrics.metrics,
            terminal.run_command,
            pages.router(),
            static_file,
        ],
        lifespan=[lifespan],
        before_send=[tell_limits],
        exception_handlers={
            Refusal: wrong.for_browsers(problems.from_refusal, wrong.refused),
            HTTPException: wrong.for_browsers(problems.from_framework, wrong.of_framework),
            StoreError: wrong.for_browsers(problems.from_store, wrong.of_store),
            Exception: wrong.for_browsers(problems.from_any, wrong.of_any),
        },
        openapi_config=config(),
        template_config=TemplateConfig(directory=CHECKOUT / "web" / "templates", engine=JinjaTemplateEngine),
        request_max_body_size=box.settings.body_max_bytes,
        multipart_form_part_limit=uploads.PARTS_MAX,
        logging_config=LoggingConfig(configure_root_logger=False, log_exceptions="never"),
    )
    app.state["services"] = box.services
    app.state["streams"] = streams.StreamCount(box.settings.streams_per_key_max, box.settings.streams_max)
    app.state["large_bodies"] = LargeBodies()
    app.state["document"] = build(app)
    app.state["docs"] = docs.draw(app, app.state["document"])
    app.state["static"] = StaticFiles(CHECKOUT / "web" / "static")
    app.state["said"] = Said()
    app.state["paths"] = frozenset(route.path for route in app.routes)
    app.state["forms"] = frozenset(route.path for route in app.routes if "GET" not in getattr(route, "methods", ()))
    return app


def serve(
    folder: Path,
    settings: Settings,
    *,
    worker_entry: str = WORKER_ENTRY,
    on_started: Callable[[], None] | None = None,
) -> int:
    """Run the service until it is told to stop; the exit status.

    Raises SettingsError or StoreError when it cannot start: the address is taken, the folder is in use, the ledger does
    not verify.
    """
    holder: list[Server] = []

    def fatal(error: BaseException) -> None:
        for server in holder:
            server.fail(error)

    box = Box(folder, settings, worker_entry=worker_entry, on_fatal=fatal)
    try:
        box.check()
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


def _tell_when_started(server: Server, on_started: Callable[[], None]) -> None:
    while not (server.started or server.should_exit):
        time.sleep(0.02)
    if server.started:
        on_started()
