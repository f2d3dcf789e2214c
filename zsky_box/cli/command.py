"""What all commands share: `--data` before or after the command's name, `--json`, and errors of one sentence."""

from __future__ import annotations

from typing import Any, Final

import click
from click.exceptions import NoArgsIsHelpError

from zsky_box import settings
from zsky_box.errors import ZskyError

MISUSED: Final = 2  # what a shell expects of a command that was called wrongly
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

    def make_context(self, *arguments: Any, **options: Any) -> click.Context:
        """The group's context. Raises CommandError for options that it does not have."""
        try:
            return super().make_context(*arguments, **options)
        except click.UsageError as error:
            raise _in_one_sentence(error) from error

    def invoke(self, ctx: click.Context) -> Any:
        """The result of the command that is named. Raises CommandError for a wrong name, option or argument."""
        try:
            return super().invoke(ctx)
        except click.UsageError as error:
            raise _in_one_sentence(error) from error


def _in_one_sentence(error: click.UsageError) -> Exception:
    """What click would tell in four lines; a group without a command still answers with its help."""
    if isinstance(error, NoArgsIsHelpError):
        return error
    said = " ".join(error.format_message().split())  # the values of a choice are lines of their own
    said = said.removesuffix(".")
    where = f"`{error.ctx.command_path} --help` tells more" if error.ctx else "`zsky-box --help` tells more"
    return CommandError(f"{said}{'' if said.endswith('?') else ';'} {where}.", MISUSED)
