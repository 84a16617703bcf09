"""GET /metrics: what the workers count, what the launcher knows, and TorchServe's own, in one text.

One target to scrape for each replica, and TorchServe's port can stay on loopback.
"""

from pathlib import Path

import requests
from prometheus_client import CollectorRegistry, Gauge, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector

from serve.bundle import Bundle
from serve.launcher.torchserve import Settings, metrics_folder

TIMEOUT_S = 2.0


def read_metrics(home: Path, bundle: Bundle, settings: Settings, ready: bool) -> bytes:
    """The page, in Prometheus' text format; without TorchServe's part while that doesn't answer."""
    registry = CollectorRegistry()
    folder = str(metrics_folder(home))
    MultiProcessCollector(registry, folder)  # type: ignore[no-untyped-call]  # registers itself
    is_ready = Gauge("pinhole_ready", "1 while GET /ready says so", registry=registry)
    is_ready.set(ready)
    known = {
        "name": bundle.manifest.name,
        "version": bundle.manifest.version,
        "digest": bundle.manifest.digest,
        "runtime": settings.runtime,
        "precision": settings.precision,
    }
    info = Gauge("pinhole_model_info", "what is served, as labels", [*known], registry=registry)
    info.labels(**known).set(1)
    return generate_latest(registry) + torchserve_metrics(settings)


def torchserve_metrics(settings: Settings) -> bytes:
    """TorchServe's own page: its queue's latency, among others."""
    try:
        reply = requests.get(settings.metrics_url, timeout=TIMEOUT_S, proxies={"http": ""})
    except requests.RequestException:
        return b""
    return reply.content if reply.ok else b""
