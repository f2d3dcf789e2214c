"""Whether a file is safetensors by its content, and how many parameters it holds. Reads headers only, and trusts none.

The format: eight bytes with the header's length (little endian), the header as JSON, then the tensors without a gap.
https://huggingface.co/docs/safetensors
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta, Struct

from zsky_box.errors import InstallError

HEADER_BYTES_MAX: Final = 100_000_000  # the format's own bound
DIMENSIONS_MAX: Final = 64
"""Of a tensor. Models have six at most; the product of a million numbers would take hours."""
_LENGTH_BYTES: Final = 8
_METADATA: Final = "__metadata__"
_TYPES: Final = {
    4: "F4",
    6: "F6_E2M3 F6_E3M2",
    8: "BOOL U8 I8 F8_E5M2 F8_E4M3 F8_E8M0 F8_E5M2FNUZ F8_E4M3FNUZ",
    16: "I16 U16 F16 BF16",
    32: "I32 U32 F32",
    64: "I64 U64 F64 C64",
}
_BITS: Final = {name: bits for bits, names in _TYPES.items() for name in names.split()}

_Count = Annotated[int, Meta(ge=0)]


class _Tensor(Struct, frozen=True):
    dtype: str
    shape: Annotated[tuple[_Count, ...], Meta(max_length=DIMENSIONS_MAX)]
    data_offsets: tuple[_Count, _Count]


def check(path: Path, name: str) -> None:
    """Raises InstallError, naming the file `name`, unless it is safetensors from its first byte to its last."""
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(_LENGTH_BYTES), "little")
        if size < _LENGTH_BYTES or not 2 <= length <= min(HEADER_BYTES_MAX, size - _LENGTH_BYTES):
            raise _foreign(name, "its header has no possible length")
        header = file.read(length)
    try:
        raw = msgspec.json.decode(header, type=dict[str, Any])
        raw.pop(_METADATA, None)
        tensors = msgspec.convert(raw, dict[str, _Tensor])
    except (msgspec.DecodeError, msgspec.ValidationError, UnicodeDecodeError, RecursionError) as error:
        raise _foreign(name, f"its header cannot be read ({error})") from error
    _check_tensors(name, tensors, size - _LENGTH_BYTES - length)


def _check_tensors(name: str, tensors: dict[str, _Tensor], data_bytes: int) -> None:
    end = 0
    for tensor in sorted(tensors.values(), key=lambda tensor: tensor.data_offsets):
        begins, ends = tensor.data_offsets
        if begins != end or ends < begins:
            raise _foreign(name, "its tensors overlap or leave gaps")
        bits = _BITS.get(tensor.dtype)
        if bits is None:
            raise _foreign(name, f"it holds a type {tensor.dtype[:20]!r} that the format has not")
        if math.prod(tensor.shape) * bits != (ends - begins) * 8:
            raise _foreign(name, "a tensor's shape does not fit its length")
        end = ends
    if end != data_bytes:
        raise _foreign(name, "its tensors do not end where the file does")


def _foreign(name: str, reason: str) -> InstallError:
    return InstallError(f"{name} is not a safetensors file: {reason}. Nothing else is loaded, so nothing is installed.")
