"""Jobs: the state machine from submit to its end, composed of ledger, assets and feed, one transaction a change."""

from zsky_box.jobs.book import Attempt, JobBook

__all__ = ["Attempt", "JobBook"]
