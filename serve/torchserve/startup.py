"""How a worker process starts: open the bundle, prove the engine, make the Worker."""

import logging
from pathlib import Path
from typing import Any

from serve.bundle.engine.checks import check_golden
from serve.bundle.engine.opening import open_engine
from serve.bundle.engine.protocol import Engine
from serve.bundle.errors import ServeError
from serve.bundle.manifest import Bundle, load_bundle
from serve.journal import Journal
from serve.launcher.logs import stderr_handler
from serve.service import Service
from serve.torchserve.activity import Activity
from serve.torchserve.upstream import around_batches, be_quiet, read_ahead
from serve.torchserve.worker import Worker

logger = logging.getLogger(__name__)


def open_worker(context: Any) -> Worker:
    """Make the worker that model-config.yaml describes.

    Only the launcher's configuration has ``activity``. A worker from an archive, in a stock
    TorchServe, leaves TorchServe's own log as it is and needs no prometheus_client.

    Raises:
        ServeError: the bundle is damaged, the engine can't start or answers wrongly. The worker
            then never becomes ready.
    """
    config = context.model_yaml_config["handler"]
    log_to_stderr(config.get("log_format", "text"))
    read_ahead()
    started_by_launcher = "activity" in config
    if started_by_launcher:
        be_quiet()
    bundle, engine = open_proven_engine(context)
    service, endpoint = Service(bundle, engine), config["endpoint"]
    if not started_by_launcher:
        worker = Worker(service, endpoint, Journal(endpoint))
        around_batches(begin=lambda: None, end=worker.tell)
        return worker
    from serve.metrics import Metrics

    activity = Activity(Path(config["activity"]), endpoint)
    journal = Journal(endpoint, Metrics(endpoint).count, config["canary_token"])
    worker = Worker(service, endpoint, journal)

    def end() -> None:
        worker.tell()
        activity.end()

    around_batches(activity.begin, end)
    return worker


def open_proven_engine(context: Any) -> tuple[Bundle, Engine]:
    """Open the bundle that model-config.yaml names, and check its engine on the golden images.

    Raises:
        ServeError: as open_worker; the reason is in the log, since TorchServe itself only says that
            the worker died.
    """
    config = context.model_yaml_config["handler"]
    folder = Path(context.system_properties["model_dir"]) / config["bundle"]
    try:
        bundle = load_bundle(folder)
        engine = open_engine(
            bundle,
            config["runtime"],
            config["device"],
            config["precision"],
            context.system_properties.get("gpu_id") or 0,  # None on a host without GPUs
            config.get("threads"),
        )
        check_golden(engine, bundle)
    except ServeError as error:
        logger.error("worker can't start: %s", error)
        raise
    logger.info(
        "worker ready: %s on %s in %s, model %s version %s digest %s",
        context.model_name,
        engine.name,
        engine.precision,
        bundle.manifest.name,
        bundle.manifest.version,
        bundle.manifest.digest[:12],
    )
    return bundle, engine


def log_to_stderr(log_format: str) -> None:
    """Send this package's log lines to stderr, from where the JVM copies them into its own log."""
    handler = stderr_handler(log_format, "%(levelname)s %(name)s: %(message)s")
    package = logging.getLogger("serve")
    package.handlers, package.propagate = [handler], False
    package.setLevel(logging.INFO)
