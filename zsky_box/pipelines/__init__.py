"""The model families, each in one file that is imported when it is first needed: none costs a box that lacks it."""

from __future__ import annotations

from importlib import import_module
from typing import Final, cast

from zsky_box.pipelines.base import Load

FAMILIES: Final = {
    "leader": "zsky_box.pipelines.leader",
    "mini": "zsky_box.pipelines.mini",
    "ltx2": "zsky_box.pipelines.ltx2",
    "flux2_klein": "zsky_box.pipelines.flux2_klein",
    "z_image": "zsky_box.pipelines.z_image",
}


def loader(family: str) -> Load:
    """The `load` function of a family; raises KeyError for a family that this version does not have."""
    return cast(Load, import_module(FAMILIES[family]).load)
