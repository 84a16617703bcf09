"""The page of metrics: what the workers count, and what the launcher knows."""

from collections.abc import Iterator
from pathlib import Path

from prometheus_client import REGISTRY, CollectorRegistry, Metric, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector

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
    registry.register(Known(manifest, settings, ready))
    ours = generate_latest(registry)
    return ours if folder is not None else generate_latest(REGISTRY) + ours


class Known(Collector):
    """What the launcher knows. A Gauge would add it to the counts in the folder."""

    def __init__(self, manifest: Manifest, settings: Settings, ready: bool) -> None:
        self._manifest, self._settings, self._ready = manifest, settings, ready

    def collect(self) -> Iterator[Metric]:
        """The metrics."""
        yield GaugeMetricFamily("pinhole_ready", "1 while GET /ready says so", self._ready)
        known = {
            "name": self._manifest.name,
            "version": self._manifest.version,
            "digest": self._manifest.digest,
            "runtime": self._settings.runtime,
            "precision": self._settings.precision,
        }
        info = GaugeMetricFamily("pinhole_model_info", "what is served, as labels", labels=[*known])
        info.add_metric([*known.values()], 1)
        yield info
