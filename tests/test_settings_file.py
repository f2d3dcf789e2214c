"""`zsky.toml` as it is changed in the browser: where a value is from, what is refused, what is written."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest

from tests.stores import Rooms
from zsky_box import settings, settings_file
from zsky_box.errors import Refusal, SettingsError
from zsky_box.settings import Settings
from zsky_box.settings_file import Setting, SettingsFile

WRITTEN = '# ours\nport = 9000\nvideo_usd = "0.75"\n\n[blocked_terms]\nbrands = ["acme"]\n'


@pytest.fixture
def rooms(tmp_path: Path) -> Generator[Rooms]:
    found = Rooms(tmp_path)
    (tmp_path / "zsky.toml").write_text(WRITTEN)
    yield found
    found.close()


def opened(rooms: Rooms, environ: dict[str, str] | None = None, **options: Any) -> SettingsFile:
    """As a start does it."""
    given = environ or {}
    running = settings.load(rooms.folder, given, **options)
    return SettingsFile(rooms.folder, running, rooms.store, rooms.clock, given)


def of(file: SettingsFile, name: str) -> Setting:
    return next(each for each in file.all()[0] if each.name == name)


def anything(_: Settings) -> None:
    """A start would begin with any of them."""


def change(file: SettingsFile, name: str, text: str | None) -> None:
    file.change(name, text, anything, "browser:acc_ann")


def in_file(rooms: Rooms) -> dict[str, Any]:
    return tomllib.loads((rooms.folder / "zsky.toml").read_text())


def records(rooms: Rooms) -> list[tuple[str, Any, Any]]:
    rows = rooms.store.all("SELECT * FROM audit WHERE action = 'settings.changed' ORDER BY id")
    return [(row["actor"], json.loads(row["before"]), json.loads(row["after"])) for row in rows]


def test_it_works(rooms: Rooms) -> None:
    file = opened(rooms)
    change(file, "image_usd", "0.10")
    assert in_file(rooms) == {
        "port": 9000,
        "video_usd": "0.75",
        "image_usd": "0.10",
        "blocked_terms": {"brands": ["acme"]},
    }
    assert (rooms.folder / "zsky.toml.before").read_text() == WRITTEN
    assert (rooms.folder / "zsky.toml").stat().st_mode & 0o777 == 0o600
    assert records(rooms) == [("browser:acc_ann", {"image_usd": "0.05"}, {"image_usd": "0.10"})]
    found = of(file, "image_usd")
    assert (found.value, found.coming, found.waits, found.origin) == ("0.05", "0.10", True, "default")
    assert of(opened(rooms), "image_usd").origin == "zsky.toml"


def test_each_value_says_where_it_is_from(rooms: Rooms) -> None:
    file = opened(rooms, {"ZSKY_VIDEO_USD": "0.80", "ZSKY_DATA": "/x"}, devices="cpu")
    assert {name: of(file, name).origin for name in ("port", "video_usd", "devices", "host")} == {
        "port": "zsky.toml",
        "video_usd": "environment",
        "devices": "command line",
        "host": "default",
    }
    assert not any(each.waits for each in file.all()[0])
    for name in ("video_usd", "devices"):
        with pytest.raises(Refusal, match="wins over") as refused:
            change(file, name, "cpu")
        assert refused.value.status == 422
    assert (rooms.folder / "zsky.toml").read_text() == WRITTEN


def test_a_setting_goes_back_to_its_default(rooms: Rooms) -> None:
    file = opened(rooms)
    change(file, "port", None)
    assert "port" not in in_file(rooms)
    assert records(rooms) == [("browser:acc_ann", {"port": 9000}, {"port": 8420})]
    change(file, "port", None)
    assert len(records(rooms)) == 1


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("port", "0"),
        ("port", "many"),
        ("port", "8420.5"),
        ("timezone", "Mars/Olympus"),
        ("image_usd", "0.001"),
        ("log_level", "loud"),
        ("previews", "perhaps"),
        ("blocked_terms", "acme"),
        ("tls_cert", "/cert.pem"),
        ("metrics_token", "short"),
    ],
)
def test_what_would_stop_a_start_is_refused_and_nothing_is_written(rooms: Rooms, name: str, text: str) -> None:
    with pytest.raises(Refusal) as refused:
        change(opened(rooms), name, text)
    assert (refused.value.status, refused.value.field) == (422, name)
    assert name in refused.value.detail
    assert (rooms.folder / "zsky.toml").read_text() == WRITTEN
    assert records(rooms) == []


def test_what_only_a_start_would_find_is_asked_for(rooms: Rooms) -> None:
    def check(found: Settings) -> None:
        raise SettingsError(f"pins = {found.pins!r}: there is no such model")

    with pytest.raises(Refusal, match="no such model"):
        opened(rooms).change("pins", "cuda:0=x", check, "ann")
    assert (rooms.folder / "zsky.toml").read_text() == WRITTEN


def test_there_is_no_such_setting(rooms: Rooms) -> None:
    for name in ("portt", "", "__class__"):
        with pytest.raises(Refusal) as refused:
            change(opened(rooms), name, "1")
        assert refused.value.status == 404


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("previews", "false", False),
        ("drain_seconds", "12.5", 12.5),
        ("queue_open_max", "5", 5),
        ("blocked_terms", '{"brands": ["acme", "=x"]}', {"brands": ["acme", "=x"]}),
        ("public_url", "https://box.studio.example", "https://box.studio.example"),
        ("quiet_hours", "", ""),
    ],
)
def test_each_kind_is_written_as_itself(rooms: Rooms, name: str, text: str, value: object) -> None:
    change(opened(rooms), name, text)
    assert in_file(rooms)[name] == value
    settings.load(rooms.folder, {})


def test_a_secret_is_in_no_record(rooms: Rooms) -> None:
    file, secret = opened(rooms), "0123456789abcdef-secret"
    change(file, "metrics_token", secret)
    change(file, "metrics_token", None)
    assert [(before, after) for _, before, after in records(rooms)] == [
        ({"metrics_token": ""}, {"metrics_token": settings.HIDDEN}),
        ({"metrics_token": settings.HIDDEN}, {"metrics_token": ""}),
    ]
    rows = rooms.store.all("SELECT before || after AS text FROM audit")
    assert not any(secret in row["text"] for row in rows)


def test_a_file_that_is_broken_by_hand_is_told_and_not_written_over(rooms: Rooms) -> None:
    file = opened(rooms)
    for text in ("port = ", "portt = 1\n"):
        (rooms.folder / "zsky.toml").write_text(text)
        found, wrong = file.all()
        assert wrong
        assert of(file, "port").value == 9000
        assert found
        with pytest.raises(Refusal):
            change(file, "image_usd", "0.10")
        assert (rooms.folder / "zsky.toml").read_text() == text


def test_comments_are_counted(rooms: Rooms) -> None:
    assert opened(rooms).comments() == 1
    (rooms.folder / "zsky.toml").unlink()
    assert opened(rooms).comments() == 0


@pytest.mark.parametrize("name", sorted(settings_file.BY_HAND))
def test_what_is_run_or_trusted_is_changed_by_hand_only(rooms: Rooms, name: str) -> None:
    """Whoever has taken a browser's session would run programs and read files of this machine with it."""
    file = opened(rooms)
    assert of(file, name).is_by_hand
    for text in ("/anything/else", None):
        with pytest.raises(Refusal, match="by hand, on this machine"):
            change(file, name, text)
    assert in_file(rooms) == tomllib.loads(WRITTEN)
