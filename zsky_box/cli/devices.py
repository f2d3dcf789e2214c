"""`zsky-box pause`, `resume`, `unload`: the artist at the workstation comes first."""

from __future__ import annotations

from pathlib import Path

import click
import msgspec

from zsky_box import control
from zsky_box.cli import show
from zsky_box.cli.command import Command, CommandError, json_option
from zsky_box.cli.session import Session

_device = click.argument("device", metavar="[DEVICE]", default="all")


@click.command(cls=Command)
@_device
@json_option
@click.pass_obj
def pause(folder: Path, device: str, as_json: bool) -> None:
    """Take no jobs after the running ones. Meanwhile they queue up.

    DEVICE is a card's number, or cpu; without it all devices are meant.

    Example: zsky-box pause 0
    """
    _told(folder, control.PauseDevice(device=_named(device)), as_json)


@click.command(cls=Command)
@_device
@json_option
@click.pass_obj
def resume(folder: Path, device: str, as_json: bool) -> None:
    """Take jobs again, on one device or on all.

    Example: zsky-box resume
    """
    _told(folder, control.ResumeDevice(device=_named(device)), as_json)


@click.command(cls=Command)
@_device
@json_option
@click.pass_obj
def unload(folder: Path, device: str, as_json: bool) -> None:
    """Free a device's memory now. What runs there goes back to the queue, uncharged; `resume` takes jobs again.

    Example: zsky-box unload 0
    """
    _told(folder, control.PauseDevice(device=_named(device), unload=True), as_json)


def _named(device: str) -> str:
    """`0`, `cuda:0`, `cpu` or `all` as the box names it."""
    named = f"cuda:{int(device)}" if device.isascii() and device.isdigit() else device
    try:
        return msgspec.convert(named, control.DeviceName)
    except msgspec.ValidationError as error:
        raise CommandError(f"{device!r} is no device: give a card's number, cpu, or all.") from error


def _told(folder: Path, command: control.Command, as_json: bool) -> None:
    show.told(Session(folder).control(command), as_json, show.pauses)
