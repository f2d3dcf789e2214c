"""The ordered schema of `ledger.db`. Steps are only ever appended; a newer schema than the code is refused."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Final

from sqlite_utils import Database, Migrations

from zsky_box.errors import StoreError

schema: Final = Migrations("zsky_box")
VERSION: Final = 8


@schema()
def m001_accounts_and_keys(db: Database) -> None:
    """People and their keys. A key is stored only as a keyed hash and its last four characters."""
    _run(
        db,
        """
    CREATE TABLE account (
        id TEXT PRIMARY KEY,
        name TEXT NOT NULL UNIQUE,
        role TEXT NOT NULL CHECK (role IN ('owner', 'member')),
        plan TEXT NOT NULL CHECK (plan IN ('max', 'free')),
        created_at INTEGER NOT NULL
    ) STRICT;

    CREATE TABLE api_key (
        id TEXT PRIMARY KEY,
        account_id TEXT NOT NULL REFERENCES account (id),
        test INTEGER NOT NULL CHECK (test IN (0, 1)),
        digest BLOB NOT NULL UNIQUE,
        last_four TEXT NOT NULL,
        name TEXT NOT NULL,
        scopes TEXT NOT NULL,
        created_at INTEGER NOT NULL,
        expires_at INTEGER,
        revoked_at INTEGER,
        last_used_at INTEGER
    ) STRICT;
    CREATE TABLE setup_token (
        digest BLOB PRIMARY KEY,
        created_at INTEGER NOT NULL
    ) STRICT;
    CREATE INDEX api_key_by_account ON api_key (account_id, created_at);
    """,
    )


@schema()
def m002_ledger(db: Database) -> None:
    """Transfers are append-only; a reserve resolves at most once; balances are checked non-negative."""
    _run(
        db,
        """
    CREATE TABLE transfer (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        kind TEXT NOT NULL CHECK (kind IN ('topup', 'grant', 'reserve', 'post', 'void', 'refund', 'correct')),
        ledger TEXT NOT NULL CHECK (ledger IN ('usd', 'video', 'image')),
        debit TEXT NOT NULL,
        credit TEXT NOT NULL,
        amount INTEGER NOT NULL CHECK (amount > 0),
        pending_id INTEGER REFERENCES transfer (id),
        account_id TEXT NOT NULL REFERENCES account (id),
        job_id TEXT,
        ordinal INTEGER,
        period TEXT NOT NULL,
        actor TEXT NOT NULL,
        at INTEGER NOT NULL,
        CHECK ((kind IN ('post', 'void', 'refund')) = (pending_id IS NOT NULL))
    ) STRICT;
    CREATE UNIQUE INDEX transfer_resolves_once ON transfer (pending_id) WHERE kind IN ('post', 'void');
    CREATE UNIQUE INDEX transfer_refunds_once ON transfer (pending_id) WHERE kind = 'refund';
    CREATE UNIQUE INDEX transfer_reserves_once ON transfer (job_id, ordinal) WHERE kind = 'reserve';
    CREATE INDEX transfer_by_job ON transfer (job_id) WHERE job_id IS NOT NULL;
    CREATE INDEX transfer_by_account ON transfer (account_id, period);
    CREATE TRIGGER transfer_is_append_only_u BEFORE UPDATE ON transfer
        BEGIN SELECT RAISE (ABORT, 'transfers are append-only'); END;
    CREATE TRIGGER transfer_is_append_only_d BEFORE DELETE ON transfer
        BEGIN SELECT RAISE (ABORT, 'transfers are append-only'); END;

    CREATE TABLE balance (
        name TEXT NOT NULL,
        ledger TEXT NOT NULL,
        overdraft INTEGER NOT NULL CHECK (overdraft IN (0, 1)),
        debits_pending INTEGER NOT NULL DEFAULT 0 CHECK (debits_pending >= 0),
        debits_posted INTEGER NOT NULL DEFAULT 0 CHECK (debits_posted >= 0),
        credits_pending INTEGER NOT NULL DEFAULT 0 CHECK (credits_pending >= 0),
        credits_posted INTEGER NOT NULL DEFAULT 0 CHECK (credits_posted >= 0),
        PRIMARY KEY (name, ledger),
        CHECK (overdraft = 1 OR debits_pending + debits_posted <= credits_posted)
    ) STRICT, WITHOUT ROWID;

    CREATE TABLE "grant" (
        account_id TEXT NOT NULL REFERENCES account (id),
        period TEXT NOT NULL,
        kind TEXT NOT NULL CHECK (kind IN ('video', 'image')),
        units INTEGER NOT NULL CHECK (units >= 0),
        PRIMARY KEY (account_id, period, kind)
    ) STRICT, WITHOUT ROWID;

    CREATE TABLE audit (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        at INTEGER NOT NULL,
        account_id TEXT,
        actor TEXT NOT NULL,
        action TEXT NOT NULL,
        subject TEXT NOT NULL,
        before TEXT NOT NULL,
        after TEXT NOT NULL,
        transfer_id INTEGER UNIQUE REFERENCES transfer (id),
        previous BLOB NOT NULL,
        hash BLOB NOT NULL UNIQUE
    ) STRICT;
    CREATE INDEX audit_by_account ON audit (account_id, id);
    CREATE TRIGGER audit_is_append_only_u BEFORE UPDATE ON audit
        BEGIN SELECT RAISE (ABORT, 'the audit is append-only'); END;
    CREATE TRIGGER audit_is_append_only_d BEFORE DELETE ON audit
        BEGIN SELECT RAISE (ABORT, 'the audit is append-only'); END;
    """,
    )


@schema()
def m003_jobs(db: Database) -> None:
    """Jobs are the truth of what is to be done; `token` fences the attempt that may end one."""
    _run(
        db,
        """
    CREATE TABLE job (
        seq INTEGER PRIMARY KEY AUTOINCREMENT,
        id TEXT NOT NULL UNIQUE,
        account_id TEXT NOT NULL REFERENCES account (id),
        key_id TEXT NOT NULL,
        test INTEGER NOT NULL CHECK (test IN (0, 1)),
        type TEXT NOT NULL CHECK (type IN ('video', 'image')),
        model TEXT NOT NULL,
        request TEXT NOT NULL,
        prompt TEXT NOT NULL,
        priority INTEGER NOT NULL,
        n INTEGER NOT NULL CHECK (n BETWEEN 1 AND 10),
        status TEXT NOT NULL CHECK (status IN ('queued', 'running', 'completed', 'failed')),
        phase TEXT NOT NULL,
        progress REAL NOT NULL DEFAULT 0 CHECK (progress BETWEEN 0 AND 1),
        token INTEGER NOT NULL DEFAULT 0,
        attempts INTEGER NOT NULL DEFAULT 0,
        work_begun INTEGER NOT NULL DEFAULT 0 CHECK (work_begun IN (0, 1)),
        cancel_requested INTEGER NOT NULL DEFAULT 0 CHECK (cancel_requested IN (0, 1)),
        error_code TEXT,
        error TEXT,
        price_micros INTEGER NOT NULL,
        metadata TEXT NOT NULL,
        notes TEXT NOT NULL,
        receipt TEXT,
        device TEXT,
        created_at INTEGER NOT NULL,
        started_at INTEGER,
        finished_at INTEGER,
        start_deadline_at INTEGER,
        deadline_at INTEGER,
        removed_at INTEGER,
        CHECK ((status IN ('completed', 'failed')) = (finished_at IS NOT NULL)),
        CHECK ((status = 'failed') = (error_code IS NOT NULL))
    ) STRICT;
    CREATE INDEX job_open ON job (test, priority, seq) WHERE status IN ('queued', 'running');
    CREATE INDEX job_open_by_account ON job (account_id, test) WHERE status IN ('queued', 'running');
    CREATE INDEX job_with_deadline ON job (deadline_at, start_deadline_at)
        WHERE status IN ('queued', 'running') AND (deadline_at IS NOT NULL OR start_deadline_at IS NOT NULL);
    CREATE INDEX job_by_account ON job (account_id, test, seq);
    CREATE INDEX job_by_status ON job (account_id, test, status, seq);

    CREATE TABLE asset (
        id TEXT PRIMARY KEY,
        job_id TEXT NOT NULL REFERENCES job (id),
        ordinal INTEGER NOT NULL,
        kind TEXT NOT NULL CHECK (kind IN ('result', 'poster')),
        path TEXT NOT NULL,
        facts TEXT NOT NULL,
        created_at INTEGER NOT NULL,
        removed_at INTEGER,
        purged_at INTEGER,
        UNIQUE (job_id, ordinal, kind)
    ) STRICT;
    CREATE INDEX asset_to_purge ON asset (id) WHERE removed_at IS NOT NULL AND purged_at IS NULL;

    CREATE TABLE idempotency (
        account_id TEXT NOT NULL REFERENCES account (id),
        test INTEGER NOT NULL,
        key TEXT NOT NULL,
        request BLOB NOT NULL,
        status INTEGER NOT NULL,
        body BLOB NOT NULL,
        created_at INTEGER NOT NULL,
        PRIMARY KEY (account_id, test, key)
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX idempotency_by_age ON idempotency (created_at);
    """,
    )


@schema()
def m004_money(db: Database) -> None:
    """Wallets and what limits them: toggles, caps, ceilings, plans and their fees, alerts, statements that are closed.

    `spend` keeps beside the transfers what the wallet's reserves of a period hold and have paid: of the box, of each
    account, and of each key's lineage (`budget_id`: a rotated key goes on with the budget of the first).
    Rows of the audit up to `kept_since_audit_id` were written before the ledger had a clock and a calendar of its own.
    `open_jobs` is the length of the queue, counted as jobs come and go: a submit does not count it anew.
    """
    _run(
        db,
        """
    ALTER TABLE account ADD COLUMN renews TEXT NOT NULL DEFAULT 'monthly' CHECK (renews IN ('monthly', 'annual', 'no'));
    ALTER TABLE account ADD COLUMN annual INTEGER NOT NULL DEFAULT 0 CHECK (annual IN (0, 1));
    ALTER TABLE account ADD COLUMN paid_until TEXT NOT NULL DEFAULT '';
    ALTER TABLE account ADD COLUMN overage INTEGER NOT NULL DEFAULT 0 CHECK (overage IN (0, 1));
    ALTER TABLE account ADD COLUMN cap_micros INTEGER NOT NULL DEFAULT 5000000
        CHECK (cap_micros BETWEEN 5000000 AND 1000000000);
    ALTER TABLE account ADD COLUMN ceiling_micros INTEGER CHECK (ceiling_micros >= 0);
    ALTER TABLE account ADD COLUMN replenish_below_micros INTEGER;
    ALTER TABLE account ADD COLUMN replenish_add_micros INTEGER CHECK (replenish_add_micros > 0);
    ALTER TABLE account ADD COLUMN replenish_month_micros INTEGER;
    ALTER TABLE account ADD COLUMN wallet_is_low INTEGER NOT NULL DEFAULT 0 CHECK (wallet_is_low IN (0, 1));

    ALTER TABLE api_key ADD COLUMN cap_micros INTEGER CHECK (cap_micros >= 0);
    ALTER TABLE api_key ADD COLUMN budget_id TEXT NOT NULL DEFAULT '';
    UPDATE api_key SET budget_id = id;

    ALTER TABLE transfer ADD COLUMN budget_id TEXT;
    CREATE INDEX transfer_on_statement ON transfer (account_id, period, id)
        WHERE ledger = 'usd' AND kind IN ('post', 'refund');
    CREATE INDEX transfer_beside_posts ON transfer (account_id, period, id)
        WHERE ledger = 'usd' AND kind IN ('topup', 'correct', 'refund');
    ALTER TABLE job ADD COLUMN wordmarked INTEGER NOT NULL DEFAULT 0 CHECK (wordmarked BETWEEN 0 AND n);
    ALTER TABLE idempotency ADD COLUMN headers TEXT NOT NULL DEFAULT '{}';

    CREATE TABLE open_jobs (
        account_id TEXT NOT NULL,
        test INTEGER NOT NULL,
        n INTEGER NOT NULL CHECK (n >= 0),
        PRIMARY KEY (account_id, test)
    ) STRICT, WITHOUT ROWID;
    INSERT INTO open_jobs (account_id, test, n)
        SELECT account_id, test, count(*) FROM job WHERE status IN ('queued', 'running') GROUP BY account_id, test;
    CREATE TRIGGER job_is_opened AFTER INSERT ON job WHEN NEW.status IN ('queued', 'running') BEGIN
        INSERT INTO open_jobs (account_id, test, n) VALUES (NEW.account_id, NEW.test, 1)
            ON CONFLICT (account_id, test) DO UPDATE SET n = n + 1;
    END;
    CREATE TRIGGER job_is_ended AFTER UPDATE OF status ON job
        WHEN OLD.status IN ('queued', 'running') AND NEW.status IN ('completed', 'failed') BEGIN
        UPDATE open_jobs SET n = n - 1 WHERE account_id = NEW.account_id AND test = NEW.test;
    END;

    CREATE TABLE spend (
        scope TEXT NOT NULL,
        period TEXT NOT NULL,
        pending INTEGER NOT NULL DEFAULT 0 CHECK (pending >= 0),
        posted INTEGER NOT NULL DEFAULT 0 CHECK (posted >= 0),
        refunded INTEGER NOT NULL DEFAULT 0 CHECK (refunded >= 0),
        replenished INTEGER NOT NULL DEFAULT 0 CHECK (replenished >= 0),
        PRIMARY KEY (scope, period),
        CHECK (refunded <= posted)
    ) STRICT, WITHOUT ROWID;

    CREATE TABLE box (
        id INTEGER PRIMARY KEY CHECK (id = 1),
        clock_at INTEGER NOT NULL,
        ceiling_micros INTEGER CHECK (ceiling_micros >= 0),
        kept_since_audit_id INTEGER NOT NULL
    ) STRICT;
    INSERT INTO box (id, clock_at, kept_since_audit_id) VALUES (1, (SELECT coalesce(max(at), 0) FROM transfer),
        (SELECT coalesce(max(id), 0) FROM audit));

    CREATE TABLE calendar_zone (
        from_us INTEGER PRIMARY KEY,
        period TEXT NOT NULL,
        zone TEXT NOT NULL
    ) STRICT;

    CREATE TABLE plan_fee (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        account_id TEXT NOT NULL REFERENCES account (id),
        period TEXT NOT NULL,
        description TEXT NOT NULL,
        amount_micros INTEGER NOT NULL,
        annual INTEGER NOT NULL CHECK (annual IN (0, 1)),
        at INTEGER NOT NULL
    ) STRICT;
    CREATE INDEX plan_fee_by_account ON plan_fee (account_id, period);
    CREATE TRIGGER plan_fee_is_append_only_u BEFORE UPDATE ON plan_fee
        BEGIN SELECT RAISE (ABORT, 'plan fees are append-only'); END;
    CREATE TRIGGER plan_fee_is_append_only_d BEFORE DELETE ON plan_fee
        BEGIN SELECT RAISE (ABORT, 'plan fees are append-only'); END;

    CREATE TABLE closing (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        account_id TEXT NOT NULL REFERENCES account (id),
        period TEXT NOT NULL,
        start_us INTEGER NOT NULL,
        end_us INTEGER NOT NULL,
        at INTEGER NOT NULL,
        plan TEXT NOT NULL,
        plan_fee_micros INTEGER NOT NULL,
        overage_micros INTEGER NOT NULL,
        included TEXT NOT NULL,
        last_transfer_id INTEGER NOT NULL,
        voided_at INTEGER
    ) STRICT;
    CREATE UNIQUE INDEX closing_once ON closing (account_id, period) WHERE voided_at IS NULL;
    CREATE TRIGGER closing_is_append_only_u BEFORE UPDATE ON closing
        WHEN NOT (OLD.voided_at IS NULL AND NEW.voided_at IS NOT NULL
            AND (OLD.id, OLD.account_id, OLD.period, OLD.start_us, OLD.end_us, OLD.at, OLD.plan, OLD.plan_fee_micros,
                OLD.overage_micros, OLD.included, OLD.last_transfer_id)
            = (NEW.id, NEW.account_id, NEW.period, NEW.start_us, NEW.end_us, NEW.at, NEW.plan, NEW.plan_fee_micros,
                NEW.overage_micros, NEW.included, NEW.last_transfer_id))
        BEGIN SELECT RAISE (ABORT, 'a closed statement never changes'); END;
    CREATE TRIGGER closing_is_append_only_d BEFORE DELETE ON closing
        BEGIN SELECT RAISE (ABORT, 'a closed statement never changes'); END;

    CREATE TABLE alert (
        account_id TEXT NOT NULL REFERENCES account (id),
        period TEXT NOT NULL,
        cap_micros INTEGER NOT NULL,
        percent INTEGER NOT NULL CHECK (percent IN (50, 80, 100)),
        at INTEGER NOT NULL,
        PRIMARY KEY (account_id, period, cap_micros, percent)
    ) STRICT, WITHOUT ROWID;

    CREATE TABLE webhook_endpoint (
        id TEXT PRIMARY KEY,
        account_id TEXT NOT NULL REFERENCES account (id),
        url TEXT NOT NULL,
        created_at INTEGER NOT NULL,
        ended_at INTEGER
    ) STRICT;
    CREATE INDEX webhook_endpoint_by_account ON webhook_endpoint (account_id) WHERE ended_at IS NULL;
    CREATE TABLE outbox (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        endpoint_id TEXT NOT NULL REFERENCES webhook_endpoint (id),
        event TEXT NOT NULL,
        job_id TEXT NOT NULL REFERENCES job (id),
        created_at INTEGER NOT NULL,
        UNIQUE (endpoint_id, job_id, event)
    ) STRICT;
    """,
    )


@schema()
def m005_engine(db: Database) -> None:
    """What the engine keeps: reference images, how long things took here, which cards are paused, and why a job ran
    where it did. `expected_seconds` is what a job was expected to take when it came; `recipe_floor` the first of its
    model's recipes that it may still run by, since those before it ran out of memory. `job_by_flow` finds the oldest
    jobs of each account, model and priority without reading the others. An upload's `used_at` is when a job first took
    it.
    """
    _run(
        db,
        """
    ALTER TABLE job ADD COLUMN expected_seconds REAL NOT NULL DEFAULT 0 CHECK (expected_seconds >= 0);
    ALTER TABLE job ADD COLUMN recipe_floor INTEGER NOT NULL DEFAULT 0 CHECK (recipe_floor >= 0);
    ALTER TABLE job ADD COLUMN decisions TEXT NOT NULL DEFAULT '[]';
    ALTER TABLE job ADD COLUMN upload_id TEXT;
    CREATE INDEX job_by_flow ON job (test, priority, account_id, model, seq, expected_seconds) WHERE status = 'queued';
    CREATE INDEX job_by_start_deadline ON job (test, start_deadline_at)
        WHERE status = 'queued' AND start_deadline_at IS NOT NULL;
    CREATE INDEX job_by_upload ON job (upload_id) WHERE upload_id IS NOT NULL;

    CREATE TABLE upload (
        id TEXT PRIMARY KEY,
        account_id TEXT NOT NULL REFERENCES account (id),
        test INTEGER NOT NULL CHECK (test IN (0, 1)),
        path TEXT NOT NULL,
        bytes INTEGER NOT NULL CHECK (bytes > 0),
        sha256 TEXT NOT NULL,
        width INTEGER NOT NULL CHECK (width > 0),
        height INTEGER NOT NULL CHECK (height > 0),
        created_at INTEGER NOT NULL,
        used_at INTEGER,
        removed_at INTEGER
    ) STRICT;
    CREATE INDEX upload_unused ON upload (account_id, test) WHERE used_at IS NULL AND removed_at IS NULL;
    CREATE INDEX upload_by_content ON upload (account_id, test, sha256) WHERE removed_at IS NULL;
    CREATE INDEX upload_by_age ON upload (created_at) WHERE removed_at IS NULL;

    CREATE TABLE timing (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        kind TEXT NOT NULL CHECK (kind IN ('run', 'load', 'tail')),
        model TEXT NOT NULL,
        recipe TEXT NOT NULL,
        card TEXT NOT NULL,
        shape TEXT NOT NULL,
        operations REAL NOT NULL,
        seconds REAL NOT NULL CHECK (seconds >= 0),
        at INTEGER NOT NULL
    ) STRICT;
    CREATE INDEX timing_by_kind ON timing (kind, model, recipe, card, shape, id);

    CREATE TABLE card (
        name TEXT PRIMARY KEY,
        flops REAL NOT NULL CHECK (flops > 0),
        measured_at INTEGER NOT NULL
    ) STRICT;

    CREATE TABLE paused (
        device TEXT PRIMARY KEY,
        unloaded INTEGER NOT NULL CHECK (unloaded IN (0, 1)),
        since INTEGER NOT NULL
    ) STRICT;
    """,
    )


@schema()
def m006_sign_in(db: Database) -> None:
    """Passwords, the sessions of browsers, and one-time links to set a password with. Of the secrets of the last two
    only a hash is kept. A link without an end is that of `init`, which works until it is used or replaced.
    """
    _run(
        db,
        """
    CREATE TABLE password (
        account_id TEXT PRIMARY KEY REFERENCES account (id),
        hash TEXT NOT NULL,
        set_at INTEGER NOT NULL
    ) STRICT;

    CREATE TABLE session (
        digest BLOB PRIMARY KEY,
        id TEXT NOT NULL UNIQUE,
        account_id TEXT NOT NULL REFERENCES account (id),
        created_at INTEGER NOT NULL,
        used_at INTEGER NOT NULL,
        address TEXT NOT NULL,
        agent TEXT NOT NULL CHECK (length(agent) <= 200)
    ) STRICT;
    CREATE INDEX session_by_account ON session (account_id, used_at);

    CREATE TABLE invitation (
        digest BLOB PRIMARY KEY,
        account_id TEXT NOT NULL UNIQUE REFERENCES account (id),
        purpose TEXT NOT NULL CHECK (purpose IN ('setup', 'invitation', 'reset')),
        created_at INTEGER NOT NULL,
        expires_at INTEGER
    ) STRICT;
    INSERT INTO invitation (digest, account_id, purpose, created_at)
        SELECT digest, account.id, 'setup', setup_token.created_at FROM setup_token
        JOIN account ON role = 'owner' ORDER BY setup_token.created_at DESC LIMIT 1;
    DROP TABLE setup_token;
    """,
    )


@schema()
def m007_library(db: Database) -> None:
    """What the library asks: ended live jobs by account, by model and of everybody, and the words of their prompts.

    Each index has all columns that a filter looks at, so that a page skips what it does not show without reading its
    row. `prompt_words` keeps an index only, no second copy of the prompts: a prompt never changes and a job is never
    taken out. `account` is the account's id without its prefix, which all of them share: one word to the tokeniser.
    No trigger fills it: SQLite before 3.44 lets none of a schema that is not trusted write to a virtual table.
    """
    _run(
        db,
        """
    CREATE INDEX job_shown ON job (account_id, status, seq, type, created_at)
        WHERE test = 0 AND finished_at IS NOT NULL AND removed_at IS NULL;
    CREATE INDEX job_shown_by_model ON job (account_id, model, status, seq, type, created_at)
        WHERE test = 0 AND finished_at IS NOT NULL AND removed_at IS NULL;
    CREATE INDEX job_shown_to_all ON job (status, seq, type, model, created_at)
        WHERE test = 0 AND finished_at IS NOT NULL AND removed_at IS NULL;
    CREATE INDEX job_removed ON job (account_id, seq, type, model, created_at)
        WHERE test = 0 AND removed_at IS NOT NULL;

    CREATE VIRTUAL TABLE prompt_words USING fts5 (
        account, prompt, content = '', tokenize = 'unicode61 remove_diacritics 2', prefix = '2 3'
    );
    INSERT INTO prompt_words (rowid, account, prompt)
        SELECT seq, substr(account_id, 5), prompt FROM job WHERE test = 0;
    """,
    )


@schema()
def m008_turns(db: Database) -> None:
    """Where a queued job stands among those of its account: `turn`, which is in the order of `seq` until the owner
    moves a job. Between two jobs there is room for as many as can be moved there.
    """
    _run(
        db,
        """
    ALTER TABLE job ADD COLUMN turn INTEGER NOT NULL DEFAULT 0;
    UPDATE job SET turn = seq * 1048576;
    CREATE TRIGGER job_has_a_turn AFTER INSERT ON job BEGIN
        UPDATE job SET turn = NEW.seq * 1048576 WHERE seq = NEW.seq;
    END;
    DROP INDEX job_by_flow;
    CREATE INDEX job_by_flow ON job (test, priority, account_id, model, turn, expected_seconds)
        WHERE status = 'queued';
    """,
    )


def migrate(db: Database) -> None:
    """Bring the schema up to date; an existing store is copied beside itself before its schema changes."""
    version = int(db.conn.execute("PRAGMA user_version").fetchone()[0])
    if version > VERSION:
        raise StoreError(f"the store has schema {version}, this zsky-box knows {VERSION}: install a newer zsky-box")
    if version == VERSION:
        return
    if version > 0:
        _copy(db, version)
    with db.atomic():  # all steps and the version, or none: a failed step leaves the store as the copy has it
        schema.apply(db)
        db.conn.execute(f"PRAGMA user_version = {VERSION}")


def _copy(db: Database, version: int) -> None:
    """Through SQLite, which sees what is still in the WAL; the copy has its name only once it is whole."""
    path = Path(db.conn.execute("PRAGMA database_list").fetchone()[2])
    copy = path.with_name(f"{path.name}.schema-{version}")
    partial = copy.with_name(f"{copy.name}.partial")
    partial.unlink(missing_ok=True)
    partial.touch(0o600)
    with closing(sqlite3.connect(partial)) as target:
        db.conn.backup(target)
    partial.replace(copy)


def _run(db: Database, script: str) -> None:
    """Execute statement by statement: `executescript` would commit the migration's transaction first."""
    statement = ""
    for line in script.splitlines(keepends=True):
        statement += line
        if sqlite3.complete_statement(statement):
            db.conn.execute(statement)
            statement = ""
