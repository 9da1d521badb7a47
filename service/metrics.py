"""Figures for Prometheus: experiments counted in the database, requests in every process of the service.

With several processes set `PROMETHEUS_MULTIPROC_DIR` to an empty directory before they start (`gradprobe serve` does):
then each process writes its figures there, and whichever is asked adds them up.
"""

import os
from collections.abc import Iterator
from typing import Final

from prometheus_client import REGISTRY, CollectorRegistry, Gauge, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector

from gradprobe.errors import GradprobeError
from gradprobe.queue import QUEUES
from gradprobe.store.counting import Counts, count
from gradprobe.store.database import Database

MEDIA_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
_SECONDS: Final = (0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)

_requests: Final = Histogram(
    "gradprobe_http_request_seconds",
    "Time until an answer began, by method, route and status.",
    ("method", "route", "status"),
    buckets=_SECONDS,
)
_streams: Final = Gauge("gradprobe_event_streams", "Event streams that are open.", multiprocess_mode="livesum")


def answered(method: str, route: str, status: int, seconds: float) -> None:
    """Note one answer; `route` is the path's template, so that ids do not become labels."""
    _requests.labels(method, route, str(status)).observe(seconds)


def watched(streams: int) -> None:
    """Note how many event streams this process holds."""
    _streams.set(streams)


def exposition(database: Database) -> bytes:
    """All figures in Prometheus's text format; without the database's own where that does not answer."""
    if "PROMETHEUS_MULTIPROC_DIR" in os.environ:
        requests = CollectorRegistry()
        MultiProcessCollector(requests)  # type: ignore[no-untyped-call]  # registers itself
    else:
        requests = REGISTRY
    store = CollectorRegistry()
    store.register(_Stored(database))
    return generate_latest(requests) + generate_latest(store)


class _Stored(Collector):
    def __init__(self, database: Database) -> None:
        self._database = database

    def collect(self) -> Iterator[Metric]:
        try:
            with self._database.read() as connection:
                counts = count(connection)
        except GradprobeError:
            yield GaugeMetricFamily("gradprobe_database_up", "Whether the database answers.", 0.0)
            return
        yield GaugeMetricFamily("gradprobe_database_up", "Whether the database answers.", 1.0)
        yield from _families(counts)


def _families(counts: Counts) -> Iterator[Metric]:
    stored = GaugeMetricFamily("gradprobe_experiments", "Experiments in the store, by status.", labels=["status"])
    for status, number in counts.by_status.items():
        stored.add_metric([status], number)
    queued = GaugeMetricFamily("gradprobe_queued_experiments", "Experiments that wait, by queue.", labels=["queue"])
    for queue in QUEUES:
        queued.add_metric([queue], counts.queued_by_queue.get(queue, 0))
    yield stored
    yield queued
    yield GaugeMetricFamily(
        "gradprobe_oldest_queued_seconds", "How long the oldest waits; 0 where none does.", counts.oldest_queued_seconds
    )
    yield GaugeMetricFamily(
        "gradprobe_expired_leases",
        "Running experiments whose worker is lost and not yet replaced.",
        counts.expired_leases,
    )
    ended = CounterMetricFamily("gradprobe_ended_experiments", "Experiments that ended, by status.", labels=["status"])
    for status, number in counts.ended_in_all.items():
        ended.add_metric([status], number)
    yield ended
    yield CounterMetricFamily("gradprobe_attempts", "Workers' tries at experiments.", counts.attempts_in_all)
    yield CounterMetricFamily(
        "gradprobe_lost_leases", "Attempts that were taken back from a lost worker.", counts.expired_leases_in_all
    )
