"""What the commands about signing in say."""

from __future__ import annotations

from typing import Any

import click


def password(view: dict[str, Any]) -> None:
    """A password that was set."""
    ended = view["sessions_ended"]
    signed_out = "" if ended == 0 else f" and is signed out of {ended} browser{'' if ended == 1 else 's'}"
    click.echo(f"{view['name']} has a new password{signed_out}.")


def invitation(view: dict[str, Any]) -> None:
    """A one-time link."""
    click.echo(f"For {view['name']}, once, until {view['expires_at']}:\n{view['url']}")
    click.echo("(From another machine, the box's own name or address stands in the place of a local one.)")
