"""All rooms of one box, each made once what it needs is there. None of them runs yet: `Box` starts and closes them."""

from __future__ import annotations

import logging
import secrets as random
import socket
import time
from collections.abc import Callable
from pathlib import Path

from zsky_box import inventory, secretfile, timeline, timings
from zsky_box.api.deps import Services
from zsky_box.app.workers import new_scheduler, owners_rules
from zsky_box.assets import Assets
from zsky_box.backups import Backups
from zsky_box.bookkeeping import Bookkeeping
from zsky_box.cards import CardWatch
from zsky_box.catalog import Catalog, open_catalog
from zsky_box.checkup import Checkup
from zsky_box.clock import Clock, rfc3339
from zsky_box.db import Store
from zsky_box.decoder import Decoder
from zsky_box.errands import Errands
from zsky_box.errors import StoreError
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
from zsky_box.pauses import Pauses
from zsky_box.rate_limit import RateLimit
from zsky_box.record import Record
from zsky_box.room import Room
from zsky_box.settings import Settings
from zsky_box.settings_file import SettingsFile
from zsky_box.tasks import Tasks
from zsky_box.terms import open_terms
from zsky_box.upkeep import Upkeep
from zsky_box.uploads import Uploads
from zsky_box.usage import Memo
from zsky_box.verifier import Verifier
from zsky_box.ways import InstalledWays

log = logging.getLogger(__name__)


