"""What all commands share: `--data` before or after the command's name, `--json`, and errors of one sentence."""

from __future__ import annotations

from typing import Any, Final

import click

from zsky_box import settings
from zsky_box.errors import ZskyError

INTERRUPTED: Final = 130  # what a shell expects of a command that Ctrl-C ended

json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON for scripts.")


class CommandError(ZskyError):
    """A command that could not be carried out; its message is the one sentence that the person reads."""

    def __init__(self, message: str, exit_status: int = 1) -> None:
        super().__init__(message)
        self.exit_status = exit_status


def _choose_data(context: click.Context, _: click.Parameter, value: str | None) -> None:
    if value is not None:
        context.obj = settings.data_dir(value)


def _data_option() -> click.Option:
    return click.Option(
        ["--data"],
        metavar="DIR",
        help="The data folder (else ZSKY_DATA, else data/ of the checkout).",
        expose_value=False,
        callback=_choose_data,
    )


class Command(click.Command):
    """A command that takes `--data` among its own options."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.params.append(_data_option())


class Group(click.Group):
    """A group of such commands, which takes `--data` itself."""

    command_class = Command
    group_class = type

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.params.append(_data_option())
