"""What the box counts of its own work, in Prometheus' text format.

An Observer that adds up what happens, and, at each question, a look at how things stand: the queue, the devices, the
cards. The registry is the box's own. Every label has few values: devices, models of the catalogue, and codes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from zsky_box.cards import Reading
from zsky_box.jobs.waiting import Waiting
from zsky_box.slot import SlotView

MEDIA_TYPE: Final = "text/plain; version=0.0.4"  # Litestar adds the charset

_WAITS: Final = (0.1, 0.5, 1, 5, 15, 60, 300, 900, 3_600, 14_400, 86_400)
_RUNS: Final = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 30, 60, 120, 300, 900, 3_600)
_BUSY: Final = ("loading", "denoising", "decoding")
"""The phases in which a job has the device; the encoder's tail runs beside the next one."""


class Metrics:
    """The Observer of a running box; its calls come from many threads, and prometheus_client's counters are safe."""

    def __init__(self) -> None:
        registry = self._registry = CollectorRegistry()
        self._waits = Histogram(
            "zsky_wait_seconds",
            "How long jobs waited before they first began",
            ("model", "mode"),
            buckets=_WAITS,
            registry=registry,
        )
        self._runs = Histogram(
            "zsky_run_seconds",
            "How long each phase of the jobs that were made took",
            ("model", "device", "phase"),
            buckets=_RUNS,
            registry=registry,
        )
        self._loads = Histogram(
            "zsky_load_seconds",
            "How long it took to read a model into memory",
            ("model", "device"),
            buckets=_RUNS,
            registry=registry,
        )
        self._busy = Counter(
            "zsky_device_busy_seconds",
            "Seconds in which a device worked on jobs that were made",
            ("device",),
            registry=registry,
        )
        self._ended = Counter(
            "zsky_jobs_ended",
            "Jobs that have ended",
            ("model", "status", "error_code", "mode"),
            registry=registry,
        )
        self._failed = Counter(
            "zsky_attempts_failed",
            "Attempts that ended without a result, some of which were tried again",
            ("device", "model", "error_code"),
            registry=registry,
        )
        self._refused = Counter("zsky_requests_refused", "Requests that were refused", ("code",), registry=registry)

    # Observer

    def started(self, model: str, waited_seconds: float, *, test: bool) -> None:
        """See `observer.Observer`."""
        self._waits.labels(model, _mode(test=test)).observe(max(0.0, waited_seconds))

    def made(self, device: str, model: str, seconds: Mapping[str, float], *, test: bool) -> None:
        """See `observer.Observer`; what a test key's jobs took says nothing of a model."""
        self._busy.labels(device).inc(sum(seconds.get(phase, 0.0) for phase in _BUSY))
        if test:
            return
        for phase, took in seconds.items():
            if phase == "weights":
                self._loads.labels(model, device).observe(took)
            else:
                self._runs.labels(model, device, phase).observe(took)

    def attempt_failed(self, device: str, model: str, error_code: str) -> None:
        """See `observer.Observer`."""
        self._failed.labels(device, model, error_code).inc()

    def ended(self, model: str, status: str, error_code: str, *, test: bool) -> None:
        """See `observer.Observer`."""
        self._ended.labels(model, status, error_code, _mode(test=test)).inc()

    def refused(self, code: str) -> None:
        """See `observer.Observer`."""
        self._refused.labels(code).inc()

    def text(self, waiting: Sequence[Waiting], slots: Sequence[SlotView], cards: Sequence[Reading]) -> bytes:
        """All of it, as a scrape is answered."""
        return generate_latest(self._registry) + generate_latest(_Now(waiting, slots, cards))


class _Now(Collector):
    """How things stand at this moment."""

    def __init__(self, waiting: Sequence[Waiting], slots: Sequence[SlotView], cards: Sequence[Reading]) -> None:
        self._waiting = waiting
        self._slots = slots
        self._cards = cards

    def collect(self) -> Iterable[Metric]:
        queue = GaugeMetricFamily("zsky_queue_jobs", "Jobs that wait", labels=("model", "priority", "mode"))
        for row in self._waiting:
            queue.add_metric((row.model, row.priority, _mode(test=row.test)), row.jobs)
        yield queue
        yield from self._of_slots()
        yield from self._of_cards()

    def _of_slots(self) -> Iterable[Metric]:
        up = GaugeMetricFamily("zsky_device_up", "Whether a worker is up on the device", labels=("device", "name"))
        resting = GaugeMetricFamily("zsky_device_quarantined", "Whether the device is quarantined", labels=("device",))
        running = GaugeMetricFamily("zsky_device_running", "Whether a job runs on the device", labels=("device",))
        held = GaugeMetricFamily("zsky_worker_held_bytes", "Bytes that the device's worker holds", labels=("device",))
        resident = GaugeMetricFamily(
            "zsky_model_resident", "Whether the model is in the device's memory", labels=("device", "model")
        )
        restarts = CounterMetricFamily("zsky_worker_restarts", "Workers that were replaced", labels=("device",))
        for slot in self._slots:
            device = (slot.label,)
            up.add_metric((slot.label, slot.name), slot.state in ("ready", "loading", "running"))
            resting.add_metric(device, slot.state == "quarantined")
            running.add_metric(device, slot.job_id is not None)
            held.add_metric(device, slot.bytes_held)
            restarts.add_metric(device, slot.restarts)
            for model in slot.resident:
                resident.add_metric((slot.label, model), 1)
        return up, resting, running, held, resident, restarts

    def _of_cards(self) -> Iterable[Metric]:
        facts = (
            ("memory_total_bytes", "Bytes of the card's memory"),
            ("memory_used_bytes", "Bytes of the card's memory that are in use, by whomever"),
            ("utilisation", "The share of time in which the card worked, 0 to 1"),
            ("temperature_celsius", "The card's temperature"),
            ("power_watts", "What the card draws"),
        )
        for name, told in facts:
            family = GaugeMetricFamily(f"zsky_card_{name}", told, labels=("device",))
            for card in self._cards:
                value = getattr(card, name)
                if value is not None:
                    family.add_metric((card.device,), value)
            yield family


def _mode(*, test: bool) -> str:
    return "test" if test else "live"
