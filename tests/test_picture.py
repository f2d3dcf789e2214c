from __future__ import annotations

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.media.pictures import corners, encoded, strange
from zsky_box.picture import DATA_URI, kind_of, of_data_uri


def uri(content: bytes, kind: str = "image/png") -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def test_a_picture_is_what_its_first_bytes_say() -> None:
    for kind in ("PNG", "JPEG", "WEBP"):
        assert kind_of(encoded(corners(), kind)) == kind
    assert {kind_of(content) for content in strange().values()} == {None}
    assert kind_of(b"") is None


@given(st.binary(min_size=1, max_size=200))
def test_a_data_uri_has_the_bytes_that_went_in(content: bytes) -> None:
    for kind in ("image/png", "image/jpeg", "image/webp"):
        assert of_data_uri(uri(content, kind)) == content


def test_a_long_one_is_read_in_steps_and_is_the_same() -> None:
    content = bytes(range(256)) * 12_289  # of several steps, and no multiple of three
    assert of_data_uri(uri(content)) == content
    assert of_data_uri(uri(content).replace("data:image", "DATA:Image", 1)) == content


@pytest.mark.parametrize(
    "text",
    [
        "data:",
        "data:,",
        "data:image/png;base64",
        "data:image/png,AAAA",
        "data:;base64,AAAA",
        "data:image/gif;base64,AAAA",
        "data:image/svg+xml;base64,AAAA",
        "data:text/html;base64,AAAA",
        "data:image/png;charset=utf-8;base64,AAAA",
        "data:image/png;base64;base64,AAAA",
        " data:image/png;base64,AAAA",
    ],
)
def test_another_head_is_refused_with_those_that_are_taken(text: str) -> None:
    with pytest.raises(
        ValueError, match="begins with data:image/png;base64, data:image/jpeg;base64 or data:image/webp"
    ):
        of_data_uri(text)


@pytest.mark.parametrize(
    "encoded",
    [
        "A",
        "AA",
        "AAA",
        "AA=A",
        "AAAA=",
        "AAAA====",
        "AAAA AAAA",
        "AAAA\n",
        "AA-_",
        "=AAA",
        "AA==AAAA",
        "AAAÄ",
        "%41AAA",
    ],
)
def test_what_is_not_strictly_base64_is_refused(encoded: str) -> None:
    with pytest.raises(ValueError, match="not base64"):
        of_data_uri(f"data:image/png;base64,{encoded}")


def test_padding_in_the_middle_of_a_long_one_is_refused() -> None:
    step = "A" * (1 << 20)
    with pytest.raises(ValueError, match="not base64"):
        of_data_uri(f"data:image/png;base64,{step[:-2]}=={step}")


def test_an_empty_one_is_refused() -> None:
    with pytest.raises(ValueError, match="nothing in it"):
        of_data_uri("data:image/png;base64,")
    assert "data:image/png;base64,".startswith(DATA_URI)
