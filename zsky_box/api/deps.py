"""What handlers need of the running box, and the addresses they give out."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from typing import Any

from litestar.connection import ASGIConnection

from zsky_box.assets import Assets
from zsky_box.backups import Backups
from zsky_box.cards import CardWatch
from zsky_box.catalog import Catalog
from zsky_box.checkup import Checkup
from zsky_box.clock import Clock
from zsky_box.db import Store
from zsky_box.errands import Errands
from zsky_box.eta import Eta
from zsky_box.feed import Feed
from zsky_box.guesses import Guesses
from zsky_box.hosts import Hosts, is_wellformed
from zsky_box.inventory import Inventory
from zsky_box.jobs.desk import Desk
from zsky_box.jobs.keeper import Keeper
from zsky_box.jobs.lineup import Lineup
from zsky_box.jobs.rows import News
from zsky_box.jobs.views import JobReader
from zsky_box.library import Library
from zsky_box.metrics import Metrics
from zsky_box.pauses import Pauses
from zsky_box.proxies import FORWARDING
from zsky_box.rate_limit import RateLimit
from zsky_box.record import Record
from zsky_box.room import Room
from zsky_box.scheduler import Scheduler
from zsky_box.secretfile import Secrets
from zsky_box.settings import Settings
from zsky_box.settings_file import SettingsFile
from zsky_box.terms import Terms
from zsky_box.uploads import Uploads
from zsky_box.usage import Memo
from zsky_box.verifier import Verifier


@dataclass(frozen=True, kw_only=True)
class Services:
    """The rooms that handlers call; one per running box."""

    settings: Settings
    secrets: Secrets
    control_token: str
    clock: Clock
    store: Store
    catalog: Catalog
    assets: Assets
    uploads: Uploads
    feed: Feed
    news: News
    rate_limit: RateLimit
    terms: Terms
    desk: Desk
    room: Room
    eta: Eta
    reader: JobReader
    library: Library
    keeper: Keeper
    lineup: Lineup
    pauses: Pauses
    errands: Errands
    verifier: Verifier
    backups: Backups
    settings_file: SettingsFile
    checkup: Checkup
    record: Record
    inventory: Inventory
    scheduler: Scheduler
    cards: CardWatch
    metrics: Metrics
    hosts: Hosts
    guesses: Guesses
    usage_memo: Memo


def services(connection: ASGIConnection[Any, Any, Any, Any]) -> Services:
    """The running box behind a request."""
    return connection.app.state["services"]


def base_url(connection: ASGIConnection[Any, Any, Any, Any]) -> str:
    """`public_url`, else the address that the request itself used, else the socket's own; no final slash."""
    return services(connection).settings.public_url or own_url(connection)


def own_url(connection: ASGIConnection[Any, Any, Any, Any]) -> str:
    """The address that the request itself used, else the socket's own; no final slash."""
    host = connection.headers.get("host", "")
    if not is_wellformed(host):
        settings = services(connection).settings
        address, port = connection.scope.get("server") or (settings.host, settings.port)
        host = f"[{address}]:{port}" if ":" in address else f"{address}:{port}"
    return f"{connection.scope['scheme']}://{host}"


def is_from_here(connection: ASGIConnection[Any, Any, Any, Any]) -> bool:
    """Whether who asks is on this machine: its loopback, also as `::ffff:…`, and no proxy in between that says so."""
    is_forwarded = any(name in connection.headers for name in FORWARDING)
    return not is_forwarded and is_loopback(connection.client.host if connection.client else "")


def is_loopback(address: str) -> bool:
    """Whether this is an address of the machine's loopback."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return False
    mapped = getattr(parsed, "ipv4_mapped", None)
    return (mapped or parsed).is_loopback
