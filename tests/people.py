"""People of a running box: their passwords, and clients that are signed in as a browser would be."""

from __future__ import annotations

import re
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import httpx
from argon2 import PasswordHasher

from tests.running import TLS, RunningBox
from zsky_box import accounts, passwords
from zsky_box.accounts import Plan
from zsky_box.clock import system_clock
from zsky_box.db import Store, Tx
from zsky_box.errors import Refusal

PASSWORD: Final = "a lantern over wet stones"
_HASH: Final = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1).hash(PASSWORD)
"""With less work than the box's own, which it makes anew at the first sign-in."""


def add_people(folder: Path, *members: str, plan: Plan = "max") -> dict[str, str]:
    """Give the owner of a stopped box the password, and add members who have it too; their ids by their names."""
    store, now = Store(folder), system_clock()

    def work(tx: Tx) -> dict[str, str]:
        for name in members:
            try:
                accounts.named(tx, name)
            except Refusal:
                accounts.add_member(tx, name, plan, annual=False, now=now)
        everybody = accounts.everybody(tx)
        for account in everybody:
            if passwords.hash_of(tx, account.id) is None:
                passwords.set_for(tx, account.id, _HASH, now=now, actor="test")
        return {account.name: account.id for account in everybody}

    try:
        return store.write(work)
    finally:
        store.close()


@contextmanager
def signed_in(box: RunningBox, name: str = "owner", password: str = PASSWORD) -> Generator[Browser]:
    """A client with a session of this person."""
    with Browser(box) as browser:
        browser.sign_in(name, password)
        yield browser


class Browser(httpx.Client):
    """A client that behaves as a browser does: it keeps cookies, and says where its requests come from."""

    def __init__(self, box: RunningBox, **arguments: Any) -> None:
        headers = {"Accept": "text/html,application/xhtml+xml,*/*;q=0.8", "Origin": box.url}
        super().__init__(base_url=box.url, headers=headers, trust_env=False, verify=TLS, timeout=60, **arguments)
        self.event_hooks = {"request": [self._send_cookies]}

    def _send_cookies(self, request: httpx.Request) -> None:
        """To this machine browsers send Secure cookies over plain HTTP too."""
        if kept := [f"{cookie.name}={cookie.value}" for cookie in self.cookies.jar]:
            request.headers["Cookie"] = "; ".join(kept)

    @property
    def csrf(self) -> str:
        """The token of this session's pages."""
        found = re.search(r'<meta name="csrf" content="([^"]+)"', self.get("/setup").text)
        assert found is not None
        return found[1]

    def sign_in(self, name: str, password: str = PASSWORD) -> httpx.Response:
        """Through the form; the answer must lead onwards."""
        answer = self.post("/sign-in", data={"name": name, "password": password})
        assert answer.status_code == 303, answer.text
        return answer

    def submit(self, path: str, came_from: str | None = None, **fields: Any) -> httpx.Response:
        """Send a form with the session's token, from the page that holds it."""
        headers = {"Referer": f"{str(self.base_url).rstrip('/')}{came_from or path}"}
        return self.post(path, data={"csrf": self.csrf, **fields}, headers=headers)
