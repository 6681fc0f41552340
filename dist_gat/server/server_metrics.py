"""`ServerMetrics`: what a server tells Prometheus, of all replicas where several share a folder of counters."""

from __future__ import annotations

import os

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector

from dist_gat.serve.opened_model import OpenedModel

# prometheus_client reads this variable, and keeps counters in the files of a folder where it is set
FOLDER_VARIABLE = "PROMETHEUS_MULTIPROC_DIR"
SECONDS = (0.002, 0.005, 0.01, 0.02, 0.03, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)
USERS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)


class ServerMetrics:
    """path: of a request that the server knows. status: of HTTP."""

    def __init__(self) -> None:
        own = CollectorRegistry()
        self.registry = own
        self.requests = Counter("dist_gat_requests", "Requests", ["path", "status"], registry=own)
        self.seconds = Histogram(
            "dist_gat_request_seconds", "From request to answer", ["path"], buckets=SECONDS, registry=own
        )
        self.batch_users = Histogram("dist_gat_batch_users", "Users searched for at once", buckets=USERS, registry=own)
        self.batch_seconds = Histogram("dist_gat_batch_seconds", "One search", buckets=SECONDS, registry=own)
        self.waiting = Gauge("dist_gat_waiting_users", "Users who wait", registry=own, multiprocess_mode="livesum")
        self.model = Gauge(
            "dist_gat_model", "1 for the model that answers", ["digest"], registry=own, multiprocess_mode="livesum"
        )
        self.recall = Gauge(
            "dist_gat_index_recall", "Share of the exact 20 best items that the search finds; 1 without an index",
            registry=own, multiprocess_mode="min",
        )  # fmt: skip
        self.reloads = Counter("dist_gat_reloads", "Models that took another's place", registry=own)
        self.reload_failures = Counter("dist_gat_reload_failures", "Models that could not be opened", registry=own)

    def answered(self, path: str, status: int, seconds: float) -> None:
        self.requests.labels(path, str(status)).inc()
        self.seconds.labels(path).observe(seconds)

    def searched(self, users: int, seconds: float) -> None:
        self.batch_users.observe(users)
        self.batch_seconds.observe(seconds)

    def opened(self, model: OpenedModel, before: OpenedModel | None) -> None:
        if before is not None:
            self.reloads.inc()
            self.model.labels(before.digest).set(0)
        self.model.labels(model.digest).set(1)
        self.recall.set(1.0 if model.index is None else model.index.recall)

    def text(self) -> bytes:
        """In Prometheus' format."""
        if FOLDER_VARIABLE not in os.environ:
            return generate_latest(self.registry)
        every = CollectorRegistry()
        MultiProcessCollector(every)
        return generate_latest(every)
