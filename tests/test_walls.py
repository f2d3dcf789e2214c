"""The walls between the rooms, held by reading the imports of every module."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

from zsky_box.settings import CHECKOUT

PACKAGE: Final = CHECKOUT / "zsky_box"

HEAVY: Final = {"torch", "torchaudio", "torchao", "torchvision", "diffusers", "transformers", "accelerate"}
CHILD: Final = (
    "pipelines",
    "media",
    "worker_main",
    "worker_engine",
    "worker_attempt",
    "worker_check",
    "worker_meter",
    "worker_residents",
)
"""What runs in a GPU's process; everything else is the service or a command."""

DOMAIN: Final = (
    "access",
    "accounts",
    "archive",
    "assets",
    "audit",
    "audit_pages",
    "backup_file",
    "backups",
    "bookkeeping",
    "catalog",
    "charged",
    "clock",
    "cursors",
    "db",
    "decoder",
    "dispatch",
    "entries",
    "errors",
    "estimates",
    "eta",
    "events",
    "feed",
    "formats",
    "guesses",
    "hosts",
    "hours",
    "idempotency",
    "ids",
    "instance_lock",
    "invitations",
    "jobs",
    "key_secrets",
    "keys",
    "keyset",
    "ledger",
    "library",
    "limits",
    "manifest",
    "migrations",
    "observer",
    "operations",
    "overage",
    "passwords",
    "pauses",
    "people",
    "periods",
    "picture",
    "placement",
    "plans",
    "policy",
    "pricing",
    "prompt_words",
    "proxies",
    "rate_limit",
    "record",
    "requests",
    "room",
    "schemas",
    "secretfile",
    "sessions",
    "settings",
    "settings_file",
    "settings_rules",
    "shares",
    "sheets",
    "statements",
    "terms",
    "timeline",
    "timings",
    "turns",
    "upkeep",
    "uploads",
    "usage",
    "verifier",
    "vocabulary",
    "ways",
    "webhooks",
)
INSTALL: Final = ("catalog", "errors", "install", "manifest", "placement", "secretfile", "worker_process")
"""What installing a model may use of ours: it runs beside the service, and knows none of it."""

LEAVES: Final = ("clock", "errors", "formats", "hours", "ids", "proxies", "settings", "settings_rules")
"""Import nothing of ours but each other."""


def modules() -> dict[str, Path]:
    """Every module of the package by its name without the package's: `jobs.book`, `db`."""
    found: dict[str, Path] = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        found[".".join(part for part in parts if part != "__init__")] = path
    return found


