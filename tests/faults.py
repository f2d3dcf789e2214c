"""The faults that the acting worker acts out, and how a job that meets each of them must end."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, kw_only=True)
class Fault:
    """`told` is in the job's error; a fault that may pass by itself is met in two attempts."""

    code: str
    told: str
    charge: Literal["voided", "posted"] = "voided"
    attempts: int = 1


# By the double's name for it: `double:NAME` in tests/doubles/worker_acting_out.py.
FAULTS = {
    # What the model raises: the worker lives on.
    "raises_in_load": Fault(code="internal_error", told="ZeroDivisionError"),
    "raises_in_run": Fault(code="internal_error", told="ZeroDivisionError"),
    "disk_full": Fault(code="storage_full", told="disk"),
    "safety_blocked": Fault(code="safety_blocked", told="will not make this", charge="posted"),
    # What asks for a clean worker.
    "out_of_memory": Fault(code="out_of_memory", told="smaller size", attempts=2),
    "out_of_memory_in_load": Fault(code="out_of_memory", told="smaller size", attempts=2),
    "device_lost": Fault(code="internal_error", told="The card reported an error", attempts=2),
    "device_lost_in_load": Fault(code="internal_error", told="The card reported an error", attempts=2),
    # What ends the worker.
    "segfaults": Fault(code="internal_error", told="crashed (Segmentation fault)", attempts=2),
    "exits_silently": Fault(code="internal_error", told="exit code 3", attempts=2),
    "exits_with_grandchild": Fault(code="internal_error", told="exit code 3", attempts=2),
    "killed": Fault(code="out_of_memory", told="ran out of memory", attempts=2),
    "garbage_on_pipe": Fault(code="internal_error", told="unreadable", attempts=2),
    "endless_message": Fault(code="internal_error", told="unreadable", attempts=2),
    "half_message": Fault(code="internal_error", told="unreadable", attempts=2),
    # What is ended from outside.
    "blocks": Fault(code="gpu_timeout", told="longer than a job may take"),
    "hangs": Fault(code="gpu_timeout", told="no sign of life"),
    "hangs_in_load": Fault(code="gpu_timeout", told="no sign of life"),
    "hangs_with_grandchild": Fault(code="gpu_timeout", told="no sign of life"),
    "stops_heartbeat": Fault(code="gpu_timeout", told="no sign of life"),
}
