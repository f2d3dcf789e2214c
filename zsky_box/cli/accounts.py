"""`zsky-box accounts`: the people on the box, their plans, limits and wallets."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Final, Literal

import click

from zsky_box import control
from zsky_box.accounts import Plan
from zsky_box.cli import show, show_accounts, show_money
from zsky_box.cli.command import CommandError, Group, json_option
from zsky_box.cli.session import Session
from zsky_box.cli.usd import LIMIT, SIGNED_USD, USD
from zsky_box.passwords import LENGTH_MAX

# `-5.00` is an amount, not an option.
_NEGATIVE: Final = {"ignore_unknown_options": True}
_PLAN: Final = click.Choice(["max", "free"])


@click.group(name="accounts", cls=Group)
def accounts_group() -> None:
    """People: their plans, limits and wallets. NAME is a name or an id.

    Example: zsky-box accounts list
    """


@accounts_group.command(name="list")
@json_option
@click.pass_obj
def accounts_list(folder: Path, as_json: bool) -> None:
    """List everybody, with plan, limits, spend of this month and wallet.

    Example: zsky-box accounts list
    """
    show.told(Session(folder).control(control.ListAccounts()), as_json, show_money.accounts)


@accounts_group.command(name="add")
@click.argument("name", metavar="NAME")
@click.option("--plan", type=_PLAN, default="max", show_default=True, help="free has no API and fewer units.")
@click.option("--annual", is_flag=True, help="By the year: its fee is a line of the first month's statement.")
@json_option
@click.pass_obj
def accounts_add(folder: Path, name: str, plan: Plan, annual: bool, as_json: bool) -> None:
    """Add a person or a team. The plan is `max` unless said otherwise: its fee is a line of statements, no card is
    charged.

    Example: zsky-box accounts add "Post production" --annual
    """
    _check_annual(plan, annual)
    command = control.AddAccount(name=name, plan=plan, annual=annual)
    show.told(Session(folder).control(command), as_json, show_money.account)


@accounts_group.command(name="plan")
@click.argument("account", metavar="NAME")
@click.argument("plan", metavar="max|free", type=_PLAN)
@click.option("--annual", is_flag=True, help="By the year.")
@json_option
@click.pass_obj
def accounts_plan(folder: Path, account: str, plan: Plan, annual: bool, as_json: bool) -> None:
    """Put an account on a plan: a larger one begins at once, a smaller one when the paid term has ended.

    Example: zsky-box accounts plan ann max --annual
    """
    _check_annual(plan, annual)
    command = control.ChoosePlan(account=account, plan=plan, annual=annual)
    show.told(Session(folder).control(command), as_json, show_money.plan)


@accounts_group.command(name="password")
@click.argument("account", metavar="NAME")
@click.option("--stdin", "from_stdin", is_flag=True, help="Read it as one line from standard input.")
@json_option
@click.pass_obj
def accounts_password(folder: Path, account: str, from_stdin: bool, as_json: bool) -> None:
    """Set the password with which a person signs in to the pages; all of that person's browsers are signed out.

    Example: zsky-box accounts password ann
    """
    password = _line_of_stdin() if from_stdin else _asked_twice(account)
    if len(password) > LENGTH_MAX:
        raise CommandError(f"A password has at most {LENGTH_MAX} characters.")
    command = control.SetPassword(account=account, password=password)
    show.told(Session(folder).control(command), as_json, show_accounts.password)


@accounts_group.command(name="invite")
@click.argument("account", metavar="NAME")
@json_option
@click.pass_obj
def accounts_invite(folder: Path, account: str, as_json: bool) -> None:
    """Print a link with which a person sets a password and signs in: it works once, for 72 hours.

    Example: zsky-box accounts invite ann
    """
    show.told(Session(folder).control(control.InviteAccount(account=account)), as_json, show_accounts.invitation)


@accounts_group.command(name="topup")
@click.argument("account", metavar="NAME")
@click.argument("amount_micros", metavar="USD", type=USD)
@click.option("--note", default="", metavar="TEXT", help="What it is for, on record.")
@json_option
@click.pass_obj
def accounts_topup(folder: Path, account: str, amount_micros: int, note: str, as_json: bool) -> None:
    """Put money into an account's wallet. It never lapses.

    Example: zsky-box accounts topup ann 50.00 --note "budget of November"
    """
    command = control.TopUp(account=account, amount_micros=amount_micros, note=_bounded(note, "note"))
    show.told(Session(folder).control(command), as_json, show_money.wallet)


@accounts_group.command(name="correct", context_settings=_NEGATIVE)
@click.argument("account", metavar="NAME")
@click.argument("amount_micros", metavar="USD", type=SIGNED_USD)
@click.option("--reason", required=True, metavar="TEXT", help="Why, on record.")
@json_option
@click.pass_obj
def accounts_correct(folder: Path, account: str, amount_micros: int, reason: str, as_json: bool) -> None:
    """Put a wallet right that was filled wrongly: into it, or out of it with a minus.

    Example: zsky-box accounts correct ann -5.00 --reason "entered twice"
    """
    command = control.Correct(account=account, amount_micros=amount_micros, reason=_bounded(reason, "reason"))
    show.told(Session(folder).control(command), as_json, show_money.wallet)


@accounts_group.command(name="cap")
@click.argument("account", metavar="NAME")
@click.argument("cap_micros", metavar="USD", type=USD)
@json_option
@click.pass_obj
def accounts_cap(folder: Path, account: str, cap_micros: int, as_json: bool) -> None:
    """Set an account's spend cap, $5 to $1,000 a month, as its user can.

    Example: zsky-box accounts cap ann 100
    """
    command = control.SetCap(account=account, cap_micros=cap_micros)
    show.told(Session(folder).control(command), as_json, show_money.cap)


@accounts_group.command(name="ceiling")
@click.argument("words", metavar="[NAME] USD|none", nargs=-1, required=True)
@click.option("--box", is_flag=True, help="Over what all accounts spend together.")
@json_option
@click.pass_obj
def accounts_ceiling(folder: Path, words: tuple[str, ...], box: bool, as_json: bool) -> None:
    """Set what an account may spend in a month at most, whatever its cap, or lift it; with --box, all together.

    Example: zsky-box accounts ceiling --box 500
    """
    if len(words) != (1 if box else 2):
        raise click.UsageError("Say --box and an amount, or an account and an amount; `none` lifts it.")
    ceiling = LIMIT.convert(words[-1], None, click.get_current_context())
    command = control.SetCeiling(account=None if box else words[0], ceiling_micros=ceiling)
    show.told(Session(folder).control(command), as_json, show_money.box_ceiling if box else show_money.ceiling)


@accounts_group.command(name="overage")
@click.argument("account", metavar="NAME")
@click.argument("state", metavar="on|off", type=click.Choice(["on", "off"]))
@json_option
@click.pass_obj
def accounts_overage(folder: Path, account: str, state: Literal["on", "off"], as_json: bool) -> None:
    """Let an account spend its wallet beyond the included units, or not.

    Example: zsky-box accounts overage ann on
    """
    command = control.SetOverage(account=account, enabled=state == "on")
    show.told(Session(folder).control(command), as_json, show_money.overage)


@accounts_group.command(name="replenish")
@click.argument("account", metavar="NAME")
@click.argument("state", metavar="[off]", type=click.Choice(["off"]), required=False)
@click.option("--below", "below_micros", type=USD, metavar="USD", help="When the wallet falls below this,")
@click.option("--add", "add_micros", type=USD, metavar="USD", help="this is added,")
@click.option("--month", "month_micros", type=USD, metavar="USD", help="at most so much a month.")
@json_option
@click.pass_obj
def accounts_replenish(
    folder: Path,
    account: str,
    state: Literal["off"] | None,
    below_micros: int | None,
    add_micros: int | None,
    month_micros: int | None,
    as_json: bool,
) -> None:
    """Let the wallet be filled by a rule, or end the rule with `off`.

    Example: zsky-box accounts replenish ann --below 5 --add 20 --month 100
    """
    given = (below_micros, add_micros, month_micros)
    if (state is None and None in given) or (state is not None and given != (None, None, None)):
        raise click.UsageError("Say --below, --add and --month, or off.")
    command = control.SetReplenish(
        account=account, below_micros=below_micros, add_micros=add_micros, month_micros=month_micros
    )
    show.told(Session(folder).control(command), as_json, show_money.replenish)


def _check_annual(plan: Plan, annual: bool) -> None:
    if annual and plan == "free":
        raise CommandError("The plan free has no fee; --annual goes with max.")


def _bounded(text: str, what: str) -> str:
    if len(text) > control.REASON_MAX:
        raise CommandError(f"A {what} has at most {control.REASON_MAX} characters.")
    return text


def _asked_twice(account: str) -> str:
    """Typed where nobody sees it."""
    if not sys.stdin.isatty():
        raise CommandError("A password is typed at a terminal; a script gives it with --stdin.")
    password: str = click.prompt(f"New password of {account}", hide_input=True, confirmation_prompt=True, err=True)
    return password


def _line_of_stdin() -> str:
    return sys.stdin.readline(4 * LENGTH_MAX).rstrip("\r\n")
