"""Answers that are JSON, or a table as CSV where `Accept` prefers it or the address ends in `.csv`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from litestar import Request
from litestar.openapi import ResponseSpec

from zsky_box import sheets
from zsky_box.api.problems import documented
from zsky_box.api.sending import Sending, from_store
from zsky_box.db import Store

JSON: Final = "application/json"
NO_STORE: Final = {"Cache-Control": "no-store", "Vary": "Accept"}


def answers(view: Any, *codes: str) -> dict[int, ResponseSpec]:
    """What the document says of an answer in either form, and of its refusals."""
    ok = ResponseSpec(view, description="As JSON, or as CSV where `Accept` prefers it", generate_examples=False)
    return {200: ok, **documented("invalid_field", "unknown_field", *codes)}


def documented_sheet(*codes: str) -> dict[int, ResponseSpec]:
    """What the document says of an answer that is CSV alone."""
    ok = ResponseSpec(str, description="CSV with a header row", media_type="text/csv", generate_examples=False)
    return {200: ok, **documented("invalid_field", "unknown_field", *codes)}


def sheet(store: Store, pieces: Iterator[bytes], name: str) -> Sending:
    """A table to be saved as `zsky-NAME.csv`, sent as it is read."""
    headers = NO_STORE | {"Content-Disposition": f'attachment; filename="zsky-{name}.csv"'}
    return from_store(store, pieces, media_type=sheets.MEDIA_TYPE, headers=headers)


def prefers_csv(request: Request[Any, Any, Any]) -> bool:
    """Whether `Accept` names CSV, and JSON not before it."""
    weights = {"text/csv": 0.0, JSON: 0.0}
    for part in request.headers.get("accept", "").lower().split(","):
        kind, _, rest = part.partition(";")
        if kind.strip() in weights:
            weights[kind.strip()] = _weight(rest)
    return weights["text/csv"] > weights[JSON]


def _weight(parameters: str) -> float:
    for parameter in parameters.split(";"):
        name, _, value = parameter.partition("=")
        if name.strip() == "q":
            try:
                return float(value)
            except ValueError:
                return 0.0
    return 1.0
