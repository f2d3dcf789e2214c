from __future__ import annotations

from collections.abc import Iterator

import click
import pytest
from click.testing import CliRunner

from zsky_box.cli.main import cli


def commands(group: click.Group, *names: str) -> Iterator[tuple[str, ...]]:
    for name, command in group.commands.items():
        yield (*names, name)
        if isinstance(command, click.Group):
            yield from commands(command, *names, name)


ALL = [(), *commands(cli)]
GROUPS = {(), ("accounts",), ("keys",), ("ledger",), ("models",)}


@pytest.mark.parametrize("names", ALL, ids=" ".join)
def test_every_command_explains_itself_with_an_example(names: tuple[str, ...]) -> None:
    answer = CliRunner().invoke(cli, [*names, "--help"], prog_name="zsky-box")
    assert answer.exit_code == 0
    assert f"Example: zsky-box {' '.join(names)}" in " ".join(answer.output.split())
    assert "--data DIR" in answer.output
    assert CliRunner().invoke(cli, [*names, "-h"], prog_name="zsky-box").output == answer.output


@pytest.mark.parametrize("names", [names for names in ALL if names not in GROUPS], ids=" ".join)
def test_every_command_speaks_json(names: tuple[str, ...]) -> None:
    assert "--json" in CliRunner().invoke(cli, [*names, "--help"]).output


def test_the_list_of_commands_cuts_no_sentence() -> None:
    answer = CliRunner().invoke(cli, ["--help"], prog_name="zsky-box", terminal_width=80)
    assert "..." not in answer.output.split("Commands:")[1]


def test_the_version_is_told() -> None:
    from zsky_box import __version__

    assert __version__ in CliRunner().invoke(cli, ["--version"]).output
