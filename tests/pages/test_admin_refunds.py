"""`/admin/people/…/charges`: what jobs were charged, and paying it back; for the owner alone."""

from __future__ import annotations

from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.api.asking import command
from tests.boxes import running
from tests.pages.test_admin_cards import audited
from tests.pages.test_admin_people import change, id_of, once_of
from tests.people import Browser, add_people, signed_in
from tests.running import RunningBox


@pytest.fixture(scope="module")
def studio(tmp_path_factory: pytest.TempPathFactory) -> Generator[RunningBox]:
    """A month includes two images, so that the third of a job is paid from the wallet."""
    folder = tmp_path_factory.mktemp("refunds") / "data"
    RunningBox(folder)
    add_people(folder, "ada", "ben", "cid", "dora")
    with running(folder, included_images=2) as box:
        with signed_in(box) as owner:
            for name in ("ada", "ben", "cid"):
                path = f"/admin/people/{id_of(owner, name)}"
                change(owner, path, do="topup", amount_usd="1")
                change(owner, path, do="overage", enabled="yes")
        yield box
    assert command(folder, "ledger", "verify")["verifies"]


def made(box: RunningBox, browser: Browser, prompt: str = "a fox in the snow", n: int = 3) -> str:
    """A completed job of `n` images."""
    body = {"type": "image", "prompt": prompt, "n": n}
    job_id = browser.post("/v1/generate", json=body, headers={"X-CSRF-Token": browser.csrf}).json()["job_id"]
    assert box.ended(browser, job_id)["status"] == "completed"
    return job_id


def standing(browser: Browser) -> tuple[str, int]:
    """What the wallet has, and how many included images are left."""
    stands = browser.get("/v1/me/overage").json()
    return stands["wallet_usd"], stands["included"]["image"]["left"]


def test_a_job_is_paid_back_image_by_image_and_shown_before(studio: RunningBox) -> None:
    with signed_in(studio, "ada") as ada, signed_in(studio) as owner:
        job_id = made(studio, ada)
        assert standing(ada) == ("0.95", 0)
        here = f"/admin/people/{id_of(owner, 'ada')}/charges"
        listed = owner.get(here).text
        for part in ("a fox in the snow", job_id, "2 included images and $0.05", "Pay back…"):
            assert part in listed
        path = f"{here}/{job_id}"
        assert "Image 3 only: $0.05" in owner.get(path).text
        asked = owner.submit(path, result="2", reason="a blot").text
        for part in ("is this right?", "$0.95", "$1.00", "$0.05 into the wallet of ada", "Reason on record: a blot"):
            assert part in asked
        assert standing(ada) == ("0.95", 0), "nothing is moved by asking"
        answer = owner.submit(path, result="2", reason="a blot", sure="yes", once=once_of(asked))
        assert (answer.status_code, answer.headers["location"]) == (303, here)
        assert standing(ada) == ("1.00", 0)
        asked = owner.submit(path, result="all", reason="all of them").text
        assert "2 included images, good this month" in asked
        owner.submit(path, result="all", reason="all of them", sure="yes", once=once_of(asked))
        assert standing(ada) == ("1.00", 2)
        assert "paid back" in owner.get(here).text
        assert "All of its charge was paid back." in owner.get(path).text
        job = ada.get(f"/v1/job_status/{job_id}").json()
        assert (job["status"], job["charge"]["state"]) == ("completed", "refunded")
        me = owner.get("/v1/me").json()["account"]
        assert [actor for actor, _ in audited(studio.folder, "ledger.refund")][-3:] == [f"browser:{me}"] * 3
        assert "a blot" in ada.get("/usage").text


