"""API keys: issue, verify, rotate with overlap, revoke. A key is shown once, and kept as a keyed hash and last four."""

from __future__ import annotations

from typing import Final, Literal, get_args

from msgspec import Struct

from zsky_box import accounts, audit, ids, key_secrets, ledger
from zsky_box.accounts import Account
from zsky_box.clock import SECOND_US, rfc3339
from zsky_box.db import Row, Rows, Store, Tx
from zsky_box.errors import Refusal, not_found
from zsky_box.pricing import usd

Scope = Literal["generate", "read", "billing"]

SCOPES: Final[tuple[Scope, ...]] = get_args(Scope)
KEYS_MAX: Final = 20
OVERLAP_MAX_SECONDS: Final = 7 * 86_400
NAME_MAX: Final = 100

_USED_STEP_US: Final = 60 * SECOND_US


class Key(Struct, frozen=True):
    """A key as everybody may see it: without its secret."""

    id: str
    account_id: str
    test: bool
    last_four: str
    name: str
    scopes: tuple[Scope, ...]
    created_at: int
    expires_at: int | None = None
    revoked_at: int | None = None
    last_used_at: int | None = None
    cap_micros: int | None = None
    budget_id: str = ""
    """The first key of the line that rotations made of it: what the line has spent counts against its cap."""

    def view(self) -> dict[str, object]:
        """For lists and `--json`."""
        return {
            "id": self.id,
            "name": self.name,
            "test": self.test,
            "last_four": self.last_four,
            "scopes": list(self.scopes),
            "cap_usd": None if self.cap_micros is None else usd(self.cap_micros),
            "created_at": rfc3339(self.created_at),
            "expires_at": None if self.expires_at is None else rfc3339(self.expires_at),
            "revoked_at": None if self.revoked_at is None else rfc3339(self.revoked_at),
            "last_used_at": None if self.last_used_at is None else rfc3339(self.last_used_at),
        }


class Caller(Struct, frozen=True):
    """Who makes a request: an account through one of its keys."""

    account: Account
    key: Key
    in_person: bool = False
    """At the terminal or in the browser, not through the API with a key."""
    session_id: str = ""
    """The browser's session, where it is one."""

    @property
    def limit_id(self) -> str:
        """What requests and streams are counted under."""
        return self.session_id or self.key.id

    def require(self, scope: Scope) -> None:
        """Raise 403 `insufficient_scope` unless the key has the scope."""
        if scope not in self.key.scopes:
            raise Refusal(403, "insufficient_scope", f"This key lacks the scope {scope!r}; use one that has it.")


def require_api(rows: Rows, account: Account, period: str) -> None:
    """Raise 403 `plan_without_api` where a key would open nothing: no API in the plan, and nothing in the wallet."""
    if account.plan_in(period) == "free" and ledger.wallet_micros(rows, account.id) <= 0:
        raise Refusal(
            403,
            "plan_without_api",
            f"The plan of {account.name} is free, which has no API: choose the plan max, or fill the wallet first.",
        )


def has_rotatable(rows: Rows, account_id: str, now: int) -> bool:
    """Whether `rotate` without an id finds a key to succeed; where not, it issues the account's first."""
    return newest_live(rows, account_id, now) is not None


def newest_live(rows: Rows, account_id: str, now: int) -> Key | None:
    """The key that `rotate` without an id is about: the newest usable live one."""
    row = rows.one(_NEWEST_LIVE, (account_id, now))
    return None if row is None else _from_row(row)


