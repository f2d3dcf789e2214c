from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from zsky_box import settings, settings_rules
from zsky_box.errors import SettingsError
from zsky_box.settings import Settings


def written(folder: Path, text: str) -> Path:
    (folder / "zsky.toml").write_text(text, "utf-8")
    return folder


def refusal(folder: Path, environ: dict[str, str] | None = None, **options: Any) -> str:
    """The sentence that stops the start."""
    with pytest.raises(SettingsError) as refused:
        settings.load(folder, environ or {}, **options)
    return str(refused.value)


def test_without_a_file_everything_has_its_default(tmp_path: Path) -> None:
    assert settings.load(tmp_path, {}) == Settings()
    assert (Settings().host, Settings().port, Settings().included_images) == ("127.0.0.1", 8420, 1000)


def test_an_option_goes_before_the_environment_and_that_before_the_file(tmp_path: Path) -> None:
    written(tmp_path, 'port = 1\nhost = "file"\ndevices = "cpu"\n')
    loaded = settings.load(tmp_path, {"ZSKY_PORT": "2", "ZSKY_HOST": "environment"}, port=3, host=None)
    assert (loaded.port, loaded.host, loaded.devices) == (3, "environment", "cpu")


def test_the_environment_is_text_that_is_read_as_the_settings_type(tmp_path: Path) -> None:
    environ = {"ZSKY_REQUIRE_REAL_MODEL": "true", "ZSKY_DRAIN_SECONDS": "1.5", "ZSKY_VIDEO_USD": "0.75", "PATH": "/"}
    loaded = settings.load(tmp_path, environ)
    assert (loaded.require_real_model, loaded.drain_seconds, loaded.video_usd) == (True, 1.5, "0.75")


def test_the_data_folder_is_not_a_setting(tmp_path: Path) -> None:
    assert settings.load(tmp_path, {"ZSKY_DATA": "/somewhere", "ZSKY_API_KEY": "zs_live_x"}) == Settings()


@pytest.mark.parametrize(
    ("environ", "options", "source"),
    [({}, {}, "prot in "), ({"ZSKY_PROT": "1"}, {}, "ZSKY_PROT"), ({}, {"prot": 1}, "--prot")],
)
def test_an_unknown_setting_is_named_with_its_source_and_the_nearest_known(
    tmp_path: Path, environ: dict[str, str], options: dict[str, int], source: str
) -> None:
    if not environ and not options:
        written(tmp_path, "prot = 1")
    said = refusal(tmp_path, environ, **options)
    assert said.startswith(source)
    assert "there is no setting 'prot'; did you mean port?" in said


def test_a_name_like_no_other_is_answered_with_all_that_there_are(tmp_path: Path) -> None:
    said = refusal(tmp_path, {"ZSKY_QQQQ": "1"})
    assert all(field.name in said for field in msgspec.structs.fields(Settings))


