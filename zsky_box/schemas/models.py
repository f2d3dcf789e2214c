"""The catalogue as clients read it."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

from zsky_box.formats import AspectRatio, Resolution
from zsky_box.manifest import JobType


class LicenceView(Struct, kw_only=True):
    """Who may use a model's output."""

    name: str
    url: str
    terms: str


class VocabularyView(Struct, kw_only=True):
    """All that a model of a small world knows, by topic, and prompts that show it."""

    knows: dict[str, list[str]]
    examples: list[str]


class ModelView(Struct, kw_only=True):
    """One model of the catalogue. An `experimental` one runs where it is named, and is nobody's default; one without a
    `vocabulary` reads any words.
    """

    id: str
    object: Literal["model"] = "model"
    title: str
    makes: list[JobType]
    installed: bool
    resident: bool
    default_for: list[JobType]
    resolutions: list[Resolution]
    aspect_ratios: list[AspectRatio]
    fps: list[int]
    min_duration: float | None
    max_duration: float | None
    default_duration: float | None
    default_fps: int | None
    max_images: int
    negative_prompt: bool
    reference_image: bool
    strength: bool
    vocabulary: VocabularyView | None
    experimental: bool
    licence: LicenceView
    commercial_use: str
    revision: str


class ModelList(Struct, kw_only=True):
    """All models of the catalogue."""

    object: Literal["list"] = "list"
    data: list[ModelView]
    has_more: bool = False
    next_cursor: str | None = None
