"""TorchServe as a child process: its configuration, its model store, its JVM.

Everything it writes lies in one private temporary directory, its *home*, so that several instances
can share a host: TorchServe's defaults collide on a socket name and a pid file in /tmp.

    config.properties
    models/embed-1/      a model without archive for each endpoint and version
    bundles/1/           what it serves: a copy, so that nobody's export changes it underneath
    activity/, metrics/  what the workers tell: serve.activity, serve.journal
    tmp/                 TorchServe's own
"""

import json
import logging
import os
import secrets
import shutil
import signal
import subprocess
import sys
from dataclasses import dataclass, field
from importlib import resources
from importlib.util import find_spec
from pathlib import Path

import yaml

from serve.bundle import ENDPOINTS, Bundle, load_bundle
from serve.engine import usable_cores
from serve.errors import LaunchError
from serve.launcher.java import find_java
from serve.limits import MAX_BODY_BYTES, MAX_REPLY_BYTES

logger = logging.getLogger(__name__)

MOST_WORKERS = 4  # for each endpoint, unless told otherwise: each takes 330 MB
ANSWER_S = 300  # for a batch: 24 requests of 4,096 images each are slow, but no fault
METRICS_VARIABLE = "PROMETHEUS_MULTIPROC_DIR"  # where prometheus_client writes; workers inherit it
STOP_S = 20.0  # for TorchServe to end by itself before it is killed


@dataclass(frozen=True)
class Settings:
    """How to run one TorchServe.

    Attributes:
        host: address of the inference API.
        port: of the inference API; the five after it are management, metrics, the launcher's
            own and two of gRPC. Those stay on loopback, bar the launcher's own behind a gateway.
        workers: processes for each endpoint; they share the cores among them.
        batch_size: most requests of one dynamic batch.
        batch_delay_ms: longest wait for a batch to fill.
        runtime: see serve.engine.RUNTIMES.
        device: see serve.engine.DEVICES.
        precision: see serve.engine.PRECISIONS.
        canary_token: by which workers know the launcher's own requests, and keep quiet about them.
    """

    host: str = "127.0.0.1"
    port: int = 8080
    workers: int = field(default_factory=lambda: min(MOST_WORKERS, usable_cores()))
    batch_size: int = 24  # so that the next batch waits for a worker, not the worker for it
    batch_delay_ms: int = 1
    runtime: str = "onnxruntime"
    device: str = "auto"
    precision: str = "fp32"
    canary_token: str = field(default_factory=lambda: secrets.token_hex(16), repr=False)

    @property
    def inference_url(self) -> str:
        """Where callers send images; loopback where every address is listened on."""
        host = "127.0.0.1" if self.host == "0.0.0.0" else self.host  # noqa: S104
        return f"http://{host}:{self.port}"

    @property
    def management_url(self) -> str:
        """TorchServe's management API."""
        return f"http://127.0.0.1:{self.port + 1}"

    @property
    def metrics_url(self) -> str:
        """TorchServe's own metrics."""
        return f"http://127.0.0.1:{self.port + 2}/metrics"

    @property
    def is_on_loopback(self) -> bool:
        """Whether only this host can reach the inference API."""
        return self.host == "localhost" or self.host.startswith("127.")

    @property
    def private_host(self) -> str:
        """Where the launcher itself listens: on every address where a gateway has to reach it."""
        return "127.0.0.1" if self.is_on_loopback else "0.0.0.0"  # noqa: S104

    @property
    def private_port(self) -> int:
        """The launcher's own port."""
        return self.port + 3


def start(settings: Settings, home: Path) -> subprocess.Popen[bytes]:
    """Start TorchServe on version 1 of the endpoints; returns at once, long before it is ready.

    Args:
        settings: how.
        home: where ``add_models`` has written version 1; outlives the process.

    Raises:
        LaunchError: no Java, or TorchServe isn't installed.
    """
    config = home / "config.properties"
    config.write_text(server_config(settings, home / "models"))
    for folder in (home / "tmp", activity_folder(home), metrics_folder(home)):
        folder.mkdir(exist_ok=True)
    command: list[str | Path] = [
        find_java(),
        f"-Dmodel_server_home={torchserve_home()}",
        f"-Dlog4j.configurationFile={resources.files('serve.launcher') / 'log4j2.xml'}",
        f"-Djava.io.tmpdir={home / 'tmp'}",
        # TorchServe hands each batch to Java's common pool, which for two cores is no pool: Java
        # would start a thread for each.
        f"-Djava.util.concurrent.ForkJoinPool.common.parallelism={max(2, usable_cores())}",
        "-cp",
        torchserve_home() / "ts" / "frontend" / "*",
        "org.pytorch.serve.ModelServer",
        *("--python", sys.executable),
        *("-f", config),
        *("-s", home / "models"),
        "-ncs",
        "--disable-token-auth",
    ]
    # A group of its own: Ctrl-C reaches the launcher alone, which then stops TorchServe in order.
    return subprocess.Popen(
        command,
        cwd=home,
        stdin=subprocess.DEVNULL,
        start_new_session=True,
        env=environment(home),
    )


def environment(home: Path) -> dict[str, str]:
    """Ours, for the JVM and the workers it starts."""
    kept = dict(os.environ)
    kept.pop("TS_CONFIG_FILE", None)  # would take the place of our configuration
    return kept | {METRICS_VARIABLE: str(metrics_folder(home))}


