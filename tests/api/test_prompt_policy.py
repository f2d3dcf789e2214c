"""`prompt_blocked`: what the policy does not take is refused at submit, in quotes and at reruns, and moves nothing."""

from __future__ import annotations

import json
from collections.abc import Generator
from pathlib import Path

import httpx
import pytest

from tests.api.asking import IMAGE, VIDEO, made, nothing_happens, problem
from tests.running import RunningBox
from zsky_box.policy.lexicon import LEXICON
from zsky_box.policy.minors import listed

BLOCKED = {**IMAGE, "prompt": "a billboard of ACME, golden hour"}
ON_MINORS = {**IMAGE, "prompt": ", ".join(listed(getattr(LEXICON["en"], kind))[0] for kind in ("child", "sexual"))}
RULES = json.dumps({"brands": ["acme", "test"]})


@pytest.fixture(scope="module")
def strict(tmp_path_factory: pytest.TempPathFactory) -> Generator[RunningBox]:
    """A box whose owner blocks a brand, and a word that is in the prompts of test keys."""
    folder = tmp_path_factory.mktemp("strict") / "data"
    running = RunningBox(folder, devices="cpu", blocked_terms=RULES).start()
    yield running
    running.stop()


@pytest.fixture
def client(strict: RunningBox) -> Generator[httpx.Client]:
    with strict.client() as client:
        yield client


@pytest.mark.parametrize("body", [BLOCKED, {**VIDEO, "prompt": "Acme"}, ON_MINORS])
def test_a_blocked_prompt_is_refused_and_moves_nothing(client: httpx.Client, body: dict[str, object]) -> None:
    with nothing_happens(client):
        told = problem(client.post("/v1/generate", json=body), 422, "prompt_blocked", "prompt")
    assert told["errors"] == [{"field": "prompt", "code": "prompt_blocked", "message": told["detail"]}]
    assert str(body["prompt"]) not in json.dumps(told)


def test_a_quote_tells_it_as_data(client: httpx.Client) -> None:
    quote = client.post("/v1/quote", json=BLOCKED).json()
    assert (quote["refusal"], quote["would_accept"], quote["model"], quote["fits"]) == (
        "prompt_blocked",
        False,
        "leader",
        True,
    )
    assert "rule 'brands'" in quote["refusal_detail"]
    assert client.post("/v1/quote", json=IMAGE).json()["would_accept"] is True


def test_what_is_wrong_with_the_body_is_told_first(client: httpx.Client) -> None:
    problem(client.post("/v1/generate", json={**BLOCKED, "n": 11}), 422, "invalid_field", "n")


def test_a_key_may_be_used_again_after_a_refusal(client: httpx.Client) -> None:
    headers = {"Idempotency-Key": "blocked-then-changed"}
    problem(client.post("/v1/generate", json=BLOCKED, headers=headers), 422, "prompt_blocked")
    assert client.post("/v1/generate", json=IMAGE, headers=headers).status_code == 202


def test_test_keys_meet_the_rules_and_their_own_prompts_do_not(strict: RunningBox) -> None:
    with strict.client("test") as tester:
        problem(tester.post("/v1/generate", json=BLOCKED), 422, "prompt_blocked", "prompt")
        problem(tester.post("/v1/generate", json={**IMAGE, "prompt": "test: acme"}), 422, "prompt_blocked", "prompt")
        problem(tester.post("/v1/generate", json={**IMAGE, "prompt": "test:cap"}), 429, "cap_reached")
        assert tester.post("/v1/generate", json={**IMAGE, "prompt": " test:fail\n"}).status_code == 202
    with strict.client() as client:
        problem(client.post("/v1/generate", json={**IMAGE, "prompt": "test:fail"}), 422, "prompt_blocked")


def test_the_log_names_the_rule_and_the_request_and_not_the_prompt(strict: RunningBox, client: httpx.Client) -> None:
    answer = client.post("/v1/generate", json={**IMAGE, "prompt": "Acme, quokka, marzipan"})
    told = next(line for line in strict.log().splitlines() if answer.json()["request_id"] in line)
    assert "refused by the rule 'brands'" in told
    assert "marzipan" not in strict.log()
    problem(client.post("/v1/generate", json=ON_MINORS), 422, "prompt_blocked")
    assert "refused by the rule 'minors'" in strict.log()


def test_a_rerun_meets_the_rules_of_today(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    before = RunningBox(folder, devices="cpu").start()
    try:
        with before.client() as client:
            job_id = made(before, client, BLOCKED)["job_id"]
    finally:
        before.stop()
    after = RunningBox(folder, devices="cpu", blocked_terms=RULES)
    after.keys = before.keys
    after.start(ready=False)
    try:
        with after.client() as client, nothing_happens(client):
            problem(client.post(f"/v1/jobs/{job_id}/rerun"), 422, "prompt_blocked", "prompt")
    finally:
        after.stop()
