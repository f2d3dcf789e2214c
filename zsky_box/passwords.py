"""Passwords: what one must be like, and their argon2id hashes. A hash never leaves this room but to the store.

Hashing takes much memory and time on purpose: the service does it `aside`, never in a write of the store.
"""

from __future__ import annotations

import asyncio
import string
import threading
import unicodedata
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Final, TypeVar

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

from zsky_box import audit
from zsky_box.accounts import Reader
from zsky_box.db import Tx
from zsky_box.errors import Refusal

T = TypeVar("T")

LENGTH_MIN: Final = 10
LENGTH_MAX: Final = 200
HASHING_MAX: Final = 2
"""So many are hashed at once; others wait. A storm of sign-ins takes the memory and the cores of two."""
WAITING_MAX: Final = 64
"""So many are hashed or wait for it, in the service; who comes then is told to try again in a moment."""
WAIT_SECONDS: Final = 5

_NAME_MIN: Final = 4
_ROWS: Final = (
    "0123456789 9876543210 12345678910 1234512345 1q2w3e4r5t 1qaz2wsx3edc qwertyuiop qwertzuiop azertyuiop abcdefghij"
)
_WORDS: Final = (
    "abc abcd admin adminadmin administrator asdfghjkl azerty baseball changeme changemenow correcthorsebatterystaple"
    " dragon football iloveyou letmein letmeinnow master monkey mypassword owner p@ssw0rd p@ssword passw0rd password"
    " passwordpassword pa$$word princess qwerty qwertyuiop qwertz secret shadow studio sunshine superman test testtest"
    " trustno1 welcome zsky zskybox zsky-box zskystudio"
)
_COMMON: Final = frozenset(_ROWS.split() + _WORDS.split())
_ALLOWED: Final = (
    f"A password has {LENGTH_MIN} to {LENGTH_MAX} characters, is not one of the very common ones or one character over"
    " and over, and does not contain the account's name."
)
# 46 MiB and two passes: measured at 75 ms on one core of a server of 2024.
_hasher = PasswordHasher(time_cost=2, memory_cost=46 * 1024, parallelism=1)
_slots: Final = threading.BoundedSemaphore(HASHING_MAX)
_threads: Final = ThreadPoolExecutor(HASHING_MAX, thread_name_prefix="passwords")
_waiting: Final = threading.BoundedSemaphore(WAITING_MAX)

# Of 32 random bytes that were thrown away: who has no password takes as long to be refused as who has one.
_NOBODYS: Final = "$argon2id$v=19$m=47104,t=2,p=1$/gp8D10AKS7e6VS6QdrWjg$p9jROg0WgzZ0F9ZJRgkaRgIgaBdNB9KeHPgmG++MROs"


def check(password: str, *names: str) -> None:
    """Raise 422 `invalid_field` unless the password will do for an account with these names."""
    plain = _normal(password)
    folded = plain.casefold()
    is_named = any(
        folded == name or (len(name) >= _NAME_MIN and name in folded)
        for name in (_normal(each).strip().casefold() for each in names)
    )
    fits = len(plain) >= LENGTH_MIN and max(len(plain), len(password)) <= LENGTH_MAX and len(set(plain)) > 1
    if not fits or is_named or _is_common(folded):
        raise Refusal(422, "invalid_field", _ALLOWED, field="password")


def hashed(password: str) -> str:
    """Its argon2id hash with salt and parameters; waits for its turn, then takes about a tenth of a second."""
    with _slots:
        return _hasher.hash(_encoded(password))


def matches(stored: str | None, password: str) -> bool:
    """Whether this is the password of a stored hash; None, of nobody, takes as long and is never matched."""
    possible = stored if len(password) <= LENGTH_MAX else None
    with _slots:
        try:
            return _hasher.verify(possible or _NOBODYS, _encoded(password)) and possible is not None
        except (VerificationError, InvalidHashError):
            return False


async def aside(work: Callable[[], T]) -> T:
    """Hash or compare off the event loop, on threads of its own: who signs in waits for others who do, and nobody else.

    Raises 429 `rate_limited` where too many wait already.
    """
    if not _waiting.acquire(blocking=False):
        detail = f"Too many people sign in at this moment; try again in {WAIT_SECONDS} s."
        raise Refusal(429, "rate_limited", detail, headers={"Retry-After": str(WAIT_SECONDS)})
    future = _threads.submit(work)
    future.add_done_callback(lambda _: _waiting.release())
    return await asyncio.wrap_future(future)


def is_outdated(stored: str) -> bool:
    """Whether it was made with other parameters than today's: to be made anew when its password is known."""
    return _hasher.check_needs_rehash(stored)


def set_for(tx: Tx, account_id: str, hashed: str, *, now: int, actor: str) -> None:
    """Give an account the password of this hash. A link to set one with ends: it would undo the choice later."""
    tx.execute(
        "INSERT INTO password (account_id, hash, set_at) VALUES (?, ?, ?)"
        " ON CONFLICT (account_id) DO UPDATE SET hash = excluded.hash, set_at = excluded.set_at",
        (account_id, hashed, now),
    )
    tx.execute("DELETE FROM invitation WHERE account_id = ?", (account_id,))
    audit.append(tx, at=now, account_id=account_id, actor=actor, action="password.set", subject=account_id)


def remove(tx: Tx, account_id: str, *, now: int, actor: str) -> None:
    """Leave an account without a password, on record: nobody signs in to it until another is set."""
    if tx.execute("DELETE FROM password WHERE account_id = ?", (account_id,)).rowcount:
        audit.append(tx, at=now, account_id=account_id, actor=actor, action="password.removed", subject=account_id)


def renew(tx: Tx, account_id: str, old: str, hashed: str) -> None:
    """Replace an outdated hash by another of the same password, unless the password was changed meanwhile."""
    tx.execute("UPDATE password SET hash = ? WHERE account_id = ? AND hash = ?", (hashed, account_id, old))


def hash_of(rows: Reader, account_id: str) -> str | None:
    """The hash of an account's password, or None where it has none."""
    row = rows.one("SELECT hash FROM password WHERE account_id = ?", (account_id,))
    return None if row is None else str(row["hash"])


def set_at(rows: Reader, account_id: str) -> int | None:
    """When an account's password was chosen, in microseconds; making its hash anew is no choice. None without one."""
    row = rows.one("SELECT set_at FROM password WHERE account_id = ?", (account_id,))
    return None if row is None else int(row["set_at"])


def exist(rows: Reader) -> bool:
    """Whether anybody can sign in at all."""
    return rows.one("SELECT 1 FROM password LIMIT 1") is not None


def _is_common(folded: str) -> bool:
    """A common word stays one with numbers and marks around it; a row of keys is common only as a whole."""
    word = folded.strip(string.digits + string.punctuation + string.whitespace)
    return folded in _COMMON or word in _COMMON or any(folded in row * 2 for row in _ROWS.split())


def _normal(text: str) -> str:
    """One form for what keyboards of different systems write differently, such as é."""
    return unicodedata.normalize("NFKC", text)


def _encoded(password: str) -> bytes:
    return _normal(password[: LENGTH_MAX + 1]).encode("utf-8", "surrogatepass")