def stop(process: subprocess.Popen[bytes]) -> None:
    """End TorchServe and its workers; kill them if that takes over STOP_S."""
    process.terminate()
    try:
        process.wait(STOP_S)
    except subprocess.TimeoutExpired:
        logger.warning("TorchServe did not stop within %.0f s; killing it", STOP_S)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def torchserve_home() -> Path:
    """The directory that holds the ``ts`` package.

    Raises:
        LaunchError: TorchServe isn't installed.
    """
    spec = find_spec("ts")
    if spec is None or spec.origin is None:
        raise LaunchError("TorchServe isn't installed: pip install 'pinhole[serve,cpu]'")
    return Path(spec.origin).parent.parent


def add_models(home: Path, bundle: Bundle, version: int, settings: Settings) -> Bundle:
    """Copy a bundle into ``home`` and lay out a model of it for each endpoint.

    Args:
        home: of TorchServe.
        bundle: to serve.
        version: TorchServe's number for it; callers see the manifest's.
        settings: how.

    Returns:
        The copy, found to be whole.

    Raises:
        BundleError: the bundle changed as it was copied.
        LaunchError: there is no room for it.
    """
    copy = bundle_folder(home, version)
    try:
        copy.mkdir(parents=True)
        for name in ("manifest.json", *bundle.manifest.files):
            shutil.copyfile(bundle.folder / name, copy / name)
        copied = load_bundle(copy)
        for endpoint in ENDPOINTS:
            write_model(home, endpoint, copied, version, settings)
    except OSError as error:
        raise LaunchError(f"can't copy {bundle.folder} to {copy}: {error.strerror}") from error
    return copied


def remove_models(home: Path, version: int) -> None:
    """Undo ``add_models``; a version that isn't there is no fault."""
    folders = [model_folder(home, endpoint, version) for endpoint in ENDPOINTS]
    for folder in [bundle_folder(home, version), *folders]:
        shutil.rmtree(folder, ignore_errors=True)


def bundle_folder(home: Path, version: int) -> Path:
    """Where the copy of the bundle of a version lies."""
    return home / "bundles" / str(version)


def activity_folder(home: Path) -> Path:
    """Where the workers tell which batches they are in."""
    return home / "activity"


def metrics_folder(home: Path) -> Path:
    """Where the workers count."""
    return home / "metrics"


def model_folder(home: Path, endpoint: str, version: int) -> Path:
    """Where one version of an endpoint lies in the model store."""
    return home / "models" / f"{endpoint}-{version}"


def write_model(
    home: Path, endpoint: str, bundle: Bundle, version: int, settings: Settings
) -> None:
    """Lay out one no-archive model: a manifest that names our handler, and its configuration."""
    manifest = {
        "runtime": "python",
        "archiverVersion": "0.12.0",
        "createdOn": "",  # TorchServe warns where it is missing
        "model": {
            "modelName": endpoint,
            "modelVersion": str(version),
            "handler": f"serve.handlers.{endpoint}",
            "configFile": "model-config.yaml",
        },
    }
    config = {
        "minWorkers": settings.workers,
        "maxWorkers": settings.workers,
        "responseTimeout": ANSWER_S,
        "batchSize": settings.batch_size,
        "maxBatchDelay": settings.batch_delay_ms,
        "handler": {
            "bundle": str(bundle.folder.resolve()),
            "runtime": settings.runtime,
            "device": settings.device,
            "precision": settings.precision,
            "threads": max(1, usable_cores() // settings.workers),
            "canary_token": settings.canary_token,
            "activity": str(activity_folder(home).resolve()),
        },
    }
    folder = model_folder(home, endpoint, version)
    (folder / "MAR-INF").mkdir(parents=True)
    (folder / "MAR-INF" / "MANIFEST.json").write_text(json.dumps(manifest))
    (folder / "model-config.yaml").write_text(yaml.safe_dump(config))


def server_config(settings: Settings, store: Path) -> str:
    """config.properties; only the inference API may leave loopback."""
    properties = {
        "inference_address": f"http://{settings.host}:{settings.port}",
        "management_address": settings.management_url,
        "metrics_address": settings.metrics_url.removesuffix("/metrics"),
        "grpc_inference_address": "127.0.0.1",
        "grpc_inference_port": settings.port + 4,
        "grpc_management_address": "127.0.0.1",
        "grpc_management_port": settings.port + 5,
        "initial_worker_port": settings.port + 1_000,  # names of sockets, not TCP ports
        "model_store": store,
        "load_models": ",".join(f"{endpoint}={endpoint}-1" for endpoint in ENDPOINTS),
        "enable_model_api": "true",  # or swaps would get a 405
        "allowed_urls": f"file://{store}/.*",
        "disable_system_metrics": "true",
        "metrics_mode": "prometheus",
        # A hundred, the default, is fewer than two callers may have running at the gateway.
        "job_queue_size": 1_000,
        # A body just over the contract's limit still reaches the handler, which says so in JSON.
        "max_request_size": MAX_BODY_BYTES + 65_536,
        "max_response_size": MAX_REPLY_BYTES + 65_536,
    }
    return "".join(f"{key}={value}\n" for key, value in properties.items())
