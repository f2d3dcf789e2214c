"""The service's side of decoding: what each end of the child becomes, and that few run at once."""

from __future__ import annotations

import asyncio
import logging
import os
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from tests.media import pictures
from tests.media.pictures import corners, encoded
from zsky_box import decoder
from zsky_box.decoder import AT_ONCE, Decoder, decoded
from zsky_box.errors import InvalidFields, Refusal
from zsky_box.picture import Answer, Clean, Refused, Task

PICTURE = encoded(corners())
DAMAGING = pictures.damaging()
STRANGE = pictures.strange()


def clean(content: bytes, path: Path, pixels_max: int = 40_000_000) -> Clean:
    return asyncio.run(Decoder(pixels_max).clean(content, path, field="file"))


def refusal(content: bytes, path: Path, pixels_max: int = 40_000_000) -> Refusal:
    with pytest.raises(Refusal) as refused:
        clean(content, path, pixels_max)
    assert not path.exists()
    return refused.value


def test_it_works(tmp_path: Path) -> None:
    told = clean(PICTURE, tmp_path / "a.png")
    assert (told.width, told.height) == (64, 48)
    assert (tmp_path / "a.png").stat().st_size == told.bytes


def test_each_reason_is_told_in_words_that_say_what_to_do(tmp_path: Path) -> None:
    for name in ("a PNG that is cut short", "a PNG that moves", "a dot", "a PNG of very many chunks"):
        content, word = DAMAGING[name]
        told = refusal(content(), tmp_path / "a.png")
        assert isinstance(told, InvalidFields)
        assert (told.status, told.code, told.field) == (422, "invalid_field", "file")
        assert word in told.detail
    small = refusal(encoded(corners()), tmp_path / "a.png", 64 * 48 - 1)
    assert "more than 0.003071 million pixels" in small.detail


@pytest.mark.parametrize("name", STRANGE)
def test_what_is_no_picture_starts_no_child(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoder, "ENTRY", "no.such.module")
    told = refusal(STRANGE[name], tmp_path / "a.png")
    assert (told.status, told.code, told.field) == (415, "unsupported_media", "file")
    assert "PNG, JPEG or WebP" in told.detail


def test_a_disk_that_takes_no_more_is_a_fault_of_the_box(tmp_path: Path) -> None:
    told = refusal(PICTURE, tmp_path / "no such folder" / "a.png")
    assert (told.status, told.code) == (503, "storage_full")
    assert told.headers["Retry-After"]


# Ends of the child


@pytest.mark.parametrize(
    ("does", "reason"),
    [
        ("os.kill(os.getpid(), signal.SIGSEGV)", "damaged"),
        ("os.abort()", "damaged"),
        ("os.kill(os.getpid(), signal.SIGKILL)", "too_costly"),
        ("os.kill(os.getpid(), signal.SIGXCPU)", "too_costly"),
        ("time.sleep(600)", "too_costly"),
    ],
)
def test_a_child_that_is_ended_is_a_picture_that_is_refused(
    does: str, reason: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "ends.py").write_text(f"import os, signal, time\nopen({str(tmp_path / 'a.png')!r}, 'w')\n{does}\n")
    act(monkeypatch, tmp_path)
    if "sleep" in does:
        monkeypatch.setattr(decoder, "TIMEOUT_SECONDS", 2.0)
    assert run(tmp_path) == Refused(reason=reason)
    assert not (tmp_path / "a.png").exists(), "what it had written is gone"
    assert "ended its decoder" in caplog.text


def test_a_decoder_that_cannot_work_at_all_blames_no_picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "ends.py").write_text("import a_module_that_is_not_installed\n")
    act(monkeypatch, tmp_path)
    with pytest.raises(RuntimeError, match="a_module_that_is_not_installed"):
        run(tmp_path)


def test_the_child_is_given_nothing_of_the_services_secrets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told = tmp_path / "environment"
    (tmp_path / "ends.py").write_text(f"import os\nopen({str(told)!r}, 'w').write(repr(dict(os.environ)))\nos.abort()")
    act(monkeypatch, tmp_path)
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    monkeypatch.setenv("ZSKY_DATA", "/a/data/folder")
    run(tmp_path)
    assert "hf_secret" not in told.read_text()
    assert "ZSKY" not in told.read_text()


def test_what_a_decoder_stumbles_over_is_logged_without_the_picture(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        refusal(DAMAGING["a PNG that is cut short"][0](), tmp_path / "a.png")
    (record,) = [record for record in caplog.records if record.name == "zsky_box.decoder"]
    assert "\n" not in record.getMessage()


def test_few_run_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    inside, most, lock, full = 0, 0, threading.Lock(), threading.Event()

    def counted(_: Task, __: bytes) -> Answer:
        nonlocal inside, most
        with lock:
            inside += 1
            most = max(most, inside)
            if inside == AT_ONCE:
                full.set()
        assert full.wait(60), "as many as may run at once do so"
        with lock:
            inside -= 1
        return Clean(width=1, height=1, bytes=1, sha256="")

    monkeypatch.setattr(decoder, "decoded", counted)

    async def all_of_them() -> None:
        one = Decoder(10**6)
        await asyncio.gather(*(one.clean(PICTURE, tmp_path / f"{n}.png", field="file") for n in range(4 * AT_ONCE)))
        one.close()

    asyncio.run(all_of_them())
    assert most == AT_ONCE


def act(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """Have a module of this folder stand in for the child."""
    monkeypatch.setattr(decoder, "ENTRY", "ends")
    monkeypatch.setenv("PYTHONPATH", f"{folder}{os.pathsep}{os.pathsep.join(sys.path)}")


def run(folder: Path) -> Answer:
    return decoded(Task(kind="PNG", pixels_max=10**6, path=str(folder / "a.png")), PICTURE)