@pytest.mark.parametrize(
    ("name", "value", "allowed"),
    [
        ("port", "0", "from 1 to 65535"),
        ("port", "65536", "from 1 to 65535"),
        ("port", "http", "a whole number"),
        ("log_level", "loud", "debug, info, warning or error"),
        ("timezone", "Mars/Olympus", "IANA time zone"),
        ("timezone", "Europe", "IANA time zone"),
        ("timezone", "../../etc/passwd", "IANA time zone"),
        ("timezone", "", "IANA time zone"),
        ("video_usd", "free", "at most two decimals"),
        ("video_usd", "0.005", "at most two decimals"),
        ("image_usd", "-1", "from 0.01 to 1000"),
        ("image_usd", "nan", "from 0.01 to 1000"),
        ("image_usd", "1e999999", "from 0.01 to 1000"),
        ("devices", "gpu", "cpu"),
        ("devices", "", "auto"),
        ("devices", "auto,cpu", "auto"),
        ("devices", "²", "card numbers"),
        ("public_url", "box.local", "http(s)://"),
        ("public_url", "http://", "http(s)://"),
        ("public_url", "http://[::1", "http(s)://"),
        ("allowed_hosts", "*", "host names and addresses"),
        ("allowed_hosts", "box.lan, *.studio.example", "host names and addresses"),
        ("allowed_hosts", "box.lan,", "host names and addresses"),
        ("allowed_hosts", "box.lan:8420", "host names and addresses"),
        ("allowed_hosts", "http://box.lan", "host names and addresses"),
        ("allowed_hosts", "127.1", "host names and addresses"),
        ("trusted_proxies", "*", "addresses and networks"),
        ("trusted_proxies", "0.0.0.0/0", "addresses and networks"),
        ("public_url", "https://box.local/", "without a final slash"),
        ("public_url", "https://box.local/studio", "http(s)://"),
        ("public_url", "https://box.local?a=b", "http(s)://"),
        ("public_url", "https://me@box.local", "http(s)://"),
        ("public_url", "https://box.local:99999", "http(s)://"),
        ("host", "", "an address of this machine"),
        ("host", "not a host!", "an address of this machine"),
        ("host", "999.1.1.1", "an address of this machine"),
        ("host", "[::1]", "an address of this machine"),
        ("outputs", "results", "the whole path"),
        ("idempotency_days", "9" * 30, "from 1 to 3650"),
        ("card_reserve_bytes", "9" * 30, "from 0 to 4611686018427387904"),
        ("drain_seconds", "nan", "a number above 0"),
        ("drain_seconds", "inf", "up to 3.1536e+07"),
        ("drain_seconds", "0", "a number above 0"),
        ("attempts_max", "11", "from 1 to 10"),
        ("require_real_model", "maybe", "true or false"),
        ("queue_open_max", "0", "from 1 to 1000000000"),
        ("blocked_terms", "acme", "malformed"),
        ("blocked_terms", '["acme"]', "`object`"),
        ("blocked_terms", '{"brands": "acme"}', "`array`"),
        ("blocked_terms", '{"brands": [""]}', "length >= 1"),
        ("blocked_terms", '{"": ["acme"]}', "length >= 1"),
    ],
)
def test_a_bad_value_is_named_with_its_source_and_what_is_allowed(
    tmp_path: Path, name: str, value: str, allowed: str
) -> None:
    said = refusal(tmp_path, {f"ZSKY_{name.upper()}": value})
    assert said.startswith(f"ZSKY_{name.upper()} = {value!r}: ")
    assert allowed in said


@pytest.mark.parametrize("value", ["too short", "with spaces in its midst", "x" * 300])
def test_a_secret_that_is_refused_is_not_told(tmp_path: Path, value: str) -> None:
    said = refusal(tmp_path, {"ZSKY_METRICS_TOKEN": value})
    assert said.startswith("ZSKY_METRICS_TOKEN = (hidden): allowed is empty, or 16 to 200")
    assert value[:20] not in refusal(written(tmp_path, f'metrics_token = "{value}"'))
    with pytest.raises(SettingsError) as refused:
        settings.converted("metrics_token", value)
    assert value[:20] not in str(refused.value)


@pytest.mark.parametrize("address", ["https://studio:heron@hub.example/", "ftp://:heron@hub.example"])
def test_a_password_in_an_address_that_is_refused_is_not_told(tmp_path: Path, address: str) -> None:
    assert refusal(tmp_path, {"ZSKY_HUB_URL": address}).startswith("ZSKY_HUB_URL = (hidden): allowed is http(s)://")
    assert "heron" not in refusal(written(tmp_path, f'public_url = "{address}"'))


def test_a_value_of_the_wrong_type_in_the_file_is_named_with_the_file(tmp_path: Path) -> None:
    said = refusal(written(tmp_path, "timezone = 5"))
    assert said.startswith(f"timezone in {tmp_path / 'zsky.toml'} = 5: ")


@pytest.mark.parametrize("content", [b"port = ", b"[port", b"port = 1\nport = 2\n", b"\xff\xfe"])
def test_a_file_that_is_no_toml_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "zsky.toml").write_bytes(content)
    assert refusal(tmp_path).startswith(str(tmp_path / "zsky.toml"))


