"""The rules of jobs: what their ends decided, what is counted and kept beside them."""

from __future__ import annotations

from typing import Final

from zsky_box.ledger.verify_report import Rule

KNOWN_JOBS: Final = Rule(
    "a charge names its job",
    "transfer",
    """
    SELECT id AS row, 'is of ' || job_id || ', which there is not' AS told FROM transfer
    WHERE job_id IS NOT NULL AND NOT EXISTS (SELECT 1 FROM job WHERE job.id = transfer.job_id) ORDER BY id LIMIT 1
    """,
)

JOBS: Final = Rule(
    "a job's end decides its charge",
    "job",
    """
    SELECT id AS row, CASE
        WHEN test AND moved > 0 THEN 'is of a test key and has ' || moved || ' movements'
        WHEN test THEN NULL
        WHEN foreigners > 0 THEN 'is charged to another account'
        WHEN reserves != n OR ordinals != n OR coalesce(least, 0) != 0 OR coalesce(most, 0) != n - 1
            THEN 'has ' || reserves || ' reserves for ' || n || ' results'
        WHEN wrong_units > 0 THEN 'holds units of another kind than ' || type
        WHEN wrong_prices > 0 THEN 'holds another price than the ' || price_micros || ' micros stamped on it'
        WHEN wordmarked NOT IN (0, reserves - paid) THEN 'has ' || wordmarked || ' of its '
            || (reserves - paid) || ' included results wordmarked'
        WHEN status IN ('queued', 'running') AND posts + voids > 0 THEN 'is ' || status || ' and resolved already'
        WHEN status IN ('queued', 'running') THEN NULL
        WHEN posts + voids != reserves
            THEN 'is ' || status || ' with ' || (reserves - posts - voids) || ' of its reserves open'
        WHEN status = 'completed' AND results = 0 THEN 'is completed without a result'
        WHEN status = 'completed' AND (posts != results OR strangers > 0)
            THEN 'is completed with ' || results || ' results and ' || posts || ' posts'
        WHEN status = 'failed' AND results > 0 THEN 'is failed with ' || results || ' results'
        WHEN status = 'failed' AND (error_code = 'safety_blocked' OR (error_code = 'cancelled' AND work_begun))
            AND voids > 0 THEN 'is failed by ' || error_code || ' after its work had begun, and voided'
        WHEN status = 'failed' AND posts > 0 AND error_code != 'safety_blocked'
            AND NOT (error_code = 'cancelled' AND work_begun) THEN 'is failed by ' || error_code || ', and posted'
        END AS told
    FROM (
        SELECT j.*, count(t.id) AS moved,
            count(*) FILTER (WHERE t.account_id != j.account_id) AS foreigners,
            count(*) FILTER (WHERE t.kind = 'reserve') AS reserves,
            count(DISTINCT t.ordinal) FILTER (WHERE t.kind = 'reserve') AS ordinals,
            min(t.ordinal) FILTER (WHERE t.kind = 'reserve') AS least,
            max(t.ordinal) FILTER (WHERE t.kind = 'reserve') AS most,
            count(*) FILTER (WHERE t.kind = 'reserve' AND t.ledger = 'usd') AS paid,
            count(*) FILTER (WHERE t.kind = 'post') AS posts,
            count(*) FILTER (WHERE t.kind = 'void') AS voids,
            count(*) FILTER (WHERE t.ledger != 'usd' AND (t.ledger, t.amount) != (j.type, 1)) AS wrong_units,
            count(*) FILTER (WHERE t.kind = 'reserve' AND t.ledger = 'usd' AND t.amount != j.price_micros)
                AS wrong_prices,
            count(*) FILTER (WHERE t.kind = 'post' AND NOT EXISTS (SELECT 1 FROM asset a
                WHERE a.job_id = t.job_id AND a.ordinal = t.ordinal AND a.kind = 'result')) AS strangers,
            (SELECT count(*) FROM asset a WHERE a.job_id = j.id AND a.kind = 'result') AS results
        FROM job j LEFT JOIN transfer t ON t.job_id = j.id GROUP BY j.seq
    ) WHERE told IS NOT NULL ORDER BY seq LIMIT 1
    """,
)

IDEMPOTENCY: Final = Rule(
    "the same idempotency key is the same job",
    "idempotency",
    # The key is kept in the write that makes the job, and bears its time.
    """
    SELECT account_id || ':' || key AS row, 'answers with ' || job_id || CASE WHEN seq IS NULL
        THEN ', which there is not' ELSE ', which was made at another time' END AS told
    FROM (SELECT kept.*, job.seq, job.created_at AS made_at
        FROM (SELECT i.account_id, i.test, i.key, i.created_at, CASE WHEN json_valid(CAST(body AS TEXT))
                THEN json_extract(CAST(body AS TEXT), '$.job_id') ELSE 'what cannot be read' END AS job_id
            FROM idempotency i) kept
        LEFT JOIN job ON (job.id, job.account_id, job.test) = (kept.job_id, kept.account_id, kept.test))
    WHERE job_id IS NOT NULL AND (seq IS NULL OR created_at != made_at)
    ORDER BY created_at, row LIMIT 1
    """,
)

OPEN_JOBS: Final = Rule(
    "the queue is as long as it is counted",
    "open_jobs",
    """
    SELECT account_id || ':' || test AS row, 'is ' || sum(kept) || ', its open jobs are ' || sum(found) AS told
    FROM (SELECT account_id, test, n AS kept, 0 AS found FROM open_jobs
        UNION ALL SELECT account_id, test, 0, 1 FROM job WHERE status IN ('queued', 'running'))
    GROUP BY account_id, test HAVING sum(kept) != sum(found) ORDER BY account_id, test LIMIT 1
    """,
)

REMOVED: Final = Rule(
    "a job's results are removed with it",
    "asset",
    """
    SELECT a.id AS row, CASE WHEN a.removed_at IS NULL THEN 'is there, its job ' || j.id || ' is removed'
        ELSE 'is removed, its job ' || j.id || ' is not' END AS told
    FROM asset a JOIN job j ON j.id = a.job_id WHERE (a.removed_at IS NULL) != (j.removed_at IS NULL)
    ORDER BY a.rowid LIMIT 1
    """,
)
