"""What the owner's settings say of money and time: prices, fees, allowances and the calendar that months are of.

The zone lives in the store too: another one in the settings begins with the next period, on record.
"""

from __future__ import annotations

from typing import Final
from zoneinfo import ZoneInfo

from msgspec import Struct

from zsky_box import audit, timeline
from zsky_box.db import Store, Tx
from zsky_box.manifest import JobType
from zsky_box.periods import EVER_US, Calendar, following
from zsky_box.pricing import micros, price_micros
from zsky_box.settings import Settings

KINDS: Final[tuple[JobType, ...]] = ("video", "image")


class Terms(Struct, frozen=True):
    """The settings, read as money and time."""

    settings: Settings
    calendar: Calendar

    @classmethod
    def of(cls, settings: Settings) -> Terms:
        """Without a store: the settings' zone from ever."""
        return cls(settings, Calendar.of(settings.zone()))

    def price_micros(self, kind: JobType) -> int:
        """What one unit costs beyond the included ones."""
        return price_micros(kind, self.settings)

    def fee_micros(self, *, annual: bool) -> int:
        """What a term of the plan `max` costs: a month, or a year at once."""
        return micros(self.settings.plan_year_usd if annual else self.settings.plan_month_usd)

    @property
    def cheapest_micros(self) -> int:
        """The least that anything costs."""
        return min(self.price_micros(kind) for kind in KINDS)

    @property
    def low_wallet_micros(self) -> int:
        """A wallet below this is told of."""
        return micros(self.settings.low_wallet_usd)


def open_terms(store: Store, settings: Settings, now: int) -> Terms:
    """At start: the calendar of the store, with the settings' zone from the next period on where it is another."""
    zone = settings.timezone

    def work(tx: Tx) -> Calendar:
        tx.execute(
            "INSERT INTO calendar_zone (from_us, period, zone) SELECT ?, '', ?"
            " WHERE NOT EXISTS (SELECT 1 FROM calendar_zone)",
            (EVER_US, zone),
        )
        calendar = timeline.calendar(tx) or Calendar.of(ZoneInfo(zone))
        period = calendar.period_at(timeline.present(tx, now))
        chosen = calendar.zone_at(period.end_us).key
        # What was chosen while the clock was ahead of now gives way, or it would come true in its time.
        later = tx.execute("DELETE FROM calendar_zone WHERE from_us > ?", (period.end_us,))
        if chosen != zone:
            tx.execute(
                "INSERT INTO calendar_zone (from_us, period, zone) VALUES (?, ?, ?)"
                " ON CONFLICT (from_us) DO UPDATE SET zone = excluded.zone",
                (period.end_us, following(period.key), zone),
            )
        if chosen != zone or later.rowcount:
            audit.append(
                tx,
                at=now,
                account_id=None,
                actor="box",
                action="calendar.zone",
                subject=following(period.key),
                before={"zone": chosen},
                after={"zone": zone},
            )
        return timeline.calendar(tx) or calendar

    return Terms(settings, store.write(work))