@pytest.mark.parametrize("devices", ["auto", "cpu", "0", "0,1", "cpu, cpu"])
def test_devices_are_auto_or_a_list(tmp_path: Path, devices: str) -> None:
    assert settings.load(tmp_path, {}, devices=devices).devices == devices


def test_every_default_passes_its_own_check(tmp_path: Path) -> None:
    defaults = {name: str(value) for name, value in msgspec.structs.asdict(Settings()).items()}
    assert settings.load(tmp_path, {f"ZSKY_{name.upper()}": value for name, value in defaults.items()}) == Settings()


def test_the_zone_is_the_named_one() -> None:
    assert Settings(timezone="Europe/Berlin").zone().key == "Europe/Berlin"


def test_the_data_folder_is_the_option_then_the_environment_then_the_checkouts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    named = {"ZSKY_DATA": str(tmp_path / "named")}
    assert settings.data_dir(str(tmp_path / "option"), named) == tmp_path / "option"
    assert settings.data_dir(None, named) == tmp_path / "named"
    monkeypatch.setattr(settings, "CHECKOUT", tmp_path)
    (tmp_path / "pyproject.toml").touch()
    assert settings.data_dir(None, {}) == tmp_path / "data"


def test_an_installed_package_keeps_its_data_with_the_users(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settings, "CHECKOUT", tmp_path / "site-packages")
    assert settings.data_dir(None, {"XDG_DATA_HOME": str(tmp_path)}) == tmp_path / "zsky-box"
    monkeypatch.setenv("HOME", str(tmp_path))
    assert settings.data_dir(None, {}) == tmp_path / ".local/share/zsky-box"


def test_a_relative_data_folder_is_made_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert settings.data_dir("here", {}) == tmp_path / "here"


def test_a_table_of_the_file_can_be_given_as_json_in_the_environment(tmp_path: Path) -> None:
    expected = {"brands": ("acme", "acme studio*"), "gore": ("gore",)}
    written(tmp_path, '[blocked_terms]\nbrands = ["acme", "acme studio*"]\ngore = ["gore"]')
    assert settings.load(tmp_path, {}).blocked_terms == expected
    environ = {"ZSKY_BLOCKED_TERMS": '{"gore": ["gore"]}'}
    assert settings.load(tmp_path, environ).blocked_terms == {"gore": ("gore",)}


def test_the_rules_and_their_terms_are_bounded_and_a_long_value_is_not_told_in_full(tmp_path: Path) -> None:
    many = [f"rule{n}" for n in range(settings_rules.RULES_MAX + 1)]
    for rules in (dict.fromkeys(many, ("a",)), dict.fromkeys(many[:2], ("a",) * (settings_rules.TERMS_MAX // 2 + 1))):
        said = refusal(tmp_path, {"ZSKY_BLOCKED_TERMS": json.dumps(rules)})
        assert said.startswith("ZSKY_BLOCKED_TERMS = {'rule0'")
        assert said.endswith("allowed is up to 100 rules with up to 5000 terms together")
        assert len(said) < 400


@pytest.mark.parametrize("name", ["tls_cert", "tls_key"])
def test_a_certificate_and_its_key_come_together(tmp_path: Path, name: str) -> None:
    assert f"ZSKY_{name.upper()}: allowed is both" in refusal(tmp_path, {f"ZSKY_{name.upper()}": "box.pem"})


def test_the_address_says_how_the_box_is_reached() -> None:
    assert Settings().local_url() == "http://127.0.0.1:8420"
    assert Settings(host="0.0.0.0", port=80).local_url() == "http://127.0.0.1:80"  # noqa: S104
    assert Settings(host="::").local_url() == "http://[::1]:8420"
    assert Settings(host="fd00::7", tls_cert="a", tls_key="b").local_url() == "https://[fd00::7]:8420"
    assert Settings().url_at("box.lan") == "http://box.lan:8420"
