"""The documentation is complete: routes, settings, commands, codes and files are all in it."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import get_args

import click
import msgspec

from zsky_box.cli.main import cli
from zsky_box.errors import ErrorCode
from zsky_box.settings import CHECKOUT, Settings

README = (CHECKOUT / "README.md").read_text()
API = (CHECKOUT / "docs" / "api.md").read_text()
SETTINGS = (CHECKOUT / "docs" / "settings.md").read_text()

_CODE = re.compile(r'(?:Refusal\(\s*\d{3},\s*|_unauthorized\(|FieldError\([^,]+,\s*)"([a-z_]+)"')


def test_every_setting_is_documented_with_its_default() -> None:
    rows = dict(re.findall(r"^\| `(\w+)` \| (.+?) \|", SETTINGS, re.MULTILINE))
    defaults = msgspec.structs.asdict(Settings())
    fields = {field.name: defaults[field.name] for field in msgspec.structs.fields(Settings)}
    assert rows.keys() == fields.keys()
    for name, default in fields.items():
        shown = rows[name].strip("`").strip('"')
        if isinstance(default, bool):
            assert shown == str(default).lower(), name
        elif isinstance(default, int | float):
            assert float(shown) == default, name
        else:
            assert shown == (default or "empty"), name


def test_every_code_of_a_refusal_is_documented() -> None:
    sources = [path.read_text() for path in (CHECKOUT / "zsky_box").rglob("*.py")]
    codes = {code for source in sources for code in _CODE.findall(source)} | set(get_args(ErrorCode))
    assert len(codes) > 25
    assert {code for code in codes if f"`{code}`" not in API} == set()


def test_every_command_is_in_the_readme_and_its_help_has_an_example() -> None:
    commands = dict(_commands(cli, "zsky-box"))
    assert len(commands) > 10
    for name, command in commands.items():
        assert name in README, name
        assert "Example: zsky-box" in (command.help or ""), name


def test_every_file_is_in_the_readmes_map() -> None:
    listed = subprocess.run(["git", "ls-files"], cwd=CHECKOUT, capture_output=True, text=True, check=True)
    names = [Path(name) for name in listed.stdout.split("\n") if name and Path(CHECKOUT / name).exists()]
    missing = [str(name) for name in names if f"`{name.name}`" not in README and f"`{name}`" not in README]
    assert missing == []


def _commands(group: click.Group, prefix: str) -> list[tuple[str, click.Command]]:
    found: list[tuple[str, click.Command]] = []
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            found += _commands(command, f"{prefix} {name}")
        else:
            found.append((f"{prefix} {name}", command))
    return found
