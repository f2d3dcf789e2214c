"""The locked requirements: exact, hashed, from no named host, and what pyproject.toml asks for."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
LOCKS = ["requirements.lock", "requirements-test.lock"]
SUPPORTED_PYTHONS = ["3.11", "3.12", "3.13"]


def locked(*names: str) -> list[Requirement]:
    lines = [line for name in names for line in (ROOT / name).read_text().splitlines()]
    return [Requirement(line.removesuffix(" \\")) for line in lines if re.match(r"\w", line)]


def wanted() -> dict[str, list[Requirement]]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    runtime = [Requirement(text) for text in project["dependencies"]]
    return {
        "requirements.lock": [requirement for requirement in runtime if requirement.name != "torch"],
        "requirements-test.lock": [Requirement(text) for text in project["optional-dependencies"]["test"]],
    }


@pytest.mark.parametrize("name", LOCKS)
def test_a_lock_names_no_host(name: str) -> None:
    text = (ROOT / name).read_text()
    assert not re.search(r"://|\bindex-url\b|\bfind-links\b|\btrusted-host\b|[\w-]+\.(org|com|net|io)\b", text)


@pytest.mark.parametrize("name", LOCKS)
def test_every_entry_has_one_version_and_hashes(name: str) -> None:
    entries = re.split(r"\n(?=\w)", (ROOT / name).read_text())[1:]
    assert len(entries) > 10
    for entry in entries:
        assert re.match(r"[a-z0-9-]+==\S+( ; .+)? \\\n( +--hash=sha256:[0-9a-f]{64}( \\)?\n?)+$", entry), entry[:80]


def test_torch_and_its_cuda_parts_are_left_to_the_chosen_index() -> None:
    names = {requirement.name for requirement in locked(*LOCKS)}
    apart = {name for name in names if re.match(r"torch$|triton|cuda-|nvidia-", name)}
    assert apart == {"nvidia-ml-py"}


@pytest.mark.parametrize("python", SUPPORTED_PYTHONS)
@pytest.mark.parametrize("name", LOCKS)
def test_the_lock_holds_what_the_project_asks_for(name: str, python: str) -> None:
    linux = {"python_version": python, "python_full_version": f"{python}.0", "sys_platform": "linux"}
    versions = {
        canonicalize_name(entry.name): str(entry.specifier).removeprefix("==")
        for entry in locked(*LOCKS)
        if entry.marker is None or entry.marker.evaluate(linux)
    }
    for requirement in wanted()[name]:
        version = versions.get(canonicalize_name(requirement.name))
        assert version is not None, f"{requirement} is not locked: run scripts/lock"
        assert version in requirement.specifier, f"{requirement} is locked at {version}: run scripts/lock"


def test_what_builds_the_editable_project_is_locked_too() -> None:
    assert {"hatchling", "editables"} <= {requirement.name for requirement in locked("requirements.lock")}


def test_no_package_is_locked_twice() -> None:
    names = [requirement.name for requirement in locked(*LOCKS)]
    assert len(names) == len(set(names))
