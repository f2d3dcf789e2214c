"""Who works, and by whose rules: the scheduler with a worker child for each device, as the owner's settings have it."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Final

from zsky_box import inventory
from zsky_box.catalog import Catalog
from zsky_box.estimates import Estimates
from zsky_box.inventory import Inventory
from zsky_box.job_source import JobSource
from zsky_box.observer import Observer
from zsky_box.restart_budget import RestartBudget
from zsky_box.scheduler import Scheduler
from zsky_box.settings import Settings
from zsky_box.starter import Rules
from zsky_box.worker import Patience, Worker

ENTRY: Final = "zsky_box.worker_main"
TORCH_FAMILIES: Final = ("mini", "ltx2", "flux2_klein", "z_image")
"""Those whose libraries take seconds to import, which a child does before its first job."""


def owners_rules(settings: Settings, catalog: Catalog, machine: Inventory) -> Rules:
    """What the settings say of jobs and devices; raises SettingsError where they name what is not there."""
    labels = list(machine.cards)
    return Rules(
        host_total_bytes=machine.host_total_bytes,
        job_seconds=settings.job_timeout_seconds,
        cancel_seconds=settings.worker_cancel_timeout_seconds,
        pins=inventory.models_by_device("pins", settings.pins, labels, catalog.specs),
        exclusions=inventory.models_by_device("exclusions", settings.exclusions, labels, catalog.specs),
        preview_steps=settings.preview_every_steps if settings.previews else 0,
    )


def new_scheduler(
    jobs: JobSource,
    catalog: Catalog,
    machine: Inventory,
    estimates: Estimates,
    rules: Rules,
    settings: Settings,
    *,
    entry: str,
    failed: Callable[[BaseException], None],
    observer: Observer,
) -> Scheduler:
    """A scheduler over the machine's devices; `entry` is the module that a child runs."""
    patience = Patience(
        start_seconds=settings.worker_start_timeout_seconds, silence_seconds=settings.worker_silence_timeout_seconds
    )
    # Workers on the processor share its cores: torch's threads of one would wait for those of another.
    threads = max(1, (os.cpu_count() or 1) // max(1, machine.devices.count("cpu")))

    def new_worker(device: str, test: bool) -> Worker:
        return Worker(
            device,
            ffmpeg=settings.ffmpeg or None,
            warm=() if test else _warm_families(catalog),
            threads=threads if device == "cpu" else None,
            uuid=machine.uuids.get(device, ""),
            reserve_bytes=settings.card_reserve_bytes,
            patience=patience,
            entry=entry,
        )

    def new_budget() -> RestartBudget:
        return RestartBudget(
            restarts=settings.worker_restarts_max, within_seconds=settings.worker_restart_window_seconds
        )

    return Scheduler(
        jobs,
        catalog,
        machine.devices,
        machine.cards,
        estimates,
        new_worker,
        new_budget,
        rules,
        failed,
        observer=observer,
    )


def _warm_families(catalog: Catalog) -> tuple[str, ...]:
    """What is installed and no experiment, by family; asked at each child's start, as models come meanwhile."""
    wanted = [spec for spec in catalog.specs.values() if not spec.experimental]
    families = {spec.family for spec in wanted if catalog.installed(spec) is not None} & set(TORCH_FAMILIES)
    if catalog.output_check is not None:
        families.add(catalog.output_check.family)
    return tuple(sorted(families))
