from __future__ import annotations

from zsky_box.restart_budget import RestartBudget


def a_budget() -> RestartBudget:
    return RestartBudget(
        restarts=3, within_seconds=100.0, backoff_seconds=1.0, backoff_max_seconds=3.0, cool_down_seconds=500.0
    )


def test_a_device_may_start_at_once_at_first() -> None:
    assert a_budget().wait_seconds(0.0) == 0.0
    assert not a_budget().is_quarantined(0.0)


def test_each_death_doubles_the_pause_up_to_a_bound() -> None:
    budget = a_budget()
    pauses: list[float] = []
    for _ in range(3):
        budget.died(10.0)
        pauses.append(budget.wait_seconds(10.0))
    assert pauses == [1.0, 2.0, 3.0]
    assert budget.wait_seconds(12.0) == 1.0
    assert budget.wait_seconds(20.0) == 0.0


def test_one_death_too_many_is_a_quarantine_that_ends_with_a_clean_record() -> None:
    budget = a_budget()
    for now in (10.0, 20.0, 30.0):
        budget.died(now)
        assert not budget.is_quarantined(now)
    budget.died(40.0)
    assert budget.is_quarantined(40.0)
    assert budget.wait_seconds(40.0) == 500.0
    assert budget.is_quarantined(539.0)
    assert not budget.is_quarantined(540.0)
    assert budget.wait_seconds(540.0) == 0.0
    budget.died(541.0)
    assert budget.wait_seconds(541.0) == 1.0


def test_deaths_long_ago_are_forgotten() -> None:
    budget = a_budget()
    for now in (0.0, 200.0, 400.0, 600.0, 800.0, 1000.0):
        budget.died(now)
        assert not budget.is_quarantined(now)
        assert budget.wait_seconds(now) == 1.0


def test_a_device_that_failed_two_jobs_is_quarantined_at_once() -> None:
    budget = a_budget()
    budget.died(10.0, "job-1")
    assert not budget.is_quarantined(10.0)
    budget.died(90.0, "job-2")
    assert budget.is_quarantined(90.0)
    assert budget.reason == "reported errors to one job after another"
    budget.died(600.0, "job-3")
    assert not budget.is_quarantined(600.0), "the record is clean after a quarantine"


def test_one_job_that_fails_twice_may_have_caused_it_and_counts_once() -> None:
    budget = a_budget()
    for now in (10.0, 20.0, 30.0):
        budget.died(now, "job-1")
        assert not budget.is_quarantined(now)
    budget.died(40.0, "job-1")
    assert budget.is_quarantined(40.0), "as any other deaths would"
    assert budget.reason == "lost 4 workers in 100 s"


def test_failures_long_ago_are_forgotten() -> None:
    budget = a_budget()
    budget.died(10.0, "job-1")
    budget.died(111.0, "job-2")
    assert not budget.is_quarantined(111.0)