class Rooms:
    """Of one box. `services` are those that handlers call.

    Raises SettingsError or StoreError for what a box cannot be made of: a device that is not there, a damaged ledger, a
    clock that cannot be right.
    """

    def __init__(
        self,
        folder: Path,
        settings: Settings,
        record: Record,
        clock: Clock,
        worker_entry: str,
        on_fatal: Callable[[BaseException], None],
    ) -> None:
        self._folder = folder
        self._settings = settings
        self._record = record
        self._clock = clock
        self._lay_ground(on_fatal)
        self._take_in_jobs()
        self._hand_out_jobs(worker_entry, on_fatal)
        self._keep_house()
        self.services = self._services()

    def _lay_ground(self, on_fatal: Callable[[BaseException], None]) -> None:
        """What all others stand on: the store, the catalogue, the machine, the owner's word on money and time."""
        folder, settings, clock = self._folder, self._settings, self._clock
        if not timeline.is_possible(clock()):
            raise StoreError(f"the machine's clock says {rfc3339(clock())}, which cannot be; set it")
        self._secrets = secretfile.load(folder)
        self.feed = Feed(clock)
        self.store = Store(folder, on_fatal, self.feed.end)
        self._catalog = _repaired_catalog(folder, self._record)
        self._catalog.use_check(settings.output_check)
        self._inventory = inventory.take(settings, self._catalog.output_check)
        self._terms = open_terms(self.store, settings, clock())
        self._metrics = Metrics()

    def _take_in_jobs(self) -> None:
        """Files, and the truth about jobs."""
        folder, settings, clock = self._folder, self._settings, self._clock
        outputs = Path(settings.outputs).expanduser() if settings.outputs else folder / "outputs"
        self._assets = Assets(self.store, outputs, self._secrets.signing, settings.result_url_hours)
        self.decoder = Decoder(settings.upload_max_pixels)
        self._uploads = Uploads(self.store, folder / "uploads", self.decoder, settings)
        self._news = News(self.feed, self._wake)
        self._pauses = Pauses(self.store, self._inventory.devices, settings.quiet_hours, settings.zone(), clock)
        self.book = JobBook(
            self.store,
            self._assets,
            self._uploads,
            self._catalog,
            self._news,
            self._terms,
            clock,
            self._pauses,
            observer=self._metrics,
        )

    def _hand_out_jobs(self, worker_entry: str, on_fatal: Callable[[BaseException], None]) -> None:
        """Who does them, when they will be done, and the desk that promises it."""
        with self.store.snapshot() as rows:
            estimates = timings.recall(rows)
        machine, rules = self._inventory, owners_rules(self._settings, self._catalog, self._inventory)
        self.scheduler = new_scheduler(
            self.book,
            self._catalog,
            machine,
            estimates,
            rules,
            self._settings,
            entry=worker_entry,
            failed=on_fatal,
            observer=self._metrics,
        )
        self.cards = CardWatch(machine.devices, self.scheduler.tell_card)
        ways = InstalledWays(self._catalog, estimates)
        self._room = Room(self._catalog, ways, machine.cards, machine.host_total_bytes, rules.exclusions, rules.pins)
        self.eta = Eta(
            self.store,
            ways,
            lambda test: self.scheduler.outlook(test=test),
            self.scheduler.left,
            machine.host_total_bytes,
        )
        self.desk = Desk(
            self.store,
            self._assets,
            self._uploads,
            self.book,
            self._news,
            self._terms,
            self._clock,
            self.eta.expected_seconds,
        )

    def _keep_house(self) -> None:
        """What is done beside the jobs, and the clock that calls for it."""
        folder, settings, clock = self._folder, self._settings, self._clock
        self.bookkeeping = Bookkeeping(self.store, self._terms, clock)
        self.verifier = Verifier(self.store.path, clock)
        self.backups = Backups(folder, self.store, clock, settings.backups_kept)
        self.upkeep = Upkeep(
            self.store, self._assets, self._uploads, self.backups, settings, clock, lambda: self.desk.draining
        )
        self.errands = Errands(self.store, self._catalog, settings, clock)
        self.tasks = Tasks(
            folder,
            wake=self.scheduler.wake,
            open_ids=self.book.open_ids,
            sweep=self._sweep,
            tidy=self.upkeep.tidy,
        )

    def _services(self) -> Services:
        settings, clock, store = self._settings, self._clock, self.store
        return Services(
            settings=settings,
            secrets=self._secrets,
            control_token=random.token_urlsafe(32),
            clock=clock,
            store=store,
            catalog=self._catalog,
            assets=self._assets,
            uploads=self._uploads,
            feed=self.feed,
            news=self._news,
            rate_limit=RateLimit(settings.requests_per_second, settings.requests_burst, time.monotonic_ns),
            terms=self._terms,
            desk=self.desk,
            room=self._room,
            eta=self.eta,
            reader=JobReader(store, self._assets, clock, self.eta),
            library=Library(store, self._assets, clock, is_shared=settings.team_library),
            keeper=Keeper(store, self.book, self._news, clock),
            lineup=Lineup(
                store,
                clock,
                self.eta,
                lambda test: self.scheduler.standing(test=test),
                lambda job_id, test: self.scheduler.reason(job_id, test=test),
            ),
            pauses=self._pauses,
            errands=self.errands,
            verifier=self.verifier,
            backups=self.backups,
            settings_file=SettingsFile(self._folder, settings, store, clock),
            checkup=Checkup(self._folder, self._assets.root, self._catalog.weights, store),
            record=self._record,
            inventory=self._inventory,
            scheduler=self.scheduler,
            cards=self.cards,
            metrics=self._metrics,
            hosts=Hosts(settings, socket.gethostname()),
            guesses=Guesses(time.monotonic_ns),
            usage_memo=Memo(),
        )

    def _wake(self, job_id: str | None) -> None:
        if job_id is None:
            self.scheduler.wake()
        else:
            self.tasks.ring(job_id)

    def _sweep(self) -> None:
        self.scheduler.wake()
        self.bookkeeping.sweep()


def _repaired_catalog(folder: Path, record: Record) -> Catalog:
    """The catalogue, once what a death left between two renames is whole again; what is refused of it is logged."""
    catalog = open_catalog(folder)
    for name in repair_all(catalog.weights):
        log.warning("the installation of %s was interrupted at its very end; it is whole again", name)
        record.repairs.append(f"The installation of {name} had been interrupted; it is whole again.")
    for reason in catalog.refused:
        log.error("a model manifest is refused: %s", reason)
    return catalog
