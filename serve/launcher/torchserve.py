"""TorchServe as a child process: its configuration, its model store, its JVM.

Everything it writes lies in one private temporary directory, so that several instances can share
a host: TorchServe's defaults collide on a socket name and a pid file in /tmp.
"""

import json
import logging
import subprocess
import sys
from dataclasses import dataclass
from importlib import resources
from importlib.util import find_spec
from pathlib import Path

import yaml

from serve.bundle import ENDPOINTS, Bundle
from serve.errors import LaunchError
from serve.launcher.java import find_java
from serve.limits import MAX_BODY_BYTES, MAX_REPLY_BYTES

logger = logging.getLogger(__name__)

STOP_S = 20.0  # for TorchServe to end by itself before it is killed


@dataclass(frozen=True)
class Settings:
    """How to run one TorchServe.

    Attributes:
        host: address of the inference API.
        port: of the inference API; the five after it are management, metrics, readiness and
            two of gRPC. Those stay on loopback.
        workers: processes for each endpoint.
        batch_size: most requests of one dynamic batch.
        batch_delay_ms: longest wait for a batch to fill.
        runtime: see serve.engine.RUNTIMES.
        device: see serve.engine.DEVICES.
        precision: see serve.engine.PRECISIONS.
    """

    host: str = "127.0.0.1"
    port: int = 8080
    workers: int = 1
    batch_size: int = 64
    batch_delay_ms: int = 1
    runtime: str = "onnxruntime"
    device: str = "auto"
    precision: str = "fp32"

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
    def readiness_port(self) -> int:
        """The launcher's own port."""
        return self.port + 3


def start(bundle: Bundle, settings: Settings, home: Path) -> subprocess.Popen[bytes]:
    """Start TorchServe on a bundle; returns at once, long before it is ready.

    Args:
        bundle: what to serve.
        settings: how.
        home: an empty directory that outlives the process.

    Raises:
        LaunchError: no Java, or TorchServe isn't installed.
    """
    store = home / "models"
    for endpoint in ENDPOINTS:
        write_model(store / endpoint, endpoint, bundle, settings)
    config = home / "config.properties"
    config.write_text(server_config(settings, store))
    (home / "tmp").mkdir()
    command: list[str | Path] = [
        find_java(),
        f"-Dmodel_server_home={torchserve_home()}",
        f"-Dlog4j.configurationFile={resources.files('serve.launcher') / 'log4j2.xml'}",
        f"-Djava.io.tmpdir={home / 'tmp'}",
        "-cp",
        torchserve_home() / "ts" / "frontend" / "*",
        "org.pytorch.serve.ModelServer",
        *("--python", sys.executable),
        *("-f", config),
        *("-s", store),
        "-ncs",
        "--disable-token-auth",
    ]
    # A group of its own: Ctrl-C reaches the launcher alone, which then stops TorchServe in order.
    return subprocess.Popen(command, cwd=home, stdin=subprocess.DEVNULL, start_new_session=True)


def stop(process: subprocess.Popen[bytes]) -> None:
    """End TorchServe and its workers; kill it if that takes over STOP_S."""
    process.terminate()
    try:
        process.wait(STOP_S)
    except subprocess.TimeoutExpired:
        logger.warning("TorchServe did not stop within %.0f s; killing it", STOP_S)
        process.kill()
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


def write_model(folder: Path, endpoint: str, bundle: Bundle, settings: Settings) -> None:
    """Lay out one no-archive model: a manifest that names our handler, and its configuration."""
    manifest = {
        "runtime": "python",
        "archiverVersion": "0.12.0",
        "createdOn": "",  # TorchServe warns where it is missing
        "model": {
            "modelName": endpoint,
            "modelVersion": bundle.manifest.version,
            "handler": f"serve.handlers.{endpoint}",
            "configFile": "model-config.yaml",
        },
    }
    config = {
        "minWorkers": settings.workers,
        "maxWorkers": settings.workers,
        "batchSize": settings.batch_size,
        "maxBatchDelay": settings.batch_delay_ms,
        "handler": {
            "bundle": str(bundle.folder.resolve()),
            "runtime": settings.runtime,
            "device": settings.device,
            "precision": settings.precision,
        },
    }
    (folder / "MAR-INF").mkdir(parents=True)
    (folder / "MAR-INF" / "MANIFEST.json").write_text(json.dumps(manifest))
    (folder / "model-config.yaml").write_text(yaml.safe_dump(config))


def server_config(settings: Settings, store: Path) -> str:
    """config.properties; only the inference API may leave loopback."""
    properties = {
        "inference_address": f"http://{settings.host}:{settings.port}",
        "management_address": settings.management_url,
        "metrics_address": f"http://127.0.0.1:{settings.port + 2}",
        "grpc_inference_address": "127.0.0.1",
        "grpc_inference_port": settings.port + 4,
        "grpc_management_address": "127.0.0.1",
        "grpc_management_port": settings.port + 5,
        "initial_worker_port": settings.port + 1_000,  # names of sockets, not TCP ports
        "model_store": store,
        "load_models": ",".join(f"{endpoint}={endpoint}" for endpoint in ENDPOINTS),
        "allowed_urls": f"file://{store}/.*",
        "decode_input_request": "false",
        "disable_system_metrics": "true",
        "metrics_mode": "prometheus",
        # A body just over the contract's limit still reaches the handler, which says so in JSON.
        "max_request_size": MAX_BODY_BYTES + 65_536,
        "max_response_size": MAX_REPLY_BYTES + 65_536,
    }
    return "".join(f"{key}={value}\n" for key, value in properties.items())