def issue(
    tx: Tx,
    pepper: bytes,
    account_id: str,
    *,
    now: int,
    actor: str,
    name: str = "",
    test: bool = False,
    scopes: tuple[Scope, ...] = SCOPES,
    cap_micros: int | None = None,
    budget_id: str | None = None,
) -> tuple[Key, str]:
    """Make a key; the second value is the secret, which exists nowhere else. At most 20 usable keys an account.

    `cap_micros` is what jobs of this key may take from the wallet in a month.
    """
    usable = tx.one(
        "SELECT count(*) AS n FROM api_key WHERE account_id = ? AND revoked_at IS NULL"
        " AND (expires_at IS NULL OR expires_at > ?)",
        (account_id, now),
    )
    if usable is not None and usable["n"] >= KEYS_MAX:
        raise Refusal(409, "too_many_keys", f"An account has at most {KEYS_MAX} keys; revoke one first.")
    secret, key_id = key_secrets.new(test=test), ids.new("key")
    key = Key(
        id=key_id,
        account_id=account_id,
        test=test,
        last_four=secret[-4:],
        name=name[:NAME_MAX],
        scopes=scopes,
        created_at=now,
        cap_micros=cap_micros,
        budget_id=budget_id or key_id,
    )
    tx.execute(
        "INSERT INTO api_key (id, account_id, test, digest, last_four, name, scopes, created_at, cap_micros, budget_id)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            key.id,
            account_id,
            int(test),
            key_secrets.digest(pepper, secret),
            key.last_four,
            key.name,
            " ".join(scopes),
            now,
            cap_micros,
            key.budget_id,
        ),
    )
    _audit(tx, key, "key.issued", now, actor)
    return key, secret


def verify(store: Store, pepper: bytes, secret: str, now: int) -> Caller:
    """The caller behind a presented key; raises 401 `missing_key`, `invalid_key` or `revoked_key`."""
    if not secret:
        raise _unauthorized("missing_key", "Send your API key in the header X-API-Key.")
    row = None
    if key_secrets.well_formed(secret):
        row = store.one("SELECT * FROM api_key WHERE digest = ?", (key_secrets.digest(pepper, secret),))
    if row is None:
        raise _unauthorized("invalid_key", "This API key is not known here; check it for a missing part.")
    key = _from_row(row)
    if key.revoked_at is not None:
        raise _unauthorized("revoked_key", "This API key was revoked; use the new one.")
    if key.expires_at is not None and key.expires_at <= now:
        raise _unauthorized("revoked_key", f"This API key was rotated and ended at {rfc3339(key.expires_at)}.")
    return Caller(accounts.get(store, key.account_id), key)


def used(store: Store, key: Key, now: int) -> None:
    """Remember the use, at most once a minute, without making the request wait."""
    if key.last_used_at is None or now - key.last_used_at >= _USED_STEP_US:
        store.submit(lambda tx: tx.execute("UPDATE api_key SET last_used_at = ? WHERE id = ?", (now, key.id)))


def rotate(
    tx: Tx, pepper: bytes, account_id: str, key_id: str | None, *, overlap_seconds: int, now: int, actor: str
) -> tuple[Key, str]:
    """Issue a successor with the same name, mode and scopes and end the old key after the overlap.

    Without `key_id` the newest usable live key is meant; where none exists, the first is issued.
    """
    if not 0 <= overlap_seconds <= OVERLAP_MAX_SECONDS:
        raise Refusal(422, "invalid_field", f"The overlap is 0 to {OVERLAP_MAX_SECONDS} seconds.", field="overlap")
    old = _rotatable(tx, account_id, key_id, now)
    if old is None:
        return issue(tx, pepper, account_id, now=now, actor=actor)
    if overlap_seconds == 0:
        _end(tx, old, "revoked_at", now)
    else:
        # A key that is ending already does not live longer by being rotated again.
        ends = now + overlap_seconds * SECOND_US
        _end(tx, old, "expires_at", ends if old.expires_at is None else min(ends, old.expires_at))
    ended = _get(tx, account_id, old.id)
    before, after = ({"revoked_at": key.revoked_at, "expires_at": key.expires_at} for key in (old, ended))
    audit.append(
        tx,
        at=now,
        account_id=account_id,
        actor=actor,
        action="key.rotated",
        subject=old.id,
        before=before,
        after={**after, "budget_id": old.budget_id},
    )
    return issue(
        tx,
        pepper,
        account_id,
        now=now,
        actor=actor,
        name=old.name,
        test=old.test,
        scopes=old.scopes,
        cap_micros=old.cap_micros,
        budget_id=old.budget_id,
    )


def limit(tx: Tx, account_id: str, key_id: str, cap_micros: int | None, *, now: int, actor: str) -> Key:
    """Set what jobs of this key may take from the wallet in a month; None lifts it.

    It holds for the whole line that rotations made of the key: one that still overlaps spends from the same budget.
    """
    key = _get(tx, account_id, key_id)
    if key.cap_micros != cap_micros:
        tx.execute("UPDATE api_key SET cap_micros = ? WHERE budget_id = ?", (cap_micros, key.budget_id))
        before, after = (
            {"cap_usd": None if cap is None else usd(cap), "budget_id": key.budget_id}
            for cap in (key.cap_micros, cap_micros)
        )
        audit.append(
            tx,
            at=now,
            account_id=account_id,
            actor=actor,
            action="key.cap",
            subject=key.id,
            before=before,
            after=after,
        )
    return _get(tx, account_id, key_id)


