"""The page of metrics: what the workers count, and what the launcher knows."""

from pathlib import Path

from prometheus_client import REGISTRY, CollectorRegistry, Gauge, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector

from serve.bundle.manifest import Manifest
from serve.launcher.settings import Settings


def read_metrics(folder: Path | None, manifest: Manifest, settings: Settings, ready: bool) -> bytes:
    """The page, in Prometheus' text format.

    Args:
        folder: where worker processes write their counts (see serve.metrics); None where this
            process counts.
        manifest: of the bundle that is served.
        settings: of the service.
        ready: what GET /ready says.
    """
    registry = CollectorRegistry()
    if folder is not None:
        MultiProcessCollector(registry, str(folder))  # type: ignore[no-untyped-call]  # registers itself
    is_ready = Gauge("pinhole_ready", "1 while GET /ready says so", registry=registry)
    is_ready.set(ready)
    known = {
        "name": manifest.name,
        "version": manifest.version,
        "digest": manifest.digest,
        "runtime": settings.runtime,
        "precision": settings.precision,
    }
    info = Gauge("pinhole_model_info", "what is served, as labels", [*known], registry=registry)
    info.labels(**known).set(1)
    ours = generate_latest(registry)
    return ours if folder is not None else generate_latest(REGISTRY) + ours
