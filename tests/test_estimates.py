from __future__ import annotations

import msgspec

from tests.doubles.driving import SPEC
from zsky_box.estimates import KEPT, SERIES_MAX, Estimates, Kind, Timing, counted, shape_of
from zsky_box.manifest import WHOLE, Cost
from zsky_box.requests import Work

REAL = msgspec.structs.replace(
    SPEC, name="real", bundled=False, cost=Cost(parameters_billion=1.0, layers=1, width=1, pixels_per_token=16)
)
WORK = Work(
    type="image", model="real", prompt="", negative_prompt="", seed=0, n=1, width=640, height=480, frames=0, fps=0
)
LARGER = msgspec.structs.replace(WORK, width=1280)


def took(seconds: float, kind: Kind = "run", work: Work = WORK, operations: float = 10.0, card: str = "card") -> Timing:
    return Timing(
        kind=kind,
        model="real",
        recipe="full",
        card=card,
        shape="" if kind == "load" else shape_of(work),
        operations=operations,
        seconds=seconds,
    )


def expected(estimates: Estimates, work: Work = WORK, card: str = "card") -> float:
    return estimates.run_seconds(REAL, WHOLE, card, work, is_cpu=False)


def test_what_has_run_here_takes_the_median_of_its_last_times() -> None:
    estimates = Estimates([took(3.0), took(100.0), took(5.0)])
    assert expected(estimates) == 5.0
    for _ in range(KEPT):
        estimates.learn(took(9.0))
    assert expected(estimates) == 9.0


def test_another_size_is_scaled_from_what_has_run() -> None:
    small, large = counted(REAL, WHOLE, WORK), counted(REAL, WHOLE, LARGER)
    estimates = Estimates(flops={"card": small / 1_000})  # so slow that what every job takes does not matter
    estimates.learn(took(4_000.0, operations=small))
    assert abs(expected(estimates, LARGER) / (4_000.0 * large / small) - 1.0) < 1e-3


def test_what_every_job_takes_is_not_scaled_with_its_size() -> None:
    small, large = counted(REAL, WHOLE, WORK), counted(REAL, WHOLE, LARGER)
    estimates = Estimates(flops={"card": small * 1_000})  # so fast that the sizes hardly matter
    estimates.learn(took(4.0, operations=small))
    assert 4.0 < expected(estimates, LARGER) < 4.0 * (1.0 + 0.1 * large / small)


def test_a_picture_says_nothing_of_how_long_a_clip_takes() -> None:
    clip = msgspec.structs.replace(WORK, type="video", frames=72, fps=24)
    estimates = Estimates()
    first = expected(estimates, clip)
    estimates.learn(took(100.0, operations=counted(REAL, WHOLE, WORK)))
    assert expected(estimates, clip) == first
    estimates.learn(took(10.0 * first, work=clip, operations=counted(REAL, WHOLE, clip)))
    longer = msgspec.structs.replace(clip, frames=144)
    assert expected(estimates, longer) > 10.0 * first


def test_what_ran_on_one_card_is_scaled_to_another_by_what_both_were_measured_to_do() -> None:
    operations = counted(REAL, WHOLE, WORK)
    estimates = Estimates(flops={"slow": operations / 1_000, "fast": operations / 100})
    estimates.learn(took(4_000.0, operations=operations, card="slow"))
    assert abs(expected(estimates, card="fast") / 400.0 - 1.0) < 0.01


def test_before_the_first_run_a_faster_card_is_expected_to_be_faster() -> None:
    estimates = Estimates(flops={"slow": 1e12, "fast": 1e15})
    assert expected(estimates, card="fast") < expected(estimates, card="slow")


def test_loading_is_learnt_and_at_first_goes_by_the_bytes() -> None:
    estimates = Estimates()
    first = [estimates.load_seconds(REAL, WHOLE, "card", size, quantises=False) for size in (10**9, 10**11)]
    assert first[0] < first[1]
    estimates.learn(took(7.0, "load", operations=0.0))
    assert estimates.load_seconds(REAL, WHOLE, "card", 10**11, quantises=False) == 7.0


def test_what_has_not_run_for_long_is_forgotten_and_what_runs_every_day_is_not() -> None:
    estimates = Estimates()
    of_old, usual = msgspec.structs.replace(WORK, n=2), WORK
    for _ in range(3):
        estimates.learn(took(77.0, work=of_old))
        estimates.learn(took(5.0, work=usual))
    for pixels in range(SERIES_MAX):
        estimates.learn(took(1.0, work=msgspec.structs.replace(WORK, type="video", frames=1, width=1 + pixels)))
        if pixels % 1_000 == 0:
            estimates.learn(took(5.0, work=usual))
    assert estimates.has_run(REAL, WHOLE, "card", usual)
    assert expected(estimates, usual) == 5.0
    assert not estimates.has_run(REAL, WHOLE, "card", of_old)
    assert expected(estimates, of_old) != 77.0, "scaled, as a size that never ran"


def test_models_that_came_and_went_take_no_memory_for_ever() -> None:
    estimates = Estimates()
    estimates.learn(took(4.0, operations=counted(REAL, WHOLE, WORK)))
    scaled = expected(estimates, LARGER)
    for number in range(2 * SERIES_MAX):
        estimates.learn(msgspec.structs.replace(took(1.0), model=f"model-{number}"))
    assert expected(estimates, LARGER) != scaled
    assert expected(estimates, LARGER) == expected(Estimates(), LARGER), "as on the first day"
