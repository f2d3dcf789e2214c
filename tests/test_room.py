"""Whether a model fits the box at all, by the recipes that are installed."""

from __future__ import annotations

from pathlib import Path

import msgspec

from tests.two_models import CLIP, TwoModels, card


def test_a_box_with_room_refuses_nothing(tmp_path: Path) -> None:
    box = TwoModels(tmp_path)
    assert box.refusal(CLIP, card(16)) is None, "swapped from host memory"
    assert box.refusal(CLIP, card(8), card(40, device="cuda:1")) is None


def test_what_is_too_large_is_told_what_would_fit_shorter_first(tmp_path: Path) -> None:
    box = TwoModels(tmp_path)
    long = msgspec.structs.replace(CLIP, frames=961)
    told = box.refusal(long, card(24))
    assert told is not None
    assert told.startswith("at 1920x1080 for 40 s needs 26.3 GiB, and the largest device here has 24.0 GiB; ")
    fitting = float(told.rpartition("; ")[2].removesuffix(" s fits"))
    assert fitting < 40
    shorter = msgspec.structs.replace(CLIP, frames=round(fitting * 24))
    assert box.refusal(shorter, card(24)) is None


def test_what_no_size_makes_small_enough_says_so(tmp_path: Path) -> None:
    told = TwoModels(tmp_path).refusal(CLIP, card(6))
    assert told is not None
    assert told.endswith("too little for this model at any size")


def test_host_memory_is_named_where_it_is_what_is_missing(tmp_path: Path) -> None:
    told = TwoModels(tmp_path).refusal(CLIP, card(16), host_gib=8)
    assert told is not None
    assert "more host memory than the 8.0 GiB" in told


def test_a_model_that_the_owner_keeps_off_every_card_is_refused(tmp_path: Path) -> None:
    box = TwoModels(tmp_path)
    two = card(80), card(80, device="cuda:1")
    off = {"cuda:0": frozenset({"big"})}
    assert box.refusal(CLIP, *two, exclusions=off) is None
    told = box.refusal(CLIP, two[0], exclusions=off)
    assert told is not None
    assert "this box has not" in told


def test_what_is_pinned_takes_its_place_from_all_others_and_not_from_itself(tmp_path: Path) -> None:
    box, pins = TwoModels(tmp_path), {"cuda:0": frozenset({"big"})}
    other = msgspec.structs.replace(CLIP, model="small")
    assert box.refusal(other, card(32)) is None
    told = box.refusal(other, card(32), pins=pins)
    assert told is not None
    assert "2.0 GiB beside what is pinned" in told
    assert box.refusal(CLIP, card(36), pins=pins) is None
