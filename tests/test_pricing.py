from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zsky_box.pricing import given_micros, micros, price_micros, usd
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


@pytest.mark.parametrize(
    ("given", "amount"),
    [("25", 25_000_000), ("25.5", 25_500_000), ("0.01", 10_000), (5, 5_000_000), (Decimal("5.55"), 5_550_000)],
)
def test_an_amount_is_given_as_text_or_as_a_number(given: object, amount: int) -> None:
    assert given_micros(given) == amount


def test_a_number_is_worth_what_it_says_however_it_is_written() -> None:
    assert given_micros(Decimal("1E+2")) == given_micros(Decimal("100.000")) == given_micros(100)


@pytest.mark.parametrize(
    "given",
    [
        *(True, False, None, 5.5, [], {}, -5, 10**9 + 1, 10**5000),
        *(Decimal("5.555"), Decimal(-5), Decimal("1e999"), Decimal("0.1" + "0" * 40 + "1")),
        *(
            "",
            " 5",
            "5 ",
            "5\n",
            "+5",
            "-5",
            "5.",
            ".5",
            "5.555",
            "5.000",
            "5_0",
            "5e1",
            "\u0665",
            "nan",
            "inf",
            "9" * 11,
        ),
    ],
    ids=lambda given: str(given)[:20] if not isinstance(given, int) else "number",
)
def test_what_no_request_may_give_is_a_value_error(given: object) -> None:
    with pytest.raises(ValueError, match="is not an amount of dollars"):
        given_micros(given)


@settings(deadline=None)
@given(st.text(max_size=6))
def test_any_text_that_is_an_amount_is_the_one_that_it_says(text: str) -> None:
    try:
        amount = given_micros(text)
    except ValueError:
        return
    assert text.isascii()
    assert text.replace(".", "", 1).isdigit()
    assert Decimal(usd(amount)) == Decimal(text)


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
