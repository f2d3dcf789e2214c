"""`/v1/me` and `/v1/models`."""

from __future__ import annotations

import csv
import tomllib
from datetime import UTC, datetime

import httpx

from tests.api.asking import IMAGE, problem, submit, units_left
from tests.running import RunningBox
from tests.waiting import until
from zsky_box.settings import CHECKOUT


def test_it_works(shared_box: RunningBox, live: httpx.Client) -> None:
    me = live.get("/v1/me").json()
    assert (me["account"], me["name"], me["plan"], me["test"]) == (shared_box.keys["account"], "owner", "max", False)
    assert me["key"]["scopes"] == ["generate", "read", "billing"]
    for units in me["included"].values():
        assert units["left"] == units["granted"] - units["used"] - units["pending"]
    assert me["included"]["video"]["granted"] == 300


def test_it_is_a_table_too(live: httpx.Client) -> None:
    me = live.get("/v1/me").json()
    answer = live.get("/v1/me.csv")
    assert answer.headers["Content-Disposition"] == 'attachment; filename="zsky-me.csv"'
    rows = list(csv.DictReader(answer.text.splitlines()))
    assert [(row["type"], row["account"], row["key_id"], row["key_scopes"], row["test"]) for row in rows] == [
        (kind, me["account"], me["key"]["id"], "generate read billing", "false") for kind in me["included"]
    ]
    assert {row["type"]: row["granted"] for row in rows} == {
        kind: str(units["granted"]) for kind, units in me["included"].items()
    }
    preferred = live.get("/v1/me", headers={"Accept": "text/csv, application/json;q=0.5"})
    assert preferred.headers["Content-Type"] == answer.headers["Content-Type"]
    assert preferred.text.splitlines()[0] == answer.text.splitlines()[0]


def test_a_job_takes_its_units_at_once(live: httpx.Client) -> None:
    before = units_left(live)
    submit(live, {**IMAGE, "n": 2})
    assert units_left(live) == before | {"image": before["image"] - 2}


def test_the_period_is_this_calendar_month(live: httpx.Client) -> None:
    before = datetime.now(UTC)
    period = live.get("/v1/me").json()["period"]
    start, end = (datetime.fromisoformat(period[name]) for name in ("start", "end"))
    assert start <= datetime.now(UTC)
    assert before < end
    assert (start.day, start.hour, end.day, end.hour) == (1, 0, 1, 0)
    assert 28 <= (end - start).days <= 31


def test_the_models_are_those_of_the_manifests(live: httpx.Client) -> None:
    listed = live.get("/v1/models").json()
    assert (listed["object"], listed["has_more"], listed["next_cursor"]) == ("list", False, None)
    manifests = {path.stem: tomllib.loads(path.read_text()) for path in (CHECKOUT / "models").glob("*.toml")}
    models = {model["id"]: model for model in listed["data"]}
    assert models.keys() == manifests.keys()
    for name, manifest in manifests.items():
        assert models[name]["title"] == manifest["title"]
        assert models[name]["makes"] == manifest["makes"]
        assert models[name]["licence"]["name"] == manifest["licence"]["name"]
        assert models[name]["commercial_use"] in ("yes", "no", "conditional")
        assert models[name]["installed"] == (name == "leader")
    leader = models["leader"]
    assert leader["default_for"] == ["video", "image"]
    assert (leader["min_duration"], leader["max_duration"], leader["default_fps"]) == (1.0, 20.0, 24)


def test_what_a_model_is_said_to_do_is_accepted(live: httpx.Client) -> None:
    leader = next(model for model in live.get("/v1/models").json()["data"] if model["id"] == "leader")
    for name, body in (
        ("resolution", [{"resolution": value} for value in leader["resolutions"]]),
        ("aspect_ratio", [{"aspect_ratio": value} for value in leader["aspect_ratios"]]),
        ("n", [{"n": leader["max_images"]}]),
    ):
        for changes in body:
            assert live.post("/v1/generate", json={**IMAGE, **changes}).status_code == 202, (name, changes)
    problem(live.post("/v1/generate", json={**IMAGE, "n": leader["max_images"] + 1}), 422, "invalid_field", "n")


def test_a_model_is_resident_once_it_ran(box: RunningBox) -> None:
    """The worker's next sign of life tells of it."""
    with box.client() as client:

        def resident() -> list[str]:
            return [model["id"] for model in client.get("/v1/models").json()["data"] if model["resident"]]

        assert resident() == []
        box.ended(client, submit(client, IMAGE))
        until(lambda: resident() == ["leader"], "the model is resident")
