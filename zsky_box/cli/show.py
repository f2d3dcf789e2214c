"""What commands print: JSON for scripts, or a few plain lines for a person."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, Final

import click

_PROMPT_MAX: Final = 40


def told(value: Any, as_json: bool, plain: Callable[[Any], None]) -> None:
    """Print a command's answer in the form that was asked for."""
    if as_json:
        click.echo(json.dumps(value, ensure_ascii=False))
    else:
        plain(value)


def jobs(page: dict[str, Any]) -> None:
    """A page of jobs as a table."""
    if not page["data"]:
        click.echo('No jobs yet. Try: zsky-box generate "a red fox in the snow" --type image')
        return
    rows = [
        (job["job_id"], job["type"], job["status"], job["model"], job["created_at"], _short(job["prompt"]))
        for job in page["data"]
    ]
    table(("id", "type", "status", "model", "created", "prompt"), rows)
    if page["has_more"]:
        click.echo("There are older ones; --limit shows up to 100.", err=True)


def job(view: dict[str, Any]) -> None:
    """One job, a fact a line."""
    charge = view["charge"]
    facts = {
        "job": view["job_id"],
        "status": view["status"],
        "phase": f"{view['phase']}, {view['progress']:.0%}" if view["status"] == "running" else None,
        "place in queue": view["queue_position"],
        "error": f"{view['error']} ({view['error_code']})" if "error" in view else None,
        "result": view.get("result_url"),
        "prompt": " ".join(view["prompt"].split()),
        "model": view["model"],
        "size": f"{view['width']}x{view['height']}" + (f", {view['duration']:.3f} s" if view["duration"] else ""),
        "seed": view["seed"],
        "charge": f"{charge['units']} {view['type']}, {charge['state']}, ${charge['amount_usd']}",
        "created": view["created_at"],
        "finished": view["finished_at"],
        "notes": " ".join(view["notes"]) or None,
    }
    if view["eta_seconds"] is not None:
        facts["done in about"] = f"{view['eta_seconds']:.0f} s"
    _facts(facts)
    if "decisions" in view:
        _decisions(view["decisions"])


def _decisions(listed: dict[str, Any]) -> None:
    for decision in listed["data"]:
        click.echo(f"\n{decision['at']}, {decision['device']}:\n{decision['why']}")
    if listed["waits"]:
        click.echo(f"\nIt waits: {listed['waits']}.")
    elif not listed["data"]:
        click.echo("\nIts turn has not come yet.")


def pauses(page: dict[str, Any]) -> None:
    """Which devices take no jobs."""
    if not page["data"]:
        click.echo("All devices take jobs.")
    for pause in page["data"]:
        whose = "All devices take" if pause["device"] == "all" else f"{pause['device']} takes"
        freed = ", and the memory is free" if pause["unloaded"] else ""
        click.echo(f"{whose} no jobs since {pause['since']}{freed}; `zsky-box resume` ends it.")


def saved(view: dict[str, Any]) -> None:
    """The path of a result, and what a person should know about it."""
    for note in view["notes"]:
        click.echo(note, err=True)
    click.echo(view["path"])


def keys(page: dict[str, Any]) -> None:
    """All keys as a table."""
    if not page["data"]:
        click.echo("No keys yet. Make one: zsky-box keys issue --name NAME")
        return
    rows = [
        (
            key["id"],
            key["name"],
            "test" if key["test"] else "live",
            f"…{key['last_four']}",
            " ".join(key["scopes"]),
            f"${key['cap_usd']}" if key["cap_usd"] is not None else "",
            "revoked" if key["revoked_at"] else key["expires_at"] or "",
            key["last_used_at"] or "never",
        )
        for key in page["data"]
    ]
    table(("id", "name", "mode", "ends in", "scopes", "cap", "end", "last used"), rows)


def key(view: dict[str, Any]) -> None:
    """One key, without its secret."""
    ended = "revoked" if view["revoked_at"] else "in use"
    click.echo(f"{view['id']} (…{view['last_four']}) is {ended}.")


def key_cap(view: dict[str, Any]) -> None:
    """What a key may spend."""
    if view["cap_usd"] is None:
        click.echo(f"{view['id']} (…{view['last_four']}) has no cap of its own; its account's counts.")
    else:
        click.echo(f"{view['id']} (…{view['last_four']}) takes at most ${view['cap_usd']} a month from the wallet.")


def new_key(view: dict[str, Any]) -> None:
    """A fresh key with its secret, which is shown this once."""
    click.echo(f"{view['id']}: {' '.join(view['scopes'])}\nAPI key (shown once): {view['api_key']}")


def models(page: dict[str, Any]) -> None:
    """The catalogue as a table."""
    rows = [
        (
            model["id"],
            ", ".join(model["makes"]),
            "yes" if model["installed"] else "no",
            model["licence"]["name"],
            model["commercial_use"],
            _standing(model),
        )
        for model in page["data"]
    ]
    table(("model", "makes", "installed", "licence", "commercial use", ""), rows)


def _standing(model: dict[str, Any]) -> str:
    if model["experimental"]:
        return "experimental"
    return "default " + "+".join(model["default_for"]) if model["default_for"] else ""


def clock(view: dict[str, Any]) -> None:
    """Whether the box's clock was accepted."""
    if view["accepted"]:
        click.echo(f"The ledger goes on at {view['at']}; its last entry was of {view['was']}.")
    else:
        click.echo(f"The clock is not behind the ledger ({view['at']}); there is nothing to accept.")


def checks(report: dict[str, Any]) -> None:
    """The doctor's findings."""
    marks = {"good": click.style("ok  ", fg="green"), "note": "note", "bad": click.style("bad ", fg="red")}
    for check in report["checks"]:
        click.echo(f"{marks[check['state']]}  {check['name']}: {check['told']}")
    if "bundle" in report:
        click.echo(f"All of it, with settings, versions and the newest jobs, is in {report['bundle']}: read it first.")


def _facts(facts: dict[str, Any]) -> None:
    width = max(len(name) for name in facts)
    for name, value in facts.items():
        if value is not None:
            click.echo(f"{name:<{width}}  {value}")


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= _PROMPT_MAX else f"{line[: _PROMPT_MAX - 1]}…"


def table(head: tuple[str, ...], rows: list[tuple[Any, ...]]) -> None:
    """Columns as wide as their widest entry, a row a line: nothing is cut, so that `grep` and `awk` find it all."""
    lines = [head, *(tuple(str(value) for value in row) for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(head))]
    for line in lines:
        click.echo("  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip())
