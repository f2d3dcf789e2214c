"""The served OpenAPI document: complete, valid, and kept by the service; schemathesis asks what a client might."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Generator
from pathlib import Path
from typing import Any

import httpx
import jsonschema_rs
import pytest

from tests.api.asking import IMAGE, VIDEO, made, problem
from tests.media.pictures import corners, encoded
from tests.running import RunningBox
from zsky_box.settings import CHECKOUT

# A request that keeps the schema may still ask for what this model cannot do, so that "valid data is accepted" cannot
# hold; and Litestar's own answer to OPTIONS names only one method of an address that has several.
EXCLUDED_CHECKS = "positive_data_acceptance,allow_header_conformance"
FUZZ_SECONDS_MAX = 600


@pytest.fixture(scope="module")
def document(live: httpx.Client) -> dict[str, Any]:
    """The document as it is served."""
    return live.get("/v1/openapi.json").json()


def test_it_works(document: dict[str, Any]) -> None:
    assert document["openapi"].startswith("3.1")
    assert document["info"]["title"] == "zsky-box"
    assert document["security"] == [{"ApiKey": []}, {"Bearer": []}]


def test_every_schema_in_it_is_a_valid_one(document: dict[str, Any]) -> None:
    """OpenAPI 3.1's schemas are JSON Schema 2020-12, and every reference leads somewhere."""
    for name in document["components"]["schemas"]:
        jsonschema_rs.validator_for({"$ref": f"#/components/schemas/{name}", "components": document["components"]})
    for reference in re.findall(r'"\$ref": ?"#/components/schemas/(\w+)"', json.dumps(document)):
        assert reference in document["components"]["schemas"]


def test_every_route_of_the_documentation_is_in_it(document: dict[str, Any]) -> None:
    told = re.findall(r"`(GET|POST|DELETE|HEAD) (/[\w./{}-]+)`", (CHECKOUT / "docs" / "api.md").read_text())
    assert len(told) > 12
    for method, path in told:
        assert method.lower() in document["paths"][path], f"{method} {path}"
    assert len({f"{method} {path}" for path, item in document["paths"].items() for method in item}) >= len(set(told))


def test_every_code_of_the_documentation_is_in_it(document: dict[str, Any]) -> None:
    text = (CHECKOUT / "docs" / "api.md").read_text()
    table = text[text.index("## Refusals") : text.index("## How a job ends")]
    codes = {code for row in re.findall(r"^\| \d.*$", table, re.MULTILINE) for code in re.findall(r"`([a-z_]+)`", row)}
    # A wrong method is no operation, and keys, accounts and installed models are made by no REST route.
    wanted = codes - {"method_not_allowed", "too_many_keys", "too_many_accounts", "model_busy"}
    assert len(wanted) > 20
    answers = json.dumps([operation["responses"] for operation in _operations(document)])
    assert {code for code in wanted if f"`{code}`" not in answers} == set()


def test_every_answer_has_a_body_that_is_described(document: dict[str, Any]) -> None:
    for operation in _operations(document):
        assert operation["operationId"]
        assert operation["summary"]
        for status, answer in operation["responses"].items():
            assert answer["description"], (operation["operationId"], status)
            bodiless = status in ("204", "304", "416") or operation["operationId"] == "headFile"
            assert bool(answer.get("content")) != bodiless, (operation["operationId"], status)


def test_the_body_of_a_request_is_described(document: dict[str, Any]) -> None:
    body = document["paths"]["/v1/generate"]["post"]["requestBody"]
    assert body["required"] is True
    assert body["content"]["application/json"]["schema"] == {"$ref": "#/components/schemas/GenerateBody"}
    schema = document["components"]["schemas"]["GenerateBody"]
    assert schema["required"] == ["type", "prompt"]
    assert schema["additionalProperties"] is False
    assert schema["properties"]["prompt"]["maxLength"] == 8_000


def test_a_picture_is_described_as_a_form_and_as_itself(document: dict[str, Any]) -> None:
    content = document["paths"]["/v1/uploads"]["post"]["requestBody"]["content"]
    assert set(content) == {"multipart/form-data", "image/png", "image/jpeg", "image/webp"}
    assert content["multipart/form-data"]["schema"]["required"] == ["file"]