def imports(path: Path) -> set[str]:
    """All that a module imports, wherever in it, as full names: `torch.nn`, `zsky_box.db.Store`."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def ours(path: Path) -> set[str]:
    """The same, of our own package only and without its name."""
    return {name.removeprefix("zsky_box.") for name in imports(path) if name.startswith("zsky_box.")}


def within(name: str, *rooms: str) -> bool:
    """Whether a module, or a name imported of one, lies in one of the rooms."""
    return any(name == room or name.startswith(f"{room}.") for room in rooms)


MODULES: Final = modules()


def test_every_room_that_has_a_wall_exists() -> None:
    assert all(any(within(name, room) for name in MODULES) for room in (*CHILD, *DOMAIN, "scheduler", "worker", "app"))


def test_torch_and_its_family_stay_in_the_child() -> None:
    outside = {name: imports(path) for name, path in MODULES.items() if not within(name, *CHILD)}
    found = {name for name, names in outside.items() for imported in names if imported.partition(".")[0] in HEAVY}
    assert found == set()


def test_the_service_and_the_commands_do_not_import_the_childs_rooms() -> None:
    outside = {name: ours(path) for name, path in MODULES.items() if not within(name, *CHILD)}
    found = {(name, imported) for name, names in outside.items() for imported in names if within(imported, *CHILD)}
    assert found == set()


def test_domain_rooms_know_neither_the_web_nor_the_doorbell() -> None:
    domain = {name: imports(path) for name, path in MODULES.items() if within(name, *DOMAIN)}
    strange = ("litestar", "starlette", "uvicorn", "huey", "jinja2", "click", "rich", "httpx")
    assert {(name, used) for name, names in domain.items() for used in names if within(used, *strange)} == set()


def test_domain_rooms_import_only_domain_rooms() -> None:
    domain = {name: ours(path) for name, path in MODULES.items() if within(name, *DOMAIN)}
    assert {(name, used) for name, names in domain.items() for used in names if not within(used, *DOMAIN)} == set()


def test_installing_knows_neither_the_service_nor_the_commands() -> None:
    room = {name: path for name, path in MODULES.items() if within(name, "install")}
    assert len(room) > 10
    used = {name: imports(path) for name, path in room.items()}
    strange = ("litestar", "uvicorn", "huey", "click", "rich", "huggingface_hub", "requests", "safetensors")
    assert {(name, each) for name, names in used.items() for each in names if within(each, *strange)} == set()
    inside = {(name, each) for name, path in room.items() for each in ours(path) if not within(each, *INSTALL)}
    assert inside == {("install.hub", "__version__")}


def test_leaves_import_nothing_internal() -> None:
    leaves = {name: ours(path) for name, path in MODULES.items() if within(name, *LEAVES)}
    assert {(name, used) for name, names in leaves.items() for used in names if not within(used, *LEAVES)} == set()


def test_only_the_ledger_writes_transfers_and_balances_and_only_the_audit_its_rows() -> None:
    writes = re.compile(r"\b(?:INSERT INTO|UPDATE|DELETE FROM) (transfer|balance|spend|audit|\"grant\") ")
    found = {(name, table) for name, path in MODULES.items() for table in writes.findall(path.read_text("utf-8"))}
    allowed = {
        ("ledger.transfers", "transfer"),
        ("ledger.transfers", "balance"),
        ("ledger.units", '"grant"'),
        ("ledger.spend", "spend"),
        ("audit", "audit"),
    }
    assert found == allowed


def test_handlers_ask_rooms_and_write_no_sql() -> None:
    sql = re.compile(r'"\s*(?:SELECT|INSERT INTO|UPDATE|DELETE FROM|WITH) ')
    handlers = {name: path.read_text("utf-8") for name, path in MODULES.items() if within(name, "api", "pages", "app")}
    assert len(handlers) > 40
    assert {name for name, text in handlers.items() if sql.search(text)} == set()


@pytest.mark.parametrize(
    "room",
    [
        "scheduler",
        "starter",
        "job_source",
        "slot",
        "dispatch",
        "turns",
        "placement",
        "worker",
        "worker_process",
        *CHILD,
    ],
)
def test_scheduler_workers_and_pipelines_never_touch_the_store_or_the_money(room: str) -> None:
    closed = ("db", "ledger", "migrations", "audit", "accounts", "keys", "jobs", "assets")
    inside = {name: ours(path) for name, path in MODULES.items() if within(name, room)}
    assert inside
    assert {(name, used) for name, names in inside.items() for used in names if within(used, *closed)} == set()


def test_nobody_but_the_commands_imports_the_composition_root() -> None:
    users = {name for name, path in MODULES.items() if any(within(used, "app") for used in ours(path))}
    assert {name for name in users if not within(name, "app", "cli")} == set()


def test_nothing_is_unpickled_or_evaluated() -> None:
    unsafe = ("pickle", "cPickle", "dill", "marshal", "shelve", "joblib", "cloudpickle")
    found = {name for name, path in MODULES.items() for used in imports(path) if within(used, *unsafe)}
    assert found == set()
    calls = {
        (name, node.func.id)
        for name, path in MODULES.items()
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ("eval", "exec")
    }
    assert calls == set()


def test_the_service_starts_without_torch_and_what_torch_brings() -> None:
    script = "import sys, zsky_box.app, zsky_box.cli; print(*sorted({name.partition('.')[0] for name in sys.modules}))"
    loaded = subprocess.run(
        [sys.executable, "-c", script], cwd=CHECKOUT, check=True, capture_output=True, text=True, timeout=120
    ).stdout.split()
    assert "litestar" in loaded
    assert set(loaded) & (HEAVY | {"PIL", "imageio_ffmpeg", "soundfile"}) == set()


def tracked_text() -> dict[str, str]:
    """Every file that git tracks and that is text."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=CHECKOUT, check=True, capture_output=True).stdout
    found: dict[str, str] = {}
    for name in listed.decode().split("\0"):
        path = CHECKOUT / name
        if name and path.is_file() and not path.is_symlink():
            content = path.read_bytes()
            if b"\0" not in content:
                found[name] = content.decode("utf-8", "replace")
    return found


@pytest.mark.skipif(not (CHECKOUT / ".git").exists(), reason="not a git checkout: nothing is tracked")
def test_no_tracked_file_names_a_machine_that_it_was_written_on() -> None:
    private = re.compile(r"/(?:home|Users)/[a-z][\w.-]*/")
    found = {(name, match.group()) for name, text in tracked_text().items() for match in private.finditer(text)}
    assert found - {("tests/test_walls.py", text) for _, text in found} == set()
