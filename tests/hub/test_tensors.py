from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scripts.tiny_models import cached
from tests.hub.checkpoint import safetensors
from zsky_box.errors import InstallError
from zsky_box.install import tensors


def framed(header: Any, data: bytes = b"") -> bytes:
    head = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(head).to_bytes(8, "little") + head + data


def tensor(begin: int, end: int, shape: list[int], dtype: str = "U8") -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


def checked(folder: Path, content: bytes) -> None:
    path = folder / "a.safetensors"
    path.write_bytes(content)
    tensors.check(path, "vae/a.safetensors")


@pytest.mark.parametrize(
    "content",
    [
        safetensors(100),
        framed({}),
        framed({"__metadata__": {"format": "pt"}}),
        framed({"a": tensor(0, 0, [0, 4])}),
        framed({"a": tensor(0, 4, [], "F32")}, bytes(4)),
        framed({"a": tensor(0, 3, [6], "F4")}, bytes(3)),
        framed({"b": tensor(2, 4, [2]), "a": tensor(0, 2, [1], "BF16")}, bytes(4)),
    ],
)
def test_what_the_format_allows_passes(tmp_path: Path, content: bytes) -> None:
    checked(tmp_path, content)


def test_what_the_library_writes_passes() -> None:
    files = list(cached("tiny-klein").rglob("*.safetensors"))
    assert len(files) == 3
    for path in files:
        tensors.check(path, path.name)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"", "no possible length"),
        (b"\x02\x00", "no possible length"),
        (b"\x80\x04\x95 a pickle of some length", "no possible length"),
        (b"PK\x03\x04" + bytes(100), "no possible length|cannot be read"),
        ((2**63).to_bytes(8, "little") + bytes(100), "no possible length"),
        (framed(b"not json"), "cannot be read"),
        (framed(b"\xff\xfe"), "cannot be read"),
        (framed([1]), "cannot be read"),
        (framed(b'{"a": ' + b"[" * 200_000), "cannot be read"),
        (framed({"a": tensor(0, 4, [2**62] * 100_000)}, bytes(4)), "cannot be read"),
        (framed({"a": {"dtype": "U8"}}), "cannot be read"),
        (framed({"a": tensor(-1, 3, [4])}, bytes(4)), "cannot be read"),
        (framed({"a": tensor(0, 4, [-4])}, bytes(4)), "cannot be read"),
        (framed({"a": tensor(1, 4, [3])}, bytes(4)), "overlap or leave gaps"),
        (framed({"a": tensor(0, 4, [4]), "b": tensor(3, 5, [2])}, bytes(5)), "overlap or leave gaps"),
        (framed({"a": tensor(4, 0, [4])}, bytes(4)), "overlap or leave gaps"),
        (framed({"a": tensor(0, 4, [4])}, bytes(3)), "do not end where the file does"),
        (framed({"a": tensor(0, 4, [4])}, bytes(5)), "do not end where the file does"),
        (framed({"a": tensor(0, 4, [5])}, bytes(4)), "does not fit its length"),
        (framed({"a": tensor(0, 4, [4], "PICKLE")}, bytes(4)), "'PICKLE'"),
    ],
)
def test_anything_else_is_refused_by_name(tmp_path: Path, content: bytes, told: str) -> None:
    with pytest.raises(InstallError, match=rf"^vae/a\.safetensors is not a safetensors file: .*({told})"):
        checked(tmp_path, content)


@given(cut=st.integers(0, len(safetensors(100)) - 1))
def test_a_cut_file_is_refused(tmp_path_factory: pytest.TempPathFactory, cut: int) -> None:
    whole = safetensors(100)
    with pytest.raises(InstallError):
        checked(tmp_path_factory.mktemp("cut"), whole[:cut])
