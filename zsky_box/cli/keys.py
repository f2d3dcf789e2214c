"""`zsky-box keys`: an account's API keys."""

from __future__ import annotations

from pathlib import Path

import click

from zsky_box import control, keys
from zsky_box.cli import show
from zsky_box.cli.command import CommandError, Group, json_option
from zsky_box.cli.session import Session
from zsky_box.cli.usd import LIMIT, USD
from zsky_box.keys import SCOPES

account_option = click.option("--account", metavar="NAME", help="Whose (name or id; the owner's where none is named).")


@click.group(name="keys", cls=Group)
def keys_group() -> None:
    """API keys: list, issue, rotate, revoke, and what each may spend.

    Example: zsky-box keys issue --name render-script --scopes generate,read
    """


@keys_group.command(name="list")
@account_option
@json_option
@click.pass_obj
def keys_list(folder: Path, account: str | None, as_json: bool) -> None:
    """List the keys, without their secrets.

    Example: zsky-box keys list
    """
    show.told(Session(folder).control(control.ListKeys(account=account)), as_json, show.keys)


@keys_group.command(name="issue")
@click.option("--name", default="", metavar="NAME", help="What the key is for.")
@click.option("--test", is_flag=True, help="A zs_test_ key: free, always the film leader.")
@click.option("--cap", "cap_micros", type=USD, metavar="USD", help="What its jobs may take from the wallet in a month.")
@click.option("--scopes", default=",".join(SCOPES), show_default=True, help="What the key may do.")
@account_option
@json_option
@click.pass_obj
def keys_issue(
    folder: Path, name: str, test: bool, cap_micros: int | None, scopes: str, account: str | None, as_json: bool
) -> None:
    """Make a key; its secret is shown once.

    Example: zsky-box keys issue --name render-script --scopes generate,read --cap 20
    """
    if len(name) > keys.NAME_MAX:
        raise CommandError(f"A key's name has at most {keys.NAME_MAX} characters.")
    chosen = [scope.strip() for scope in scopes.split(",")]
    unknown = [scope for scope in chosen if scope not in SCOPES]
    if unknown:
        raise CommandError(f"There is no scope {unknown[0]!r}; scopes are {', '.join(SCOPES)}.")
    command = control.IssueKey(
        account=account,
        name=name,
        test=test,
        scopes=tuple(scope for scope in SCOPES if scope in chosen),
        cap_micros=cap_micros,
    )
    show.told(Session(folder).control(command), as_json, show.new_key)


@keys_group.command(name="rotate")
@click.argument("key_id", metavar="[ID]", required=False)
@click.option(
    "--overlap",
    "overlap_seconds",
    type=click.IntRange(0, keys.OVERLAP_MAX_SECONDS),
    default=0,
    metavar="SECONDS",
    help="How long the old key still works (at most 7 days).",
)
@account_option
@json_option
@click.pass_obj
def keys_rotate(folder: Path, key_id: str | None, overlap_seconds: int, account: str | None, as_json: bool) -> None:
    """Issue a successor (of the newest live key where no ID is given) and end the old key.

    Example: zsky-box keys rotate --overlap 86400
    """
    command = control.RotateKey(account=account, key_id=key_id, overlap_seconds=overlap_seconds)
    show.told(Session(folder).control(command), as_json, show.new_key)


@keys_group.command(name="revoke")
@click.argument("key_id", metavar="ID")
@account_option
@json_option
@click.pass_obj
def keys_revoke(folder: Path, key_id: str, account: str | None, as_json: bool) -> None:
    """End a key at once.

    Example: zsky-box keys revoke key_7tq…
    """
    show.told(Session(folder).control(control.RevokeKey(account=account, key_id=key_id)), as_json, show.key)


@keys_group.command(name="cap")
@click.argument("key_id", metavar="ID")
@click.argument("cap_micros", metavar="USD|none", type=LIMIT)
@account_option
@json_option
@click.pass_obj
def keys_cap(folder: Path, key_id: str, cap_micros: int | None, account: str | None, as_json: bool) -> None:
    """Set what a key's jobs may take from the wallet in a month, or lift it. It outlives the key's rotation.

    Example: zsky-box keys cap key_7tq… 20
    """
    command = control.CapKey(account=account, key_id=key_id, cap_micros=cap_micros)
    show.told(Session(folder).control(command), as_json, show.key_cap)
