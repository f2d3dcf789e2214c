"""The devices of `/admin/cards` as the page shows them, whatever befalls a card."""

from __future__ import annotations

from typing import Any

import pytest
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from zsky_box.cards import Reading
from zsky_box.pages.admin.cards import DeviceView, state_of
from zsky_box.pages.marked import marked
from zsky_box.settings import CHECKOUT
from zsky_box.slot import SlotView

GIB = 1024**3


def slot(**facts: Any) -> SlotView:
    known: dict[str, Any] = {
        "device": "cuda:0",
        "label": "cuda:0",
        "name": "NVIDIA H200",
        "test": False,
        "state": "ready",
        "resident": ("ltx-2.5",),
        "job_id": None,
        "restarts": 0,
    }
    return SlotView(**known | facts)


def reading(**facts: Any) -> Reading:
    known: dict[str, Any] = {
        "device": "cuda:0",
        "memory_total_bytes": 140 * GIB,
        "memory_used_bytes": 70 * GIB,
        "utilisation": 0.5,
        "temperature_celsius": 61.0,
        "power_watts": 412.4,
    }
    return Reading(**known | facts)


def shown(of: SlotView, read: Reading | None, *, paused: bool = False, unloaded: bool = False) -> str:
    """The part of the page about one device."""
    mood, said, why = state_of(of, paused=paused, unloaded=unloaded, quiet=False)
    device = DeviceView(
        slot=of,
        title=of.name,
        total_bytes=140 * GIB if read is None else read.memory_total_bytes,
        used_bytes=0 if read is None else read.memory_used_bytes,
        reading=read,
        jobs=[],
        paused=paused,
        unloaded=unloaded,
        with_all=False,
        mood=mood,
        said=said,
        why=why,
    )
    pages = Environment(
        loader=FileSystemLoader(CHECKOUT / "web" / "templates"), autoescape=True, undefined=StrictUndefined
    )
    pages.filters["marked"] = marked
    return pages.get_template("admin/_devices.html").render(devices=[device], csrf="token", shown_in_library=[])


def test_a_card_tells_memory_temperature_power_and_what_is_resident() -> None:
    page = shown(slot(), reading())
    for part in (
        "NVIDIA H200",
        "70.0 of 140.0 GiB",
        "61 °C",
        "412 W",
        "50 %",
        "ltx-2.5",
        "Free this card now",
        "Ready",
    ):
        assert part in page


def test_what_a_card_does_not_tell_is_said_and_not_made_up() -> None:
    page = shown(slot(), reading(temperature_celsius=None, power_watts=None, utilisation=None))
    assert page.count("not told") == 3
    assert "Temperature" not in shown(slot(), None)


def test_a_quarantined_card_says_why() -> None:
    page = shown(slot(state="quarantined", reason="reported a critical error (Xid 79)"), None)
    assert "Quarantined" in page
    assert "It reported a critical error (Xid 79)." in page
    assert 'class="notice bad"' in page


@pytest.mark.parametrize(
    ("facts", "word"),
    [
        ({"state": "loading"}, "Loading"),
        ({"state": "running", "job_id": "job_a"}, "Working"),
        ({"state": "starting"}, "Starting"),
        ({"state": "draining"}, "Stopping"),
    ],
)
def test_a_device_tells_what_it_is_at(facts: dict[str, Any], word: str) -> None:
    assert f">{word}</span>" in shown(slot(**facts), reading())


def test_what_can_be_done_follows_from_what_was_done() -> None:
    pausing = shown(slot(state="running", job_id="job_a"), reading(), paused=True)
    assert "Pausing" in pausing
    assert 'value="resume"' in pausing
    assert 'value="free"' in pausing
    freed = shown(slot(state="dead", resident=()), reading(), paused=True, unloaded=True)
    assert "Freed" in freed
    assert "no model" in freed
    assert 'value="free"' not in freed


def test_quiet_hours_are_named_before_a_pause_and_after_a_fault() -> None:
    assert state_of(slot(), paused=True, unloaded=True, quiet=True)[1] == "Quiet hours"
    assert state_of(slot(state="quarantined"), paused=False, unloaded=False, quiet=True)[1] == "Quarantined"