def revoke(tx: Tx, account_id: str, key_id: str, *, now: int, actor: str) -> Key:
    """End a key at once; revoking it again changes nothing."""
    key = _get(tx, account_id, key_id)
    if key.revoked_at is None:
        _end(tx, key, "revoked_at", now)
        _audit(tx, key, "key.revoked", now, actor)
    return _get(tx, account_id, key_id)


def listed(store: Store | Rows, account_id: str) -> list[Key]:
    """All keys of an account, newest first."""
    rows = store.all(
        "SELECT * FROM api_key WHERE account_id = ? ORDER BY created_at DESC, id LIMIT 1000", (account_id,)
    )
    return [_from_row(row) for row in rows]


def caller_of_owner(store: Store) -> Caller | None:
    """The owner at the terminal: all scopes, no key."""
    account = accounts.owner(store)
    return None if account is None else in_person(account, "terminal")


def in_person(account: Account, where: str, *, since: int = 0, session_id: str = "") -> Caller:
    """A person at the terminal or in the browser: all scopes, and `where` they are stands where a key's id does."""
    key = Key(
        id=where,
        account_id=account.id,
        test=False,
        last_four="",
        name=where,
        scopes=SCOPES,
        created_at=since,
        budget_id=where,
    )
    return Caller(account, key, in_person=True, session_id=session_id)


def _rotatable(tx: Tx, account_id: str, key_id: str | None, now: int) -> Key | None:
    if key_id is not None:
        key = _get(tx, account_id, key_id)
        if key.revoked_at is not None or (key.expires_at is not None and key.expires_at <= now):
            raise Refusal(409, "revoked_key", "This key has ended already; issue a new one.")
        return key
    return newest_live(tx, account_id, now)


# One that is ending counts where there is no other: its line's scopes and cap must not be lost by rotating.
_NEWEST_LIVE: Final = (
    "SELECT * FROM api_key WHERE account_id = ? AND test = 0 AND revoked_at IS NULL"
    " AND (expires_at IS NULL OR expires_at > ?) ORDER BY expires_at IS NULL DESC, created_at DESC, rowid DESC LIMIT 1"
)


def _get(tx: Tx, account_id: str, key_id: str) -> Key:
    row = tx.one("SELECT * FROM api_key WHERE account_id = ? AND id = ?", (account_id, key_id))
    if row is None:
        raise not_found("key")
    return _from_row(row)


def _end(tx: Tx, key: Key, column: Literal["revoked_at", "expires_at"], at: int) -> None:
    tx.execute(f"UPDATE api_key SET {column} = ? WHERE id = ?", (at, key.id))  # noqa: S608 - a literal of two
    if column == "revoked_at":
        tx.tell_end(key.id)


def _audit(tx: Tx, key: Key, action: str, now: int, actor: str) -> None:
    after = {
        "last_four": key.last_four,
        "test": key.test,
        "scopes": list(key.scopes),
        "cap_usd": None if key.cap_micros is None else usd(key.cap_micros),
        "budget_id": key.budget_id,
    }
    audit.append(tx, at=now, account_id=key.account_id, actor=actor, action=action, subject=key.id, after=after)


def _from_row(row: Row) -> Key:
    return Key(
        id=row["id"],
        account_id=row["account_id"],
        test=bool(row["test"]),
        last_four=row["last_four"],
        name=row["name"],
        scopes=tuple(scope for scope in SCOPES if scope in row["scopes"].split()),
        created_at=row["created_at"],
        expires_at=row["expires_at"],
        revoked_at=row["revoked_at"],
        last_used_at=row["last_used_at"],
        cap_micros=row["cap_micros"],
        budget_id=row["budget_id"],
    )


def _unauthorized(code: str, detail: str) -> Refusal:
    return Refusal(401, code, detail, headers={"WWW-Authenticate": 'ApiKey realm="zsky-box"'})