def test_it_is_paid_back_once_however_often_and_by_whomever_it_is_sent(studio: RunningBox) -> None:
    with (
        signed_in(studio, "ben") as ben,
        signed_in(studio) as owner,
        signed_in(studio) as other,
        ThreadPoolExecutor(8) as threads,
    ):
        job_id, here = made(studio, ben), f"/admin/people/{id_of(owner, 'ben')}/charges"
        path = f"{here}/{job_id}"
        stale = once_of(other.submit(path, result="all", reason="noise").text)
        fields = {"csrf": owner.csrf, "result": "all", "reason": "noise", "sure": "yes"}
        fields["once"] = once_of(owner.submit(path, result="all", reason="noise").text)
        sent = [threads.submit(owner.post, path, data=fields) for _ in range(8)]
        assert {each.result().headers["location"] for each in sent} == {here}
        assert 'role="alert"' not in owner.get(here).text
        assert standing(ben) == ("1.00", 2)
        other.submit(path, result="all", reason="noise", sure="yes", once=stale)
        assert "is left to pay back" in other.get(here).text
        assert standing(ben) == ("1.00", 2)


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"result": "all", "reason": " "}, "A refund says why."),
        ({"result": "", "reason": "x"}, "what of the job"),
        ({"result": "-1", "reason": "x"}, "what of the job"),
        ({"result": "٣", "reason": "x"}, "what of the job"),
        ({"result": "7", "reason": "x"}, "is left to pay back"),
        ({"result": "all", "reason": "x" * 501}, "out of bounds"),
        ({"result": "all", "reason": "x", "sure": "yes"}, "reload the page"),
    ],
)
def test_what_cannot_be_is_told_and_moves_nothing(studio: RunningBox, fields: dict[str, str], told: str) -> None:
    with signed_in(studio, "cid") as cid, signed_in(studio) as owner:
        here = f"/admin/people/{id_of(owner, 'cid')}/charges"
        job_id = made(studio, cid, n=1)
        before = standing(cid)
        answer = owner.submit(f"{here}/{job_id}", **fields)
        assert (answer.status_code, answer.headers["location"]) == (303, f"{here}/{job_id}")
        assert told in owner.get(f"{here}/{job_id}").text
        assert standing(cid) == before


def test_what_was_charged_nothing_has_nothing_to_pay_back(studio: RunningBox) -> None:
    with signed_in(studio, "dora") as dora, signed_in(studio) as owner:
        here = f"/admin/people/{id_of(owner, 'dora')}/charges"
        assert "No job has ended yet" in owner.get(here).text
        body = {"type": "image", "prompt": "double:raises_in_load"}
        job_id = dora.post("/v1/generate", json=body, headers={"X-CSRF-Token": dora.csrf}).json()["job_id"]
        assert studio.ended(dora, job_id)["status"] == "failed"
        assert "Pay back…" not in owner.get(here).text
        assert "It was charged nothing." in owner.get(f"{here}/{job_id}").text
        owner.submit(f"{here}/{job_id}", result="all", reason="x")
        assert "is left to pay back" in owner.get(f"{here}/{job_id}").text


def test_a_job_is_found_by_its_number_under_its_own_person_only(studio: RunningBox) -> None:
    with signed_in(studio, "dora") as dora, signed_in(studio) as owner:
        job_id = made(studio, dora, "a lake", n=1)
        mine, other = (f"/admin/people/{id_of(owner, name)}/charges" for name in ("dora", "cid"))
        assert owner.get(f"{mine}?job=+{job_id}+").headers["location"] == f"{mine}/{job_id}"
        missed = owner.get(f"{other}?job={job_id}")
        assert (missed.status_code, "No ended job of cid" in missed.text) == (200, True)
        assert owner.get(f"{other}/{job_id}").status_code == 404
        owner.submit(f"{other}/{job_id}", result="all", reason="x", sure="yes", once="again")
        assert dora.get(f"/v1/job_status/{job_id}").json()["charge"]["state"] == "posted"
        assert owner.get("/admin/people/acc_no/charges").status_code == 404
        assert owner.get(f"{mine}?cursor=odd").status_code == 422


def test_it_is_there_for_the_owner_alone(studio: RunningBox) -> None:
    with signed_in(studio, "dora") as dora, signed_in(studio) as owner:
        job_id = made(studio, dora, "a lake", n=1)
        here = f"/admin/people/{id_of(owner, 'dora')}/charges"
        for path in (here, f"{here}/{job_id}"):
            assert dora.get(path).status_code == 404
        dora.submit(f"{here}/{job_id}", result="all", reason="mine", sure="yes", once="mine")
        assert dora.get(f"/v1/job_status/{job_id}").json()["charge"]["state"] == "posted"
