"""The rules that one look at a row and its relatives can decide, each a query for the rows that break it.

A query gives the broken row's name and what is wrong with it, the first broken row first. What needs the order of all
movements is replayed instead.
"""

from __future__ import annotations

from typing import Final

from zsky_box.ledger.verify_jobs import IDEMPOTENCY, JOBS, KNOWN_JOBS, OPEN_JOBS, REMOVED
from zsky_box.ledger.verify_report import Rule

DOUBLE_ENTRY: Final = Rule(
    "debits equal credits",
    "balance",
    """
    SELECT ledger AS row, 'balances do not sum up: debits less credits are ' || posted || ' posted, ' || pending
        || ' pending' AS told
    FROM (SELECT ledger, sum(debits_posted) - sum(credits_posted) AS posted,
        sum(debits_pending) - sum(credits_pending) AS pending FROM balance GROUP BY ledger)
    WHERE posted != 0 OR pending != 0 ORDER BY ledger LIMIT 1
    """,
)

SHAPES: Final = Rule(
    "a movement is between the balances of its kind",
    "transfer",
    """
    SELECT id AS row, 'is a ' || kind || ' of ' || ledger || ' from ' || debit || ' to ' || credit AS told FROM transfer
    WHERE NOT CASE kind
        WHEN 'topup' THEN (ledger, debit, credit) = ('usd', 'funding', 'wallet:' || account_id)
        WHEN 'correct' THEN ledger = 'usd' AND ((debit, credit) = ('funding', 'wallet:' || account_id)
            OR (debit, credit) = ('wallet:' || account_id, 'funding'))
        WHEN 'grant' THEN ledger != 'usd'
            AND (debit, credit) = ('issuer', 'included:' || account_id || ':' || period)
        WHEN 'reserve' THEN job_id IS NOT NULL AND ordinal IS NOT NULL AND CASE ledger
            WHEN 'usd' THEN (debit, credit) = ('wallet:' || account_id, 'revenue') AND budget_id IS NOT NULL
            ELSE (debit, credit) = ('included:' || account_id || ':' || period, 'consumed') END
        ELSE 1 END
    ORDER BY id LIMIT 1
    """,
)

RESOLUTIONS: Final = Rule(
    "a post or a void says what its reserve says",
    "transfer",
    """
    SELECT t.id AS row, 'is a ' || t.kind || ' that differs from what it resolves, transfer ' || t.pending_id AS told
    FROM transfer t LEFT JOIN transfer r ON r.id = t.pending_id
    WHERE t.kind IN ('post', 'void') AND (r.id IS NULL OR r.id > t.id
        OR (r.kind, r.account_id, r.job_id, r.ordinal, r.ledger, r.amount, r.debit, r.credit, r.period, r.budget_id)
        IS NOT ('reserve', t.account_id, t.job_id, t.ordinal, t.ledger, t.amount, t.debit, t.credit, t.period,
            t.budget_id))
    ORDER BY t.id LIMIT 1
    """,
)

REFUNDS: Final = Rule(
    "a refund pays back what its post took",
    "transfer",
    """
    SELECT t.id AS row, 'is a refund that differs from what it pays back, transfer ' || t.pending_id AS told
    FROM transfer t LEFT JOIN transfer p ON p.id = t.pending_id
    WHERE t.kind = 'refund' AND (p.id IS NULL OR p.id > t.id
        OR (p.kind, p.account_id, p.job_id, p.ordinal, p.ledger, p.amount, p.credit, p.budget_id)
        IS NOT ('post', t.account_id, t.job_id, t.ordinal, t.ledger, t.amount, t.debit, t.budget_id)
        OR t.credit != CASE t.ledger WHEN 'usd' THEN p.debit ELSE 'issuer' END)
    ORDER BY t.id LIMIT 1
    """,
)

RESOLVED_ONCE: Final = Rule(
    "a reserve is resolved at most once",
    "transfer",
    """
    SELECT max(id) AS row, 'resolves transfer ' || pending_id || ' once more' AS told FROM transfer
    WHERE kind IN ('post', 'void') GROUP BY pending_id HAVING count(*) > 1 ORDER BY row LIMIT 1
    """,
)

REFUNDED_ONCE: Final = Rule(
    "a post is refunded at most once",
    "transfer",
    """
    SELECT max(id) AS row, 'refunds transfer ' || pending_id || ' once more' AS told FROM transfer
    WHERE kind = 'refund' GROUP BY pending_id HAVING count(*) > 1 ORDER BY row LIMIT 1
    """,
)

