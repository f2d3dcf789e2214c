"""What the commands of money print: a table, or one sentence about what is so now."""

from __future__ import annotations

from typing import Any

import click

from zsky_box.cli.show import table


def accounts(page: dict[str, Any]) -> None:
    """Everybody as a table, and the box's ceiling where it has one."""
    rows = [
        (
            of["name"],
            of["id"],
            _plan(of),
            "on" if of["overage"] else "off",
            f"${of['cap_usd']}",
            _limit(of["ceiling_usd"]),
            f"${of['spend_usd']}",
            f"${of['pending_usd']}",
            f"${of['wallet_usd']}",
        )
        for of in page["data"]
    ]
    table(("name", "id", "plan", "overage", "cap", "ceiling", "spent", "held", "wallet"), rows)
    if page["box_ceiling_usd"] is not None:
        click.echo(f"All together: at most ${page['box_ceiling_usd']} a month.")


def _plan(view: dict[str, Any]) -> str:
    if view["plan"] == "free":
        return "free"
    until = f", until {view['paid_until']} begins" if view["renews"] == "no" else ""
    return ("max by the year" if view["term"] == "annual" else "max") + until


def account(view: dict[str, Any]) -> None:
    """A new account."""
    click.echo(f"{view['name']} ({view['id']}) is on the plan {view['plan']}.")


def plan(view: dict[str, Any]) -> None:
    """What an account's plan is, and what follows it."""
    term = "by the year" if view["term"] == "annual" else "by the month"
    if view["plan"] == "free":
        click.echo(f"{view['name']} is on the plan free.")
    elif view["renews"] == "no":
        click.echo(f"{view['name']} is on the plan max until {view['paid_until']} begins, then on free.")
    elif view["renews"] != view["term"]:
        later = "year" if view["renews"] == "annual" else "month"
        click.echo(f"{view['name']} is on the plan max {term}, from {view['paid_until']} on by the {later}.")
    else:
        click.echo(f"{view['name']} is on the plan max {term}, paid until {view['paid_until']} begins.")


def wallet(view: dict[str, Any]) -> None:
    """What a wallet has after a movement."""
    click.echo(f"The wallet of {view['name']} has ${view['wallet_usd']} (transfer {view['ledger_id']}).")


def cap(view: dict[str, Any]) -> None:
    """An account's cap and what is left of it."""
    ceiling = view["ceiling_usd"]
    within = "" if ceiling is None else f", under the owner's ceiling of ${ceiling}"
    click.echo(
        f"{view['name']} may spend ${view['cap_usd']} a month{within}; ${view['remaining_usd']} is left of this one."
    )


def ceiling(view: dict[str, Any]) -> None:
    """An account's ceiling."""
    if view["ceiling_usd"] is None:
        click.echo(f"{view['name']} has no ceiling; the cap of ${view['cap_usd']} counts.")
    else:
        click.echo(f"{view['name']} spends at most ${view['ceiling_usd']} a month, whatever the cap.")


def box_ceiling(view: dict[str, Any]) -> None:
    """The whole box's ceiling."""
    most = view["box_ceiling_usd"]
    click.echo("The box has no ceiling." if most is None else f"All accounts together spend at most ${most} a month.")


def overage(view: dict[str, Any]) -> None:
    """Whether an account may spend its wallet."""
    if view["overage"]:
        click.echo(
            f"Overage is on for {view['name']}: ${view['remaining_usd']} is left of the cap, ${view['wallet_usd']} is"
            " in the wallet."
        )
    else:
        click.echo(f"Overage is off for {view['name']}: nothing beyond the included units is made.")


def replenish(view: dict[str, Any]) -> None:
    """The rule that fills a wallet."""
    rule = view["replenish"]
    if rule is None:
        click.echo(f"Nothing fills the wallet of {view['name']} by itself; it has ${view['wallet_usd']}.")
    else:
        click.echo(
            f"Below ${rule['below_usd']}, ${rule['add_usd']} is added to the wallet of {view['name']}, at most"
            f" ${rule['month_usd']} a month; it has ${view['wallet_usd']}."
        )


def refund(view: dict[str, Any]) -> None:
    """What was paid back of a job."""
    parts = [f"${view['amount_usd']} to the wallet of {view['account']}"] if view["amount_usd"] != "0.00" else []
    if view["included_units"]:
        parts.append(f"{view['included_units']} included units to {view['account']}, in this month")
    click.echo(f"Paid back of {view['job_id']}: {' and '.join(parts)}.")


def verified(report: dict[str, Any]) -> None:
    """What a verification found."""
    for fault in report["faults"]:
        click.echo(f"broken: {fault['rule']}: {fault['table']} {fault['row']} {fault['told']}")
    read = f"{report['transfers']} transfers, {report['audit_rows']} audit rows, {report['jobs']} jobs"
    files = "" if report["files"] is None else f", {report['files']} files"
    click.echo(f"{'verifies' if report['verifies'] else 'does not verify'}: {read}{files}")


def _limit(amount_usd: str | None) -> str:
    return "" if amount_usd is None else f"${amount_usd}"
