"""What a row of the audit says in words."""

from __future__ import annotations

from zsky_box.clock import parse_rfc3339
from zsky_box.entries import EntryView
from zsky_box.pages import changes, usage_ledger

SOON = parse_rfc3339("2026-11-29T03:27:03Z")


def entry(action: str, **after: object) -> EntryView:
    """One of the ledger's, which no transfer stands behind."""
    return EntryView(
        id=1,
        at="2026-11-29T03:27:03Z",
        type="alert",
        action=action,
        actor="box",
        subject="acc_1:2026-11",
        job_id=None,
        transfer=None,
        before={},
        after=after,
        hash="",
    )


def test_moments_are_told_as_a_person_reads_them_and_names_within_the_box_not_at_all() -> None:
    rotated = changes.said({"expires_at": None, "revoked_at": None}, {"expires_at": SOON, "revoked_at": None})
    assert rotated == ["expires at none → 2026-11-29 03:27 UTC"]
    revoked = changes.said({"revoked_at": None}, {"revoked_at": SOON})
    assert revoked == ["revoked at none → 2026-11-29 03:27 UTC"]
    assert changes.said({}, {"budget_id": "key_1", "cap_usd": None, "test": False}) == ["cap none", "test off"]


def test_an_alert_says_how_much_of_which_cap() -> None:
    (line,) = usage_ledger.lines([entry("alert.cap_80", cap_usd="5.00", committed_usd="4.05")], {})
    assert line.detail == "80 % of the cap of $5.00 reached"