def test_what_is_served_is_what_is_described(
    shared_box: RunningBox, live: httpx.Client, document: dict[str, Any]
) -> None:
    job = made(shared_box, live, VIDEO)
    _valid(document, "JobView", job)
    _valid(document, "JobList", live.get("/v1/jobs").json())
    _valid(document, "JobAccepted", live.post("/v1/generate", json=IMAGE).json())
    _valid(document, "MeView", live.get("/v1/me").json())
    _valid(document, "OverageView", live.get("/v1/me/overage").json())
    _valid(document, "QuoteView", live.post("/v1/quote", json=IMAGE).json())
    sent = live.post("/v1/uploads", files={"file": ("corners.png", encoded(corners()))})
    _valid(document, "UploadView", sent.json())
    _valid(document, "UploadView", live.delete(f"/v1/uploads/{sent.json()['id']}").json())
    _valid(document, "ModelList", live.get("/v1/models").json())
    _valid(document, "Problem", problem(live.post("/v1/generate", json={}), 422, "invalid_field"))


def test_what_costs_or_changes_money_takes_an_idempotency_key_and_nothing_else_does(document: dict[str, Any]) -> None:
    named = {
        operation["operationId"]
        for operation in _operations(document)
        for parameter in operation.get("parameters", [])
        if parameter["name"] == "Idempotency-Key"
    }
    assert named == {"generate", "rerunJob", "toggleOverage", "setCap", "uploadPicture"}


def test_an_accepted_job_has_an_address(document: dict[str, Any]) -> None:
    accepting = [operation for operation in _operations(document) if "202" in operation["responses"]]
    assert {operation["operationId"] for operation in accepting} == {"generate", "rerunJob"}
    assert all("Location" in operation["responses"]["202"]["headers"] for operation in accepting)


@pytest.fixture
def target(tmp_path: Path) -> Generator[RunningBox]:
    """A box of its own, whose money anybody may change, and that lets a fuzzer ask as fast as it can."""
    wide: dict[str, Any] = {"requests_per_second": 100_000, "requests_burst": 10**6}
    running = RunningBox(tmp_path / "data", devices="cpu", included_images=10**6, **wide).start()
    yield running
    running.stop()


def test_nothing_that_a_client_may_send_breaks_the_box(
    target: RunningBox, document: dict[str, Any], tmp_path: Path
) -> None:
    """Every documented operation with what the schema allows and what it does not, a few examples each."""
    _fuzz(target, document, tmp_path, "--max-examples", "3", "--seed", "1")


@pytest.mark.campaign
@pytest.mark.timeout(FUZZ_SECONDS_MAX + 60)
def test_nothing_that_many_clients_may_send_breaks_the_box(
    target: RunningBox, document: dict[str, Any], tmp_path: Path
) -> None:
    _fuzz(target, document, tmp_path, "--max-examples", "200")


def _fuzz(box: RunningBox, document: dict[str, Any], folder: Path, *options: str) -> None:
    path = folder / "openapi.json"
    path.write_text(json.dumps(document))
    traces = box.log().count("Traceback")
    call = [sys.executable, "-m", "schemathesis.cli", "run", str(path), "--url", box.url]
    call += ["--header", f"X-API-Key: {box.keys['live']}", "--phases", "examples,coverage,fuzzing", "--no-color"]
    # The event streams do not end by themselves; they have tests of their own.
    call += [
        "--exclude-operation-id-regex",
        "^stream",
        "--checks",
        "all",
        "--exclude-checks",
        EXCLUDED_CHECKS,
        *options,
    ]
    done = subprocess.run(call, cwd=folder, capture_output=True, text=True, timeout=FUZZ_SECONDS_MAX, check=False)
    assert done.returncode == 0, done.stdout[-8_000:] + done.stderr[-2_000:]
    total = len(_operations(document))
    assert f"{total - 2} selected / {total} total" in done.stdout
    assert box.log().count("Traceback") == traces


def _operations(document: dict[str, Any]) -> list[dict[str, Any]]:
    return [operation for item in document["paths"].values() for operation in item.values()]


def _valid(document: dict[str, Any], name: str, value: object) -> None:
    schema = {"$ref": f"#/components/schemas/{name}", "components": document["components"]}
    jsonschema_rs.validator_for(schema).validate(value)
