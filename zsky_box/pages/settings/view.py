"""What `/settings` shows, read of one state of the store."""

from __future__ import annotations

from typing import Any, Final

from litestar import Request, get
from litestar.response import Redirect, Template
from msgspec import Struct

from zsky_box import accounts, keys, overage, sessions, timeline
from zsky_box.accounts import Account
from zsky_box.api.deps import Services, services
from zsky_box.clock import DAY_US, rfc3339
from zsky_box.db import Rows
from zsky_box.errors import Refusal
from zsky_box.keys import NAME_MAX, SCOPES, Key
from zsky_box.ledger import alerts, spend
from zsky_box.pages import frame
from zsky_box.pages.agents import in_words
from zsky_box.pages.entry import Form, signed_in
from zsky_box.passwords import LENGTH_MAX, LENGTH_MIN
from zsky_box.pricing import MICROS_PER_USD, usd
from zsky_box.schemas import OverageView
from zsky_box.sessions import Session

ENDED_MAX: Final = 20
"""So many keys that have ended are listed; the audit has all."""
OVERLAPS: Final = (
    (0, "at once"),
    (3_600, "after an hour"),
    (86_400, "after a day"),
    (7 * 86_400, "after seven days"),
)
OVERLAP_DEFAULT_SECONDS: Final = 3_600
SCOPES_TOLD: Final = {
    "generate": "submit, cancel and delete jobs",
    "read": "jobs, results, usage and prices",
    "billing": "the overage toggle and the spend cap",
}


class KeyRow(Struct, frozen=True, kw_only=True):
    """A key as its row shows it: times as RFC 3339 or "", money as decimal strings, what its line spent this month."""

    id: str
    name: str
    test: bool
    last_four: str
    scopes: tuple[str, ...]
    cap_usd: str
    spend_usd: str
    created_at: str
    last_used_at: str
    ends_at: str


class SessionRow(Struct, frozen=True, kw_only=True):
    """A browser that is signed in."""

    id: str
    browser: str
    address: str
    created_at: str
    used_at: str
    is_this: bool


class Shown(Struct, frozen=True, kw_only=True):
    """One person's settings as they stand; `rotates` is the key that the button above all keys is about."""

    account: Account
    money: OverageView
    has_api: bool
    usable: list[KeyRow]
    ended: list[KeyRow]
    rotates: KeyRow | None
    alerts: list[dict[str, str | int]]
    sessions: list[SessionRow]
    ceiling_usd: str
    own_cap_usd: str
    committed_usd: str
    cap_high_usd: str
    fee_usd: str


@get("/settings", opt={"page": "member"}, include_in_schema=False)
async def settings(request: Request[Any, Any, Any]) -> Template:
    """API & Overage, profile and sessions of whoever is signed in."""
    return await page(request)


@get(["/settings/keys", "/settings/overage/cap", "/settings/password"], opt={"page": "member"}, include_in_schema=False)
async def after_a_refusal() -> Redirect:
    """A form that was refused stands under its own address: loading that again, or going back to it, leads here."""
    return Redirect("/settings", status_code=303)


async def page(
    request: Request[Any, Any, Any],
    *,
    wrong: dict[str, str] | None = None,
    kept: Form | None = None,
    status: int = 200,
    headers: dict[str, str] | None = None,
) -> Template:
    """The page; `wrong` says what is wrong with which form, whose fields are `kept`."""
    box, visitor = services(request), signed_in(request)

    def read() -> Shown:
        with box.store.snapshot() as rows:
            return _read(rows, box, visitor.caller.account.id, visitor.session)

    return frame.page(
        request,
        "settings.html",
        place="settings",
        title="Settings",
        status=status,
        headers=headers,
        shown=await box.store.read(read),
        wrong=wrong or {},
        kept=kept or Form([]),
        scopes=[(scope, SCOPES_TOLD[scope]) for scope in SCOPES],
        overlaps=OVERLAPS,
        overlap_default=OVERLAP_DEFAULT_SECONDS,
        keys_max=keys.KEYS_MAX,
        name_max=NAME_MAX,
        cap_min=f"{overage.CAP_MIN_MICROS // MICROS_PER_USD:,}",
        cap_max=f"{overage.CAP_MAX_MICROS // MICROS_PER_USD:,}",
        password_min=LENGTH_MIN,
        password_max=LENGTH_MAX,
        has_admin="/admin" in request.app.state["paths"],
    )


def _read(rows: Rows, box: Services, account_id: str, session: Session) -> Shown:
    now = box.clock()
    period = box.terms.calendar.period_at(timeline.present(rows, now)).key
    account = accounts.get(rows, account_id)
    found = keys.listed(rows, account_id)
    usable = [_row(rows, key, period) for key in found if is_usable(key, now)]
    ended = [key for key in found if not is_usable(key, now)][:ENDED_MAX]
    newest = keys.newest_live(rows, account_id, now)
    ceiling = account.ceiling_micros
    committed = spend.spend(rows, spend.account_scope(account_id), period)
    return Shown(
        account=account,
        money=overage.view(rows, account_id, now, box.terms),
        has_api=_has_api(rows, account, period),
        usable=usable,
        ended=[_row(rows, key, period) for key in ended],
        rotates=next((row for row in usable if newest is not None and row.id == newest.id), None),
        alerts=[
            {"percent": said.percent, "cap_usd": usd(said.cap_micros), "at": rfc3339(said.at)}
            for said in alerts.said_in(rows, account_id, period)
        ],
        sessions=_sessions(rows, box, session, now),
        ceiling_usd="" if ceiling is None else usd(ceiling),
        own_cap_usd=usd(account.cap_micros),
        committed_usd=usd(committed.committed_micros),
        cap_high_usd=usd(account.limit_micros * 8 // 10),
        fee_usd=usd(box.terms.fee_micros(annual=account.annual)),
    )


def is_usable(key: Key, now: int) -> bool:
    """Whether requests with the key are let in."""
    return key.revoked_at is None and (key.expires_at is None or key.expires_at > now)


def _row(rows: Rows, key: Key, period: str) -> KeyRow:
    ends = key.revoked_at if key.revoked_at is not None else key.expires_at
    return KeyRow(
        id=key.id,
        name=key.name,
        test=key.test,
        last_four=key.last_four,
        scopes=key.scopes,
        cap_usd="" if key.cap_micros is None else usd(key.cap_micros),
        spend_usd=usd(spend.spend(rows, spend.key_scope(key.budget_id), period).committed_micros),
        created_at=rfc3339(key.created_at),
        last_used_at="" if key.last_used_at is None else rfc3339(key.last_used_at),
        ends_at="" if ends is None else rfc3339(ends),
    )


def _has_api(rows: Rows, account: Account, period: str) -> bool:
    try:
        keys.require_api(rows, account, period)
    except Refusal:
        return False
    return True


def _sessions(rows: Rows, box: Services, this: Session, now: int) -> list[SessionRow]:
    idle_us, whole_us = box.settings.session_idle_days * DAY_US, box.settings.session_days * DAY_US
    found = sessions.listed(rows, this.account_id, now=now, idle_us=idle_us, whole_us=whole_us)
    listed = [
        SessionRow(
            id=each.id,
            browser=in_words(each.agent),
            address=each.address,
            created_at=rfc3339(each.created_at),
            used_at=rfc3339(each.used_at),
            is_this=each.id == this.id,
        )
        for each in found
    ]
    return sorted(listed, key=lambda row: not row.is_this)
