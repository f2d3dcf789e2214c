from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zsky_box.pricing import micros, price_micros, usd
from zsky_box.settings import Settings


@pytest.mark.parametrize(
    ("text", "amount"),
    [("0", 0), ("0.5", 500_000), ("0.50", 500_000), ("0.05", 50_000), ("1000", 10**9)],
)
def test_dollars_become_micros_exactly(text: str, amount: int) -> None:
    assert micros(text) == amount


@pytest.mark.parametrize(
    "text", ["", "five", "nan", "inf", "-inf", "sNaN", "0.001", "1e-3", "1e30", "1e999999", "-1e999999", "0x10", "1,50"]
)
def test_what_is_no_amount_of_dollars_is_a_value_error(text: str) -> None:
    with pytest.raises(ValueError, match="is not an amount of dollars"):
        micros(text)


@settings(deadline=None)
@given(st.text(max_size=20))
def test_any_text_is_an_amount_or_a_value_error(text: str) -> None:
    try:
        amount = micros(text)
    except ValueError:
        return
    assert micros(usd(amount)) == amount


@settings(deadline=None)
@given(st.integers(min_value=0, max_value=10**11))
def test_cents_survive_being_written_and_read(cents: int) -> None:
    assert micros(usd(cents * 10_000)) == cents * 10_000
    assert usd(cents * 10_000) == f"{cents // 100}.{cents % 100:02d}"


def test_fractions_of_a_cent_are_shown_only_where_there_are_some() -> None:
    assert [usd(amount) for amount in (0, 1, 5_000, 10_000, 1_000_000, 1_500_001)] == [
        "0.00",
        "0.000001",
        "0.005",
        "0.01",
        "1.00",
        "1.500001",
    ]


def test_a_unit_costs_what_its_type_is_set_to() -> None:
    prices = Settings(video_usd="0.50", image_usd="0.05")
    assert (price_micros("video", prices), price_micros("image", prices)) == (500_000, 50_000)