AUDITED: Final = Rule(
    "each movement has one audit row that says the same",
    "transfer",
    """
    SELECT t.id AS row, CASE WHEN a.id IS NULL THEN 'has no audit row'
        ELSE 'differs from its audit row ' || a.id END AS told
    FROM transfer t LEFT JOIN audit a ON a.transfer_id = t.id
    WHERE (a.action, a.account_id, a.actor, a.at, a.subject, CASE WHEN json_valid(a.after)
            THEN json_extract(a.after, '$.ledger', '$.amount', '$.debit', '$.credit') END)
        IS NOT ('ledger.' || t.kind, t.account_id, t.actor, t.at, coalesce(t.job_id, t.account_id || ':' || t.period),
            json_array(t.ledger, t.amount, t.debit, t.credit))
    ORDER BY t.id LIMIT 1
    """,
)

MOVED: Final = Rule(
    "each audit row of a movement has its movement",
    "audit",
    """
    SELECT a.id AS row, CASE WHEN a.transfer_id IS NULL THEN 'is a ' || a.action || ' of no transfer'
        ELSE 'is a ' || a.action || ' of transfer ' || a.transfer_id || ', which there is not' END AS told
    FROM audit a LEFT JOIN transfer t ON t.id = a.transfer_id
    WHERE (a.action LIKE 'ledger.%') != (a.transfer_id IS NOT NULL) OR (a.transfer_id IS NOT NULL AND t.id IS NULL)
    ORDER BY a.id LIMIT 1
    """,
)

# Keys, accounts and zones are no entries of money: they bear the box's own clock, as it was when they were asked for.
CLOCK: Final = Rule(
    "the ledger's clock never runs backwards",
    "audit",
    """
    SELECT id AS row, 'is of an earlier time than row ' || before || ' before it' AS told
    FROM (SELECT id, at, action, lag(at) OVER past AS latest, lag(id) OVER past AS before FROM audit
        WHERE action NOT LIKE 'key.%' AND action NOT IN ('account.created', 'calendar.zone')
            AND id > (SELECT kept_since_audit_id FROM box)
        WINDOW past AS (ORDER BY id))
    WHERE at < latest AND action != 'clock.accepted' ORDER BY id LIMIT 1
    """,
)

PRESENT: Final = Rule(
    "the ledger's clock is not behind its last movement",
    "box",
    """
    SELECT box.id AS row, 'is at ' || clock_at || ', audit row ' || last.id || ' is of ' || at AS told
    FROM box, (SELECT id, at FROM audit WHERE transfer_id IS NOT NULL OR action = 'clock.accepted'
        ORDER BY id DESC LIMIT 1) last
    WHERE clock_at < at
    """,
)

GRANTS: Final = Rule(
    "a plan's units are granted once",
    "grant",
    """
    SELECT account_id || ':' || period || ':' || kind AS row,
        'is ' || sum(units) || ' units, its transfers grant ' || sum(moved) AS told
    FROM (SELECT account_id, period, kind, units, 0 AS moved FROM "grant"
        UNION ALL SELECT account_id, period, ledger, 0, amount FROM transfer WHERE kind = 'grant' AND actor = 'plan')
    GROUP BY account_id, period, kind HAVING sum(units) != sum(moved) ORDER BY period, row LIMIT 1
    """,
)

STATEMENTS: Final = Rule(
    "a closed statement never changes",
    "closing",
    """
    SELECT id AS row, CASE
        WHEN fee != plan_fee_micros THEN 'has a plan fee of ' || plan_fee_micros || ' micros, on record are ' || fee
        WHEN overage != overage_micros
            THEN 'has an overage of ' || overage_micros || ' micros, its transfers say ' || overage
        WHEN later IS NOT NULL THEN 'is followed by transfer ' || later || ' of the same period' END AS told
    FROM (SELECT c.*,
        (SELECT coalesce(sum(amount_micros), 0) FROM plan_fee f
            WHERE f.account_id = c.account_id AND f.period = c.period) AS fee,
        (SELECT coalesce(sum(CASE kind WHEN 'post' THEN amount ELSE -amount END), 0) FROM transfer t
            WHERE t.account_id = c.account_id AND t.period = c.period AND ledger = 'usd'
            AND kind IN ('post', 'refund')) AS overage,
        (SELECT min(id) FROM transfer t WHERE t.account_id = c.account_id AND t.period = c.period
            AND t.id > c.last_transfer_id) AS later
        FROM closing c WHERE voided_at IS NULL)
    WHERE told IS NOT NULL ORDER BY id LIMIT 1
    """,
)

RULES: Final = (
    DOUBLE_ENTRY,
    SHAPES,
    RESOLUTIONS,
    RESOLVED_ONCE,
    REFUNDS,
    REFUNDED_ONCE,
    KNOWN_JOBS,
    JOBS,
    GRANTS,
    AUDITED,
    MOVED,
    CLOCK,
    PRESENT,
    STATEMENTS,
    IDEMPOTENCY,
    OPEN_JOBS,
    REMOVED,
)
